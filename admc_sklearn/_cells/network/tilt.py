"""Exponential tilts: a distribution of numbers moved so that its mean changes.

The outcomes stay those of the column.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

# Guards against a division by nearly nothing, in standard deviations.
MIN_SPREAD = 1e-3
MIN_SLOPE = 0.05


@dataclass(frozen=True)
class TiltSettings:
    """How far means are moved. "NOTES" is benchmarks/NOTES.md.

    Parameters
    ----------
    max_shift : float
        Standard deviations of a cell's distribution by which its mean may move. (Not
        measured.)
    max_deviate : float
        Standard deviations at which the tilt of a distribution ends, since heavy tails
        would take over. (NOTES, "An exponential tilt in the value itself".)
    newton_steps : int
        Steps towards the tilt that moves the mean as far as intended. (Not measured.)
    """

    max_shift: float = 2.0
    max_deviate: float = 3.0
    newton_steps: int = 3


DEFAULT = TiltSettings()


def longest_shift(posterior, settings=DEFAULT):
    """How far the mean of every cell may move, (g, T)."""
    return settings.max_shift * _moments(posterior)[0][..., 0]


def with_mean_moved(posterior, shift, settings=DEFAULT, precision=None):
    """Tilt a posterior so that its mean moves by about the shift, (g, T).

    The tilt is exp(c t(x)), with t the standardised value, cut where a heavy tail,
    which has next to no weight, would gain all of it. Where a ``precision`` (g, T) is
    given, in units of the posterior's own, the posterior is multiplied by a normal
    density of it around the new mean besides: what moved the mean knows more.
    """
    center, plain = posterior.atoms.center[:, None], posterior.logits
    spread, start, share = _moments(posterior)
    max_deviate, max_shift = settings.max_deviate, settings.max_shift
    value = (center - start) / spread
    deviate = value.clamp(-max_deviate, max_deviate)
    goal = (shift[..., None] / spread).clamp(-max_shift, max_shift)
    if precision is not None:
        plain = plain - 0.5 * precision[..., None] * (value - goal).square()
        share = torch.softmax(plain, -1)
    power = torch.zeros_like(goal)
    for _ in range(settings.newton_steps):
        mean = (share * value).sum(-1, keepdim=True)
        slope = (share * deviate * (value - mean)).sum(-1, keepdim=True)
        step = (goal - mean) / slope.clamp_min(MIN_SLOPE)
        power = power + step.clamp(-1.0, 1.0)
        logits = plain + power * deviate
        share = torch.softmax(logits, -1)
    return posterior.with_logits(logits)


def _moments(posterior):
    """Get sd and mean over atoms, (g, T, 1), and the atoms' shares, (g, T, K)."""
    center = posterior.atoms.center[:, None]
    share = torch.softmax(posterior.logits, -1)
    mean = (share * center).sum(-1, keepdim=True)
    variance = (share * (center - mean).square()).sum(-1, keepdim=True)
    return variance.clamp_min(MIN_SPREAD**2).sqrt(), mean, share
