"""Median distances: numeric columns' distances from their medians, beside the columns.

A Gaussian has straight regression lines only. A column that rises with another one on
both sides of its median, as a length does with the components of its vector, is a
straight line in the other's distance from its median. A distance is missing where its
column is, and is never completed itself.
"""

from __future__ import annotations

import torch
from torch import nn

from ..._shared.weights import weighted

# The largest distance, in standard deviations of the distances.
REACH = 100.0


class MedianDistances(nn.Module):
    """Standardised distances of coordinates from their medians, in own units.

    Parameters
    ----------
    x : float tensor of shape (n, D)
        Coordinates of a table in the columns' own units, the numeric ones first.
    observed : bool tensor of shape (n, D)
    n_numeric : int
        Numeric columns.
    weight : float tensor of shape (n,), optional
        Weights of the rows, with a mean near 1.
    """

    def __init__(self, x, observed, n_numeric, weight=None):
        super().__init__()
        x, observed = x[:, :n_numeric], observed[:, :n_numeric]
        cells = torch.where(observed, x, torch.nan)
        center = _medians(cells, weight).nan_to_num().to(x.dtype)
        size, count = (x - center).abs(), weighted(observed, weight).sum(0)
        count = torch.where(count > 0, count, 1)
        shift = weighted(torch.where(observed, size, 0.0), weight).sum(0) / count
        square = torch.where(observed, size - shift, 0.0).square()
        variance = weighted(square, weight).sum(0) / count
        self.register_buffer("center", center)
        self.register_buffer("shift", shift)
        self.register_buffer("scale", variance.sqrt().clamp_min(1e-3))
        # Power transforms of the distances and of the columns, once they are chosen.
        self.warp = self.column_warp = None

    def __len__(self):
        return len(self.center)

    def of(self, x):
        """Distances of coordinates in own units, (B, D) -> (B, F)."""
        size = (x[:, : len(self)] - self.center).abs()
        return ((size - self.shift) / self.scale).clamp_max(REACH)

    def append(self, x, observed):
        """Warped coordinates and whether they are observed, with the distances.

        Shapes: (B, D) twice; out: (B, D + F) twice.
        """
        # A strong power runs out of digits far outside.
        own = self.column_warp.inverse(x[:, : len(self)]).nan_to_num()
        known = observed[:, : len(self)]
        distances = self.warp(self.of(own))
        return torch.cat([x, distances], 1), torch.cat([observed, known], 1)


def _medians(cells, weight):
    """Medians of columns (n, F), NaN where missing; the lower of two in the middle."""
    if weight is None:
        return cells.nanmedian(0).values
    values, order = cells.sort(0)  # missing ones come last
    mass = weighted(~cells.isnan(), weight).gather(0, order).cumsum(0)
    reached = (mass < 0.5 * mass[-1]).sum(0, keepdim=True)
    return values.gather(0, reached.clamp_max(len(cells) - 1))[0]
