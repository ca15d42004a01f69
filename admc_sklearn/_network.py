"""The completion network: encoders, anchor, denoiser and heads put together.

One call gives the posterior of every target cell, given a row's observed cells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from ._anchor import MIN_SD
from ._denoiser import Denoiser

MAX_TOKENS = 64
# Elements of one (cells, atoms) array; several of them are alive at once.
BATCH_ELEMENTS = 4_000_000


@dataclass(frozen=True)
class NetworkSize:
    """Sizes of a network; see `Denoiser`."""

    width: int
    hidden: int
    n_attention: int
    n_layers: int
    dropout: float


@dataclass(frozen=True)
class PackedCells:
    """Target cells sorted by column and padded to one number a column.

    Heads differ between columns: packed, all their products are one batched product.

    Shape of ``rows``, the row of each cell, and of ``filled``, False where padded:
    (d, T). ``columns`` is (d, 1).
    """

    rows: torch.Tensor
    filled: torch.Tensor
    columns: torch.Tensor

    @classmethod
    def from_mask(cls, targets):
        """Pack the True cells of a mask of shape (B, d)."""
        d = targets.shape[1]
        column, row = targets.T.nonzero(as_tuple=True)
        counts = targets.sum(0)
        start = torch.cumsum(counts, 0) - counts
        place = torch.arange(len(column), device=column.device) - start[column]
        size = (d, max(1, int(counts.max())))
        rows = torch.zeros(size, dtype=torch.long, device=column.device)
        filled = torch.zeros(size, dtype=torch.bool, device=column.device)
        rows[column, place] = row
        filled[column, place] = True
        columns = torch.arange(d, device=column.device)[:, None]
        return cls(rows, filled, columns)

    def gather(self, table):
        """Cells' entries of a (B, d) table: (d, T)."""
        return table[self.rows, self.columns]

    def scatter_into(self, table, entries):
        """Write (d, T) entries into their cells of a (B, d) table, in place."""
        columns = self.columns.expand_as(self.rows)
        table[self.rows[self.filled], columns[self.filled]] = entries[self.filled]


@dataclass(frozen=True)
class CellPosterior:
    """Distribution of packed target cells over their columns' atoms.

    Shape of ``logits``: (d, T, K), the anchor's log-mass included; of ``mean`` and
    ``sd``, the anchor's: (d, T).
    """

    atoms: nn.Module
    cells: PackedCells
    logits: torch.Tensor
    anchor_mean: torch.Tensor
    anchor_sd: torch.Tensor

    def _within(self, atom, u=None):
        columns = self.cells.columns
        mean, sd = self.anchor_mean, self.anchor_sd
        if atom.dim() == 3:
            columns, mean, sd = columns[..., None], mean[..., None], sd[..., None]
        return self.atoms.value_within(mean, sd, columns, atom, u)

    def mean(self):
        """Posterior mean in the columns' own standardised units, (d, T)."""
        every = torch.arange(self.logits.shape[-1], device=self.logits.device)
        values = self._within(every.expand(self.logits.shape))
        return (torch.softmax(self.logits, -1) * values).sum(-1)

    def quantile(self, level):
        """Posterior quantile, (d, T); ``level`` is a number or of shape (d, T).

        It is in the coordinates of the warp, as the network's input is. With uniform
        noise for a level it is a draw.
        """
        share = torch.softmax(self.logits, -1)
        below = share.cumsum(-1)
        level = torch.as_tensor(level, dtype=share.dtype, device=share.device)
        level = level.expand(share.shape[:2]).contiguous()
        last = self.atoms.valid[self.cells.columns].sum(-1) - 1
        atom = torch.searchsorted(below, level[..., None]).squeeze(-1)
        atom = torch.minimum(atom, last)
        inside = share.gather(-1, atom[..., None]).squeeze(-1)
        start = below.gather(-1, atom[..., None]).squeeze(-1) - inside
        u = ((level - start) / inside.clamp_min(1e-12)).clamp(1e-6, 1 - 1e-6)
        return self._within(atom, u)

    def nll(self, atom):
        """Negative log-likelihood of the atoms (d, T) in nats, (d, T)."""
        log_share = torch.log_softmax(self.logits, -1)
        return -log_share.gather(-1, atom[..., None]).squeeze(-1)


class CompletionNetwork(nn.Module):
    """Posterior of missing cells given the observed ones, for every pattern.

    Parameters
    ----------
    anchor : GaussianAnchor or FactorAnchor
    atoms : Atoms
    encoder : PiecewiseLinearEncoder
    size : NetworkSize
    """

    def __init__(self, anchor, atoms, encoder, size):
        super().__init__()
        d, n_atoms = atoms.center.shape
        self.anchor, self.atoms, self.encoder = anchor, atoms, encoder
        self.n_columns = d
        self.denoiser = Denoiser(
            d,
            encoder.n_features + 3,
            group=math.ceil(d / MAX_TOKENS),
            width=size.width,
            hidden=size.hidden,
            n_attention=size.n_attention,
            n_layers=size.n_layers,
            dropout=size.dropout,
        )
        # Zero: an untrained network is the anchor.
        self.head = nn.Parameter(torch.zeros(d, size.hidden, n_atoms))
        self.head_bias = nn.Parameter(torch.zeros(d, 1, n_atoms))

    def row_batches(self, n_rows):
        """Slices of rows whose posteriors fit the working set."""
        per_row = self.n_columns * max(self.atoms.n_atoms, self.head.shape[1] // 4)
        step = max(1, min(8192, BATCH_ELEMENTS // per_row))
        return [slice(lo, lo + step) for lo in range(0, n_rows, step)]

    def anchored(self, values, observed):
        """Observed values and the anchor's means, within the observed range; sd.

        The anchor is computed where its parameters are: MPS has no float64.
        """
        home = self.anchor.mean.device
        mean, sd = self.anchor.condition(
            values.to(home), observed.to(home), shared=not self.training
        )
        mean, sd = mean.to(values.device), sd.to(values.device)
        bounded = mean.clamp(self.atoms.low[:, 0], self.atoms.high[:, -1])
        return torch.where(observed, values, bounded), mean, sd

    def forward(self, values, observed, targets, anchored=None):
        """Posterior of the target cells.

        Parameters
        ----------
        values : float32 tensor of shape (B, d), in the coordinates of the warp
        observed, targets : bool tensors of shape (B, d)
        anchored : tuple, optional
            What `anchored` returned for these rows, where it is known already.

        Returns
        -------
        CellPosterior
        """
        value, mean, sd = anchored or self.anchored(values, observed)
        flags = torch.stack([value, observed.to(value.dtype), sd], -1)
        features = torch.cat([self.encoder(value), flags], -1)  # (B, d, f)
        row = self.denoiser(features)  # (B, hidden)
        cells = PackedCells.from_mask(targets)
        # index_select: its gradient is far cheaper than that of row[cells.rows].
        row = row.index_select(0, cells.rows.flatten())
        row = row.view(*cells.rows.shape, -1)  # (d, T, hidden)
        correction = torch.baddbmm(self.head_bias, row, self.head)
        anchor_mean = cells.gather(mean)
        anchor_sd = cells.gather(sd).clamp_min(MIN_SD)
        log_mass = self.atoms.log_mass(anchor_mean, anchor_sd, cells.columns)
        return CellPosterior(
            self.atoms, cells, correction + log_mass, anchor_mean, anchor_sd
        )
