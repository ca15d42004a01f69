"""Optimiser of all trainings, and the average of the weights that it visits."""

from __future__ import annotations

import itertools

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
