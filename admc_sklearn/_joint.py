"""Cells and modalities together: one model for tables that hold both.

Blocks of numeric columns are completed by the model of modalities, all other columns
cell by cell. The cells see the leading latents of the blocks as further columns; the
blocks see the completed cells as a modality that is always there. What the estimators
call stands here, each call under `one_thread`.
"""

from __future__ import annotations

import copy
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import nn

from . import _completion
from ._blocks._completion import complete_blocks, draw_blocks
from ._blocks._encoder import LinearEncoder
from ._blocks._training import fit_blocks
from ._layout import lay_out
from ._runtime import exact_device, one_thread, row_keys
from ._training import automatic_size, fit_network
from ._training import place as place_network

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
def fit_model(
    values,
    observed,
    n_levels,
    modalities,
    size,
    plan,
    device,
    seed,
    *,
    n_bootstraps=0,
    groups=None,
    encoders=None,
    start=None,
    self_masking=False,
):
    """Fit the model that suits a table: cells alone, or cells and blocks.

    Parameters
    ----------
    values, observed, n_levels, plan, device, seed, n_bootstraps
        See `fit_network`.
    modalities : dict
        Columns of every modality of more than one column.
    size : str
        Name of the network's size.
    groups : array of shape (n,), optional
        Rows of one group are held out together.
    encoders : dict, optional
        Of some modalities, in the place of our own.
    start : CompletionNetwork or JointModel, optional
        Whose training is continued.
    self_masking : bool or "auto"
        Whether a cell's value may decide if it is missing; not beside blocks.

    Returns
    -------
    model : CompletionNetwork or JointModel
    history : list of dict
    """
    given = encoders or {}
    if isinstance(start, JointModel):
        layout = start.layout
    else:
        layout = lay_out(modalities, observed, n_levels, given)
    options = {"n_bootstraps": n_bootstraps, "groups": groups, "units": layout.units}
    if start is not None and not isinstance(start, JointModel):
        layout, options["start"] = replace(layout, blocks=[]), start
    if not layout.blocks:
        size = automatic_size(size, observed)
        options["self_masking"] = self_masking
        return fit_network(
            values, observed, n_levels, size, plan, device, seed, **options
        )
    arguments = (values, observed, n_levels, size, plan, device, seed)
    return _fit_joint(layout, *arguments, given, start, options)


def _fit_joint(
    layout, values, observed, n_levels, size, plan, device, seed, given, start, options
):
    home = exact_device(device)  # the kernels of blocks are in float64
    rng = np.random.default_rng(seed)
    if start is not None:
        encoders, options["start"] = start.encoders, start.network
    else:
        encoders = [
            given.get(name, LinearEncoder()).fit(values[:, own], observed[:, own], rng)
            for name, own in zip(layout.names, layout.blocks, strict=True)
        ]
    model = JointModel(layout, n_levels, encoders)
    cells, history = None, []
    if len(layout.cells):
        arguments = (values, observed, size, plan, device, seed)
        model.network, history = _fit_cells(model, *arguments, options)
        plan = replace(plan, deadline=plan.end)
        table, seen = model.cells_of(values, observed)
        cells = _completion.complete(model.network, table, seen, ["mean"])[0]
    table, seen = model.blocks_of(values, observed, cells)
    ends = np.cumsum([0, *map(len, layout.blocks)])
    columns = [np.arange(*ends[k : k + 2]) for k in range(len(layout.blocks))]
    if cells is not None:
        columns.append(np.arange(ends[-1], table.shape[1]))
        own = seen[:, columns[-1]]
        context = LinearEncoder()
        if start is not None:
            context = start.blocks.encoders[-1]
        else:
            context.fit(table[:, columns[-1]], own, rng)
        encoders = [*encoders, context]
    fixed = np.arange(len(columns)) >= len(layout.blocks)
    if size == "auto":
        size = "small" if observed.sum() < 2_000_000 else "medium"
    with torch.inference_mode(False), torch.enable_grad():
        model.blocks, own = fit_blocks(
            table,
            seen,
            columns,
            encoders,
            fixed,
            size,
            plan,
            seed,
            home,
            options["groups"],
            None if start is None else start.blocks,
        )
    return model, history + [{"part": "modalities", **record} for record in own]


def _fit_cells(model, values, observed, size, plan, device, seed, options):
    """Fit the network of the cells, with the leading latents of the blocks."""
    table, seen = model.cells_of(values, observed)
    levels = np.zeros(table.shape[1], dtype=int)
    levels[: len(model.layout.cells)] = model.n_levels[model.layout.cells]
    # Half of the time is left for the blocks.
    now = time.monotonic()
    plan = replace(plan, deadline=now + (plan.deadline - now) / 2)
    size = automatic_size(size, seen)
    network, history = fit_network(
        table, seen, levels, size, plan, device, seed, **options
    )
    return network, [{"part": "cells", **record} for record in history]


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
