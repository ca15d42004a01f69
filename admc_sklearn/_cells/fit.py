"""Fit of the model of cells: anchor, network, corrections by rows, self-masking."""

from __future__ import annotations

import copy
import time
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from .._shared.contract import Rows
from .._shared.devices import exact_device
from .._shared.held_out import MAX_LOST_ROWS, hold_out
from .._shared.training import run_epochs
from .._shared.weights import some_weights
from .anchor.choose_coordinates import choose_coordinates
from .anchor.column_anchor import fit_anchor
from .anchor.level_scores import score_levels
from .bootstrap import bootstrap_prior
from .corrections.donor_weights import fit_donors
from .corrections.forests import fit_forests
from .corrections.landmark_fit import fit_landmarks
from .corrections.pattern_regression import fit_patterns
from .corrections.self_masking import fit_self_masking, is_suspected
from .model import CellModel
from .network.gaps import find_gaps
from .network.held_out_cells import Validation
from .network.network import build_network
from .network.trainer import CellTrainer

# Of the time there is, for coordinates and anchor; of what is left then, for training.
START_SHARE, TRAINING_SHARE = 0.5, 0.85
MIN_VALIDATION_CELLS = 20


def fit_cells(rows, n_levels, context, *, joint_columns=(), wholes=None, start=None):
    """Fit the model of cells to an incomplete table.

    Parameters
    ----------
    rows : Rows
        Arrays: standardised numbers, float32, and codes of levels.
    n_levels : int array of shape (d,)
        Levels of categorical columns, 0 for numeric ones.
    context : FitContext
    joint_columns : sequence of int array
        Groups of columns that are often missing together.
    wholes : dict, optional
        Those of them that are lost as a whole, by name: they are hidden together where
        the network is judged, and the model's ``lost_error`` is theirs.
    start : CellModel, optional
        Whose training is continued, in its coordinates; it is left as it is.

    Returns
    -------
    model : CellModel
        On the context's device, with the best weights seen on held-out cells.
    history : list of dict
        One record an epoch; epoch 0 is the anchor.
    """
    with torch.inference_mode(False), torch.enable_grad():
        return _Fit(rows, n_levels, context, wholes or {}).run(joint_columns, start)


class _Fit:
    """The state of one fit: its rows as tensors, its generator, its deadlines.

    Parameters
    ----------
    rows : Rows
    n_levels : int array of shape (d,)
    context : FitContext
    wholes : dict
    """

    def __init__(self, rows, n_levels, context, wholes):
        self.wholes = wholes
        self.arrays, self.n_levels, self.context = rows, n_levels, context
        self.plan, self.device = context.plan, context.device
        self.settings = context.settings.cells
        self.generator = torch.Generator().manual_seed(context.seed)
        self.held, self.kept = hold_out(
            len(rows), self.plan.validation_fraction, context.groups, self.generator
        )
        self.table = Rows.tensors(rows, self.device)
        # Anchors are fitted in float64, which MPS does not have.
        self.exact = self.table.to(exact_device(self.device))
        now = time.monotonic()
        self.start_deadline = now + START_SHARE * (self.plan.deadline - now)

    def run(self, joint_columns, start):
        """Fit anchor, network, corrections, and the anchor anew to every row."""
        model = self._begin() if start is None else self._go_on(start)
        model.move_to(self.device)
        history, validation = [], self._hold_out(model.network)
        if validation is not None:
            history = self._train_all(model, validation, joint_columns, start is None)
            if self.plan.max_epochs:  # else the anchor alone
                self._learn_from_rows(model, validation)
            if self.wholes:
                model.judge_wholes(self._some_held(), self.context.seed)
        self._use_every_row(model)
        model.zero_grad(set_to_none=True)
        return model, history

    def _hold_out(self, network):
        """Cells to judge by; None where they are too few, or no time is left for it."""
        if not len(self.held) or time.monotonic() > self.plan.end:
            return None
        rows = self.table[self.held]
        unit = torch.arange(network.n_columns)
        for columns in self.wholes.values():
            unit[columns] = int(columns[0])
        known = rows.values, rows.observed, self.generator, unit, rows.weight
        cells = Validation(network, *known)
        return cells if cells.hidden.sum() >= MIN_VALIDATION_CELLS else None

    def _train_all(self, model, validation, joint_columns, is_new):
        """Train the networks of a model, or make more of them; the first's history.

        Coordinates are chosen by random splits: with few rows, the others choose
        other ones.
        """
        network, others = model.network, list(model.network.others)
        n_networks = 1 + len(others)
        if is_new:
            n_networks = self.settings.n_networks(len(self.kept))
        # The rest of the time is for what comes after the epochs.
        started = time.monotonic()
        end = started + TRAINING_SHARE * (self.plan.deadline - started)
        deadlines = [
            started + (end - started) * (k + 1) / n_networks for k in range(n_networks)
        ]
        history = self._train(network, validation, joint_columns, 0, deadlines[0])
        for k in range(1, n_networks):
            if time.monotonic() > min(end, self.plan.end):
                break
            if is_new:
                other = self._untrained(self.max_coordinates).move_to(self.device)
                others.append(other.network)
                model.ridges += other.ridges
            cells = self._hold_out(others[k - 1])
            if cells is not None:
                self._train(others[k - 1], cells, joint_columns, k, deadlines[k])
        network.others = nn.ModuleList(others)
        return history

    def _train(self, network, validation, joint_columns, k, deadline):
        """Train one network, the k-th; its history."""
        plan, settings = replace(self.plan, deadline=deadline), self.settings.training
        if self.wholes:
            settings = replace(settings, joint_share=settings.whole_share)
        rows, seed = self.table[self.kept], self.context.seed + k
        trainer = CellTrainer(network, rows, plan, seed, joint_columns, settings)
        shards = self.context.shards
        if shards is None:
            history = run_epochs(trainer, validation)
        else:
            history = shards.train(trainer, validation, self.held)
        if len(history) > 1 and network.mean_head is not None:
            validation.weigh_means()
        return history

    def _learn_from_rows(self, model, validation):
        """Learn the corrections by similar training rows, one on top of the other."""
        rows = self._warped(model.network, self.table[self.kept])
        known = rows, validation, self.generator, self.plan.end
        landmarks, donors = self.settings.landmarks, self.settings.donors
        forests, patterns = self.settings.forests, self.settings.patterns
        # Forests take the place of landmarks where a table is small enough for them.
        shape = self.table.values.shape
        has_forests = forests is not None and forests.serves(*shape)
        if landmarks is not None and not has_forests:
            model.landmarks = fit_landmarks(model.network, *known, landmarks)
        if donors is not None:
            model.donors = fit_donors(model, *known, donors)
        if has_forests:
            every = self._warped(model.network, self.table)
            ridge, _ = model.ridges[0]
            known = every, ridge, self.generator, self.plan.end
            model.forests = fit_forests(model.network, *known, forests)
        if patterns is not None:
            held = self._warped(model.network, self.table[self.held])
            model.patterns = fit_patterns(model, rows, held, self.plan.end, patterns)
        error = validation.error_of(model)
        apart = model.without_rows()
        holds_rows = len(apart.corrections) < len(model.corrections)
        model.held_out_errors = (
            error,
            validation.error_of(apart) if holds_rows else error,
        )

    def _some_held(self):
        """Rows held out, no more than blocks are validated on, as arrays."""
        return self.arrays[np.sort(self.held)[:MAX_LOST_ROWS]]

    def _use_every_row(self, model):
        """Fit the final anchor, its replicas and self-masking to held-out rows too."""
        network, end, generator = model.network, self.plan.end, self.generator
        rows = self._warped(network, self.table)
        exact = [
            self._warped(one, self.table).to(exact_device(self.device))
            for one in network.all
        ]
        for one, own, (ridge, _) in zip(network.all, exact, model.ridges, strict=True):
            if time.monotonic() < end:  # else the one of the rows kept has to do
                one.prior = one.prior_for(own, ridge, generator, end)
                if self.context.shards is not None:
                    one.prior = self.context.shards.refit(one, ridge)
        if model.donors is not None:
            model.donors.add(network, rows[self.held])
        if model.patterns is not None:
            model.patterns.learn(network, rows)
        for k in range(self.context.n_bootstraps):
            # In turn, since the networks' average varies less than other tables' do.
            turn = model.turn_of(k)
            _, weakest = model.ridges[turn]
            replica = bootstrap_prior(
                network.all[turn], exact[turn], weakest, generator, end
            )
            model.replicas.append(nn.ModuleList([replica]))
        choice = self.context.self_masking
        if choice and time.monotonic() < end:
            options = {
                "decide": choice == "auto",
                "settings": self.settings.self_masking,
            }
            model.self_masking = fit_self_masking(network, rows, generator, **options)

    @staticmethod
    def _warped(network, rows):
        return Rows(network.warp(rows.values), rows.observed, rows.weight)

    def _begin(self):
        """Make an untrained model."""
        choice = self.context.self_masking
        own = self.settings.gaps if choice else None
        self.gaps = find_gaps(self.arrays, self.n_levels, own)
        limits = self.settings.coordinates
        narrow = limits.max_coordinates
        for max_coordinates in (limits.max_coordinates_at_random, narrow):
            self.max_coordinates = max_coordinates
            model = self._untrained(max_coordinates)
            found = model.network.anchor.coordinates
            is_wide = found.distances is not None and found.n_all > narrow
            if not is_wide or not choice:
                break
            rows = self._warped(model.network, self.exact)
            if choice == "auto" and not is_suspected(
                model.network, rows, self.generator
            ):
                break
        return model

    def _untrained(self, max_coordinates):
        x, o, kept = self.exact.values, self.exact.observed, self.kept
        weight = self.exact.weight
        options = {
            "deadline": self.start_deadline,
            "weight": some_weights(weight, kept),
        }
        own = self.settings.scores, weight, self.context.ordered
        scores = score_levels(x, o, self.n_levels, kept, *own)
        settings = replace(self.settings.coordinates, max_coordinates=max_coordinates)
        warp, ridge, weakest = choose_coordinates(
            x[kept], o[kept], scores, self.generator, settings=settings, **options
        )
        anchor = fit_anchor(
            warp(x)[kept], o[kept], scores, ridge, self.generator, **options
        )
        name = automatic_size(self.context.size, self.arrays.observed)
        size = self.settings.sizes[name]
        own = warp, anchor, size, self.generator, self.settings.mean_head
        network = build_network(
            self.arrays,
            *own,
            ends=self.context.ends,
            ordered=self.context.ordered,
            gaps=self.gaps,
        )
        model = CellModel(network, [(ridge, weakest)], self.wholes)
        return model.move_to(x.device)

    def _go_on(self, start):
        """Copy a model's network, its anchor fitted to the rows kept."""
        network = copy.deepcopy(start.network)
        model = CellModel(network, list(start.ridges), self.wholes)
        model.move_to(self.exact.values.device)
        for one, (ridge, _) in zip(network.all, start.ridges, strict=True):
            rows = self._warped(one, self.exact)[self.kept]
            known = ridge, self.generator, self.start_deadline
            one.prior = one.prior_for(rows, *known)
        return model


def automatic_size(name, observed):
    """Name of a network's size; ``"auto"`` chooses by the number of observed cells."""
    if name == "auto":
        return "medium" if observed.sum() > 60_000 else "small"
    return name
