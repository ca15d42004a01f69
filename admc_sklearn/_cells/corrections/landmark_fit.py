"""What a landmarks tells, learnt from training rows, and how far it is followed.

Cells of training rows are hidden in turns and regressed on the weights of landmarks.
Cells hidden in held-out rows decide, with those of the last turn, how far each column
follows, and whether the network has a landmarks at all.
"""

from __future__ import annotations

import functools
import math
import time
from dataclasses import dataclass

import torch

from ..._shared.devices import exact_device, in_threads, slices
from ..._shared.held_out import is_gain, some_rows
from ..._shared.linalg import cholesky
from .landmark_regression import CACHED_ELEMENTS, CompletedRows, LandmarkRegression

N_LANDMARKS = 800
# Rows to regress: so many cells, and at least so many rows.
MAX_CELLS, MIN_ROWS = 100_000, 4000
# Observed cells are hidden in so many turns, each to be told by the others. The last
# one decides on the ridges and, beside held-out cells, on the weights.
N_TURNS = 6
# Beyond, distances say little and products cost much.
MAX_COORDINATES = 64
# Of a column.
MIN_CELLS = 40
RIDGES = (0.1, 0.4, 1.5, 6.0)
# Of a landmark with itself. Rows that nearly repeat each other would differ by rounding
# alone in sums over many thousand cells.
JITTER = 0.05
# What a cell of a training row counts beside one of a held-out row.
TRAINED_SHARE = 0.4
# Columns of a symmetric product that are computed at once.
STRIP = 200


class Regression:
    """Ridge regression of one column on the weights of a landmarks's landmarks.

    Fed with cells, turn by turn. The ridge penalises the norm that belongs to the
    kernel. ``among`` are the distances of the landmarks to each other, (M, M).
    """

    def __init__(self, landmarks, column, among):
        self.landmarks, self.column = landmarks, column
        self.kernel = landmarks.attend(landmarks.points.T, among, column)
        # Sums of products of weights are alike, and differences between them decide:
        # in float32 only what is left without the typical weights keeps its digits.
        self.typical = self.kernel.mean(0)
        self.kernel.diagonal().add_(JITTER)
        self.gram = torch.zeros_like(self.kernel)  # its lower half
        self.pull, self.total = torch.zeros_like(self.kernel[:2])
        self.n_cells, self.sum = 0, 0.0

    def features(self, rows, distances):
        """Weights of cells less the typical ones, (N, M)."""
        found = torch.empty_like(distances)
        for part in slices(len(rows), len(self.gram), CACHED_ELEMENTS, rows.device):
            weights = self.landmarks.attend(rows[part], distances[part], self.column)
            torch.sub(weights, self.typical, out=found[part])
        return found

    def feed(self, features, truth):
        """Add cells and their values, (N, M) and (N,)."""
        for lo in range(0, len(self.gram), STRIP):
            strip = features[:, lo : lo + STRIP]
            self.gram[lo:, lo : lo + STRIP].addmm_(features[:, lo:].T, strip)
        self.pull.addmv_(features.T, truth)
        self.total += features.sum(0)
        self.n_cells += len(truth)
        self.sum += float(truth.sum())

    def solve(self, ridges):
        """Coefficients of the weights for every ridge, (M, n_ridges)."""
        here, home = self.pull.device, exact_device(self.pull.device)
        typical, total = self.typical.to(home).double(), self.total.to(home).double()
        cross = torch.outer(total + self.n_cells * typical, typical)
        gram = self.gram.to(home) + cross + torch.outer(typical, total)
        pull = (self.pull.to(home) + self.sum * typical)[:, None]
        kernel, found = self.kernel.to(home), []
        for ridge in ridges:
            root = cholesky(gram.add(kernel, alpha=ridge))
            found.append(torch.cholesky_solve(pull, root))
        return torch.cat(found, 1).to(here, self.pull.dtype)

    def best_ridge(self, features, truth):
        """Ridge with the lowest squared error on cells that it was not fed with.

        Also what the regression with this ridge says of them, (N,).
        """
        solutions = self.solve(RIDGES)
        told = features @ solutions + self.typical @ solutions
        best = int((told - truth[:, None]).square().mean(0).argmin())
        return RIDGES[best], told[:, best]


@torch.no_grad()
def fit_landmarks(network, rows, validation, generator, deadline=math.inf):
    """Fit a landmark regression, as far as hidden cells approve.

    Parameters
    ----------
    network : CompletionNetwork
        Trained.
    rows : Rows
        Tensors in the network's coordinates.
    validation : Validation
        Held-out rows.
    generator : torch.Generator on the CPU
    deadline : float
        Of `time.monotonic`: what is not ready by then is left out.

    Returns
    -------
    LandmarkRegression or None
    """
    if time.monotonic() > deadline:
        return None
    n_coordinates = network.anchor.coordinates.n_base
    if network.encoder is None or n_coordinates > MAX_COORDINATES:
        return None
    network.eval()
    n_rows = max(MIN_ROWS, MAX_CELLS // network.n_columns)
    values, observed = some_rows(n_rows, generator, rows.values, rows.observed)
    known = CompletedRows.of(network, values[:N_LANDMARKS], observed[:N_LANDMARKS])
    landmarks = LandmarkRegression(network, known.coordinates(), len(values))
    fitted = _regress(landmarks, network, values, observed, generator, deadline)
    if fitted is None:
        return None
    columns, last = fitted
    held = CompletedRows.of(network, validation.values, validation.kept)
    hidden = validation.hidden & held.tells()
    hidden[:, ~_is_among(columns, hidden)] = False
    told = landmarks.predict(held.coordinates(), hidden)
    answers = Answers(held, told, validation.truth, hidden)
    landmarks.weight = _weights(answers, last, columns)
    gain = answers.gain(landmarks.weight).view(-1, len(validation.rows)).sum(0)
    # Weights fit the rows that judge them, the better the more weights there are.
    least = 1 + len(columns) / (2 * len(gain))
    gain = torch.cat([gain, TRAINED_SHARE * last.gain(landmarks.weight)])
    return landmarks if is_gain(gain, least) else None


@dataclass
class Answers:
    """Hidden cells, what is believed of them, what a landmarks told and the truth.

    Shape of ``told``, ``truth`` and ``hidden``: (B, d).
    """

    completed: CompletedRows
    told: torch.Tensor
    truth: torch.Tensor
    hidden: torch.Tensor

    def moments(self):
        """Sum errors times what the landmarks would change, and the squares of that."""
        step = torch.where(self.hidden, self.told - self.completed.mean, 0.0)
        error = self.truth - self.completed.mean
        return torch.stack([(step * error).sum(0), step.square().sum(0)])

    def gain(self, weight):
        """Squared error of every row that following the landmarks saves, (B,)."""
        error = self.truth - self.completed.mean
        left = error - self.completed.followed(self.told, weight)
        return torch.where(self.hidden, error.square() - left.square(), 0.0).sum(1)


def _is_among(columns, table):
    """Whether each column of a table is one of some, (d,)."""
    chosen = torch.zeros(table.shape[1], dtype=torch.bool, device=table.device)
    chosen[columns] = True
    return chosen


def _regress(landmarks, network, values, observed, generator, deadline):
    """Fit a landmarks to cells hidden in turns.

    Returns the columns that have enough of them, and the last turn's cells, which the
    regressions were asked before they were fed with them. None where no column has, or
    where there is no time to finish.
    """
    truth = network.warp.inverse(values)
    columns = landmarks.place.ge(0).nonzero()[:, 0].tolist()
    columns = [j for j in columns if int(observed[:, j].sum()) >= MIN_CELLS]
    among = landmarks.distances(landmarks.points.T)
    regressions = {j: Regression(landmarks, j, among) for j in columns}
    turn = torch.randint(N_TURNS, observed.shape, generator=generator)
    turn = turn.to(values.device)
    ridges = {}
    for j in columns:
        landmarks.center[j] = truth[observed[:, j], j].mean()
    for t in range(N_TURNS):
        asked = observed & (turn == t)
        completed = CompletedRows.of(network, values, observed & ~asked)
        asked &= completed.tells()
        rows, told = completed.coordinates(), torch.zeros_like(values)
        distances = landmarks.distances(rows)
        # Columns are regressed in threads; each writes where no other does.
        learn = functools.partial(
            _learn,
            regressions,
            (rows, distances, asked, truth - landmarks.center),
            ridges if t == N_TURNS - 1 else None,
            deadline,
        )
        for j, cells, found in in_threads(learn, columns, values.device):
            told[cells, j] = found + landmarks.center[j]
        if time.monotonic() > deadline:
            return None
    solve = in_threads(lambda j: regressions[j].solve([ridges[j]])[:, 0], columns)
    for j, solution in zip(columns, solve, strict=True):
        landmarks.solution[j] = solution
    asked[:, ~_is_among(columns, asked)] = False
    return (columns, Answers(completed, told, truth, asked)) if columns else None


def _learn(regressions, turn, ridges, deadline, j):
    """Feed column j's regression with a turn's cells, unless it is late.

    Where ``ridges``, a dict, is given, the column's best ridge is put there first.
    Returns the column, its cells and what it is told of them, else nothing of none.
    """
    rows, distances, asked, truth = turn
    cells = asked[:, j].nonzero()[:, 0]
    told = truth[:0, j]
    if time.monotonic() > deadline:
        return j, cells[:0], told
    features = regressions[j].features(rows[cells], distances[cells])
    y = truth[cells, j]
    if ridges is not None:
        ridges[j], told = regressions[j].best_ridge(features, y)
    regressions[j].feed(features, y)
    return j, cells[: len(told)], told


def _weights(held, trained, columns):
    """How far each column follows the landmarks, (d,), by least squares, in [0, 1].

    Of a few held-out cells those that are far off would decide: cells that the network
    was trained on are asked too, for less, since it knows them too well.
    Columns with few cells follow the table: its mean sums are added to their own.
    """
    along, square = held.moments() + TRAINED_SHARE * trained.moments()
    along = along + along.sum() / len(columns)
    square = square + square.sum() / len(columns)
    weight = (along / square.clamp_min(1e-12)).clamp(0.0, 1.0)
    return torch.where(_is_among(columns, held.hidden), weight, 0.0)
