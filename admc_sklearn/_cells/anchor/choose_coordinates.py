"""Which coordinates and which ridge the anchor takes, decided by hidden cells."""

from __future__ import annotations

import math
import time

import numpy as np
import torch

from ..._shared.devices import in_threads
from .column_anchor import fitter
from .gaussian import MIN_SD, GaussianAnchor
from .median_distances import Folds
from .power_transform import Warp

# Cells that decide: with more, the candidates' errors hardly change.
MAX_TUNING_CELLS = 100_000
# Rows times columns cubed: what the factorisations cost.
MAX_TUNING_WORK = 100_000_000
MIN_TUNING_ROWS = 300
TUNING_ITER = 15
# Every third row is held out; small tables take all three turns.
N_FOLDS = 3
MIN_CELLS_FOR_ONE_FOLD = 20_000
HIDE_RATE = 0.3
MIN_ROWS = 6
# Squared error, relative to the best, that says nothing about a ridge.
AS_GOOD = 1.003
# Folds cost time: a smaller share of the squared error is not worth it.
MIN_FOLD_GAIN = 0.01
# Coordinates, folds included. With more than 48 (gesture) a row's folds tell so much of
# each other that they mislead where cells far from the median are missing.
MAX_FOLDED, MAX_FOLDED_AT_RANDOM = 48, 64
MIN_WARP_GAIN = 0.05
# Share of the time left that the fit of a warp may take, judged by one in so many
# columns.
WARP_SHARE, TIMED_COLUMNS = 0.5, 64
# Nats a cell that variances without what the ridge adds to them have to gain.
MIN_RELIEF = 0.005
# A smaller part of the variances, added by the ridge, changes no interval.
MIN_EXCESS = 1e-4
# Where a warp gains more than this without folds, columns are bent and stay so.
MAX_BEND = 0.1
# Larger errors decide nothing: with folds, a few outliers in long tails would.
ERROR_REACH = 3.0
MAX_FOLD_CELLS, MAX_FOLD_WORK = 200_000, 800_000_000


class HiddenCellError:
    """Squared error of anchors on cells hidden in held-out rows.

    Errors are taken in the columns' own units, of the mean within the observed range:
    the figure that the imputer is judged by.

    Parameters
    ----------
    values : tensor of shape (n, d), standardised
    observed : bool tensor of shape (n, d)
    column : int tensor of shape (d,)
        Coordinates of one column go missing together and count as one.
    generator : torch.Generator on the CPU
    n_told : int, optional
        Coordinates that count; the rest tell, and are told for nothing. All of them.
    deadline : float
        Of `time.monotonic`; after it only the first ridge is tried, in few iterations.
    """

    def __init__(
        self, values, observed, column, generator, *, n_told=None, deadline=math.inf
    ):
        self.n_told, self.deadline = n_told, deadline
        self.reach = torch.inf if n_told is None else ERROR_REACH
        n, d = values.shape
        n_columns = int(column.max()) + 1
        weight = 1.0 / torch.bincount(column, minlength=n_columns).clamp_min(1)
        self.weight = weight[column].double().cpu()
        limits = MAX_TUNING_CELLS, MAX_TUNING_WORK
        if n_told is not None:
            limits = MAX_FOLD_CELLS, MAX_FOLD_WORK
        affordable = min(limits[0] // d, limits[1] // d**3)
        n_rows = min(n, max(MIN_TUNING_ROWS, affordable))
        order = torch.randperm(n, generator=generator)[:n_rows].to(values.device)
        self.values, self.observed = values[order], observed[order]
        self.fold = torch.arange(n_rows, device=values.device) % N_FOLDS
        n_cells = n_rows * (n_told or d)
        self.n_folds = N_FOLDS if n_cells < MIN_CELLS_FOR_ONE_FOLD else 1
        hide = torch.rand(n_rows, n_columns, generator=generator) < HIDE_RATE
        self.hidden = hide.to(values.device)[:, column] & self.observed
        self.low = torch.where(observed, values, torch.inf).amin(0)
        self.high = torch.where(observed, values, -torch.inf).amax(0)
        nodes, weights = np.polynomial.hermite_e.hermegauss(7)
        self.nodes, self.weights = nodes, weights / weights.sum()
        self.fit, self.ridges = fitter(*values.shape)

    def of(self, warp, ridges):
        """Sum the squared error for every ridge and column, (n_ridges, d)."""
        warped = warp(self.values)

        def errors_of_fold(fold):
            held, kept = self.fold == fold, self.fold != fold
            errors = torch.zeros(len(ridges), self.values.shape[1], dtype=torch.float64)
            anchor, best = None, torch.inf
            for i in np.argsort(ridges)[::-1]:  # from smooth to rough, warm
                anchor = self.fit(
                    warped[kept],
                    self.observed[kept],
                    ridges[i],
                    anchor,
                    max_iter=TUNING_ITER,
                    deadline=self.deadline,
                )
                errors[i] = self._error(warp, anchor, warped, held)
                told = float(self.total(errors[i]))
                best = min(best, told)
                # Far past the valley: what is rougher still can only be worse.
                if told > 1.5 * best or self.is_late:
                    errors[np.asarray(ridges) < ridges[i]] = 1.5 * errors[i]
                    break
            return errors

        return sum(in_threads(errors_of_fold, range(self.n_folds), warped.device))

    @property
    def is_late(self):
        """Whether there is no time for further candidates."""
        return time.monotonic() > self.deadline

    def keep(self, d):
        """Leave the first coordinates alone, with the same cells hidden."""
        for name in ("weight", "low", "high"):
            setattr(self, name, getattr(self, name)[:d])
        for name in ("values", "observed", "hidden"):
            setattr(self, name, getattr(self, name)[:, :d])

    def total(self, errors):
        """Sum errors (..., d) over the coordinates that count."""
        return errors[..., : self.n_told].sum(-1)

    def best(self, warp, ridges):
        """Squared error of every column under the best ridge, that ridge, the weakest.

        The weakest is the smallest whose error is as good as the best.
        """
        errors = self.of(warp, ridges)
        total = self.total(errors).numpy()
        best = int(total.argmin())
        as_good = total <= AS_GOOD * total[best]
        weakest = min(
            ridge for ridge, good in zip(ridges, as_good, strict=True) if good
        )
        return errors[best], ridges[best], weakest

    def _error(self, warp, anchor, warped, rows):
        hidden, truth = self.hidden[rows], self.values[rows]
        mean, sd = anchor.condition(warped[rows], self.observed[rows] & ~hidden)
        expected = torch.zeros_like(mean)
        nodes = [0.0] if warp.is_identity else self.nodes
        weights = [1.0] if warp.is_identity else self.weights
        for node, weight in zip(nodes, weights, strict=True):
            value = warp.inverse(mean + node * sd)
            # A strong warp runs out of digits far outside: guess the column's mean.
            value = torch.nan_to_num(value, nan=0.0)
            expected += weight * torch.clamp(value, self.low, self.high)
        error = torch.where(hidden, expected - truth, 0.0)
        error = error.clamp(-self.reach, self.reach)
        return error.square().sum(0).double().cpu() * self.weight

    def likes_relief(self, ridge):
        """Whether anchors without what the ridge adds to variances are more likely.

        Values are warped already.
        """
        nats, n_cells = [0.0, 0.0], 0
        for fold in range(self.n_folds):
            held, kept = self.fold == fold, self.fold != fold
            anchor = self.fit(
                self.values[kept],
                self.observed[kept],
                ridge,
                max_iter=TUNING_ITER,
                deadline=self.deadline,
            )
            if not isinstance(anchor, GaussianAnchor):
                return False
            values, hidden = self.values[held], self.hidden[held][:, : self.n_told]
            seen = self.observed[held] & ~self.hidden[held]
            for k, excess in enumerate((0.0, ridge / (int(kept.sum()) + ridge))):
                anchor.excess = excess
                moments = anchor.condition(values, seen, n_asked=self.n_told)
                nats[k] += float(
                    _nats(*moments, values[:, : self.n_told], hidden).sum()
                )
            n_cells += int(hidden.sum())
        return nats[0] - nats[1] > MIN_RELIEF * n_cells


def _nats(mean, sd, truth, hidden):
    """Negative log-likelihood of hidden cells, 0 elsewhere; shapes are alike."""
    sd = sd.double().clamp_min(MIN_SD)
    z = (truth - mean).double() / sd
    return torch.where(hidden, 0.5 * z * z + sd.log(), 0.0)


def _near(grid, known):
    """Ridges worth trying where some are known to be best for other coordinates."""
    if not known:
        return grid
    places = {grid.index(ridge) + step for ridge in known for step in (-1, 0, 1)}
    return [grid[k] for k in sorted(places) if 0 <= k < len(grid)]


def choose_coordinates(
    values,
    observed,
    coordinates,
    generator,
    *,
    n_folded=MAX_FOLDED,
    deadline=math.inf,
):
    """Warp, folds and ridge with the lowest error on hidden cells.

    Warps that are tried are none, powers about the columns' means, powers about any of
    their ends, and the best of these column by column; without folds and with them.

    Parameters
    ----------
    values : float32 tensor of shape (n, d)
        Standardised numbers, codes of levels.
    observed : bool tensor of shape (n, d)
    coordinates : Coordinates
        It is given the folds, if any.
    generator : torch.Generator on the CPU
    n_folded : int
        Coordinates at most, if there are folds.
    deadline : float
        Of `time.monotonic`; after it no further candidates are tried.

    Returns
    -------
    warp : Warp
        Of the columns, those of levels being left as they are.
    ridge : float
    weakest : float
        The smallest ridge as good as it: a ridge shrinks correlations, which costs
        predictions nothing and biases what is estimated from draws.
    """
    device, d = values.device, values.shape[1]
    x, o = coordinates.base(values, observed)
    size, n_numeric = x.shape[1], coordinates.n_numeric
    numeric = slice(n_numeric)
    judge = HiddenCellError(x, o, coordinates.column, generator, deadline=deadline)
    warps = [Warp.identity(size).to(device)]
    if len(values) < MIN_ROWS or not n_numeric:
        ridge = weakest = judge.ridges[-1]
        if len(values) >= MIN_ROWS:
            _, ridge, weakest = judge.best(warps[0], judge.ridges)
        return Warp.identity(d).to(device), ridge, weakest
    arrays = x[:, numeric].cpu().numpy(), o[:, numeric].cpu().numpy()
    for ends in (False, True):
        if _is_beyond(arrays, ends, deadline):
            break
        warp = Warp.fit(*arrays, ends=ends).to(device)
        warps.append(warp.spread(numeric, size))
    warp, ridge, weakest, gain = _best_warp(judge, warps)
    if 1 < n_numeric <= n_folded - size and not judge.is_late:
        tried = [warp] if gain > MAX_BEND else [warps[0], warp]
        found = _folded(x, o, coordinates, tried, ridge, generator, deadline)
        if found is not None:
            warp, ridge, weakest = found
    warp = warp.select(numeric).spread(coordinates.numeric, d)
    if not judge.is_late and ridge > MIN_EXCESS * len(values):
        _relieve(warp(values), observed, coordinates, ridge, generator, deadline)
    return warp, ridge, weakest


def _is_beyond(arrays, ends, deadline):
    """Whether fitting a warp takes most of the time left, by that of some columns."""
    if deadline == math.inf:
        return False
    started = time.monotonic()
    few = [array[:, ::TIMED_COLUMNS] for array in arrays]
    Warp.fit(*few, ends=ends)
    now = time.monotonic()
    seconds = (now - started) * arrays[0].shape[1] / few[0].shape[1]
    return seconds > WARP_SHARE * (deadline - now)


def _relieve(warped, observed, coordinates, ridge, generator, deadline):
    """Decide whether the anchor's variances are freed of what the ridge adds."""
    x, o = coordinates.expand(warped, observed)
    column = coordinates.column
    if coordinates.folds is not None:
        column = torch.cat([column, column[: coordinates.n_numeric]])
    n_told = None if coordinates.folds is None else coordinates.n_base
    judge = HiddenCellError(x, o, column, generator, n_told=n_told, deadline=deadline)
    coordinates.is_relieved = judge.likes_relief(ridge)


def _folded(x, o, coordinates, warps, ridge, generator, deadline):
    """Warp, ridge and weakest ridge with folds, which ``coordinates`` is given.

    None where folds do not help. The last of ``warps`` is that without them.
    """
    size, n_numeric = x.shape[1], coordinates.n_numeric
    numeric, told = slice(n_numeric), slice(size, size + n_numeric)
    folds = Folds(x, o, n_numeric)
    values = torch.cat([x, folds.of(x)], 1)
    seen = torch.cat([o, o[:, numeric]], 1)
    column = torch.cat([coordinates.column, coordinates.column[numeric]])
    judge = HiddenCellError(
        values, seen, column, generator, n_told=size, deadline=deadline
    )
    arrays = values[:, told].cpu().numpy(), seen[:, told].cpu().numpy()
    near = _near(judge.ridges, [ridge])
    found = []
    for warp in warps:
        fold_warp = Warp.identity(n_numeric)
        if not warp.is_identity:
            fold_warp = Warp.fit(*arrays, ends=True)
        whole = Warp.joined(warp, fold_warp.to(x.device))
        errors, *ridges = judge.best(whole, near)
        found.append((float(judge.total(errors)), whole, *ridges))
        if warps[-1].is_identity:
            break
    # Lines between columns and folds are to be kept where a warp hardly helps.
    error, warp, ridge, weakest = found[0]
    if found[-1][0] < (1 - MIN_WARP_GAIN) * error:
        error, warp, ridge, weakest = found[-1]
    judge.keep(size)
    before, _, _ = judge.best(warps[-1], near)
    limit = (1 - MIN_FOLD_GAIN) * float(before.sum())
    if judge.is_late:  # then too few ridges were tried
        return None
    if error > limit:
        error, warp, ridge, weakest = found[-1]
    if error > limit:
        return None
    folds.warp, folds.column_warp = warp.select(told), warp.select(numeric)
    coordinates.folds = folds
    return warp.select(slice(size)), ridge, weakest


def _best_warp(judge, warps):
    """Find the best warp, its best ridge, the weakest one, and its gain on none."""
    errors, ridges, weakest = [], [], []

    def try_out(warp):
        error, ridge, weak = judge.best(warp, _near(judge.ridges, ridges))
        errors.append(error)
        ridges.append(ridge)
        weakest.append(weak)

    for warp in warps:
        try_out(warp)
        if judge.is_late:
            warps = warps[: len(errors)]
            break
    choice = torch.stack(errors).argmin(0).to(warps[0].power.device)
    if not judge.is_late:
        warps = [*warps, Warp.of_columns(warps, choice)]
        try_out(warps[-1])
    totals = [float(error.sum()) for error in errors]
    best = int(np.argmin(totals))
    gain = 1 - totals[best] / max(totals[0], 1e-12)
    return warps[best], ridges[best], weakest[best], gain
