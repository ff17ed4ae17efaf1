"""Source formats, distinguished by the names of their tensors.

A row states the names that a format must have and the place of the backbone. Only the tensors that a row selects are
read, so a key encoder, a target network or a queue is never mistaken for the backbone. The selected tensors must form
a complete backbone and nothing else; otherwise reading fails.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

from sspyr_mm.checkpoints.formats.resnet import from_detectron2
from sspyr_mm.files import shortened
from sspyr_mm.models.data_preprocessors.pyramid_augment import IMAGENET_STD

OFFICIAL_STD = (0.228 * 255, 0.224 * 255, 0.225 * 255)
"""Normalisation of SwAV and the official code: .228 instead of the usual .229."""

_SEQUENTIAL = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""Numbered children of a ResNet -> names, as in ``Sequential(*resnet.children())``."""


def _from_sequential(name: str) -> str:
    head, _, rest = name.partition(".")
    return f"{_SEQUENTIAL.get(head, head)}.{rest}"


@dataclass(frozen=True)
class SourceFormat:
    """Source format."""

    name: str  # of the method or program
    layout: str  # description of the place of the backbone
    needs: tuple[str, ...]  # patterns; each must match the start of at least one name
    prefix: str = ""  # pattern of the start of the backbone's names; it is removed, and other names are ignored
    heads: str = r"(?!)"  # pattern of names after the prefix that do not belong to the backbone
    rename: Callable[[str], str] = str  # from the names after the prefix to torchvision's
    container: str | None = None  # entry of the file that must hold the tensors; None for any
    std: tuple[float, float, float] = IMAGENET_STD  # of the normalisation in training
    general: bool = False  # whether the names are not specific to a method: the file may hold another network


_CONV1 = r"conv1\.weight$"
_MM_STEM = r"backbone\.(conv1|stem\.0(\.conv)?)\.weight$"
_MM_PREFIX = r"backbone\.|roi_head\.shared_head\.(?=layer4\.)"
_SSPRL_HEADS = r"projection_head\.|l_pro_head\d+\.|ptypes\.|local_ptypes\d+\.|l2g_ptypes\d+\."
_DETCO_HEADS = r"(.*\.)?layers\.|.*mlp|fc\."
_NO_TRUNK = r"(?!(conv|bn|norm|gn|layer|stem|stage|block)s?\d*\.)"
"""Modules next to a trunk are heads, unless their names are those of trunk parts."""
_D2_HEADS = r"stem\.fc\.|fc\.|linear\."

FORMATS = (
    SourceFormat(
        "ssprl_official",
        "plain, with ptypes, l_pro_head{i}, local_ptypes{i}, l2g_ptypes{i}",
        (_CONV1, r"ptypes\.|l_pro_head\d|local_ptypes\d|l2g_ptypes\d"),
        heads=_SSPRL_HEADS,
        std=OFFICIAL_STD,
    ),
    SourceFormat(
        "swav",
        "plain, with projection_head, prototypes",
        (_CONV1, r"projection_head\.|prototypes\."),
        heads=r"projection_head\.|prototypes\.",
        std=OFFICIAL_STD,
    ),
    SourceFormat(
        "detco",
        "encoder_q., with layers and *mlp* duplicates",
        (r"encoder_q\." + _CONV1, r"encoder_q\.(.*\.)?(layers\.|[^.]*mlp)"),
        prefix=r"encoder_q\.",
        heads=_DETCO_HEADS,
    ),
    SourceFormat(
        "detco", "plain, with layers and *mlp* duplicates", (_CONV1, r"(.*\.)?(layers\.|[^.]*mlp)"), heads=_DETCO_HEADS
    ),
    SourceFormat("moco_v2", "encoder_q.", (r"encoder_q\." + _CONV1,), prefix=r"encoder_q\.", heads=r"fc\."),
    SourceFormat(
        "densecl",
        "encoder_q.0., with a second queue or projector",
        (r"encoder_q\.0\." + _CONV1, r"queue2$|encoder_q\.1\.mlp2\."),
        prefix=r"encoder_q\.0\.",
    ),
    SourceFormat(
        "maskco",
        "encoder_q.0., with more than encoders, a queue and a duplicate in backbone.",
        (r"encoder_q\.0\." + _CONV1, r"(?!encoder_[qk]\.|queue|backbone\.)"),
        prefix=r"encoder_q\.0\.",
    ),
    SourceFormat("moco_v2", "encoder_q.0. (OpenSelfSup)", (r"encoder_q\.0\." + _CONV1,), prefix=r"encoder_q\.0\."),
    SourceFormat("byol", "online_net.0. (OpenSelfSup)", (r"online_net\.0\." + _CONV1,), prefix=r"online_net\.0\."),
    SourceFormat(
        "byol",
        "online_network_state_dict: encoder.{0,1,4..7}.",
        (r"encoder\.0\.weight$", r"encoder\.4\.0\.conv1\.weight$"),
        prefix=r"encoder\.",
        rename=_from_sequential,
        container="online_network_state_dict",
    ),
    SourceFormat(
        "insloc",
        "backbone., next to backbone_k.; C4: layer4 in roi_head.shared_head.",
        (_MM_STEM, r"backbone_k\."),
        prefix=_MM_PREFIX,
    ),
    SourceFormat("mmseg", "backbone., with decode_head", (_MM_STEM, r"decode_head\."), prefix=r"backbone\."),
    SourceFormat(
        "mmdet",
        "backbone., with a detector's heads; C4: layer4 in roi_head.shared_head.",
        (_MM_STEM, r"(rpn_head|roi_head|bbox_head|neck\.lateral_convs)\."),
        prefix=_MM_PREFIX,
    ),
    SourceFormat(
        "mmpretrain", "backbone. (also mmselfsup)", (_MM_STEM,), prefix=r"backbone\.", heads=_NO_TRUNK, general=True
    ),
    SourceFormat(
        "detectron2",
        "backbone.bottom_up.stem, .res2 to .res5",
        (r"backbone\.bottom_up\.stem\.conv1\.weight$", r"backbone\.bottom_up\.res2\."),
        prefix=r"backbone\.bottom_up\.",
        heads=_D2_HEADS,
        rename=from_detectron2,
        general=True,
    ),
    SourceFormat(
        "detectron2",
        "stem, res2 to res5, shortcut",
        (r"stem\.conv1\.weight$", r"res2\."),
        heads=_D2_HEADS,
        rename=from_detectron2,
        general=True,
    ),
    SourceFormat(
        "timm", "plain, deep stem in conv1.0. to conv1.6.", (r"conv1\.0\.weight$",), heads=_NO_TRUNK, general=True
    ),
    SourceFormat("torchvision", "plain, with fc (also timm's)", (_CONV1, r"fc\."), heads=_NO_TRUNK, general=True),
    SourceFormat(
        "plain",
        "plain, backbone only (DenseCL's, mmpretrain's own names, ...)",
        (r"(conv1|stem\.0(\.conv)?)\.weight$", r"layer1\.0\.conv1\.weight$"),
        heads=_NO_TRUNK,
        general=True,
    ),
    SourceFormat(
        "sequential",
        "{0,1,4..7}., the numbered children of a ResNet (lightly)",
        (r"0\.weight$", r"4\.0\.conv1\.weight$"),
        heads=r"(?![0-7]\.)",
        rename=_from_sequential,
        general=True,
    ),
)
"""The first matching row wins: specific rows come before general ones."""


def detect(tensors: Collection[str], container: str, *, bare: bool = False) -> SourceFormat | None:
    """Returns the first format that matches the names of tensors, or None.

    ``container`` is the entry of the file that holds them, '' for the file itself. ``bare``: only formats without a
    prefix are considered.
    """
    for row in FORMATS:
        if row.container not in (None, container) or (bare and row.prefix):
            continue
        if all(any(re.match(need, name) for name in tensors) for need in row.needs):
            return row
    return None


def unknown(tensors: Collection[str], *, where: str) -> ValueError:
    """Returns the error for a file of an unknown format, with all formats and the first names in the file."""
    known = "\n".join(f"  {row.name}: {row.layout}" for row in FORMATS)
    return ValueError(
        f"{where} holds no ResNet in a known format. Its first tensors are {shortened(tensors, 6)}. Other "
        "backbones (ViT, Swin, ConvNeXt, ...) are read from pre-training checkpoints of sspyr_mm and files that "
        "`export` wrote from them, and by `compare` from files of timm's models, as timm:NAME=FILE; ResNets under any "
        f"prefix, and from\n{known}"
    )


def select(row: SourceFormat, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Selects the backbone's tensors, complete or not, under torchvision's names (deep stems: timm's or mmdet's)."""
    chosen: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        match = re.match(row.prefix, name)
        if match is None or re.match(row.heads, rest := name[match.end() :]):
            continue
        if (ours := row.rename(rest)) in chosen:
            raise ValueError(f"Two tensors map to the backbone's {ours}, one of them is {name}")
        chosen[ours] = tensor
    return chosen
