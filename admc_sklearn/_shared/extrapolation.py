"""Fewer iterations of expectation-maximisation, by extrapolating three of them."""

from __future__ import annotations

import torch

# Of the step along the course: iterates that hardly move say little about its end.
MAX_STEP = 8.0


def extrapolated(first, second, third):
    """Where three successive iterates of a fixed-point iteration are heading.

    The scheme is SQUAREM's (Varadhan and Roland, 2008, step length S3): with r the
    first difference and v the difference of the differences, the point is
    first + 2 a r + a^2 v for a = ||r|| / ||v||, which is ``third`` for a = 1.

    Parameters
    ----------
    first, second, third : sequences of float tensors, their shapes alike

    Returns
    -------
    list of tensors
    """
    steps = [b - a for a, b in zip(first, second, strict=True)]
    bends = [(c - b) - step for b, c, step in zip(second, third, steps, strict=True)]
    length, bend = _square(steps), _square(bends)
    least = torch.finfo(bend.dtype).tiny
    a = float((length / bend.clamp_min(least)).sqrt().clamp(1.0, MAX_STEP))
    return [
        point + 2 * a * step + a * a * change
        for point, step, change in zip(first, steps, bends, strict=True)
    ]


def _square(parts):
    return torch.stack([part.square().sum() for part in parts]).sum()
