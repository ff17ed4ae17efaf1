"""Pre-training from augmented patches to updated weights: one process, float64, layer by layer.

Written from the paper and the description of the authors' code. Weights are named as in a ResNet-18 of torchvision
(`backbone.`), as the layers of an MLP (`neck.projectors.s0.`) and by role (`head.`), so that those of a run can be
loaded; nothing else is taken from the package.
"""

import math

import torch
from torch.nn.functional import conv2d, max_pool2d

from .lars import LarsReference
from .official_losses import official_losses
from .paper_losses import paper_losses
from .queue_list import QueueListReference

LOSSES = {"paper": paper_losses, "official": official_losses}


class PretrainingReference:
    """A network, its optimiser and its queues.

    Args:
        state: Initial weights and running statistics of batch norm, by name.
        scales: Per scale index, a dict with `queue_length`, `alpha` and `beta`.
        variant: `paper` or `official`.
        num_frozen: Steps in which prototypes and correlation learners do not move.
        optimizer: Arguments of `LarsReference`.
    """

    def __init__(self, state, scales, variant, *, num_frozen=0, optimizer, **losses):
        self.state = {name: value.double() for name, value in state.items() if value.is_floating_point()}
        self.names = [n for n in self.state if "running" not in n and "queues" not in n]
        self.scales, self.variant, self.losses = scales, variant, losses
        self.num_frozen, self.num_steps = num_frozen, 0
        self.lars = LarsReference([self.state[n].numpy() for n in self.names], **optimizer)
        self.queues = {
            s: QueueListReference(scale["queue_length"]) for s, scale in scales.items() if scale["queue_length"]
        }

    def step(self, patches, lr, *, use_queues):
        """Loss terms of one step, which updates the weights.

        Args:
            patches: {'s0': (2, B, 1, 3, P, P), 's1': (2, B, 4, 3, P, P), 's0_crops': (C, B, 1, 3, P, P)}.
            lr: Learning rate of this step.
            use_queues: Whether queues take part, and are filled.
        """
        for name in self.names:
            self.state[name].requires_grad_()
        embeddings = {s: self._embed_scale(s, patches) for s in self.scales}
        crops = embeddings[0][2:] if "s0_crops" in patches else None
        embeddings = {s: z[:2] for s, z in embeddings.items()}
        weight = self.state.__getitem__
        correlation = {}
        for s in list(self.scales)[1:]:
            linear = f"head.correlation.s{s}.linear."
            correlation[s] = weight(linear + "weight")
            if self.variant == "paper":
                correlation[s] = (correlation[s], weight(linear + "bias"))
        terms = LOSSES[self.variant](
            embeddings,
            {s: weight(f"head.prototypes.s{s}.weight") for s in self.scales},
            correlation,
            alpha={s: scale["alpha"] for s, scale in self.scales.items()},
            beta={s: scale["beta"] for s, scale in self.scales.items()},
            queues={s: q.stacked() for s, q in self.queues.items() if use_queues and q.is_full},
            crops=crops,
            **self.losses,
        )
        gradients = torch.autograd.grad(sum(terms.values()), [weight(n) for n in self.names])
        frozen = self.num_steps < self.num_frozen
        self.lars.step(
            [
                None if frozen and n.startswith("head.") else g.numpy()
                for n, g in zip(self.names, gradients, strict=True)
            ],
            lr,
        )
        for index, name in enumerate(self.names):
            values = torch.from_numpy(self.lars.params[index])
            normalised = name.startswith("head.prototypes") or (
                self.variant == "official" and name.startswith("head.correlation")
            )
            if normalised and not frozen:
                values = values / (values * values).sum(1, keepdim=True).sqrt()
                self.lars.params[index] = values.numpy()
            self.state[name] = values.clone()
        if use_queues:
            for s, queue in self.queues.items():
                queue.push(embeddings[s].flatten(1, 2))
        self.num_steps += 1
        return {name: term.item() for name, term in terms.items()}

    def _embed_scale(self, s, patches):
        """(V, B, M, D): each size of patches passes the backbone by itself, all of a scale the projector at once."""
        pooled, shapes = [], []
        for name in [f"s{s}", f"s{s}_crops"]:
            if name in patches:
                images = patches[name].double()
                shapes.append(images.shape[:3])
                pooled.append(self._backbone(images.flatten(0, 2)))
        rows = self._projector(torch.cat(pooled), f"neck.projectors.s{s}")
        rows = rows / (rows * rows).sum(1, keepdim=True).sqrt()
        parts = rows.split([math.prod(shape) for shape in shapes])
        return torch.cat([z.reshape(*v, -1) for z, v in zip(parts, shapes, strict=True)])

    def _projector(self, rows, name):
        rows = rows @ self.state[f"{name}.0.weight"].T + self.state[f"{name}.0.bias"]
        rows = self._batch_norm(rows, f"{name}.1")
        rows = torch.where(rows > 0, rows, 0.0)
        return rows @ self.state[f"{name}.3.weight"].T + self.state[f"{name}.3.bias"]

    def _backbone(self, x):
        x = conv2d(x, self.state["backbone.conv1.weight"], stride=2, padding=3)
        x = self._batch_norm(x, "backbone.bn1")
        x = max_pool2d(torch.where(x > 0, x, 0.0), 3, stride=2, padding=1)
        for layer in range(1, 5):
            for block in range(2):
                x = self._block(x, f"backbone.layer{layer}.{block}", 2 if layer > 1 > block else 1)
        return x.sum((2, 3)) / (x.shape[2] * x.shape[3])

    def _block(self, x, name, stride):
        y = conv2d(x, self.state[f"{name}.conv1.weight"], stride=stride, padding=1)
        y = self._batch_norm(y, f"{name}.bn1")
        y = conv2d(torch.where(y > 0, y, 0.0), self.state[f"{name}.conv2.weight"], padding=1)
        y = self._batch_norm(y, f"{name}.bn2")
        if f"{name}.downsample.0.weight" in self.state:
            x = conv2d(x, self.state[f"{name}.downsample.0.weight"], stride=stride)
            x = self._batch_norm(x, f"{name}.downsample.1")
        return torch.where(x + y > 0, x + y, 0.0)

    def _batch_norm(self, x, name, eps=1e-5, momentum=0.1):
        """Normalises by the batch, and moves the running mean and the running unbiased variance towards it."""
        axes = [0, 2, 3][: x.ndim - 1]
        count = x.numel() // x.shape[1]
        shape = [1, -1, 1, 1][: x.ndim]
        mean = x.sum(axes) / count
        centred = x - mean.reshape(shape)
        variance = (centred * centred).sum(axes) / count
        batch = {"mean": mean, "var": variance * count / (count - 1)}
        for statistic, value in batch.items():
            running = f"{name}.running_{statistic}"
            self.state[running] = (1 - momentum) * self.state[running] + momentum * value.detach()
        normed = centred / torch.sqrt(variance + eps).reshape(shape)
        weight, bias = (self.state[f"{name}.{part}"].reshape(shape) for part in ("weight", "bias"))
        return weight * normed + bias
