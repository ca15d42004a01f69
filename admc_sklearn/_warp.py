"""Coordinates in which columns are closer to Gaussian, column by column.

The transformation is that of Yeo and Johnson (2000, Biometrika 87) applied to
standardised values, its power chosen by maximum likelihood, so that a change of a
column's units changes nothing.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from scipy import stats
from torch import nn

MAX_FIT_VALUES = 2000
POWER_RANGE = (-2.0, 4.0)
# Units about an end of the column, in its standard deviations: how much of a logarithm
# a power near 0 is.
END_UNITS = (0.03, 0.1, 0.3, 1.0)
# Nats a value that a power must gain over no power at all.
MIN_GAIN = 0.01
_TINY = 1e-4


class Warp(nn.Module):
    """Power transformation of every column and its inverse; power 1 is the identity.

    ``(yeo_johnson((x - origin) / unit, power) - shift) / scale``, each parameter of
    shape (d,). The origin is the column's mean, or one of its ends: about the smallest
    value, power 0 is a logarithm.
    """

    fields = ("power", "origin", "unit", "shift", "scale")

    def __init__(self, power, origin, unit, shift, scale):
        super().__init__()
        values = (power, origin, unit, shift, scale)
        for name, value in zip(self.fields, values, strict=True):
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float32))
        self.is_identity = bool((self.power == 1).all())

    @classmethod
    def identity(cls, n_columns):
        """Leave every column as it is."""
        one, zero = np.ones(n_columns), np.zeros(n_columns)
        return cls(one, zero, one, zero, one)

    @classmethod
    def fit(cls, values, observed, *, ends):
        """Choose each column's parameters by likelihood.

        Parameters
        ----------
        values, observed : arrays of shape (n, d)
        ends : bool
            Allow origins at a column's ends, not only at its mean.
        """
        columns = [
            _fit_column(values[observed[:, j], j].astype(np.float64), ends)
            for j in range(values.shape[1])
        ]
        return cls(*np.array(columns).reshape(-1, 5).T)

    @classmethod
    def of_columns(cls, warps, choice):
        """Take column j from ``warps[choice[j]]``."""
        columns = torch.arange(len(choice), device=choice.device)
        stacked = (
            torch.stack([getattr(w, name) for w in warps]) for name in cls.fields
        )
        return cls(*(values[choice, columns] for values in stacked))

    def forward(self, values):
        """Warped values, (n, d) -> (n, d)."""
        if self.is_identity:
            return values
        positive, negative = self._powers(slice(None))
        x = (values - self.origin) / self.unit
        up = torch.expm1(positive * torch.log1p(x.clamp_min(0))) / positive
        down = -torch.expm1(negative * torch.log1p(-x.clamp_max(0))) / negative
        warped = (torch.where(x >= 0, up, down) - self.shift) / self.scale
        return torch.where(self.power == 1, values, warped)

    def inverse(self, warped, columns=slice(None)):
        """Values of warped ones in the given columns; shapes are broadcast."""
        if self.is_identity:
            return warped
        positive, negative = self._powers(columns)
        z = warped * self.scale[columns] + self.shift[columns]
        # Powers beyond [0, 2] have a bounded image: nothing lies outside it.
        inner = torch.log1p((positive * z.clamp_min(0)).clamp_min(_TINY - 1))
        outer = torch.log1p((-negative * z.clamp_max(0)).clamp_min(_TINY - 1))
        up, down = torch.expm1(inner / positive), -torch.expm1(outer / negative)
        values = torch.where(z >= 0, up, down) * self.unit[columns]
        values = values + self.origin[columns]
        return torch.where(self.power[columns] == 1, warped, values)

    def _powers(self, columns):
        """Powers of the two branches, kept off their removable singularities."""
        power = self.power[columns]
        positive = torch.where(power.abs() < _TINY, _TINY, power)
        other = 2.0 - power
        return positive, torch.where(other.abs() < _TINY, _TINY, other)


def _fit_column(values, ends):
    """Parameters of one column, in the order of `Warp.fields`, by likelihood."""
    values = values[:: 1 + len(values) // MAX_FIT_VALUES]
    best, likelihood = (1.0, 0.0, 1.0, 0.0, 1.0), 0.0
    if len(np.unique(values)) < 3:
        return best
    spread = values.std()
    likelihood = -np.log(spread) + MIN_GAIN
    trials = [(values.mean(), 1.0)]
    if ends:
        trials += itertools.product((values.min(), values.max()), END_UNITS)
    for origin, unit in trials:
        x = (values - origin) / (unit * spread)
        power = float(np.clip(stats.yeojohnson_normmax(x), *POWER_RANGE))
        gain = stats.yeojohnson_llf(power, x) / len(x) - np.log(unit * spread)
        warped = stats.yeojohnson(x, lmbda=power)
        if gain > likelihood and np.isfinite(warped).all() and power != 1:
            likelihood = gain
            scale = max(warped.std(), 1e-6)
            best = (power, origin, unit * spread, warped.mean(), scale)
    return best
