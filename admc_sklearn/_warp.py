"""Coordinates in which columns are closer to Gaussian, column by column.

The transformation is that of Yeo and Johnson (2000, Biometrika 87) applied to
standardised values, its power chosen by maximum likelihood, so that a change of a
column's units changes nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats
from torch import nn

MAX_FIT_VALUES = 4000
POWER_RANGE = (-2.0, 4.0)
_TINY = 1e-4


class Warp(nn.Module):
    """Power transformation of every column and its inverse; power 1 is the identity.

    Shape of ``power``, ``shift`` and ``scale``: (d,).
    """

    def __init__(self, power, shift, scale):
        super().__init__()
        for name, array in {"power": power, "shift": shift, "scale": scale}.items():
            self.register_buffer(name, torch.as_tensor(array, dtype=torch.float32))
        self.is_identity = bool((self.power == 1).all())

    @classmethod
    def identity(cls, n_columns):
        """The warp that leaves every column as it is."""
        return cls(np.ones(n_columns), np.zeros(n_columns), np.ones(n_columns))

    @classmethod
    def fit(cls, values, observed):
        """Powers by maximum likelihood; arrays of shape (n, d) twice."""
        d = values.shape[1]
        power, shift, scale = np.ones(d), np.zeros(d), np.ones(d)
        for j in range(d):
            column = values[observed[:, j], j].astype(np.float64)
            column = column[:: 1 + len(column) // MAX_FIT_VALUES]
            if len(np.unique(column)) < 3:
                continue
            best = float(np.clip(stats.yeojohnson_normmax(column), *POWER_RANGE))
            warped = stats.yeojohnson(column, lmbda=best)
            if np.isfinite(warped).all() and warped.std() > 1e-3:
                power[j], shift[j], scale[j] = best, warped.mean(), warped.std()
        return cls(power, shift, scale)

    def only(self, columns):
        """This warp where ``columns`` (bool tensor) is True, the identity elsewhere."""
        return Warp(
            torch.where(columns, self.power, 1.0),
            torch.where(columns, self.shift, 0.0),
            torch.where(columns, self.scale, 1.0),
        )

    def forward(self, values):
        """Warped values, (n, d) -> (n, d)."""
        if self.is_identity:
            return values
        positive, negative = self._powers(slice(None))
        up = torch.expm1(positive * torch.log1p(values.clamp_min(0))) / positive
        down = -torch.expm1(negative * torch.log1p(-values.clamp_max(0))) / negative
        warped = (torch.where(values >= 0, up, down) - self.shift) / self.scale
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
        values = torch.where(z >= 0, up, down)
        return torch.where(self.power[columns] == 1, warped, values)

    def _powers(self, columns):
        """Powers of the two branches, kept off their removable singularities."""
        power = self.power[columns]
        positive = torch.where(power.abs() < _TINY, _TINY, power)
        other = 2.0 - power
        return positive, torch.where(other.abs() < _TINY, _TINY, other)
