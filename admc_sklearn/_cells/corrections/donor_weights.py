"""Weights of donors, learnt and judged on cells hidden in held-out rows."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass

import torch

from ..._shared.contract import Rows
from ..._shared.devices import in_threads
from ..._shared.held_out import is_gain, some_rows
from ..._shared.optimizer import AdamW
from ..._shared.weights import some_weights
from ..network.masked_diffusion import absorb
from ..network.posterior import CellPosterior, PackedCells
from .donors import DEFAULT, Donors, mixed, truncated


def fit_donors(model, rows, validation, generator, deadline=math.inf, settings=DEFAULT):
    """Find donor rows and their weights, if they lower the error of hidden cells.

    Held-out rows are no donors yet: `Donors.add` makes them such.

    Parameters
    ----------
    model : CellModel
        A trained model, with its landmarks, not yet with self-masking.
    rows : Rows
        Tensors in the network's coordinates.
    validation : Validation
        Held-out rows.
    generator : torch.Generator on the CPU
    deadline : float
        Time of `time.monotonic` after which nothing is begun.
    settings : DonorSettings

    Returns
    -------
    Donors or None
    """
    network = model.network
    if network.n_columns > settings.max_columns or time.monotonic() > deadline:
        return None
    limit = settings.limit(network.n_columns)
    known = some_rows(limit, generator, rows.values, rows.observed, rows.weight)
    donors = Donors(network, *known[:2], settings, known[2])
    hidden = hide_and_search(model, donors, validation, generator)
    doubt = min(settings.max_doubt, settings.doubt / len(validation.rows))
    # Numbers and levels are judged apart: donors may help with one kind alone.
    for kind, cells in hidden.items():
        if time.monotonic() > deadline:
            break
        trial = Trial(cells, donors)
        freedom = trial.best_freedom()
        if freedom is not None:
            weight, concentration = trial.learn(freedom)
            donors.use(kind, weight, concentration + doubt)
    return donors if donors.is_used.any() else None


@dataclass
class HiddenCells:
    """Packed hidden cells of held-out rows, their posteriors and their candidates.

    Shape of ``outcome``, the candidates' outcomes: (g, T, R); of ``evidence``, that the
    candidates are donors: (B, R, d, 2), and of their ``fading``: (B, R); of ``truth``,
    the true outcomes: (g, T); of ``row``, the held-out row that each row is: (B,).
    ``half`` is the half of the held-out rows that the cells are from, 0 or 1;
    ``candidates`` are (B, R), and ``weight`` holds the weights of the rows, (B,), or
    None.
    """

    posterior: CellPosterior
    outcome: torch.Tensor
    evidence: torch.Tensor
    fading: torch.Tensor
    truth: torch.Tensor
    row: torch.Tensor
    half: int
    candidates: torch.Tensor
    weight: torch.Tensor | None = None

    def rows(self):
        """Held-out row of every cell, (n,), in the order of `errors`."""
        cells = self.posterior.cells
        return self.row[cells.rows][cells.filled]

    def errors(self, z=None, concentration=None):
        """Score and point's error of every cell, (2, n), without or with donors.

        Shapes of the log-weights of candidates and of the network: (B, R) and (d,).
        """
        posterior, cells = self.posterior, self.posterior.cells
        if z is not None:
            weights = self.outcome, z[cells.rows], concentration[cells.columns]
            posterior = posterior.with_logits(mixed(posterior.logits, *weights))
        errors = posterior.score(self.truth), posterior.point_error(self.truth)
        errors = torch.stack(errors)
        if self.weight is not None:
            errors = errors * self.weight[cells.rows]
        return errors[:, cells.filled]


@torch.no_grad()
def hide_and_search(model, donors, validation, generator):
    """Hide cells of held-out rows and search for donors of these rows.

    Returns
    -------
    dict of lists of HiddenCells
        Lists by the kind of cells.
    """
    network, observed, settings = model.network, validation.known, donors.settings
    n_cells = max(1.0, float(observed.sum()) * settings.hide_rate)
    repeats = max(1, math.ceil(settings.n_cells / n_cells))
    repeats = min(settings.max_repeats, repeats)
    n_rows = math.ceil(len(observed) * min(1.0, settings.n_cells / n_cells))
    values = validation.rows[:n_rows].repeat(repeats, 1)
    observed = observed[:n_rows].repeat(repeats, 1)
    # Rows of one half come first, so that no part has rows of both.
    row = torch.arange(len(observed), device=observed.device) % n_rows
    order = (row % 2).argsort(stable=True)
    values, observed, row = values[order], observed[order], row[order]
    n_first = int((row % 2 == 0).sum())
    noise = torch.rand(observed.shape, generator=generator).to(observed.device)
    rates = _hide_rates(network, observed, settings)
    kept, hidden = absorb(observed, rates, noise)
    found = {}
    ends = 0, n_first, len(observed)
    parts = [
        (half, slice(ends[half] + part.start, min(ends[half] + part.stop, end)))
        for half, end in enumerate(ends[1:])
        for part in network.row_batches(end - ends[half])
    ]
    for half, part in parts:
        x, o = values[part], kept[part]
        candidates, faded = donors.search(x, o)
        evidence = donors.evidence(x, o, candidates)
        truth = network.index(x)
        for posterior in model.posteriors(Rows(x, o)):
            posterior = _restricted(posterior, hidden[part])
            cells = posterior.cells
            found.setdefault(posterior.kind, []).append(
                HiddenCells(
                    posterior,
                    donors.outcomes(candidates, cells),
                    evidence,
                    faded,
                    cells.gather(truth),
                    row[part],
                    half,
                    candidates,
                    some_weights(validation.weight, row[part]),
                )
            )
    return found


def _hide_rates(network, observed, settings):
    """Share of the cells to hide, by column, (d,)."""
    least, most = settings.hide_rate, settings.max_hide_rate
    rates = torch.full(observed.shape[1:], least, device=observed.device)
    for columns in (network.numeric, network.categorical):
        n_cells = max(1, int(observed[:, columns].sum()))
        rates[columns] = min(most, max(least, settings.n_kind_cells / n_cells))
    return rates


class Trial:
    """A trial of donors on hidden cells of one kind.

    One half of the rows can learn weights that the other half judges.

    Parameters
    ----------
    cells : list of HiddenCells
    donors : Donors
    """

    def __init__(self, cells, donors):
        self.cells, self.donors, self.settings = cells, donors, donors.settings
        self.start, self.n_columns = (
            donors.concentration.mean(),
            len(donors.concentration),
        )
        self.n_rows = len(donors.values)

    def errors(self, half, weight=None, concentration=None):
        """Score and point's error of every cell, (2, n), in a half of the rows."""
        errors = [torch.zeros(2, 0, device=self.start.device)]
        evidence, z = None, None
        for cells in self.cells:
            if half not in (None, cells.half):
                continue
            if weight is not None and cells.evidence is not evidence:
                evidence = cells.evidence
                z = truncated(torch.einsum("bkdw,dw->bk", evidence, weight))
                z = z + cells.fading
                z = self.donors.counted(z, cells.candidates)
            errors.append(cells.errors(z, concentration))
        return torch.cat(errors, 1)

    def learn(self, freedom, half=None):
        """Weights (d, 2) and concentrations (d,) with the lowest score on a half."""
        d, settings = self.n_columns, self.settings
        scale, column_scale = (
            settings.concentration_scale,
            settings.column_concentration_scale,
        )
        options = {"device": self.start.device, "requires_grad": True}
        common = torch.full((2,), 0.3, **options)
        own, lift = torch.zeros(d, 2, **options), torch.zeros(d, **options)
        base = (self.start / scale).clone().requires_grad_()
        optimizer = AdamW([common, own, base, lift], 0.0, settings.betas)

        def weights():
            concentration = scale * base + column_scale * lift
            return (common + own).clamp_min(0.0), concentration

        for _ in range(settings.n_steps):
            loss = self.errors(half, *weights())[0].mean()
            loss = loss + settings.weight_penalty / freedom * own.abs().sum()
            squares = (column_scale * lift).square().sum()
            loss = loss + settings.concentration_penalty / freedom * squares
            loss.backward()
            optimizer.step(settings.learning_rate)
        return tuple(part.detach() for part in weights())

    def best_freedom(self):
        """How freely columns may differ; None where donors do not help.

        Donors help where they lower the score by more than its noise, and the point's
        error too, which is noisier. Weights are learnt on one half of the rows and
        judged by the other.
        """
        settings, found = self.settings, None
        row_gain = settings.min_gain_of_max_rows / settings.max_rows
        best = max(settings.min_gain, row_gain * self.n_rows)
        with torch.no_grad():
            before = torch.cat([self.errors(half) for half in (1, 0)], 1)
        if before.shape[1] < 2:
            return None
        rows = [c.rows() for half in (1, 0) for c in self.cells if c.half == half]
        names, row = torch.cat(rows).unique(return_inverse=True)

        def judge(trial):
            freedom, half = trial
            with torch.enable_grad():
                weights = self.learn(freedom, half)
            with torch.no_grad():
                return self.errors(1 - half, *weights)

        trials = list(itertools.product(settings.freedoms, (0, 1)))
        after = in_threads(judge, trials, self.start.device)
        for k, freedom in enumerate(settings.freedoms):
            gain = before - torch.cat(after[2 * k : 2 * k + 2], 1)
            share = float((gain.mean(1) / before.mean(1).clamp_min(1e-12)).sum())
            score, point = gain.new_zeros(2, len(names)).index_add_(1, row, gain)
            helps = is_gain(score) and is_gain(point, settings.min_point_errors)
            if helps and share > best:
                best, found = share, freedom
        return found


def _restricted(posterior, targets):
    """Leave only the given cells, (B, d), in a posterior."""
    old = posterior.cells
    slots = torch.zeros(targets.shape, dtype=torch.long, device=targets.device)
    every = torch.arange(old.rows.shape[1], device=targets.device)
    old.scatter_into(slots, every.expand_as(old.rows))
    cells = PackedCells.from_mask(targets, old.columns[:, 0])
    at = cells.gather(slots)[..., None]
    at = at.expand(-1, -1, posterior.logits.shape[-1])
    return posterior.of_cells(cells, posterior.logits.gather(1, at))
