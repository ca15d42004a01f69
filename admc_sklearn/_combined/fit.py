"""Fit of the model that suits a table: cells alone, or cells and blocks."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch

from .._blocks.encoders import LinearEncoder
from .._blocks.fit import fit_blocks
from .._cells import model as _completion
from .._cells.fit import automatic_size, fit_network
from .._shared.devices import exact_device, one_thread
from .model import JointModel
from .partition import lay_out


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
