"""Optimisers of all trainings, and the average of the weights that they visit."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch.optim.adamw import adamw


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019, arXiv:1711.05101).

    The update is that of torch. Its class loads torch's compiler when it is first made,
    which takes longer than many a table's training.
    """

    def __init__(self, parameters, weight_decay, betas=(0.9, 0.98)):
        self.parameters = list(parameters)
        self.weight_decay, self.betas = weight_decay, betas
        self.means, self.squares = (
            [torch.zeros_like(p) for p in self.parameters] for _ in range(2)
        )
        self.steps = [torch.zeros((), device=p.device) for p in self.parameters]
        self.fused = all(p.device.type in ("cpu", "cuda") for p in self.parameters)

    @property
    def state(self):
        """Tensors by which training can go on."""
        return [*self.means, *self.squares, *self.steps]

    @torch.no_grad()
    def step(self, rate):
        """Move the parameters that have a gradient, and forget it."""
        moved = [p.grad is not None for p in self.parameters]
        columns = (self.parameters, self.means, self.squares, self.steps)
        parameters, means, squares, steps = (
            list(itertools.compress(column, moved)) for column in columns
        )
        beta1, beta2 = self.betas
        adamw(
            parameters,
            [p.grad for p in parameters],
            means,
            squares,
            [],
            steps,
            fused=self.fused,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=rate,
            weight_decay=self.weight_decay,
            eps=1e-8,
            maximize=False,
        )
        for p in parameters:
            p.grad = None


@dataclass(frozen=True)
class MuonSettings:
    """How `Muon` moves matrices; see "Muon" in benchmarks/NOTES.md.

    Parameters
    ----------
    momentum : float
    period : int
        Steps that go the way which the first of them has found.
    n_iterations : int
        Of Newton and Schulz, towards the nearest orthogonal matrix.
    max_rows : int
        A taller matrix is made orthogonal in parts of so many rows, where they come out
        even, in less time.
    """

    momentum: float = 0.95
    period: int = 3
    n_iterations: int = 3
    max_rows: int = 64


DEFAULT = MuonSettings()


class Muon(AdamW):
    """Momentum made orthogonal for matrices of hidden layers, AdamW for all else.

    Whatever a gradient's directions weigh, all of them move alike (Jordan et al., 2024,
    "Muon: an optimizer for hidden layers in neural networks"), as far as AdamW's steps
    are long (Liu et al., 2025, arXiv:2502.16982).

    Parameters
    ----------
    parameters : iterable of tensor
    matrices : collection of tensor
        Those of the parameters that move by orthogonal momentum.
    weight_decay : float
    settings : MuonSettings
    """

    def __init__(self, parameters, matrices, weight_decay, settings=DEFAULT):
        self.settings = settings
        are_matrices = {id(matrix) for matrix in matrices}
        by_shape, others = {}, []
        for p in parameters:
            if id(p) in are_matrices:
                by_shape.setdefault(tuple(p.shape), []).append(p)
            else:
                others.append(p)
        super().__init__(others, weight_decay)
        max_rows = self.settings.max_rows
        self.stacks = [_Stack(alike, max_rows) for alike in by_shape.values()]
        self.n_steps = torch.zeros((), dtype=torch.int64)

    @property
    def state(self):
        """Tensors by which training can go on."""
        own = [t for stack in self.stacks for t in (stack.momentum, stack.way)]
        return [*super().state, *own, self.n_steps]

    @torch.no_grad()
    def step(self, rate):
        """Move the parameters that have a gradient, and forget it."""
        is_due = int(self.n_steps) % self.settings.period == 0
        self.n_steps += 1
        for stack in self.stacks:
            stack.take_gradients(self.settings, is_due)
            stack.move(rate, self.weight_decay)
        super().step(rate)


class _Stack:
    """Matrices of one shape, their momentum, and the way that they go."""

    def __init__(self, matrices, max_rows):
        self.matrices = matrices
        n_rows, n_columns = matrices[0].shape
        rows = max_rows if n_rows % max_rows == 0 else n_rows
        self.parts = -1, rows, n_columns
        # An orthogonal matrix has entries of one over this in the root mean square.
        self.size = max(rows, n_columns) ** 0.5
        self.momentum, self.way = (
            torch.zeros((len(matrices), *matrices[0].shape), device=matrices[0].device)
            for _ in range(2)
        )

    def take_gradients(self, settings, is_due):
        """Add the gradients to the momentum, and turn to where it will be if due."""
        gradients = [
            torch.zeros_like(p) if p.grad is None else p.grad for p in self.matrices
        ]
        gradient = torch.stack(gradients)
        self.momentum.lerp_(gradient, 1 - settings.momentum)
        if is_due:
            ahead = gradient.lerp_(self.momentum, settings.momentum).view(self.parts)
            turned = orthogonal(ahead, settings.n_iterations)
            self.way.copy_(turned.reshape(self.way.shape))

    def move(self, rate, weight_decay):
        """Go one step, as long as AdamW's of this rate; forget the gradients."""
        moved = [k for k, p in enumerate(self.matrices) if p.grad is not None]
        if not moved:
            return
        matrices = [self.matrices[k] for k in moved]
        torch._foreach_mul_(matrices, 1 - rate * weight_decay)
        ways, length = self.way.unbind(), ADAM_LENGTH * rate * self.size
        torch._foreach_add_(matrices, [ways[k] for k in moved], alpha=-length)
        for p in matrices:
            p.grad = None


# Root mean square of what AdamW moves entries by, in learning rates.
ADAM_LENGTH = 0.2
# Coefficients of x, its cube and fifth power that take singular values near 1 fast:
# those of Jordan et al.
_QUINTIC = 3.4445, -4.7750, 2.0315


def orthogonal(matrices, n_iterations):
    """Approach the nearest (semi-)orthogonal matrices by Newton and Schulz.

    Singular values end between about 0.7 and 1.2, but for those that are below a
    hundredth of a matrix's norm.

    Shape: (k, m, n), in and out.
    """
    a, b, c = _QUINTIC
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    for _ in range(n_iterations):
        square = x @ x.mT
        square = torch.baddbmm(square, square, square, beta=b, alpha=c)
        x = torch.baddbmm(x, square, x, beta=a)
    return x.mT if is_tall else x


class WeightAverage:
    """Exponential moving average of parameters, exchangeable with them."""

    def __init__(self, parameters, decay):
        self.parameters = list(parameters)
        self.average = [p.detach().clone() for p in self.parameters]
        self.decay = decay
        self.n_updates = 0

    @torch.no_grad()
    def update(self):
        """Move the average towards the parameters; faster while it is young."""
        self.n_updates += 1
        decay = min(self.decay, self.n_updates / (self.n_updates + 10))
        torch._foreach_lerp_(self.average, self.parameters, 1 - decay)

    @torch.no_grad()
    def exchange(self):
        """Put the average into the parameters and keep theirs."""
        for parameter, average in zip(self.parameters, self.average, strict=True):
            kept = parameter.clone()
            parameter.copy_(average)
            average.copy_(kept)
