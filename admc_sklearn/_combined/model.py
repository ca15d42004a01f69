"""Cells and blocks together: one model for tables that hold both.

Modalities that are blocks are completed as a whole, all other columns cell by cell. The
cells see the leading latents of the blocks as further columns; the blocks see the
completed cells as a modality that is always there.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from .._blocks.model import complete_blocks, draw_blocks
from .._shared.contract import CompletionModel, Report, Rows, n_bytes, without
from .._shared.devices import exact_device, one_thread
from .._shared.noise import row_keys


class CombinedModel(CompletionModel):
    """A model of cells and a model of blocks, each beside what the other completes.

    Parameters
    ----------
    partition : Partition
    n_levels : int array of shape (d,)
    encoders : list of LinearEncoder
        Encoders of the blocks.

    Attributes
    ----------
    cells : CellModel or None
        None where every column belongs to a block.
    blocks : BlockModel
    """

    def __init__(self, partition, n_levels, encoders):
        super().__init__()
        self.partition, self.n_levels, self.encoders = partition, n_levels, encoders
        self.cells, self.blocks = None, None

    @property
    def lost_error(self):
        """That of the model of blocks."""
        return self.blocks.lost_error

    @property
    def held_out_errors(self):
        """Those of the model of blocks."""
        return self.blocks.held_out_errors

    def without_rows(self):
        """Copy of the model whose blocks are completed by straight lines."""
        cells = None if self.cells is None else self.cells.without_rows()
        return without(self, cells=cells, blocks=self.blocks.without_rows())

    def memory(self):
        """Bytes of each part and training rows in it: a dict of pairs, by name."""
        found = {} if self.cells is None else self.cells.memory()
        return {"blocks": (n_bytes(self.blocks), self.blocks.n_landmarks)} | found

    def cell_rows(self, rows):
        """Rows of the cells, with the leading latents of the blocks beside them."""
        return _with_leads(self.partition, self.encoders, rows)

    def block_rows(self, rows, cells):
        """Rows of the blocks, with completed cells (n, c), if any, beside them."""
        beside = np.empty((len(rows), 0))
        if cells is not None:
            beside = _expanded(cells, self.n_levels[self.partition.cells])
        own = np.concatenate(self.partition.blocks)
        seen = np.ones(beside.shape, dtype=bool)
        return Rows(
            np.concatenate([rows.values[:, own], beside], 1),
            np.concatenate([rows.observed[:, own], seen], 1),
            rows.weight,
        )

    def mean_of_cells(self, rows):
        """Cells completed by their means, (n, c), or None where there are none."""
        if self.cells is None:
            return None
        return self.cells.summarise(self.cell_rows(rows), ["mean"])[0]

    def _gather(self, rows, cells, blocks):
        """Write completed cells and blocks into a copy of the table."""
        out = rows.values.astype(np.float32)
        if cells is not None:
            out[:, self.partition.cells] = cells[:, : len(self.partition.cells)]
        own = np.concatenate(self.partition.blocks)
        out[:, own] = blocks[:, : len(own)]
        return out

    @one_thread()
    def summarise(self, rows, statistics):
        """Posterior summaries; blocks are completed beside the mean of the cells."""
        mean, cells = None, [None] * len(statistics)
        if self.cells is not None:
            wanted = ["mean", *statistics]
            mean, *cells = self.cells.summarise(self.cell_rows(rows), wanted)
        table = self.block_rows(rows, mean)
        blocks = complete_blocks(self.blocks, table, statistics)
        return np.stack(
            [self._gather(rows, c, b) for c, b in zip(cells, blocks, strict=True)]
        )

    @one_thread()
    def draw(self, rows, n_draws, n_steps, seed, delta=None):
        """Joint draws: of cells, then of blocks beside the drawn cells.

        Columns of blocks that ``delta`` moves do not move the rest of their rows.
        """
        own = {int(j): k for k, j in enumerate(self.partition.cells)}
        delta = delta or {}
        moved = {own[j]: amount for j, amount in delta.items() if j in own}
        # Keys are made of observed cells alone: completed ones differ in the last bit
        # between batches.
        keys = row_keys(rows.values, rows.observed, seed)
        cells = [None] * n_draws
        if self.cells is not None:
            table = self.cell_rows(rows)
            cells = self.cells.draw(table, n_draws, n_steps, seed, moved)
        out = np.empty((n_draws, *rows.values.shape), dtype=np.float32)
        for k, drawn in enumerate(cells):
            table = self.block_rows(rows, drawn)
            blocks = draw_blocks(self.blocks, table, n_steps, keys, k)
            out[k] = self._gather(rows, drawn, blocks)
        for j, amount in delta.items():
            if j not in own:
                out[:, :, j] += np.where(rows.observed[:, j], 0.0, amount)
        return out

    @one_thread()
    def probabilities(self, rows, column):
        """Probabilities of a column's levels."""
        slot = int(np.searchsorted(self.partition.cells, column))
        return self.cells.probabilities(self.cell_rows(rows), slot)

    @one_thread()
    def attention(self, rows):
        """Mean attention of modalities to each other in these rows: a DataFrame."""
        table = self.block_rows(rows, self.mean_of_cells(rows))
        total, names = 0.0, self._names()
        with torch.inference_mode():
            for lo in range(0, len(table), 1000):
                part = table[lo : lo + 1000]
                latents, available = self.blocks.encode(part.values, part.observed)
                weights = self.blocks.attention(latents, available)
                total = total + weights.cpu().numpy() * len(latents)
        return pd.DataFrame(total / len(table), index=names, columns=names)

    def report(self):
        """Report the share of each modality that each other one explains."""
        names = self._names()
        found = pd.DataFrame(self.blocks.dependence, index=names, columns=names)
        return Report(dependence=found)

    def _names(self):
        names = list(self.partition.names)
        return names if self.cells is None else [*names, "other columns"]

    @one_thread()
    def move_to(self, device):
        """Move to a device; what needs float64 stays on the CPU for MPS."""
        if self.cells is not None:
            self.cells.move_to(device)
        self.blocks.to(exact_device(device))
        return self


def _with_leads(partition, encoders, rows):
    """Rows of the cells, with the leading latents of the blocks beside them."""
    cells = rows[:, partition.cells]
    parts, seen = [cells.values], [cells.observed]
    for encoder, own in zip(encoders, partition.blocks, strict=True):
        block = rows[:, own]
        latents, available = encoder.encode(block.values, block.observed)
        leads = (latents / np.sqrt(encoder.variance_))[:, : partition.n_leads]
        parts.append(np.where(available[:, None], leads, 0.0).clip(-10, 10))
        seen.append(np.repeat(available[:, None], leads.shape[1], axis=1))
    values = np.concatenate(parts, 1).astype(np.float32)
    limits = cells.limits
    if limits is not None:
        shape = len(values), values.shape[1] - cells.values.shape[1], 2
        limits = np.concatenate([limits, np.full(shape, np.inf)], 1)
    return Rows(values, np.concatenate(seen, 1), rows.weight, limits)


def _expanded(cells, n_levels):
    """Completed cells as numbers: levels as standardised indicators."""
    parts = []
    for j, k in enumerate(n_levels):
        column = cells[:, j]
        if k:
            share = 1 / np.sqrt(k)
            parts.append((column[:, None].astype(int) == np.arange(k)) / share)
        else:
            parts.append(column[:, None].clip(-10, 10))
    return np.concatenate(parts, 1).astype(np.float64)
