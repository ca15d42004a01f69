"""Coordinates in which columns are closer to Gaussian, column by column.

The transformation is that of Yeo and Johnson (2000, Biometrika 87) applied to
standardised values, its power chosen by maximum likelihood, so that a change of a
column's units changes nothing.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import nn

from ..._shared.weights import mean_and_sd, some_weights

MAX_FIT_VALUES = 1000
# Finer steps change the likelihood by less than a column's own noise.
POWERS = np.arange(-2.0, 4.01, 0.25)
# Units about an end of the column, in its standard deviations: how much of a logarithm
# a power near 0 is.
END_UNITS = (0.03, 0.1, 0.3, 1.0)
# Nats a value that a power must gain over no power at all.
MIN_GAIN = 0.01
_TINY = 1e-4


class PowerTransform(nn.Module):
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
    def fit(cls, values, observed, *, ends, weight=None):
        """Choose each column's parameters by likelihood.

        Parameters
        ----------
        values, observed : arrays of shape (n, d)
        ends : bool
            Allow origins at a column's ends, not only at its mean.
        weight : array of shape (n,), optional
            Weights of the rows.
        """
        columns = [
            _fit_column(
                values[seen, j].astype(np.float64), ends, some_weights(weight, seen)
            )
            for j, seen in enumerate(observed.T)
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

    @classmethod
    def joined(cls, *warps):
        """Transform of the columns of one and then of the next."""
        stacked = ([getattr(w, name) for w in warps] for name in cls.fields)
        return cls(*(torch.cat(values) for values in stacked))

    def select(self, columns):
        """Transform of the given columns alone."""
        return type(self)(*(getattr(self, name)[columns] for name in self.fields))

    def spread(self, columns, n_columns):
        """Transform of more columns, the identity but for the given ones."""
        out = self.identity(n_columns).to(self.power.device)
        for name in self.fields:
            getattr(out, name)[columns] = getattr(self, name)
        out.is_identity = self.is_identity
        return out

    def forward(self, values):
        """Warped values, (n, d) -> (n, d)."""
        if self.is_identity:
            return values
        x = (values - self.origin) / self.unit
        power = self._powers(x >= 0, slice(None))
        size = torch.expm1(power * torch.log1p(x.abs())) / power
        warped = (torch.copysign(size, x) - self.shift) / self.scale
        return torch.where(self.power == 1, values, warped)

    def inverse(self, warped, columns=slice(None)):
        """Values of warped ones in the given columns; shapes are broadcast."""
        if self.is_identity:
            return warped
        z = warped * self.scale[columns] + self.shift[columns]
        power = self._powers(z >= 0, columns)
        # Powers beyond [0, 2] have a bounded image: nothing lies outside it.
        inner = torch.log1p((power * z.abs()).clamp_min(_TINY - 1))
        size = torch.expm1(inner / power)
        values = torch.copysign(size, z) * self.unit[columns] + self.origin[columns]
        return torch.where(self.power[columns] == 1, warped, values)

    def _powers(self, above, columns):
        """Powers on the side of the origin, kept off their removable singularities."""
        power = self.power[columns]
        up, down = (
            torch.where(p.abs() < _TINY, _TINY, p) for p in (power, 2.0 - power)
        )
        return torch.where(above, up, down)


def _fit_column(values, ends, weight):
    """Parameters of one column by likelihood, in the order of the class's fields."""
    every, all_weights = values, weight
    step = slice(None, None, 1 + len(values) // MAX_FIT_VALUES)
    values, weight = values[step], some_weights(weight, step)
    best = (1.0, 0.0, 1.0)
    if len(np.unique(values)) < 3:
        return (*best, 0.0, 1.0)
    center, spread = mean_and_sd(values, weight)
    likelihood = MIN_GAIN - np.log(spread)
    trials = [(center, spread)]
    if ends:
        units = [spread * unit for unit in END_UNITS]
        trials += itertools.product((every.min(), every.max()), units)
    for origin, unit in trials:
        x = (values - origin) / unit
        warped = _yeo_johnson(x, POWERS)  # (n_powers, n)
        _, scale = mean_and_sd(warped.T, weight)
        log_slope, _ = mean_and_sd(np.sign(x) * np.log1p(np.abs(x)), weight)
        gains = (POWERS - 1) * log_slope - np.log(scale) - np.log(unit)
        k = int(gains.argmax())
        if gains[k] > likelihood and POWERS[k] != 1:
            likelihood = gains[k]
            best = (POWERS[k], origin, unit)
    if best[0] == 1:
        return (*best, 0.0, 1.0)
    power, origin, unit = best
    warped = _yeo_johnson((every - origin) / unit, np.array([power]))
    return power, origin, unit, *mean_and_sd(warped[0], all_weights)


def _yeo_johnson(x, powers):
    """Values under every power, (n_powers, n)."""
    up, down = (np.where(np.abs(p) < _TINY, _TINY, p) for p in (powers, 2 - powers))
    above = x >= 0
    power = np.where(above, up[:, None], down[:, None])
    return np.copysign(np.expm1(power * np.log1p(np.abs(x))) / power, x)
