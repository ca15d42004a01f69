"""Fit of the landmark regression, and of the weights by which it counts.

Cells of training rows are hidden in turns and regressed on the weights of landmarks.
The weight of each column is chosen by cells hidden in held-out rows and by those of the
last turn; the regression is dropped where it does not lower their error.
"""

from __future__ import annotations

import functools
import math
import time
from dataclasses import dataclass

import torch

from ..._shared.contract import Rows
from ..._shared.devices import exact_device, in_threads, slices
from ..._shared.held_out import (
    column_weights,
    errors_of_weights,
    is_gain,
    some_rows,
)
from ..._shared.linalg import cholesky
from ..._shared.weights import some_weights, total_weight, weighted, weighted_mean
from .landmark_regression import (
    CACHED_ELEMENTS,
    DEFAULT,
    CompletedRows,
    LandmarkRegression,
)

# Columns of a symmetric product that are computed at once.
STRIP = 200


class Regression:
    """Ridge regression of one column on the weights of landmarks.

    It is fed with cells, turn by turn. The ridge penalises the norm that belongs to the
    kernel.

    Parameters
    ----------
    landmarks : LandmarkRegression
    column : int
    among : float tensor of shape (M, M)
        Distances of the landmarks to each other.
    """

    def __init__(self, landmarks, column, among):
        self.landmarks, self.column = landmarks, column
        self.kernel = landmarks.attend(landmarks.points.T, among, column)
        # Sums of products of weights are large and alike, and their small differences
        # matter: float32 keeps the digits of these only once the mean is taken off.
        self.mean_weights = self.kernel.mean(0)
        self.kernel.diagonal().add_(landmarks.settings.jitter)
        self.gram = torch.zeros_like(self.kernel)  # its lower half
        self.products, self.total = torch.zeros_like(self.kernel[:2])
        self.n_cells, self.sum = 0, 0.0

    def features(self, rows, distances):
        """Weights of cells less the landmarks' mean weights, (N, M)."""
        features = torch.empty_like(distances)
        for part in slices(len(rows), len(self.gram), CACHED_ELEMENTS, rows.device):
            weights = self.landmarks.attend(rows[part], distances[part], self.column)
            torch.sub(weights, self.mean_weights, out=features[part])
        return features

    def feed(self, features, truth, weight=None):
        """Add cells and their values, (N, M) and (N,), by weights (N,), if any."""
        truth, counted = weighted(truth, weight), weighted(features, weight)
        for lo in range(0, len(self.gram), STRIP):
            strip = features[:, lo : lo + STRIP]
            self.gram[lo:, lo : lo + STRIP].addmm_(counted[:, lo:].T, strip)
        self.products.addmv_(features.T, truth)
        self.total += counted.sum(0)
        self.n_cells += total_weight(weight, truth)
        self.sum += float(truth.sum())

    def solve(self, ridges):
        """Coefficients of the weights for every ridge, (M, n_ridges)."""
        device, exact = self.products.device, exact_device(self.products.device)
        mean = self.mean_weights.to(exact).double()
        total = self.total.to(exact).double()
        cross = torch.outer(total + self.n_cells * mean, mean)
        gram = self.gram.to(exact) + cross + torch.outer(mean, total)
        products = (self.products.to(exact) + self.sum * mean)[:, None]
        kernel, solutions = self.kernel.to(exact), []
        for ridge in ridges:
            root = cholesky(gram.add(kernel, alpha=ridge))
            solutions.append(torch.cholesky_solve(products, root))
        return torch.cat(solutions, 1).to(device, self.products.dtype)

    def best_ridge(self, features, truth, weight=None):
        """Ridge with the lowest squared error on cells that it was not fed with.

        Also returns the predictions of these cells with this ridge, (N,).
        """
        ridges = self.landmarks.settings.ridges
        solutions = self.solve(ridges)
        predicted = features @ solutions + self.mean_weights @ solutions
        error = (predicted - truth[:, None]).square()
        best = int(weighted_mean(error, weight).argmin())
        return ridges[best], predicted[:, best]


@torch.no_grad()
def fit_landmarks(
    network, rows, validation, generator, deadline=math.inf, settings=DEFAULT
):
    """Fit a landmark regression, if it lowers the error of hidden cells.

    Parameters
    ----------
    network : CompletionNetwork
        A trained network.
    rows : Rows
        Tensors in the network's coordinates.
    validation : Validation
        Held-out rows.
    generator : torch.Generator on the CPU
    deadline : float
        Time of `time.monotonic` at which an unfinished regression is given up.
    settings : LandmarkSettings

    Returns
    -------
    LandmarkRegression or None
    """
    if time.monotonic() > deadline:
        return None
    n_coordinates = network.anchor.coordinates.n_base
    if network.encoder is None or n_coordinates > settings.max_coordinates:
        return None
    n_rows = max(settings.min_rows, settings.max_cells // network.n_columns)
    values, observed, weight = some_rows(
        n_rows, generator, rows.values, rows.observed, rows.weight
    )
    first = slice(settings.n_landmarks)
    completed = CompletedRows.of(network, values[first], observed[first], settings)
    landmarks = LandmarkRegression(
        network, completed.coordinates(), len(values), settings
    )
    turn = torch.randint(settings.n_turns, observed.shape, generator=generator)
    turn = turn[:, validation.unit].to(values.device)
    known = Rows(values, observed, weight)
    fitted = _regress(landmarks, network, known, turn, deadline)
    if fitted is None:
        return None
    columns, last = fitted
    held = CompletedRows.of(network, validation.values, validation.kept, settings)
    hidden = validation.hidden & held.has_observed()
    hidden[:, ~_is_among(columns, hidden)] = False
    predicted = landmarks.predict(held.coordinates(), hidden)
    known = validation.truth, hidden, validation.weight
    cells = PredictedCells(held, predicted, *known)
    landmarks.weight = _weights(cells, last, columns, settings.trained_share)
    gain = cells.gain(landmarks.weight).view(-1, len(validation.rows)).sum(0)
    least = errors_of_weights(landmarks.weight, gain)
    trained = settings.trained_share * last.gain(landmarks.weight)
    return landmarks if is_gain(torch.cat([gain, trained]), least) else None


@dataclass
class PredictedCells:
    """Hidden cells of completed rows, with the regression's predictions and the truth.

    Shape of ``predicted``, ``truth`` and ``hidden``: (B, d); of ``weight``, that of the
    rows: (B,), or None.
    """

    completed: CompletedRows
    predicted: torch.Tensor
    truth: torch.Tensor
    hidden: torch.Tensor
    weight: torch.Tensor | None = None

    def moments(self):
        """Sum errors times predicted changes, and squared changes, (2, d)."""
        step = torch.where(self.hidden, self.predicted - self.completed.mean, 0.0)
        error = self.truth - self.completed.mean
        products = step * error, step.square()
        return torch.stack([weighted(p, self.weight).sum(0) for p in products])

    def gain(self, weight):
        """Squared error of every row that the predictions save, (B,)."""
        error = self.truth - self.completed.mean
        left = error - self.completed.limited_shift(self.predicted, weight)
        gain = torch.where(self.hidden, error.square() - left.square(), 0.0).sum(1)
        return weighted(gain, self.weight)


def _is_among(columns, table):
    """Whether each column of a table is one of some, (d,)."""
    chosen = torch.zeros(table.shape[1], dtype=torch.bool, device=table.device)
    chosen[columns] = True
    return chosen


def _regress(landmarks, network, rows, turn, deadline):
    """Fit a landmark regression to cells hidden in turns, by the ``turn`` of each.

    Returns the columns that have enough of them, and the last turn's cells, which were
    predicted before the regressions were fed with them. It is None where no column has
    enough, or where there is no time to finish.
    """
    settings, values, observed = landmarks.settings, rows.values, rows.observed
    truth = network.warp.inverse(values)
    columns = landmarks.coordinate.ge(0).nonzero()[:, 0].tolist()
    columns = [j for j in columns if int(observed[:, j].sum()) >= settings.min_cells]
    among = landmarks.distances(landmarks.points.T)
    regressions = {j: Regression(landmarks, j, among) for j in columns}
    ridges = {}
    for t in range(settings.n_turns):
        hidden = observed & (turn == t)
        completed = CompletedRows.of(network, values, observed & ~hidden, settings)
        hidden &= completed.has_observed()
        points, predicted = completed.coordinates(), torch.zeros_like(values)
        distances = landmarks.distances(points)
        # Columns are regressed in threads; each writes where no other does.
        learn = functools.partial(
            _learn,
            regressions,
            (points, distances, hidden, truth, rows.weight),
            ridges if t == settings.n_turns - 1 else None,
            deadline,
        )
        for j, cells, found in in_threads(learn, columns, values.device):
            predicted[cells, j] = found
        if time.monotonic() > deadline:
            return None
    solve = in_threads(lambda j: regressions[j].solve([ridges[j]])[:, 0], columns)
    for j, solution in zip(columns, solve, strict=True):
        landmarks.solution[j] = solution
    hidden[:, ~_is_among(columns, hidden)] = False
    last = PredictedCells(completed, predicted, truth, hidden, rows.weight)
    return (columns, last) if columns else None


def _learn(regressions, turn, ridges, deadline, j):
    """Feed column j's regression with a turn's cells, unless it is late.

    Where ``ridges``, a dict, is given, the column's best ridge is put there first.
    Returns the column, the rows of its predicted cells and their predictions; there
    are none without ``ridges``.
    """
    rows, distances, hidden, truth, weight = turn
    cells = hidden[:, j].nonzero()[:, 0]
    predicted = truth[:0, j]
    if time.monotonic() > deadline:
        return j, cells[:0], predicted
    features = regressions[j].features(rows[cells], distances[cells])
    y, weight = truth[cells, j], some_weights(weight, cells)
    if ridges is not None:
        ridges[j], predicted = regressions[j].best_ridge(features, y, weight)
    regressions[j].feed(features, y, weight)
    return j, cells[: len(predicted)], predicted


def _weights(held, trained, columns, trained_share):
    """By how much each column's predictions count, (d,).

    Among a few held-out cells those with large errors would choose the weights. So
    cells that the network was trained on are added, for a smaller share, since the
    network's own errors are too small there.
    """
    moments = held.moments() + trained_share * trained.moments()
    return column_weights(moments, _is_among(columns, held.hidden))
