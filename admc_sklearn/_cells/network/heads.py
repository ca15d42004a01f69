"""Heads of the network: from the summary of a row to the distribution of a cell."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ..anchor.gaussian import MIN_SD
from .posterior import LevelPosterior, NumericPosterior

# Logarithms of how much narrower and wider than the anchor a cell may be in an atom.
LOG_SCALE = (-5.0, 1.0)


class NumericHead(nn.Module):
    """Logits of the atoms of some numeric columns, starting at zero.

    ``has_margin`` says that frequencies enter beside the anchor, see `margin`.

    Parameters
    ----------
    columns : int array of shape (g,)
    atoms : Atoms
        Of these columns.
    hidden : int
    """

    has_margin = True

    def __init__(self, columns, atoms, hidden):
        super().__init__()
        self.register_buffer("columns", torch.as_tensor(columns))
        self.atoms, self.n_outcomes = atoms, atoms.n_atoms
        _zero_head(self, len(columns), hidden)
        # Where within an atom: the anchor's moments, shifted and scaled.
        self.inner_weight = nn.Parameter(torch.zeros(len(columns), hidden, 2))
        self.inner_bias = nn.Parameter(torch.zeros(len(columns), 1, 2))

    @property
    def limits(self):
        """Smallest and largest warped value of its columns, (g,) twice."""
        return self.atoms.low[:, 0], self.atoms.high[:, -1]

    @property
    def share(self):
        """Frequencies of the atoms, (g, K)."""
        return self.atoms.share

    def statistic(self, slot, max_value, max_levels):
        """Statistic of a column's outcomes that log-odds may be linear in, (K, p).

        Here the atoms' values, (K, 1), cut at ``max_value``.
        """
        del max_levels
        center = self.atoms.center[slot].cpu().double().numpy()
        return center[:, None].clip(-max_value, max_value)

    def index(self, values):
        """Atom of every value of its columns: (n, d) -> int64 (n, g)."""
        return self.atoms.index(values[:, self.columns])

    def margin(self, anchor, share=None):
        """Log of atom frequencies over the anchor's marginal masses, (g, 1, K)."""
        mean, sd = anchor.marginal_moments(self.columns)
        return self.atoms.log_margin(mean, sd, share)[:, None]

    def posterior(self, cells, summary, prior, margin, anchored):
        """`NumericPosterior` of cells, from their rows' summaries, (g, T, hidden)."""
        del prior
        mean = cells.gather(anchored.mean)
        sd = cells.gather(anchored.sd).clamp_min(MIN_SD)
        slots = torch.arange(len(self.columns), device=mean.device)[:, None]
        logits = self.atoms.log_mass(mean, sd, slots) + margin
        logits = torch.baddbmm(self.bias, summary, self.weight) + logits
        inner = torch.baddbmm(self.inner_bias, summary, self.inner_weight)
        shift, scale = inner.unbind(-1)
        inner_sd = sd * scale.clamp(*LOG_SCALE).exp()
        return NumericPosterior(cells, logits, self.atoms, mean + sd * shift, inner_sd)


class LevelHead(nn.Module):
    """Logits of the levels of some categorical columns, starting at zero.

    Parameters
    ----------
    columns, slots : int arrays of shape (g,)
        Their positions among all columns and among the categorical ones.
    share : float array of shape (g, K)
        Frequencies of their levels, 0 beyond the last.
    hidden : int
    """

    has_margin = False

    def __init__(self, columns, slots, share, hidden):
        super().__init__()
        self.register_buffer("columns", torch.as_tensor(columns))
        self.register_buffer("slots", torch.as_tensor(slots))
        self.register_buffer("share", torch.as_tensor(share, dtype=torch.float32))
        # Which columns' levels have an order; None where none do.
        self.register_buffer("ordered", None)
        self.n_outcomes = share.shape[1]
        _zero_head(self, len(columns), hidden)

    def statistic(self, slot, max_value, max_levels):
        """Statistic of a column's outcomes that log-odds may be linear in, (K, p).

        Here indicators of the levels; None with one level or more than ``max_levels``.
        """
        del max_value
        n_levels = int((self.share[slot] > 0).sum())
        if not 2 <= n_levels <= max_levels:
            return None
        return np.eye(self.n_outcomes, n_levels)

    @property
    def limits(self):
        """Smallest and largest code of its columns, (g,) twice."""
        last = (self.share > 0).sum(1).float() - 1
        return torch.zeros_like(last), last

    def index(self, values):
        """Code of every level of its columns: (n, d) -> int64 (n, g)."""
        return values[:, self.columns].long()

    def margin(self, anchor, share=None):
        """None: the levels' frequencies are in the anchor."""
        del anchor, share

    def posterior(self, cells, summary, prior, margin, anchored):
        """`LevelPosterior` of cells, from their rows' summaries, (g, T, hidden)."""
        del margin
        device = prior.device
        mass = prior.log_mass(
            anchored, cells.rows.to(device), self.slots.to(device), self.n_outcomes
        )
        logits = mass.to(self.share.dtype).to(self.share.device)
        logits = torch.baddbmm(self.bias, summary, self.weight) + logits
        ordered = getattr(self, "ordered", None)
        return LevelPosterior(cells, logits, self.share, ordered)


def _zero_head(module, n_columns, hidden):
    shape = (n_columns, hidden, module.n_outcomes)
    module.weight = nn.Parameter(torch.zeros(shape))
    module.bias = nn.Parameter(torch.zeros(n_columns, 1, module.n_outcomes))
