"""Folds: distances of numeric columns from their medians, as coordinates of the anchor.

A Gaussian knows straight lines only. What rises with another column on both sides of
its middle, as a length does with the components of its vector, is a straight line in
how far each lies from its middle. Folds are missing where their columns are; nothing is
ever completed by them, they only tell.
"""

from __future__ import annotations

import torch
from torch import nn

# In standard deviations of the fold.
REACH = 100.0


class Folds(nn.Module):
    """Standardised distances of coordinates from their medians, in own units.

    Parameters
    ----------
    x : float tensor of shape (n, D)
        Coordinates of a table in the columns' own units, the numeric ones first.
    observed : bool tensor of shape (n, D)
    n_folds : int
        Numeric columns.
    """

    def __init__(self, x, observed, n_folds):
        super().__init__()
        x, observed = x[:, :n_folds], observed[:, :n_folds]
        center = torch.where(observed, x, torch.nan).nanmedian(0).values.nan_to_num()
        fold, count = (x - center).abs(), observed.sum(0).clamp_min(1)
        shift = torch.where(observed, fold, 0.0).sum(0) / count
        variance = torch.where(observed, fold - shift, 0.0).square().sum(0) / count
        self.register_buffer("center", center)
        self.register_buffer("shift", shift)
        self.register_buffer("scale", variance.sqrt().clamp_min(1e-3))
        # Of the folds and of the columns, once they are chosen.
        self.warp = self.column_warp = None

    def __len__(self):
        return len(self.center)

    def of(self, x):
        """Folds of coordinates in own units, (B, D) -> (B, F)."""
        fold = (x[:, : len(self)] - self.center).abs()
        return ((fold - self.shift) / self.scale).clamp_max(REACH)

    def append(self, x, observed):
        """Warped coordinates and whether they are observed, with folds.

        Shapes: (B, D) twice; out: (B, D + F) twice.
        """
        # A strong warp runs out of digits far outside.
        own = self.column_warp.inverse(x[:, : len(self)]).nan_to_num()
        known = observed[:, : len(self)]
        fold = self.warp(self.of(own))
        return torch.cat([x, fold], 1), torch.cat([observed, known], 1)
