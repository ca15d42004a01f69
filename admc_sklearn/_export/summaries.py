"""Summaries of posteriors without functions and searches that the format lacks."""

from __future__ import annotations

import math

import torch

from .._cells.network.atoms import _cut
from .._cells.network.posterior import NEGLIGIBLE


def _ndtr(x):
    """Distribution function of the standard normal, its digits kept in the tail.

    By the rational approximation of erfc in Numerical Recipes, section 6.2, whose
    relative error is 1.2e-7.
    """
    z = x.abs() * math.sqrt(0.5)
    t = 1 / (1 + 0.5 * z)
    terms = (
        *(-1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806),
        *(0.27886807, -1.13520398, 1.48851587, -0.82215223, 0.17087277),
    )
    total = torch.zeros_like(t)
    for term in reversed(terms):
        total = total * t + term
    tail = 0.5 * t * torch.exp(-z * z + total)
    return torch.where(x > 0, 1 - tail, tail)


def _between(lower, upper):
    """Mass of the standard normal between two ends, by one polynomial for both."""
    below = _ndtr(torch.stack([lower, upper]))
    return below[1] - below[0]


def mean_of(posterior):
    """Posterior means in own units, (g, B), as `NumericPosterior.mean`."""
    atoms, share = posterior.atoms, torch.softmax(posterior.logits, -1)
    center = atoms.center[:, None]
    mean = (share * center).sum(-1)
    if not atoms.has_bins:
        return mean
    moments = posterior.inner_mean[..., None], posterior.inner_sd[..., None]
    slots = torch.arange(atoms.low.shape[0])[:, None, None]
    every = torch.arange(atoms.low.shape[1])
    inside = atoms.mean_within(*moments, slots, every, _between)
    width = (atoms.own_high - atoms.own_low)[:, None].clamp_min(1e-30)
    unsure = torch.where(share > NEGLIGIBLE / width, share, torch.zeros_like(share))
    return mean + (unsure * (inside - center)).sum(-1)


def _ndtri(p):
    """Quantile of the standard normal (Wichura, 1988, AS 241, its first version)."""
    q = p - 0.5
    middle = 0.180625 - q * q
    num = (5.9109374720e01 * middle + 1.5929113202e02) * middle + 5.0434271938e01
    num = num * middle + 3.3871327179e00
    den = (6.7187563600e01 * middle + 7.8757757664e01) * middle + 1.7895169469e01
    centre = q * num / (den * middle + 1.0)
    r = torch.sqrt(-torch.log(torch.minimum(p, 1 - p).clamp_min(1e-30)))
    s = r - 1.6
    num = (1.7023821103e-01 * s + 1.3067284816e00) * s + 2.7568153900e00
    num = num * s + 1.4234372777e00
    near = num / ((1.2021132975e-01 * s + 7.3700164250e-01) * s + 1.0)
    s = r - 5.0
    num = (1.7337203997e-02 * s + 4.2868294337e-01) * s + 3.0812263860e00
    num = num * s + 6.6579051150e00
    far = num / ((1.2258202635e-02 * s + 2.4197894225e-01) * s + 1.0)
    tail = torch.sign(q) * torch.where(r <= 5.0, near, far)
    return torch.where(q.abs() <= 0.425, centre, tail)


def quantile_of(posterior, level):
    """Posterior quantile in own units, (g, B), as ``NumericPosterior.point``."""
    atoms, share = posterior.atoms, torch.softmax(posterior.logits, -1)
    below = share.cumsum(-1)
    last = atoms.valid.sum(-1)[:, None] - 1
    atom = torch.minimum((below < level).sum(-1), last)[..., None]
    inside = share.gather(-1, atom)[..., 0]
    start = below.gather(-1, atom)[..., 0] - inside
    u = ((level - start) / inside.clamp_min(1e-12)).clamp(1e-6, 1 - 1e-6)
    low, high = (
        end[:, None].expand_as(share).gather(-1, atom)[..., 0]
        for end in (atoms.low, atoms.high)
    )
    mean, sd = posterior.inner_mean, posterior.inner_sd
    a, _, gap, sharp = _cut(low, high, mean, sd, _between)
    # Quantiles by the tail in which both ends of the atom have their digits.
    flip = a > 0
    b = ((high - mean) / sd).clamp(-8, 8)
    first = _ndtr(torch.where(flip, -b, a))
    z = _ndtri(first + torch.where(flip, 1 - u, u) * gap)
    inner = mean + sd * torch.where(flip, -z, z)
    found = torch.where(sharp, inner, low + u * (high - low))
    found = torch.minimum(torch.maximum(found, low), high)
    slots = torch.arange(atoms.low.shape[0])[:, None]
    return atoms.warp.inverse(found, slots)
