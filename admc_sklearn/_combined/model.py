"""Cells and modalities together: one model for tables that hold both.

Blocks of numeric columns are completed by the model of modalities, all other columns
cell by cell. The cells see the leading latents of the blocks as further columns; the
blocks see the completed cells as a modality that is always there. What the estimators
call stands here, each call under `one_thread`.
"""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import torch
from torch import nn

from .._blocks.model import complete_blocks, draw_blocks
from .._cells import model as _completion
from .._cells.fit import place as place_network
from .._shared.devices import exact_device, one_thread
from .._shared.noise import row_keys

# Latents of a block that the cells see.
N_LEADS = 8


class JointModel(nn.Module):
    """A network of cells and a model of blocks.

    Parameters
    ----------
    layout : Layout
    n_levels : int array of shape (d,)
    encoders : list of LinearEncoder
        Of the blocks.

    Attributes
    ----------
    network : CompletionNetwork or None
        Where there are cells.
    blocks : BlockModel
    """

    def __init__(self, layout, n_levels, encoders):
        super().__init__()
        self.layout, self.n_levels, self.encoders = layout, n_levels, encoders
        self.network, self.blocks = None, None

    def cells_of(self, values, observed):
        """Table of the cells, with the leading latents of the blocks beside them."""
        return _with_leads(self.layout, self.encoders, values, observed)

    def blocks_of(self, values, observed, cells):
        """Table of the blocks, with completed cells (n, c) beside them."""
        context = np.empty((len(values), 0))
        if self.network is not None:
            context = _expanded(cells, self.n_levels[self.layout.cells])
        own = np.concatenate(self.layout.blocks)
        seen = np.ones(context.shape, dtype=bool)
        return (
            np.concatenate([values[:, own], context], 1),
            np.concatenate([observed[:, own], seen], 1),
        )

    def gather(self, values, cells, blocks):
        """Write completed cells and blocks into a copy of the table, in any batch."""
        out = values.astype(np.float32)
        if cells is not None:
            out[:, self.layout.cells] = cells[:, : len(self.layout.cells)]
        own = np.concatenate(self.layout.blocks)
        out[:, own] = blocks[:, : len(own)]
        return out


def _with_leads(layout, encoders, values, observed):
    parts, seen = [values[:, layout.cells]], [observed[:, layout.cells]]
    for encoder, own in zip(encoders, layout.blocks, strict=True):
        latents, there = encoder.encode(values[:, own], observed[:, own])
        leads = (latents / np.sqrt(encoder.variance_))[:, :N_LEADS]
        parts.append(np.where(there[:, None], leads, 0.0).clip(-10, 10))
        seen.append(np.repeat(there[:, None], leads.shape[1], axis=1))
    return np.concatenate(parts, 1).astype(np.float32), np.concatenate(seen, 1)


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


@one_thread()
def place(model, device):
    """Move a model to a device; what needs float64 stays on the CPU for MPS."""
    if not isinstance(model, JointModel):
        return place_network(model, device)
    if model.network is not None:
        place_network(model.network, device)
    model.blocks.to(exact_device(device))
    return model


@one_thread()
def copy_to(model, device):
    """Copy a model to a device; the model itself stays where it is."""
    return place(copy.deepcopy(model), device)


@one_thread()
def complete(model, values, observed, statistics):
    """Posterior summaries of all missing cells; see `_completion.complete`."""
    if not isinstance(model, JointModel):
        return _completion.complete(model, values, observed, statistics)
    cells = None
    if model.network is not None:
        table, seen = model.cells_of(values, observed)
        # The blocks are completed beside the mean of the cells, whatever is asked.
        wanted = ["mean", *statistics]
        mean, *cells = _completion.complete(model.network, table, seen, wanted)
        table, seen = model.blocks_of(values, observed, mean)
    else:
        table, seen = model.blocks_of(values, observed, None)
        cells = [None] * len(statistics)
    found = complete_blocks(model.blocks, table, seen, statistics)
    return np.stack(
        [model.gather(values, c, b) for c, b in zip(cells, found, strict=True)]
    )


@one_thread()
def draw(model, values, observed, n_draws, n_steps, seed):
    """Joint draws of all missing cells; see `_completion.draw`."""
    if not isinstance(model, JointModel):
        return _completion.draw(model, values, observed, n_draws, n_steps, seed)
    # Of what is observed: completed cells differ in the last bit between batches.
    keys = row_keys(values, observed, seed)
    cells = [None] * n_draws
    if model.network is not None:
        table, seen = model.cells_of(values, observed)
        cells = _completion.draw(model.network, table, seen, n_draws, n_steps, seed)
    out = np.empty((n_draws, *values.shape), dtype=np.float32)
    for k, drawn in enumerate(cells):
        table, seen = model.blocks_of(values, observed, drawn)
        blocks = draw_blocks(model.blocks, table, seen, n_steps, keys, k)
        out[k] = model.gather(values, drawn, blocks)
    return out


@one_thread()
def probabilities(model, values, observed, column):
    """Probabilities of a column's levels; see `_completion.probabilities`."""
    if not isinstance(model, JointModel):
        return _completion.probabilities(model, values, observed, column)
    table, seen = model.cells_of(values, observed)
    place = int(np.searchsorted(model.layout.cells, column))
    return _completion.probabilities(model.network, table, seen, place)


def _names(model):
    names = list(model.layout.names)
    return names if model.network is None else [*names, "other columns"]


def dependence(model):
    """Share of each modality's variance that each other one explains: a DataFrame."""
    if not isinstance(model, JointModel):
        return None
    names = _names(model)
    return pd.DataFrame(model.blocks.dependence, index=names, columns=names)


def self_masking_slopes(model):
    """How much a standard deviation of a column's value adds to its log-odds of loss.

    An array of shape (d,), or 0 where there are blocks.
    """
    return getattr(model, "slopes", 0.0)


@one_thread()
def attention(model, values, observed):
    """Mean attention of modalities to each other in these rows: a DataFrame."""
    cells = None
    if model.network is not None:
        table, seen = model.cells_of(values, observed)
        cells = _completion.complete(model.network, table, seen, ["mean"])[0]
    table, seen = model.blocks_of(values, observed, cells)
    total, names = 0.0, _names(model)
    with torch.inference_mode():
        for lo in range(0, len(table), 1000):
            part = slice(lo, lo + 1000)
            latents, available = model.blocks.encode(table[part], seen[part])
            weights = model.blocks.attention(latents, available)
            total = total + weights.cpu().numpy() * len(latents)
    return pd.DataFrame(total / len(table), index=names, columns=names)
