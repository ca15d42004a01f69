"""Fit of a network to a table: anchor, training, memory, retrieval, self-masking."""

from __future__ import annotations

import copy
import time
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from .._shared.devices import exact_device
from .._shared.held_out import hold_out
from .._shared.training import run_epochs
from .anchor.choose_coordinates import (
    MAX_FOLDED,
    MAX_FOLDED_AT_RANDOM,
    choose_coordinates,
)
from .anchor.column_anchor import fit_anchor
from .anchor.level_scores import score_levels
from .bootstrap import bootstrap_prior
from .corrections.donor_weights import fit_retrieval
from .corrections.landmark_fit import fit_memory
from .corrections.self_masking import find_selection, is_suspected
from .network.held_out_cells import Validation
from .network.network import NetworkSize, Prior, build_network
from .network.trainer import Trainer

SIZES = {
    "small": NetworkSize(width=16, hidden=128, n_attention=1, n_layers=2, dropout=0.1),
    "medium": NetworkSize(width=16, hidden=256, n_attention=1, n_layers=2, dropout=0.0),
    "large": NetworkSize(width=16, hidden=512, n_attention=1, n_layers=3, dropout=0.0),
}
# Of the time there is, for coordinates and anchor; of what is left then, for training.
START_SHARE, TRAINING_SHARE = 0.5, 0.85
MIN_VALIDATION_CELLS = 20
# Held-out cells that are measured where there is no time left for training.
MIN_LATE_ROWS, MAX_LATE_CELLS = 10, 20_000


def place(network, device):
    """Move a network to a device; the anchor's float64 stays on the CPU for MPS."""
    if torch.device(device).type != "mps":
        return network.to(device)
    priors = [network.prior, *network.replicas]
    anchors = [prior.anchor for prior in priors]
    for prior in priors:
        prior.anchor = None
    network.to(device)
    for prior, anchor in zip(priors, anchors, strict=True):
        prior.anchor = anchor.to("cpu")
    return network


def fit_network(
    values,
    observed,
    n_levels,
    size,
    plan,
    device,
    seed,
    *,
    n_bootstraps=0,
    groups=None,
    units=(),
    start=None,
    self_masking=False,
):
    """Fit anchor and network to an incomplete table.

    Parameters
    ----------
    values : float32 array of shape (n, d)
        Standardised numbers, codes of levels.
    observed : bool array of shape (n, d)
    n_levels : int array of shape (d,)
        Levels of categorical columns, 0 for numeric ones.
    size : NetworkSize
    plan : TrainingPlan
    device : torch.device
    seed : int
    n_bootstraps : int
        Priors fitted to resampled rows, for draws that know that it is estimated.
    groups : array of shape (n,), optional
        Rows of one group are held out together.
    units : sequence of int array
        Columns that are often missing together.
    start : CompletionNetwork, optional
        Whose training is continued, in its coordinates; it is left as it is.
    self_masking : bool or "auto"
        Whether a cell's value may decide if it is missing; see `_selection`.

    Returns
    -------
    network : CompletionNetwork
        On ``device``, with the best weights seen on held-out cells.
    history : list of dict
        One record an epoch; epoch 0 is the anchor.
    """
    with torch.inference_mode(False), torch.enable_grad():
        generator = torch.Generator().manual_seed(seed)
        held, kept = hold_out(len(values), plan.validation_fraction, groups, generator)
        home = exact_device(device)
        now = time.monotonic()
        start_deadline = now + START_SHARE * (plan.deadline - now)
        x, o = (torch.tensor(array, device=device) for array in (values, observed))
        if start is None:
            table = values, observed, n_levels
            network = _begin(
                table,
                x.to(home),
                o.to(home),
                size,
                kept,
                generator,
                self_masking,
                start_deadline,
            )
        else:
            network = _go_on(
                start, x.to(home), o.to(home), kept, generator, start_deadline
            )
        place(network, device)
        history = []
        validation = None
        if time.monotonic() > plan.end:  # then the figure of a few rows has to do
            held = held[: max(MIN_LATE_ROWS, MAX_LATE_CELLS // values.shape[1])]
        if len(held):
            validation = Validation(network, x[held], o[held], generator)
        if validation and validation.hidden.sum() >= MIN_VALIDATION_CELLS:
            # The rest of the time is for what comes after the epochs.
            now = time.monotonic()
            end = now + TRAINING_SHARE * (plan.deadline - now)
            epochs = replace(plan, deadline=end)
            trainer = Trainer(network, x[kept], o[kept], epochs, seed, units)
            history = run_epochs(trainer, validation)
            trainer.replayed = None  # a graph holds memory
            if plan.max_epochs:  # else the anchor alone
                warped = network.warp(x[kept])
                told = warped, o[kept], validation, generator
                fit_memory(network, *told, plan.end)
                fit_retrieval(network, *told, plan.end)
        _use_every_row(network, x, o, n_bootstraps, self_masking, generator, plan.end)
        network.zero_grad(set_to_none=True)
        network.eval()
        return network, history


def _use_every_row(network, x, o, n_bootstraps, self_masking, generator, end):
    """Fit the final anchor, its replicas and slopes; the correction on it stays."""
    home = exact_device(x.device)
    warped = network.warp(x)
    table = warped.to(home), o.to(home)
    ridge, weakest = network.ridges
    if time.monotonic() < end:  # else the one of the rows kept has to do
        network.prior = _prior(network, *table, ridge, generator, end)
    network.replicas += [
        bootstrap_prior(network, *table, weakest, generator, end)
        for _ in range(n_bootstraps)
    ]
    network.slopes = np.zeros(x.shape[1])
    if self_masking and time.monotonic() < end:
        _tilt(network, warped, o, self_masking, generator)


def _begin(table, x, o, size, kept, generator, self_masking, deadline):
    """Make an untrained network where ``x`` and ``o`` are, the table's tensors."""
    for n_folded in (MAX_FOLDED_AT_RANDOM, MAX_FOLDED):
        network = _untrained(table, x, o, size, kept, generator, n_folded, deadline)
        coordinates = network.anchor.coordinates
        is_wide = coordinates.folds is not None and coordinates.n_all > MAX_FOLDED
        if not is_wide or not self_masking:
            break
        if self_masking == "auto" and not is_suspected(
            network, network.warp(x), o, generator
        ):
            break
    return network


def _untrained(table, x, o, size, kept, generator, n_folded, deadline):
    values, observed, n_levels = table
    scores = score_levels(x, o, n_levels, kept)
    warp, ridge, weakest = choose_coordinates(
        x[kept], o[kept], scores, generator, n_folded=n_folded, deadline=deadline
    )
    anchor = fit_anchor(
        warp(x)[kept], o[kept], scores, ridge, generator, deadline=deadline
    )
    network = build_network(values, observed, warp, anchor, size, generator)
    network.ridges = ridge, weakest
    return place(network, x.device)


def _go_on(start, x, o, kept, generator, deadline):
    """Copy a network, its anchor fitted to the rows kept."""
    network = place(copy.deepcopy(start), x.device)
    network.replicas = nn.ModuleList()
    network.is_tilted = False
    network.memory = network.retrieval = None
    ridge, _ = network.ridges
    warped = network.warp(x)[kept]
    network.prior = _prior(network, warped, o[kept], ridge, generator, deadline)
    return network


def _prior(network, warped, observed, ridge, generator, deadline):
    """Fit the anchor anew, from where it is, and the margins on top of it."""
    coordinates = network.anchor.coordinates
    anchor = fit_anchor(
        warped,
        observed,
        coordinates,
        ridge,
        generator,
        start=network.anchor,
        deadline=deadline,
    )
    return Prior(anchor, [head.margin(anchor) for head in network.heads])


def _tilt(network, warped, observed, self_masking, generator):
    """Tilt posteriors by what the missing cells' own values seem to have decided."""
    decide = self_masking == "auto"
    found = find_selection(network, warped, observed, generator, decide=decide)
    if found is not None:
        network.slopes = found.slopes
        network.tilt(found.tilts)


def automatic_size(name, observed):
    """`NetworkSize` of a name; ``"auto"`` chooses by the number of observed cells."""
    if name == "auto":
        name = "medium" if observed.sum() > 60_000 else "small"
    return SIZES[name]
