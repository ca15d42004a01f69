"""The weights of donors, learnt and approved of on cells of held-out rows."""

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
from ..network.masked_diffusion import absorb
from ..network.posterior import PackedCells
from .donors import Donors, mixed, truncated

# Rows to search: so many cells, within these numbers of rows.
MAX_CELLS, MIN_ROWS, MAX_ROWS = 400_000, 2000, 16_384
MAX_COLUMNS = 256
# Hidden cells that decide, the share of a row's that is hidden, and how often rows may
# take turns.
N_CELLS, HIDE_RATE, MAX_REPEATS = 5000, 0.15, 6
# Of the numbers and of the levels at least so many, for up to this share of them: of a
# few hundred cells the weights are noise, and so is what they gain.
N_KIND_CELLS, MAX_HIDE_RATE = 4000, 0.5
N_STEPS = 40
RATE, BETAS = 0.05, (0.9, 0.999)
# Weights that few held-out rows taught are too sure of themselves: the log-weight of
# the network grows by this over the number of these rows, up to a limit.
DOUBT, MAX_DOUBT = 100.0, 2.0
# How much faster than weights priors are learnt.
BASE_UNIT, LIFT_UNIT = 8.0, 3.0
# Of columns' weights and priors that differ from those of the table: tried in turn.
WEIGHT_PENALTY, PRIOR_PENALTY = 2e-3, 2e-4
FREEDOMS = (1.0, 0.03)
# Of the score and of the point's error together: less is not worth the search, which
# takes the longer the more rows are searched.
MIN_GAIN, MIN_ROW_GAIN = 5e-3, 4e-2 / MAX_ROWS
# Of the point's error alone, in standard errors.
MIN_POINT_ERRORS = 0.5


def fit_donors(model, rows, validation, generator, deadline=math.inf):
    """Find donor rows and their weights, where held-out cells approve.

    Parameters
    ----------
    model : CellModel
        Trained, with its landmarks, not yet with self-masking.
    rows : Rows
        Tensors in the network's coordinates.
    validation : Validation
        Held-out rows.
    generator : torch.Generator on the CPU
    deadline : float
        Of `time.monotonic`: nothing is begun after it.

    Returns
    -------
    Donors or None
    """
    network = model.network
    if network.n_columns > MAX_COLUMNS or time.monotonic() > deadline:
        return None
    model.eval()
    limit = min(MAX_ROWS, max(MIN_ROWS, MAX_CELLS // network.n_columns))
    values, observed = some_rows(limit, generator, rows.values, rows.observed)
    donors = Donors(network, values, observed)
    asked = ask(model, donors, validation, generator)
    doubt = min(MAX_DOUBT, DOUBT / len(validation.rows))
    # Numbers and levels by themselves: one may be told where the other is not.
    for kind, told in asked.items():
        if time.monotonic() > deadline:
            break
        trial = Trial(told, donors)
        freedom = trial.best_freedom()
        if freedom is not None:
            weight, prior = trial.learn(freedom)
            donors.follow(kind, weight, prior + doubt)
    if not donors.is_followed.any():
        return None
    values = torch.cat([values, validation.rows])[:limit]
    observed = torch.cat([observed, validation.known])[:limit]
    donors.store(network, values, observed)
    return donors


@dataclass
class Asked:
    """Packed hidden cells, what the network says of them and what is retrieved.

    Shape of ``outcome``, that of candidates: (g, T, R); of
    ``told``, the candidates' evidence: (B, R, d, 2); of ``index``, the true outcome:
    (g, T); of ``row``, the held-out row that each row is: (B,). ``half`` is that of the
    held-out rows which the cells are of, 0 or 1.
    """

    posterior: object
    outcome: torch.Tensor
    told: torch.Tensor
    index: torch.Tensor
    row: torch.Tensor
    half: int

    def rows(self):
        """Held-out row of every cell, (n,), in the order of `errors`."""
        cells = self.posterior.cells
        return self.row[cells.rows][cells.filled]

    def errors(self, z=None, prior=None):
        """Score and point's error of every cell, (2, n); without weights as it is."""
        posterior, cells = self.posterior, self.posterior.cells
        if z is not None:
            weights = self.outcome, z[cells.rows], prior[cells.columns]
            posterior = posterior.with_logits(mixed(posterior.logits, *weights))
        errors = posterior.score(self.index), posterior.point_error(self.index)
        return torch.stack(errors)[:, cells.filled]


@torch.no_grad()
def ask(model, donors, validation, generator):
    """Hide cells of held-out rows and search for them: lists of `Asked` by kind."""
    network, known = model.network, validation.known
    n_cells = max(1.0, float(known.sum()) * HIDE_RATE)
    repeats = min(MAX_REPEATS, max(1, math.ceil(N_CELLS / n_cells)))
    n_rows = math.ceil(len(known) * min(1.0, N_CELLS / n_cells))
    values = validation.rows[:n_rows].repeat(repeats, 1)
    known = known[:n_rows].repeat(repeats, 1)
    # Rows of one half come first: no part is of both.
    row = torch.arange(len(known), device=known.device) % n_rows
    order = (row % 2).argsort(stable=True)
    values, known, row = values[order], known[order], row[order]
    n_first = int((row % 2 == 0).sum())
    noise = torch.rand(known.shape, generator=generator).to(known.device)
    kept, hidden = absorb(known, _hide_rates(network, known), noise)
    asked = {}
    ends = 0, n_first, len(known)
    parts = [
        (which, slice(ends[which] + part.start, min(ends[which] + part.stop, end)))
        for which, end in enumerate(ends[1:])
        for part in network.row_batches(end - ends[which])
    ]
    for which, part in parts:
        x, o = values[part], kept[part]
        found = donors.search(x, o)
        told = donors.evidence(x, o, found)
        index = network.index(x)
        for posterior in model.posteriors(Rows(x, o)):
            posterior = _restricted(posterior, hidden[part])
            cells = posterior.cells
            asked.setdefault(posterior.kind, []).append(
                Asked(
                    posterior,
                    donors.outcomes(found, cells),
                    told,
                    cells.gather(index),
                    row[part],
                    which,
                )
            )
    return asked


def _hide_rates(network, known):
    """Share of the cells to hide, by column, (d,)."""
    rates = torch.full(known.shape[1:], HIDE_RATE, device=known.device)
    for columns in (network.numeric, network.categorical):
        n_cells = max(1, int(known[:, columns].sum()))
        rates[columns] = min(MAX_HIDE_RATE, max(HIDE_RATE, N_KIND_CELLS / n_cells))
    return rates


class Trial:
    """What a retrieval finds for hidden cells of one kind.

    Half of the rows can learn weights for the other half to judge.

    Parameters
    ----------
    asked : list of Asked
    donors : Donors
    """

    def __init__(self, asked, donors):
        self.asked = asked
        self.start, self.n_columns = donors.prior.mean(), len(donors.prior)
        self.n_rows = len(donors.rows)

    def errors(self, half, weight=None, prior=None):
        """Score and point's error of every cell, (2, n), in a half of the rows."""
        errors, told, z = [torch.zeros(2, 0, device=self.start.device)], None, None
        for asked in self.asked:
            if half not in (None, asked.half):
                continue
            if weight is not None and asked.told is not told:
                told = asked.told
                z = truncated(torch.einsum("bkdw,dw->bk", told, weight))
            errors.append(asked.errors(z, prior))
        return torch.cat(errors, 1)

    def learn(self, freedom, half=None):
        """Weights, (d, 2), and priors, (d,), with the lowest score on a half."""
        d = self.n_columns
        options = {"device": self.start.device, "requires_grad": True}
        common = torch.full((2,), 0.3, **options)
        own, lift = torch.zeros(d, 2, **options), torch.zeros(d, **options)
        base = (self.start / BASE_UNIT).clone().requires_grad_()
        optimizer = AdamW([common, own, base, lift], 0.0, BETAS)

        def weights():
            prior = BASE_UNIT * base + LIFT_UNIT * lift
            return (common + own).clamp_min(0.0), prior

        for _ in range(N_STEPS):
            loss = self.errors(half, *weights())[0].mean()
            loss = loss + WEIGHT_PENALTY / freedom * own.abs().sum()
            loss = loss + PRIOR_PENALTY / freedom * (LIFT_UNIT * lift).square().sum()
            loss.backward()
            optimizer.step(RATE)
        return tuple(part.detach() for part in weights())

    def best_freedom(self):
        """How freely columns may differ, None where a retrieval does not help.

        It has to lower the score by more than its noise, and the point's error too,
        which is noisier; learnt on one half of the rows and judged by the other.
        """
        best, found = max(MIN_GAIN, MIN_ROW_GAIN * self.n_rows), None
        with torch.no_grad():
            before = torch.cat([self.errors(half) for half in (1, 0)], 1)
        if before.shape[1] < 2:
            return None
        rows = [a.rows() for half in (1, 0) for a in self.asked if a.half == half]
        names, row = torch.cat(rows).unique(return_inverse=True)

        def judge(trial):
            freedom, half = trial
            with torch.enable_grad():
                weights = self.learn(freedom, half)
            with torch.no_grad():
                return self.errors(1 - half, *weights)

        trials = list(itertools.product(FREEDOMS, (0, 1)))
        after = in_threads(judge, trials, self.start.device)
        for k, freedom in enumerate(FREEDOMS):
            gain = before - torch.cat(after[2 * k : 2 * k + 2], 1)
            share = float((gain.mean(1) / before.mean(1).clamp_min(1e-12)).sum())
            by_row = gain.new_zeros(2, len(names)).index_add_(1, row, gain)
            helps = is_gain(by_row[0]) and is_gain(by_row[1], MIN_POINT_ERRORS)
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
