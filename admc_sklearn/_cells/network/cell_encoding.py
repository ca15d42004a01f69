"""Per-modality feature networks, each fitted on its own modality alone and frozen.

A single column's encoder is piecewise linear between its quantiles (Gorishniy et al.,
2022, arXiv:2203.05556): resolution where the column's values are, exact at the knots,
linear between them.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class PiecewiseLinearEncoder(nn.Module):
    """Encode every column by its position between its own knots.

    Shape in: (B, d); out: (B, d, n_knots - 1), within [0, 1].

    Parameters
    ----------
    knots : float array of shape (d, n_knots), increasing along a row
    """

    def __init__(self, knots):
        super().__init__()
        knots = torch.as_tensor(knots, dtype=torch.float32)
        self.register_buffer("left", knots[:, :-1].contiguous())
        self.register_buffer("slope", 1.0 / (knots[:, 1:] - knots[:, :-1]))
        self.n_features = knots.shape[1] - 1

    def forward(self, values):
        return ((values[..., None] - self.left) * self.slope).clamp(0.0, 1.0)


class LevelEmbedding(nn.Module):
    """A vector for every level of every categorical column, zero to begin with.

    Shape in: codes (B, C) and whether they are known (B, C); out: (B, C, width),
    zero where the level is not known.

    Parameters
    ----------
    n_levels : list of C int
    width : int
    """

    def __init__(self, n_levels, width):
        super().__init__()
        start = np.concatenate([[0], np.cumsum(n_levels)])
        self.register_buffer("start", torch.as_tensor(start[:-1]))
        self.weight = nn.Parameter(torch.zeros(int(start[-1]), width))

    def forward(self, codes, known):
        vectors = F.embedding(codes.long() + self.start, self.weight)
        return vectors * known[..., None]


def quantile_knots(values, observed, n_knots):
    """Knots of every column: quantiles of its distinct values where those are few.

    Parameters
    ----------
    values : float array of shape (n, d)
    observed : bool array of shape (n, d)
    n_knots : int

    Returns
    -------
    float64 array of shape (d, n_knots)
    """
    knots = np.empty((values.shape[1], n_knots))
    share = np.linspace(0.0, 1.0, n_knots)
    for j in range(values.shape[1]):
        column = np.sort(values[observed[:, j], j].astype(np.float64))
        is_new = np.diff(column, prepend=-np.inf) > 0
        if is_new.sum() <= n_knots:
            column = column[is_new]
        knots[j] = np.interp(share * (len(column) - 1), np.arange(len(column)), column)
        # Knots must increase where a value recurs, and beyond what float32 rounds.
        spacing = 1e-3 * max(1.0, np.ptp(knots[j]))
        knots[j] += spacing * np.arange(n_knots) / n_knots
    return knots
