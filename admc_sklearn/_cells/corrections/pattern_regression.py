"""Pattern regression: what rows of one pattern lack, regressed on what they show.

Where many rows lack the same cells, as where modalities are lost as a whole, there are
few patterns, and many rows show what one of them hides. So for each of the commonest
patterns the missing numbers are regressed on the observed cells by kernel ridge
regression: the mean of a Gaussian process. No single kernel serves all tables: columns
that depend on each other smoothly ask for a smooth and wide one (Matern), others for
one with a cusp (Laplace). Each column takes the one whose leave-one-out error is least.
Rows that are held out decide by how much a pattern's predictions count, column by
column, and by how much they make distributions narrower.

A row that is drawn has another pattern after the first round. So draws are made
without this correction, and each number is then moved to the same quantile of the
corrected distribution; see `CellModel`.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from ..._shared.contract import Correction, Rows
from ..._shared.held_out import weigh_steps
from ..._shared.linalg import cholesky
from ..._shared.patterns import choose_patterns, rows_by_pattern
from ..._shared.weights import rooted, some_weights, weighted, weighted_mean
from ..network.posterior import NUMBERS
from ..network.tilt import TiltSettings, longest_shift, with_mean_moved


def _laplace(u):
    return torch.exp(-u)


def _matern(u):
    return (1 + math.sqrt(5) * u + 5 / 3 * u.square()) * torch.exp(-math.sqrt(5) * u)


# Each of a distance over its width: the norm, the width in median distances, the shape.
KERNELS = {
    "Laplace": (2.0, 4.0, _laplace),
    "Matern": (2.0, 4.0, _matern),
    "product of Laplace": (1.0, 8.0, _laplace),
}

# Ratio of variances before and after a correction, at most.
MAX_NARROWING = 100.0


@dataclass(frozen=True)
class PatternSettings:
    """How patterns are regressed. "NOTES" is benchmarks/NOTES.md.

    Parameters
    ----------
    kernels : tuple of str
        Of `KERNELS`. (NOTES, "Pattern regression".)
    ridges : tuple of float
        Candidates, of which each kernel takes its own for every modality that is
        lost. (NOTES, "Pattern regression".)
    n_patterns : int
        Most patterns that are regressed: the commonest of the training rows, then those
        that lose modalities, which lose least first. (Not measured.)
    min_shown, min_share : int, float
        A pattern is common that so many training rows have, and such a share. (Not
        measured.)
    n_rows, min_rows : int
        Most rows of a regression, whose equations are dense, and least. (Not measured.)
    min_held : int
        Held-out rows that have to show a pattern's columns: fewer do not tell a gain
        from luck. (Not measured.)
    max_columns : int
        With more columns nothing is regressed: distances cost much. (Not measured.)
    n_choice_rows : int
        Rows whose leave-one-out errors choose kernel and ridge. (Not measured.)
    reach : float
        Coordinates beyond it, in standard deviations, count as it. (Not measured.)
    tilt : TiltSettings
    """

    kernels: tuple[str, ...] = tuple(KERNELS)
    ridges: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 0.05, 0.2, 1.0)
    n_patterns: int = 8
    min_shown: int = 20
    min_share: float = 0.02
    n_rows: int = 2000
    min_rows: int = 40
    min_held: int = 8
    max_columns: int = 256
    n_choice_rows: int = 600
    reach: float = 8.0
    tilt: TiltSettings = field(default_factory=TiltSettings)


DEFAULT = PatternSettings()


class KernelRegression(nn.Module):
    """Kernel ridge regression of some columns on coordinates of a row.

    All of it is float64, since the solution's large coefficients nearly cancel.

    Parameters
    ----------
    points : float64 tensor of shape (m, k)
        Coordinates of training rows, on a device that has float64.
    targets : float64 tensor of shape (m, t)
    settings : PatternSettings
    weight : float tensor of shape (m,), optional
        Weights of the rows: a ridge is divided by them.

    Attributes
    ----------
    choice : int tensor of shape (t,)
        Kernel of each column.
    kernels, widths, ridges : lists of str, of float and of float
        Each kernel's name in `KERNELS`, its width and its ridge.
    """

    def __init__(self, points, targets, settings=DEFAULT, weight=None):
        super().__init__()
        self.kernels = list(settings.kernels)
        first = slice(settings.n_choice_rows)
        few, own = points[first], some_weights(weight, first)
        self.widths = [self._width(few, *KERNELS[name][:2]) for name in self.kernels]
        errors = self._errors_left_out(few, targets[first], settings.ridges, own)
        # The ridge of a kernel is that which serves all columns, a kernel's error that
        # of each column.
        best = errors.sum(-1).argmin(1)
        self.ridges = [settings.ridges[k] for k in best.tolist()]
        errors = errors[torch.arange(len(best)), best]
        self.register_buffer("choice", errors.argmin(0))
        self.solve(points, targets, weight)

    def _width(self, points, norm, factor):
        distances = torch.pdist(points, p=norm)
        return factor * max(float(distances.median()), 1e-3)

    def weights(self, k, rows, points):
        """Kernel k of rows (n, k) and points (m, k): (n, m)."""
        norm, _, shape = KERNELS[self.kernels[k]]
        exactly = "donot_use_mm_for_euclid_dist"
        distances = torch.cdist(rows, points, p=norm, compute_mode=exactly)
        return shape(distances / self.widths[k])

    def _errors_left_out(self, points, targets, ridges, weight=None):
        """Leave-one-out errors of every kernel, ridge and column."""
        targets = rooted(targets - weighted_mean(targets, weight), weight)
        errors = points.new_empty(len(self.kernels), len(ridges), targets.shape[1])
        for k in range(len(self.kernels)):
            values, vectors = torch.linalg.eigh(self._kernel(k, points, weight))
            rotated = vectors.T @ targets
            for r, ridge in enumerate(ridges):
                inverse = 1 / (values.clamp_min(0) + ridge)
                # A residual that is left out: [K^-1 y]_i / [K^-1]_ii, the ridge in K.
                # With weights both are times the root of the row's.
                solution = vectors @ (inverse[:, None] * rotated)
                residual = solution / (vectors.square() @ inverse)[:, None]
                errors[k, r] = residual.square().mean(0)
        return errors

    def _kernel(self, k, points, weight):
        """Kernel k among points (m, k), times the roots of both rows' weights."""
        kernel = self.weights(k, points, points)
        return kernel if weight is None else rooted(rooted(kernel, weight).T, weight)

    def solve(self, points, targets, weight=None):
        """Fit to rows, with the kernels and ridges that were chosen."""
        center = weighted_mean(targets, weight)
        solution = torch.zeros_like(targets)
        for k in self.choice.unique().tolist():
            kernel = self._kernel(k, points, weight)
            kernel.diagonal().add_(self.ridges[k])
            own = self.choice == k
            residual = rooted(targets[:, own] - center[own], weight)
            found = torch.cholesky_solve(residual, cholesky(kernel))
            solution[:, own] = rooted(found, weight)
        for name, value in {
            "points": points,
            "center": center,
            "solution": solution,
        }.items():
            self.register_buffer(name, value)

    def forward(self, rows):
        """Predict the columns of rows, (n, k) -> (n, t)."""
        out = self.center.repeat(len(rows), 1)
        for k in self.choice.unique().tolist():
            own = self.choice == k
            out[:, own] += self.weights(k, rows, self.points) @ self.solution[:, own]
        return out


class OnePattern(nn.Module):
    """The regressions of one pattern.

    Parameters
    ----------
    observed : bool tensor of shape (d,)
        Columns that the pattern's rows show, all the others being missing.
    weight : float tensor of shape (d,)
        By how much predictions count.
    precision : float tensor of shape (d,)
        By how much they make distributions narrower; see `with_mean_moved`.
    columns : list of int tensor
        Columns that each regression predicts.
    regressions : list of KernelRegression
    """

    def __init__(self, observed, weight, precision, columns, regressions):
        super().__init__()
        self.register_buffer("observed", observed)
        self.register_buffer("weight", weight)
        self.register_buffer("precision", precision)
        self.columns = columns
        self.regressions = nn.ModuleList(regressions)


class PatternRegression(Correction):
    """Moves means of numbers towards the regressions of their row's pattern.

    Parameters
    ----------
    patterns : list of OnePattern
    settings : PatternSettings
    """

    def __init__(self, patterns, settings=DEFAULT):
        super().__init__()
        self.settings = settings
        self.patterns = nn.ModuleList(patterns)

    @property
    def n_rows(self):
        """Training rows of the pattern with the most of them."""
        every = [len(r.points) for p in self.patterns for r in p.regressions]
        return max(every, default=0)

    def rows_of(self, observed):
        """Whether rows have one of the patterns, (B,)."""
        found = [_has(observed, pattern) for pattern in self.patterns]
        return torch.stack(found).any(0)

    def learn(self, network, rows):
        """Fit the regressions to other rows, as they were chosen.

        ``rows`` are tensors in the network's coordinates.
        """
        for pattern in self.patterns:
            for own, regression in zip(
                pattern.columns, pattern.regressions, strict=True
            ):
                known = _known(network, rows, pattern.observed, own, self.settings)
                regression.solve(*known)

    def apply(self, posteriors, rows, network):
        """Move the means of numbers, in rows of the patterns alone."""
        predicted = rows.values.new_zeros(rows.values.shape)
        weight, precision = (torch.zeros_like(predicted) for _ in range(2))
        for pattern in self.patterns:
            take = _has(rows.observed, pattern).nonzero()[:, 0]
            if not len(take):
                continue
            observed = pattern.observed.to(take.device)
            points = inputs(network, rows.values[take], observed, self.settings)
            for columns, regression in zip(
                pattern.columns, pattern.regressions, strict=True
            ):
                found = regression(points).to(predicted)
                predicted[take[:, None], columns] = found
            weight[take] = pattern.weight.to(weight)
            precision[take] = pattern.precision.to(weight)
        if not bool(weight.any()):
            return posteriors
        return [self._moved(p, predicted, weight, precision) for p in posteriors]

    def _moved(self, posterior, predicted, weight, precision):
        if posterior.kind != NUMBERS:
            return posterior
        cells, limit = posterior.cells, longest_shift(posterior, self.settings.tilt)
        step = cells.gather(weight) * (cells.gather(predicted) - posterior.mean())
        step = step.clamp(-limit, limit)
        precision = cells.gather(precision)
        return with_mean_moved(posterior, step, self.settings.tilt, precision)


def _has(observed, pattern):
    """Whether rows (B, d) have a pattern, (B,)."""
    return (observed == pattern.observed.to(observed.device)).all(1)


def inputs(network, values, observed, settings=DEFAULT):
    """Coordinates of a pattern's observed cells, float64 (n, k), where anchors are."""
    base, device = network.anchor.coordinates.base, network.anchor.device
    values, observed = values.to(device, torch.float64), observed.to(device)
    rows, _ = base(values, observed.expand(values.shape))
    _, known = base(values.new_zeros(1, len(observed)), observed[None])
    return rows[:, known[0]].clamp(-settings.reach, settings.reach)


@torch.no_grad()
def fit_patterns(model, rows, held, deadline=math.inf, settings=DEFAULT):
    """Fit regressions of the patterns that matter, where they gain.

    Parameters
    ----------
    model : CellModel
        With ``wholes``, the columns of modalities that are lost as a whole; what its
        corrections so far gain is no gain of these.
    rows, held : Rows
        Tensors in the network's coordinates: training rows, and those held out.
    deadline : float
        In seconds of `time.monotonic`; later no further pattern is fitted.
    settings : PatternSettings

    Returns
    -------
    PatternRegression or None
    """
    if rows.observed.shape[1] > settings.max_columns:
        return None
    fitted = []
    for observed in _patterns(model.wholes, rows.observed, settings):
        if time.monotonic() > deadline:
            break
        pattern = _fit_pattern(model, observed, rows, held, settings)
        if pattern is not None:
            fitted.append(pattern)
    return PatternRegression(fitted, settings) if fitted else None


def _patterns(wholes, observed, settings):
    """Observed columns of patterns: common ones, then those that lose modalities."""
    d = observed.shape[1]
    least = max(settings.min_shown, settings.min_share * len(observed))
    found = sorted(rows_by_pattern(observed), key=lambda found: -len(found[1]))
    chosen = [pattern for pattern, rows in found if len(rows) >= least]
    if wholes:
        groups = list(wholes.values())
        available = torch.stack([observed[:, own].any(1) for own in groups], 1)
        fixed, rng = np.zeros(len(groups), dtype=bool), np.random.default_rng(0)
        kept = choose_patterns(available, fixed, rng)
        for row in kept[kept.sum(1).argsort(descending=True, stable=True)]:
            pattern = torch.ones(d, dtype=torch.bool, device=observed.device)
            for own, is_kept in zip(groups, row.tolist(), strict=True):
                pattern[own] = is_kept
            chosen.append(pattern)
    distinct = {tuple(pattern.tolist()): pattern for pattern in chosen}
    some = [p for p in distinct.values() if bool(p.any()) and not bool(p.all())]
    return some[: settings.n_patterns]


def _groups(wholes, lost):
    """Lost columns (d,) that are regressed together, those of a modality: a list."""
    parts, rest = [], lost.clone()
    for own in wholes.values():
        own = torch.as_tensor(own, device=lost.device)
        parts.append(own[rest[own]])
        rest[own] = False
    parts.append(rest.nonzero()[:, 0])
    return [own for own in parts if len(own)]


def _fit_pattern(model, observed, rows, held, settings):
    """Fit one pattern, or return None where it does not gain."""
    network = model.network
    numeric = torch.zeros_like(observed)
    numeric[network.numeric] = True
    groups = _groups(model.wholes, ~observed & numeric)
    shown = held.observed[:, observed].all(1)
    some = held[shown]
    if len(some) < settings.min_held:
        return None
    hidden = some.observed & ~observed & numeric
    predicted = torch.zeros_like(some.values)
    columns, regressions = [], []
    points = inputs(network, some.values, observed, settings)
    for own in groups:
        known = _known(network, rows, observed, own, settings)
        if len(known[0]) < settings.min_rows:
            hidden[:, own] = False
            continue
        columns.append(own)
        regressions.append(KernelRegression(*known[:2], settings, known[2]))
        predicted[:, own] = regressions[-1](points).to(predicted)
    if not bool(hidden.any()):
        return None
    shown = Rows(some.values, some.observed & observed, some.weight)
    truth = network.warp.inverse(some.values)
    found = _weigh(model, shown, predicted, truth, hidden)
    if found is None:
        return None
    return OnePattern(observed, *found, columns, regressions)


def _known(network, rows, observed, own, settings):
    """Take inputs (m, k), targets (m, t), weights of rows that show both."""
    take = rows.observed[:, observed].all(1) & rows.observed[:, own].all(1)
    take = take.nonzero()[: settings.n_rows, 0]
    values = rows.values[take]
    points = inputs(network, values, observed, settings)
    truth = network.warp.inverse(values)[:, own]
    weight = rows[take].weight
    weight = None if weight is None else weight.to(points)
    return points, truth.to(points), weight


def _weigh(model, rows, predicted, truth, hidden):
    """By how much predictions count in each column, and narrow it; None without a gain.

    Shapes: (B, d); out: (d,) twice.
    """
    network, own = model.network, torch.zeros_like(predicted)
    for part in network.row_batches(len(rows)):
        mean = torch.zeros_like(own[part])
        for posterior in model.posteriors(rows[part], hidden[part]):
            posterior.cells.scatter_into(mean, posterior.point("mean"))
        own[part] = mean
    step = torch.where(hidden, predicted - own, 0.0)
    error = torch.where(hidden, truth - own, 0.0)
    columns = hidden.any(0)
    weight = weigh_steps(step, error, columns, len(step), rows.weight)
    if not bool(weight.any()):
        return None
    # Columns with few cells narrow as the table does, as their weights are the table's.
    left = error - weight * step
    squares = error.square(), left.square()
    total = torch.stack([weighted(s, rows.weight).sum(0) for s in squares])
    before, after = total + total.sum(1, keepdim=True) / columns.sum()
    ratio = (before / after.clamp_min(1e-9)).clamp(1.0, MAX_NARROWING)
    return weight, torch.where(columns, ratio - 1, 0.0)
