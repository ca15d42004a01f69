"""Fit of the model of modalities: the anchor, epoch 0, and training of the denoiser."""

from __future__ import annotations

import copy
import math
import time

import numpy as np
import torch

from .._shared.devices import exact_device
from .._shared.held_out import deal_folds, hold_out
from .._shared.patterns import choose_patterns
from .._shared.training import run_epochs
from .._shared.weights import some_weights, weighted
from .cross_fit import CrossFit, LatentRows, straightened
from .denoiser import ModalityDenoiser
from .model import BlockModel
from .trainer import (
    MAX_KEPT_SETS,
    BlockTrainer,
    BlockValidation,
    HiddenRows,
    affordable,
)

# The anchors may take this share of the time until the deadline; their posteriors under
# the patterns to train on then take this share of the rest.
START_SHARE, SHAPES_SHARE = 0.5, 0.3
# Coarse anchors whose error is so many times that of a rival are hopeless: finer ones
# and the denoiser have not made up for more (benchmarks/NOTES.md, "Narrow modalities").
HOPELESS = 1.05


def _affordable_kept_sets(cross, deadline):
    """Count the sets of kept modalities that a share of the remaining time allows."""
    if deadline == math.inf:
        return MAX_KEPT_SETS
    started = time.monotonic()
    cross.fitted.anchor._conditional(cross.patterns[-1])
    now = time.monotonic()
    cost = (now - started) * (len(cross.parts) + 1)
    return int(SHAPES_SHARE * max(0.0, deadline - now) / max(cost, 1e-9))


def fit_blocks(rows, modalities, context, start=None, rival=math.inf):
    """Fit anchor and denoiser to rows that may lack modalities.

    Parameters
    ----------
    rows : Rows
        Arrays, standardised.
    modalities : tuple
        Columns of each modality, M int arrays; their fitted encoders; and a bool array
        of shape (M,) that marks modalities that are always available.
    context : FitContext
        Its size is a key of the settings' ``sizes``.
    start : BlockModel, optional
        Model whose denoiser is trained on.
    rival : float
        Error of the lost columns in held-out rows that another model has. It is given
        up early where there is no hope of a lower one.

    Returns
    -------
    model : BlockModel or None
        None where it was given up.
    history : list of dict
    """
    settings = context.settings.blocks
    columns, encoders, fixed = modalities
    values, observed, groups = rows.values, rows.observed, context.groups
    plan, seed = context.plan, context.seed
    device = exact_device(context.device)  # the kernels are in float64
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    parts = [
        encoder.encode(values[:, own], observed[:, own])
        for encoder, own in zip(encoders, columns, strict=True)
    ]
    latents = torch.tensor(np.concatenate([z for z, _ in parts], 1), device=device)
    available = torch.tensor(np.stack([a for _, a in parts], 1), device=device)
    weight = None if rows.weight is None else torch.tensor(rows.weight, device=device)
    sizes = [encoder.n_latents for encoder in encoders]
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    patterns = choose_patterns(available, fixed, rng)
    # The rows that a model of cells holds out, with this seed.
    held, kept = hold_out(
        len(values),
        plan.validation_fraction,
        groups,
        torch.Generator().manual_seed(seed),
    )
    fold = deal_folds(held, kept, groups, rng)
    n_columns = [len(own) for own in columns]
    share = torch.tensor(np.divide(n_columns, sizes), device=device)[owner]

    def is_hopeless(error, count):
        n_cells = float((count * share).sum())
        return error > n_cells * (HOPELESS * rival) ** 2

    now = time.monotonic()
    cross = CrossFit(
        LatentRows(latents, available, owner.to(device), weight),
        patterns,
        fold,
        generator,
        now + START_SHARE * (plan.end - now),
        settings.cross_fit,
        is_hopeless,
    )
    if cross.fitted is None:
        return None, []
    denoiser = ModalityDenoiser(sizes, settings.sizes[context.size], generator)
    if start is not None:
        denoiser = copy.deepcopy(start.denoiser)
    denoiser.to(device)
    diffusion = settings.diffusion
    model = BlockModel(encoders, columns, cross.fitted, denoiser, diffusion).to(device)
    history = []
    if cross.parts:
        limit = _affordable_kept_sets(cross, plan.end)
        some, patterns = affordable(available, patterns, latents.shape[1], rng, limit)
        fold, some = fold[some], torch.as_tensor(some, device=device)
        hidden = HiddenRows(
            model,
            latents[some],
            available[some],
            patterns,
            cross.parts,
            fold,
            some_weights(weight, some),
        )
        model.dependence = dependence(hidden, fixed)
        held = torch.tensor(np.flatnonzero(fold == 0), device=device)
        rest = torch.tensor(np.flatnonzero(fold != 0), device=device)
        trainer = BlockTrainer(model, hidden, rest, plan, seed, settings.training)
        validation = BlockValidation(model, hidden, held, n_columns)
        history = run_epochs(trainer, validation)
        # It sets the gate of the weights that are kept.
        model.lost_error, _ = validation.measure()
        straight = straightened(cross.parts[0])
        error = validation.error_of(straight)
        model.held_out_errors = model.lost_error, error
    return model, history


def dependence(hidden, fixed):
    """Share of each modality's variance that each other one alone explains, (M, M).

    Each row is a completed modality, each column the one it is completed from, beside
    the modalities that are always available, ``fixed``, bool (M,). The shares are of
    rows that the anchor was not fitted to. NaN where no pattern has that modality
    alone.
    """
    n_modalities = hidden.available.shape[1]
    out = np.full((n_modalities, n_modalities), np.nan)
    np.fill_diagonal(out, 1.0)
    free = torch.as_tensor(~fixed, device=hidden.latents.device)
    rows = torch.arange(len(hidden.latents), device=hidden.latents.device)
    for k in range(hidden.kept_set.shape[1]):
        latents, mean, kept, _, lost = hidden.batch(rows, torch.full_like(rows, k))
        for source in range(n_modalities):
            alone = kept[:, source] & (kept[:, free].sum(1) == int(free[source]))
            for target in range(n_modalities):
                own = alone[:, None] & lost & (hidden.owner == target)
                if target == source or not bool(own.any()):
                    continue
                count = weighted(own, hidden.weight).sum(0)
                count = torch.where(count > 0, count, 1)
                known = weighted(torch.where(own, latents, 0.0), hidden.weight)
                center = known.sum(0) / count
                left, total = (
                    weighted(
                        torch.where(own, latents - by, 0.0).square(), hidden.weight
                    ).sum()
                    for by in (mean, center)
                )
                if float(total) > 0:
                    out[target, source] = max(0.0, 1 - float(left / total))
    return out
