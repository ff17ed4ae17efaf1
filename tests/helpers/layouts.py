"""Checkpoints of other programs around a ResNet-50, with other tensors that could be mistaken for it."""

import numpy as np
import torch


def decoy(state, seed):
    """Tensors with the same names and shapes and other values, as of a key encoder or target network."""
    generator = torch.Generator().manual_seed(seed)
    return {
        k: torch.rand(v.shape, generator=generator) + 0.5 if v.is_floating_point() else v + 1 for k, v in state.items()
    }


def prefixed(prefix, state):
    return {f"{prefix}{k}": v for k, v in state.items()}


def mlp(name, *sizes):
    """Tensors of Linear, BN, ReLU, Linear."""
    wide, hidden, out = sizes
    return {
        f"{name}.0.weight": torch.randn(hidden, wide),
        f"{name}.0.bias": torch.randn(hidden),
        f"{name}.1.weight": torch.randn(hidden),
        f"{name}.1.bias": torch.randn(hidden),
        f"{name}.1.running_mean": torch.randn(hidden),
        f"{name}.1.running_var": torch.rand(hidden),
        f"{name}.1.num_batches_tracked": torch.tensor(7),
        f"{name}.3.weight": torch.randn(out, hidden),
        f"{name}.3.bias": torch.randn(out),
    }


def linear(name, out, wide):
    return {f"{name}.weight": torch.randn(out, wide), f"{name}.bias": torch.randn(out)}


def official_heads(wide=2048, hidden=64, dim=16, counts=(12, 8, 6)):
    heads = {**mlp("projection_head", wide, hidden, dim), "ptypes.weight": torch.randn(counts[0], dim)}
    for i, count in enumerate(counts[1:]):
        heads |= mlp(f"l_pro_head{i}", wide, hidden, dim)
        heads[f"local_ptypes{i}.weight"] = torch.randn(count, dim)
        heads[f"l2g_ptypes{i}.weight"] = torch.randn(counts[0], count)
    return heads


def ssprl_official(state):
    state = prefixed("module.", {**state, **official_heads()})
    return {"epoch": 200, "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}


def ssprl_official_global(state):
    """A checkpoint trained without local scales."""
    heads = {k: v for k, v in official_heads().items() if k.startswith(("projection_head", "ptypes"))}
    return {"state_dict": prefixed("module.", {**state, **heads})}


def swav(state):
    heads = {**mlp("projection_head", 2048, 64, 16), "prototypes.weight": torch.randn(30, 16)}
    return prefixed("module.", {**state, **heads})


def swav_state_dict(state):
    return {"state_dict": {**state, "prototypes.prototypes0.weight": torch.randn(3, 16)}, "epoch": 3}


def moco(state):
    query = {**state, **linear("fc.0", 2048, 2048), **linear("fc.2", 128, 2048)}
    both = {**prefixed("encoder_k.", decoy(query, 1)), **prefixed("encoder_q.", query)}
    both |= {"queue": torch.randn(128, 64), "queue_ptr": torch.tensor([8])}
    return {"epoch": 200, "arch": "resnet50", "state_dict": prefixed("module.", both)}


def moco_openselfsup(state, **extra):
    both = {**prefixed("encoder_k.0.", decoy(state, 1)), **prefixed("encoder_q.0.", state)}
    heads = {**linear("mlp.0", 64, 2048), **linear("mlp.2", 16, 64)}
    both |= {**prefixed("encoder_q.1.", heads), **prefixed("encoder_k.1.", decoy(heads, 2))}
    both |= prefixed("backbone.", state)  # a second reference to the query encoder
    both |= {"queue": torch.randn(16, 64), "queue_ptr": torch.tensor([8]), **extra}
    return {"meta": {"epoch": 200, "iter": 4000}, "state_dict": both}


def densecl(state):
    return moco_openselfsup(state, queue2=torch.randn(16, 64), queue2_ptr=torch.tensor([8]))


def maskco(state):
    return moco_openselfsup(state, **linear("mask_head.conv", 16, 16))


def byol_openselfsup(state):
    online = {**prefixed("0.", state), **linear("1.fc0", 16, 2048)}
    both = {**prefixed("target_net.", decoy(online, 1)), **prefixed("online_net.", online)}
    both |= {**prefixed("backbone.", decoy(state, 3)), **linear("head.predictor.fc0", 16, 16)}
    return {"state_dict": both, "meta": {}}


def byol_sequential(state):
    """A checkpoint of ``Sequential(*resnet.children())`` without fc."""
    numbers = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    online = {}
    for name, tensor in state.items():
        head, rest = name.split(".", 1)
        online[f"encoder.{numbers[head]}.{rest}"] = tensor
    online |= linear("projetion.net.0", 16, 2048)
    return {"target_network_state_dict": decoy(online, 1), "online_network_state_dict": online}


def detco(state):
    query = {**state, **linear("fc.0", 16, 16), **linear("layer1_mlp.0", 16, 256)}
    query |= {**prefixed("layers.0.", decoy(state, 4)), **linear("mlp4.0", 16, 2048)}
    both = {**prefixed("encoder_k.", decoy(query, 1)), **prefixed("encoder_q.", query)}
    return {"state_dict": prefixed("module.", both), "arch": "resnet50"}


def detco_plain(state):
    return {**prefixed("layers.", decoy(state, 4)), **state, **linear("mlp2", 16, 512)}


def insloc(state):
    neck = linear("lateral_convs.0.conv", 16, 256)
    both = {**prefixed("backbone_k.", decoy(state, 1)), **prefixed("backbone.", state)}
    both |= {**prefixed("neck.", neck), **prefixed("neck_k.", decoy(neck, 2))}
    both |= {"queues": torch.randn(4, 16, 8), **linear("roi_head.bbox_head.shared_fcs.0", 16, 16)}
    return {"state_dict": both, "meta": {"epoch": 200}}


def insloc_c4(state):
    query = {f"roi_head.shared_head.{k}" if k.startswith("layer4.") else f"backbone.{k}": v for k, v in state.items()}
    key = {k.replace("backbone.", "backbone_k.").replace("head.", "head_k.", 1): v for k, v in query.items()}
    return {"state_dict": {**decoy(key, 1), **query}, "meta": {}}


def detectron2_tensors(network):
    """Arrays under the names of Detectron2."""
    norms = ("weight", "bias", "running_mean", "running_var")

    def conv(theirs, conv, norm):
        return {
            f"{theirs}.weight": conv.weight.detach().numpy(),
            **{f"{theirs}.norm.{n}": getattr(norm, n).detach().numpy() for n in norms},
        }

    tensors = conv("stem.conv1", network.conv1, network.bn1)
    for stage in (2, 3, 4, 5):
        for j, block in enumerate(getattr(network, f"layer{stage - 1}")):
            name = f"res{stage}.{j}"
            for k in (1, 2, 3):
                tensors |= conv(f"{name}.conv{k}", getattr(block, f"conv{k}"), getattr(block, f"bn{k}"))
            if block.downsample is not None:
                tensors |= conv(f"{name}.shortcut", *block.downsample)
    return tensors


def detectron2(network):
    tensors = {
        **detectron2_tensors(network),
        "stem.fc.weight": np.ones((10, 2048), np.float32),
        "stem.fc.bias": np.ones(10, np.float32),
    }
    return {"model": tensors, "__author__": "somebody", "matching_heuristics": True}


def detectron2_detector(network):
    tensors = {k: torch.from_numpy(v) for k, v in detectron2_tensors(network).items()}
    tensors = prefixed("backbone.bottom_up.", tensors)
    tensors |= linear("backbone.fpn_lateral2", 16, 256)
    return {"model": {**tensors, **linear("roi_heads.box_head.fc1", 16, 16)}, "iteration": 9}


def mmdet(state):
    heads = {**linear("neck.lateral_convs.0.conv", 16, 256), **linear("rpn_head.rpn_conv", 16, 16)}
    return {"state_dict": {**prefixed("backbone.", state), **heads}, "meta": {}}


def mmseg(state):
    heads = {**linear("decode_head.conv_seg", 21, 16), **linear("auxiliary_head.conv_seg", 21, 16)}
    return {"state_dict": {**prefixed("backbone.", state), **heads}, "meta": {}}


def mmpretrain(state):
    heads = {**linear("neck.fc0", 16, 2048), **linear("head.prototypes", 30, 16)}
    both = {**prefixed("target_net.module.0.", decoy(state, 1)), **prefixed("backbone.", state)}
    return {"state_dict": {**both, **heads, **prefixed("encoder_k.0.", decoy(state, 2))}, "meta": {}}


def plain(state):
    return {"state_dict": state, "author": "OpenSelfSup"}


LAYOUTS = {
    "ssprl_official": ssprl_official,
    "ssprl_official/global": ssprl_official_global,
    "swav": swav,
    "swav/state_dict": swav_state_dict,
    "moco_v2": moco,
    "moco_v2/openselfsup": moco_openselfsup,
    "densecl": densecl,
    "plain/densecl": plain,
    "maskco": maskco,
    "byol/openselfsup": byol_openselfsup,
    "byol/sequential": byol_sequential,
    "detco": detco,
    "detco/plain": detco_plain,
    "insloc": insloc,
    "insloc/c4": insloc_c4,
    "mmdet": mmdet,
    "mmseg": mmseg,
    "mmpretrain": mmpretrain,
}


class Call:
    """Calls a function when unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call
