"""The mean head: squared error beside the likelihood.

The heads of single columns learn how likely each outcome is. Where much depends on the
mean, squared error learns it in fewer steps. So one more head reads the summary of a
row and the row as the anchor completes it, and predicts means of numbers as what is
added to the anchor's. Both losses shape the summary. Cells of held-out rows decide by
how much each column's predictions count; by so much are the means of posteriors moved.
"""

from __future__ import annotations

import torch
from torch import nn

from ..._shared.trunk import linear

# Standardised numbers further out, in standard deviations, count as this far.
REACH = 15.0


class MeanHead(nn.Module):
    """Means of numbers, from summaries and completed rows.

    Shape of the summaries: (B, hidden); of completed rows, flags of observed cells and
    means: (B, d). The means of categorical columns are of no use.

    Parameters
    ----------
    n_columns, hidden : int
    generator : torch.Generator on the CPU

    Attributes
    ----------
    weight : float tensor of shape (d,)
        By how much each column's means count, 0 at first; held-out cells choose it.
    """

    def __init__(self, n_columns, hidden, generator):
        super().__init__()
        self.first = linear(hidden + 2 * n_columns, hidden, generator)
        self.second = linear(hidden, hidden, generator)
        self.last = linear(hidden, n_columns, generator)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.register_buffer("weight", torch.zeros(n_columns))

    def forward(self, summaries, completed, observed):
        completed = completed.nan_to_num().clamp(-REACH, REACH)
        x = torch.cat([summaries, completed, observed.to(completed.dtype)], 1)
        return completed + self.last(self.second(self.first(x).relu()).relu())
