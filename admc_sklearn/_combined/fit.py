"""Fit of the model that suits a table: cells alone, or cells and blocks."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import torch

from .._blocks.encoders import LinearEncoder
from .._blocks.fit import fit_blocks
from .._cells.fit import fit_cells
from .._shared.devices import one_thread
from .model import CombinedModel
from .partition import divide

# Of a few held-out rows, errors that differ by less are alike; then cells are taken, to
# which rows that lack some of a block's columns are no exception.
NEARLY = 0.99
# Share of the time in which narrow blocks are fitted as cells.
SHARE_OF_CELLS = 0.75


@one_thread()
def fit_model(rows, n_levels, modalities, context, *, encoders=None, start=None):
    """Fit the model that suits a table: cells alone, or cells and blocks.

    Parameters
    ----------
    rows : Rows
        Arrays: standardised numbers, float32, and codes of levels.
    n_levels : int array of shape (d,)
        Levels of categorical columns, 0 for numeric ones.
    modalities : dict
        Columns of every modality of more than one column.
    context : FitContext
        Self-masking is not looked for beside blocks.
    encoders : dict, optional
        Encoders of some modalities, which replace our own.
    start : CompletionModel, optional
        Model whose training is continued.

    Returns
    -------
    model : CompletionModel
    history : list of dict
    """
    encoders, settings = encoders or {}, context.settings.partition
    partition = None if start is None else start.partition
    if partition is None:
        partition = divide(modalities, rows.observed, n_levels, encoders, settings)
    wholes = dict(zip(partition.names, partition.blocks, strict=True))
    joint = partition.all_joint_columns()
    if wholes:
        context = replace(context, self_masking=False, shards=None)
    if not wholes or (start is not None and start.partition is None):
        # A model of cells alone is continued as one.
        return fit_cells(
            rows, n_levels, context, joint_columns=joint, wholes=wholes, start=start
        )
    is_narrow = rows.values.shape[1] <= settings.max_cell_columns
    if start is not None or encoders or not is_narrow:
        return _fit_combined(rows, n_levels, partition, encoders, context, start)
    # Narrow blocks can be completed in two ways. That of cells is mostly the better
    # one; the other, which is often given up early, has what is left of the time.
    now = time.monotonic()
    first = context.until(now + SHARE_OF_CELLS * (context.plan.deadline - now))
    cells, own = fit_cells(rows, n_levels, first, joint_columns=joint, wholes=wholes)
    is_measured = not math.isnan(cells.lost_error)
    if is_measured and time.monotonic() > context.plan.end:
        return cells, own
    rival = cells.lost_error if is_measured else math.inf
    blocks, history = _fit_combined(rows, n_levels, partition, {}, context, None, rival)
    # Where time ran out, nothing may be known of the blocks.
    least = NEARLY * cells.lost_error
    if blocks is None or (is_measured and not blocks.lost_error <= least):
        return cells, own
    return blocks, history


def _fit_combined(rows, n_levels, partition, encoders, context, start, rival=math.inf):
    """Fit a model of blocks, and of cells where other columns are beside them.

    The model is None where the blocks cannot complete what is lost with a lower error
    than the ``rival``.
    """
    rng = np.random.default_rng(context.seed)
    if start is None:
        settings = context.settings.blocks.encoder
        encoders = _fit_encoders(rows, partition, encoders, rng, settings)
    else:
        encoders = start.encoders
    model = CombinedModel(partition, n_levels, encoders)
    history = []
    if len(partition.cells):
        history = _fit_cells(model, rows, context, start)
        context = context.until(context.plan.end)
    history += _fit_blocks(model, rows, context, rng, start, rival)
    return (model if model.blocks is not None else None), history


def _fit_encoders(rows, partition, given, rng, settings):
    """Fit the encoder of every block, on that block alone."""
    encoders = []
    for name, own in zip(partition.names, partition.blocks, strict=True):
        block = rows[:, own]
        encoder = given.get(name, LinearEncoder())
        known = block.values, block.observed, rng, settings, block.weight
        encoders.append(encoder.fit(*known))
    return encoders


def _fit_cells(model, rows, context, start):
    """Fit the model of the cells, with the leading latents of the blocks."""
    table = model.cell_rows(rows)
    own = model.partition.cells
    n_levels = np.zeros(table.values.shape[1], dtype=int)
    n_levels[: len(own)] = model.n_levels[own]
    # Half of the time is left for the blocks.
    now = time.monotonic()
    context = context.until(now + (context.plan.deadline - now) / 2)
    context = replace(
        context,
        ends=_with_others(context.ends, own, len(n_levels), np.nan),
        ordered=_with_others(context.ordered, own, len(n_levels), False),
    )
    joint = model.partition.joint_columns
    cells = None if start is None else start.cells
    model.cells, history = fit_cells(
        table, n_levels, context, joint_columns=joint, start=cells
    )
    return [{"part": "cells", **record} for record in history]


def _with_others(table, columns, n_columns, value):
    """Take some columns of a table (d, ...), before others that hold one value."""
    if table is None:
        return None
    out = np.full((n_columns, *table.shape[1:]), value, dtype=table.dtype)
    out[: len(columns)] = table[columns]
    return out


def _fit_blocks(model, rows, context, rng, start, rival):
    """Fit the model of the blocks, beside the completed cells."""
    partition, encoders = model.partition, model.encoders
    cells = model.mean_of_cells(rows)
    table = model.block_rows(rows, cells)
    ends = np.cumsum([0, *map(len, partition.blocks)])
    columns = [np.arange(*ends[k : k + 2]) for k in range(len(partition.blocks))]
    if cells is not None:
        columns.append(np.arange(ends[-1], table.values.shape[1]))
        own = table[:, columns[-1]]
        if start is None:
            encoder = context.settings.blocks.encoder
            known = own.values, own.observed, rng, encoder, own.weight
            beside = LinearEncoder().fit(*known)
        else:
            beside = start.blocks.encoders[-1]
        encoders = [*encoders, beside]
    fixed = np.arange(len(columns)) >= len(partition.blocks)
    if context.size == "auto":
        is_small = rows.observed.sum() < 2_000_000
        context = replace(context, size="small" if is_small else "medium")
    modalities = columns, encoders, fixed
    blocks = None if start is None else start.blocks
    with torch.inference_mode(False), torch.enable_grad():
        model.blocks, history = fit_blocks(table, modalities, context, blocks, rival)
    return [{"part": "modalities", **record} for record in history]
