"""SGD inside LARC (no clipping), as the authors' code trains, float64 numpy.

Per parameter with a gradient g and weights w: if neither norm is zero, g becomes
trust * |w| / (|g| + decay * |w| + eps) * (g + decay * w); otherwise it stays as it is. Then SGD with momentum on
that, whose buffer does not contain the learning rate. A parameter without a gradient is left alone, buffer included.
"""

import numpy as np


class LarsReference:
    """State of the weights `params`, a list of float64 arrays."""

    def __init__(self, params, *, momentum=0.9, weight_decay=0.0, trust_coefficient=0.001, eps=1e-8):
        self.params = [np.array(param, dtype=np.float64) for param in params]
        self.buffers = [None] * len(params)
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.trust_coefficient = trust_coefficient
        self.eps = eps

    def step(self, grads, lr):
        """One step; an entry of `grads` may be None."""
        for i, grad in enumerate(grads):
            if grad is None:
                continue
            update = np.array(grad, dtype=np.float64)
            weight_norm = float(np.sqrt((self.params[i] ** 2).sum()))
            grad_norm = float(np.sqrt((update**2).sum()))
            if weight_norm != 0 and grad_norm != 0:
                scale = self.trust_coefficient * weight_norm
                scale /= grad_norm + self.weight_decay * weight_norm + self.eps
                update = scale * (update + self.weight_decay * self.params[i])
            if self.buffers[i] is None:
                self.buffers[i] = update
            else:
                self.buffers[i] = self.momentum * self.buffers[i] + update
            self.params[i] = self.params[i] - lr * self.buffers[i]
