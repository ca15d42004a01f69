"""Which coordinates and which ridge the anchor takes, decided by hidden cells."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch

from ..._shared.devices import in_threads
from ..._shared.weights import some_weights, total_weight, weighted
from .column_anchor import fitter
from .gaussian import MIN_SD, GaussianAnchor
from .median_distances import MedianDistances
from .power_transform import PowerTransform

# Cells that candidates are compared on, and rows times columns cubed, which the
# factorisations cost; both with median distances too.
MAX_TUNING_CELLS, MAX_TUNING_WORK = 100_000, 100_000_000
MAX_DISTANCE_CELLS, MAX_DISTANCE_WORK = 200_000, 800_000_000
MIN_TUNING_ROWS, TUNING_ITER = 300, 15
MIN_ROWS = 6
# Share of the time left that the fit of a power transform may take; the time is
# estimated from one column in so many.
TRANSFORM_SHARE, TIMED_COLUMNS = 0.5, 64
# A ridge that adds a smaller part to the variances changes no interval.
MIN_EXCESS = 1e-4


@dataclass(frozen=True)
class CoordinateSettings:
    """How the coordinates of the anchor are chosen. "NOTES" is benchmarks/NOTES.md.

    Parameters
    ----------
    power_transforms : bool
        Try power transforms. (NOTES, the ablation of cells.)
    max_coordinates, max_coordinates_at_random : int
        Coordinates of a table that gets median distances, these included; the second
        where no column seems to hide its own values. (NOTES, "Up to 64 coordinates":
        with more than 48, distances mislead where cells far from the median are lost.)
    min_distance_gain : float
        Share of the squared error that median distances have to save, for the time
        that they cost. (Not measured.)
    min_transform_gain : float
        Share that power transforms have to save beside median distances. (Not
        measured.)
    max_bend : float
        Where power transforms save more without distances, they stay. (Not measured.)
    n_folds : int
        Every so many-th row is held out; small tables take all turns. (Not measured.)
    one_fold_cells : int
        Tables of so many cells take one turn. (Not measured.)
    hide_rate : float
        Share of the cells of held-out rows that are hidden: that of the protocol of
        DiffPuter (arXiv:2405.20690).
    as_good : float
        Squared error, relative to the best, within which a weaker ridge is taken for
        draws. (Not measured.)
    min_relief : float
        Nats a cell that variances have to gain without the ridge's share. (Not
        measured.)
    error_reach : float
        Errors beyond it, in standard deviations, count as much: with distances, a few
        outliers in long tails would otherwise choose. (Not measured.)
    """

    power_transforms: bool = True
    max_coordinates: int = 48
    max_coordinates_at_random: int = 64
    min_distance_gain: float = 0.01
    min_transform_gain: float = 0.05
    max_bend: float = 0.1
    n_folds: int = 3
    one_fold_cells: int = 20_000
    hide_rate: float = 0.3
    as_good: float = 1.003
    min_relief: float = 0.005
    error_reach: float = 3.0


DEFAULT = CoordinateSettings()


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
    n_counted : int, optional
        Only the errors of so many coordinates, the first ones, count.
    deadline : float
        Of `time.monotonic`; after it only the first ridge is tried, in few iterations.
    settings : CoordinateSettings
    row_weight : float tensor of shape (n,), optional
        Weights of the rows, with a mean near 1.
    """

    def __init__(
        self,
        values,
        observed,
        column,
        generator,
        *,
        n_counted=None,
        deadline=math.inf,
        settings=DEFAULT,
        row_weight=None,
    ):
        self.n_counted, self.deadline, self.settings = n_counted, deadline, settings
        self.reach = torch.inf if n_counted is None else settings.error_reach
        n, d = values.shape
        n_columns = int(column.max()) + 1
        weight = 1.0 / torch.bincount(column, minlength=n_columns).clamp_min(1)
        self.weight = weight[column].double().cpu()
        limits = MAX_TUNING_CELLS, MAX_TUNING_WORK
        if n_counted is not None:
            limits = MAX_DISTANCE_CELLS, MAX_DISTANCE_WORK
        affordable = min(limits[0] // d, limits[1] // d**3)
        n_rows = min(n, max(MIN_TUNING_ROWS, affordable))
        order = torch.randperm(n, generator=generator)[:n_rows].to(values.device)
        self.values, self.observed = values[order], observed[order]
        self.row_weight = some_weights(row_weight, order)
        self.fold = torch.arange(n_rows, device=values.device) % settings.n_folds
        n_cells = n_rows * (n_counted or d)
        self.n_folds = settings.n_folds if n_cells < settings.one_fold_cells else 1
        hide = torch.rand(n_rows, n_columns, generator=generator) < settings.hide_rate
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
                    weight=some_weights(self.row_weight, kept),
                )
                errors[i] = self._error(warp, anchor, warped, held)
                error = float(self.total(errors[i]))
                best = min(best, error)
                # Far past the valley: what is rougher still can only be worse.
                if error > 1.5 * best or self.is_late:
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
        return errors[..., : self.n_counted].sum(-1)

    def best(self, warp, ridges):
        """Squared error of every column under the best ridge, that ridge, the weakest.

        The weakest is the smallest whose error is as good as the best.
        """
        errors = self.of(warp, ridges)
        total = self.total(errors).numpy()
        best = int(total.argmin())
        as_good = total <= self.settings.as_good * total[best]
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
            # A strong power runs out of digits far outside: guess the column's mean.
            value = torch.nan_to_num(value, nan=0.0)
            expected += weight * torch.clamp(value, self.low, self.high)
        error = torch.where(hidden, expected - truth, 0.0)
        error = error.clamp(-self.reach, self.reach)
        square = weighted(error.square(), some_weights(self.row_weight, rows))
        return square.sum(0).double().cpu() * self.weight

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
                weight=some_weights(self.row_weight, kept),
            )
            if not isinstance(anchor, GaussianAnchor):
                return False
            values, hidden = self.values[held], self.hidden[held][:, : self.n_counted]
            seen = self.observed[held] & ~self.hidden[held]
            own, own_kept = (some_weights(self.row_weight, r) for r in (held, kept))
            n_kept = total_weight(own_kept, self.values[kept])
            for k, excess in enumerate((0.0, ridge / (n_kept + ridge))):
                anchor.excess = excess
                moments = anchor.condition(values, seen, n_first=self.n_counted)
                found = _nats(*moments, values[:, : self.n_counted], hidden)
                nats[k] += float(weighted(found, own).sum())
            n_cells += float(weighted(hidden, own).sum())
        return nats[0] - nats[1] > self.settings.min_relief * n_cells


def _nats(mean, sd, truth, hidden):
    """Negative log-likelihood of hidden cells, 0 elsewhere; shapes are alike."""
    sd = sd.double().clamp_min(MIN_SD)
    z = (truth - mean).double() / sd
    return torch.where(hidden, 0.5 * z * z + sd.log(), 0.0)


def _near(grid, known):
    """Ridges worth trying where some are known to be best for other coordinates."""
    if not known:
        return grid
    near = {grid.index(ridge) + step for ridge in known for step in (-1, 0, 1)}
    return [grid[k] for k in sorted(near) if 0 <= k < len(grid)]


def choose_coordinates(
    values,
    observed,
    coordinates,
    generator,
    *,
    deadline=math.inf,
    settings=DEFAULT,
    weight=None,
):
    """Power transforms, median distances and ridge with the lowest held-out error.

    Tried are no transforms, powers about the columns' means, powers about any of their
    ends, and the best of these column by column; without median distances and with
    them.

    Parameters
    ----------
    values : float32 tensor of shape (n, d)
        Standardised numbers, codes of levels.
    observed : bool tensor of shape (n, d)
    coordinates : Coordinates
        The median distances, if any, are added to them.
    generator : torch.Generator on the CPU
    deadline : float
        Of `time.monotonic`; after it no further candidates are tried.
    settings : CoordinateSettings
    weight : float tensor of shape (n,), optional
        Weights of the rows, with a mean near 1.

    Returns
    -------
    warp : PowerTransform
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
    options = {"deadline": deadline, "settings": settings, "row_weight": weight}
    judge = HiddenCellError(x, o, coordinates.column, generator, **options)
    warps = [PowerTransform.identity(size).to(device)]
    if len(values) < MIN_ROWS or not n_numeric:
        ridge = weakest = judge.ridges[-1]
        if len(values) >= MIN_ROWS:
            _, ridge, weakest = judge.best(warps[0], judge.ridges)
        return PowerTransform.identity(d).to(device), ridge, weakest
    arrays = x[:, numeric].cpu().numpy(), o[:, numeric].cpu().numpy()
    own = None if weight is None else weight.cpu().numpy()
    for ends in (False, True) if settings.power_transforms else ():
        if _is_beyond(arrays, ends, deadline):
            break
        warp = PowerTransform.fit(*arrays, ends=ends, weight=own).to(device)
        warps.append(warp.spread(numeric, size))
    warp, ridge, weakest, gain = _best_warp(judge, warps)
    if 1 < n_numeric <= settings.max_coordinates - size and not judge.is_late:
        tried = [warp] if gain > settings.max_bend else [warps[0], warp]
        found = _with_distances(x, o, coordinates, tried, ridge, generator, options)
        if found is not None:
            warp, ridge, weakest = found
    warp = warp.select(numeric).spread(coordinates.numeric, d)
    if not judge.is_late and ridge > MIN_EXCESS * len(values):
        _relieve(warp(values), observed, coordinates, ridge, generator, options)
    return warp, ridge, weakest


def _is_beyond(arrays, ends, deadline):
    """Whether power transforms would take most of the time that is left."""
    if deadline == math.inf:
        return False
    started = time.monotonic()
    few = [array[:, ::TIMED_COLUMNS] for array in arrays]
    PowerTransform.fit(*few, ends=ends)
    now = time.monotonic()
    seconds = (now - started) * arrays[0].shape[1] / few[0].shape[1]
    return seconds > TRANSFORM_SHARE * (deadline - now)


def _relieve(warped, observed, coordinates, ridge, generator, options):
    """Free the anchor's variances of the ridge's share where that is likelier."""
    x, o = coordinates.expand(warped, observed)
    column = coordinates.column
    if coordinates.distances is not None:
        column = torch.cat([column, column[: coordinates.n_numeric]])
    n_counted = None if coordinates.distances is None else coordinates.n_base
    judge = HiddenCellError(x, o, column, generator, n_counted=n_counted, **options)
    coordinates.is_relieved = judge.likes_relief(ridge)


def _with_distances(x, o, coordinates, warps, ridge, generator, options):
    """Add median distances to the coordinates, unless they do not help.

    Returns the power transform, the ridge and the weakest ridge with them, or None.
    The last of ``warps`` is the one chosen without distances.
    """
    settings, weight = options["settings"], options["row_weight"]
    size, n_numeric = x.shape[1], coordinates.n_numeric
    numeric, added = slice(n_numeric), slice(size, size + n_numeric)
    distances = MedianDistances(x, o, n_numeric, weight)
    values = torch.cat([x, distances.of(x)], 1)
    seen = torch.cat([o, o[:, numeric]], 1)
    column = torch.cat([coordinates.column, coordinates.column[numeric]])
    judge = HiddenCellError(values, seen, column, generator, n_counted=size, **options)
    arrays = values[:, added].cpu().numpy(), seen[:, added].cpu().numpy()
    own = None if weight is None else weight.cpu().numpy()
    near = _near(judge.ridges, [ridge])
    found = []
    for warp in warps:
        distance_warp = PowerTransform.identity(n_numeric)
        if not warp.is_identity:
            distance_warp = PowerTransform.fit(*arrays, ends=True, weight=own)
        whole = PowerTransform.joined(warp, distance_warp.to(x.device))
        errors, *ridges = judge.best(whole, near)
        found.append((float(judge.total(errors)), whole, *ridges))
        if warps[-1].is_identity:
            break
    # Power transforms bend the lines between columns and distances: they must help.
    error, warp, ridge, weakest = found[0]
    if found[-1][0] < (1 - settings.min_transform_gain) * error:
        error, warp, ridge, weakest = found[-1]
    judge.keep(size)
    before, _, _ = judge.best(warps[-1], near)
    limit = (1 - settings.min_distance_gain) * float(before.sum())
    if judge.is_late:  # then too few ridges were tried
        return None
    if error > limit:
        error, warp, ridge, weakest = found[-1]
    if error > limit:
        return None
    distances.warp, distances.column_warp = warp.select(added), warp.select(numeric)
    coordinates.distances = distances
    return warp.select(slice(size)), ridge, weakest


def _best_warp(judge, warps):
    """Find the best power transform, its ridge, the weakest one, its gain on none."""
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
        warps = [*warps, PowerTransform.of_columns(warps, choice)]
        try_out(warps[-1])
    totals = [float(error.sum()) for error in errors]
    best = int(np.argmin(totals))
    gain = 1 - totals[best] / max(totals[0], 1e-12)
    return warps[best], ridges[best], weakest[best], gain
