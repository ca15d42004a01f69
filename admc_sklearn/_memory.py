"""Memory of training rows: what similar rows held, on top of the network.

A network learns what holds everywhere; what holds only among neighbours takes it more
rows than small tables have. So the mean of a missing cell is also regressed on the
completed rest of its row, by attention to landmarks, completed training rows: their
weights are exp(-distance / width), with the distance summed over the columns, the
kernel of an infinite forest of random cuts (Balog et al., 2016, arXiv:1606.05241).
The regression is ridge regression on these weights (Nystroem's method). How far it is
followed, column by column, is decided by cells hidden in held-out rows.

The mean of a cell's distribution moves to where the two agree to put it by tilting the
distribution exponentially, so that outcomes stay those of the column.
"""

from __future__ import annotations

import math
import time

import torch
from torch import nn

from ._posterior import NumericPosterior
from ._runtime import slices
from ._validation import is_gain

N_LANDMARKS = 800
# Rows to regress: so many cells, and at least so many rows.
MAX_CELLS, MIN_ROWS = 100_000, 4000
# Observed cells are hidden in so many turns, each to be told by the others. The last
# one decides on the ridges.
N_TURNS = 6
# Beyond, distances say little and products cost much.
MAX_COORDINATES = 64
# Of a column.
MIN_CELLS = 40
# Of the kernel, in median distances: narrower where there are more rows to resolve
# what is local.
MAX_WIDTH, MIN_WIDTH, WIDTH_POWER, WIDE_ROWS = 2.0, 1.0, 0.3, 1000
RIDGES = (0.1, 0.4, 1.5, 6.0)
# Of a landmark with itself. Rows that nearly repeat each other would differ by rounding
# alone in sums over many thousand cells.
JITTER = 0.05
# Standardised values beyond it are as far as it.
REACH = 5.0
NEWTON_STEPS = 3
# In standard deviations of the cell's distribution.
MAX_SHIFT = 2.0
MAX_SCORE = 3.0
MIN_SPREAD = 1e-3
MIN_SLOPE = 0.05
# Elements of a matrix of weights that stays in a core's cache.
CACHED_ELEMENTS = 250_000
# Columns of a symmetric product that are computed at once.
STRIP = 200


class Memory(nn.Module):
    """Regression of numeric columns on the rest of a completed row.

    Parameters
    ----------
    network : CompletionNetwork
        Whose rows these are.
    landmarks : float tensor of shape (M, D)
        Coordinates of completed training rows.
    n_rows : int
        Rows to be regressed.

    Attributes
    ----------
    width : float tensor of shape ()
        Of the kernel.
    solution : float tensor of shape (d, M)
        Coefficients of the landmarks' weights.
    center, weight : float tensors of shape (d,)
        Mean of the column, how far the regression is followed.
    """

    def __init__(self, network, landmarks, n_rows):
        super().__init__()
        d = network.n_columns
        self.register_buffer("landmarks", landmarks.T.contiguous())  # (D, M)
        self.register_buffer("solution", landmarks.new_zeros(d, len(landmarks)))
        for name in ("center", "weight"):
            self.register_buffer(name, landmarks.new_zeros(d))
        # Coordinate of each numeric column.
        place = torch.full((d,), -1, device=landmarks.device)
        place[network.numeric] = torch.arange(len(network.numeric), device=place.device)
        self.register_buffer("place", place)
        width = MAX_WIDTH * min(1.0, WIDE_ROWS / n_rows) ** WIDTH_POWER
        typical = self.distances(landmarks)[:, :100].median().clamp_min(1e-3)
        self.register_buffer("width", max(MIN_WIDTH, width) * typical)

    def distances(self, rows):
        """Sum of absolute differences to every landmark, (B, D) -> (B, M)."""
        return torch.cdist(rows, self.landmarks.T, p=1.0)

    def attend(self, rows, distances, columns):
        """Weights of the landmarks for cells of given columns, (N, M).

        ``rows`` (N, D) and ``distances`` (N, M) are those of the cells' rows; a cell's
        own column is taken off. ``columns`` is an int, or of shape (N,).
        """
        place = self.place[columns]
        if place.dim():
            own = rows.gather(1, place[:, None])
        else:
            own = rows[:, place, None]
        weights = own - self.landmarks[place]
        weights = weights.abs_().sub_(distances).clamp_max_(0.0)
        return weights.div_(self.width).exp_()

    def predict(self, rows, missing):
        """Tell missing cells, (B, d), in own units; 0 elsewhere."""
        found = torch.zeros(missing.shape, device=rows.device)
        per_row = max(1, int(missing.sum()) // max(1, len(rows)))
        cost = per_row * self.landmarks.shape[1]
        for part in slices(len(rows), cost, CACHED_ELEMENTS, rows.device):
            row, column = missing[part].nonzero(as_tuple=True)
            here = rows[part]
            weights = self.attend(here[row], self.distances(here)[row], column)
            told = (weights * self.solution[column]).sum(1) + self.center[column]
            found[part][row, column] = told
        return found


class Regression:
    """Ridge regression of one column on the weights of a memory's landmarks.

    Fed with cells, turn by turn. The ridge penalises the norm that belongs to the
    kernel. ``among`` are the distances of the landmarks to each other, (M, M).
    """

    def __init__(self, memory, column, among):
        self.memory, self.column = memory, column
        self.kernel = memory.attend(memory.landmarks.T, among, column)
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
            weights = self.memory.attend(rows[part], distances[part], self.column)
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

    def solve(self, ridge):
        """Coefficients of the weights, (M,)."""
        typical, total = self.typical.double(), self.total.double()
        cross = torch.outer(total + self.n_cells * typical, typical)
        gram = self.gram + cross + torch.outer(typical, total)
        root, _ = torch.linalg.cholesky_ex(gram.add_(self.kernel, alpha=ridge))
        pull = self.pull + self.sum * typical
        return torch.cholesky_solve(pull[:, None], root)[:, 0].to(self.pull.dtype)

    def best_ridge(self, features, truth):
        """Ridge with the lowest squared error on cells that it was not fed with."""
        solutions = torch.stack([self.solve(ridge) for ridge in RIDGES], 1)
        told = features @ solutions + self.typical @ solutions
        errors = (told - truth[:, None]).square().mean(0)
        return RIDGES[int(errors.argmin())]


class Beliefs:
    """Rows, and what is believed of their missing cells while memories are asked.

    Parameters
    ----------
    network : CompletionNetwork
    values : float tensor of shape (B, d), warped
    observed : bool tensor of shape (B, d)
    posteriors : list of CellPosterior
        Of the missing cells.

    Attributes
    ----------
    mean : float tensor of shape (B, d)
        Of missing numbers, in own units, and codes of levels; 0 at observed cells.
    limit : float tensor of shape (B, d)
        How far a memory may move a mean.
    """

    def __init__(self, network, values, observed, posteriors):
        self.network, self.values, self.observed = network, values, observed
        self.mean, self.limit = (torch.zeros_like(values) for _ in range(2))
        for posterior in posteriors:
            posterior.cells.scatter_into(self.mean, posterior.point("mean"))
            if isinstance(posterior, NumericPosterior):
                limit = MAX_SHIFT * _spread(posterior)[0][..., 0]
                posterior.cells.scatter_into(self.limit, limit)

    @classmethod
    def of(cls, network, values, observed):
        """Believe what the network says, computed in batches."""
        parts = []
        for part in network.row_batches(len(values)):
            x, o = values[part], observed[part]
            parts.append(cls(network, x, o, network.plain_posteriors(x, o, ~o)))
        whole = cls(network, values, observed, [])
        if parts:
            whole.mean = torch.cat([part.mean for part in parts])
            whole.limit = torch.cat([part.limit for part in parts])
        return whole

    def coordinates(self):
        """Coordinates of the completed rows, (B, D)."""
        network, home = self.network, self.network.anchor.home
        filled = torch.where(self.observed, self.values, network.warp(self.mean))
        everywhere = torch.ones_like(self.observed)
        coordinates = network.anchor.coordinates
        rows, _ = coordinates.base(filled.to(home), everywhere.to(home))
        return rows.to(self.values.device, torch.float32).clamp(-REACH, REACH)

    def shift(self, memory):
        """How far a memory moves the means, (B, d)."""
        missing = ~self.observed & (memory.weight > 0)
        # Of a row of which nothing is known, nothing is to be remembered.
        missing &= self.observed.any(1, keepdim=True)
        told = memory.predict(self.coordinates(), missing)
        shift = memory.weight * (told - self.mean)
        shift = torch.clamp(shift, -self.limit, self.limit)
        return torch.where(missing, shift, 0.0)


def recalled_posteriors(network, values, observed):
    """Posteriors of all missing cells, corrected by the network's memory."""
    posteriors = network.plain_posteriors(values, observed, ~observed)
    if network.memory is not None:
        beliefs = Beliefs(network, values, observed, posteriors)
        shift = beliefs.shift(network.memory)
        for posterior in posteriors:
            if isinstance(posterior, NumericPosterior):
                _move_mean(posterior, posterior.cells.gather(shift))
    return posteriors


def _move_mean(posterior, shift):
    """Tilt a posterior so that its mean moves by about the shift, (g, T).

    By exp(c t(x)), with t the standardised value, cut where a heavy tail, which has
    next to no weight, would gain all of it.
    """
    center, plain = posterior.atoms.center[:, None], posterior.logits
    spread, start, share = _spread(posterior)
    score = ((center - start) / spread).clamp(-MAX_SCORE, MAX_SCORE)
    goal = (shift[..., None] / spread).clamp(-MAX_SHIFT, MAX_SHIFT)
    power, value = torch.zeros_like(goal), (center - start) / spread
    for _ in range(NEWTON_STEPS):
        mean = (share * value).sum(-1, keepdim=True)
        slope = (share * score * (value - mean)).sum(-1, keepdim=True)
        step = (goal - mean) / slope.clamp_min(MIN_SLOPE)
        power = power + step.clamp(-1.0, 1.0)
        posterior.logits = plain + power * score
        share = torch.softmax(posterior.logits, -1)


def _spread(posterior):
    """Get sd and mean over atoms, (g, T, 1), and the atoms' shares, (g, T, K)."""
    center = posterior.atoms.center[:, None]
    share = torch.softmax(posterior.logits, -1)
    mean = (share * center).sum(-1, keepdim=True)
    variance = (share * (center - mean).square()).sum(-1, keepdim=True)
    return variance.clamp_min(MIN_SPREAD**2).sqrt(), mean, share


@torch.no_grad()
def fit_memory(network, values, observed, validation, generator, deadline=math.inf):
    """Give a network a memory of training rows, weighed by validation cells.

    Parameters
    ----------
    network : CompletionNetwork
        Trained, not tilted.
    values : float tensor of shape (n, d), warped
    observed : bool tensor of shape (n, d)
    validation : Validation
        Held-out rows.
    generator : torch.Generator on the CPU
    deadline : float
        Of `time.monotonic`: a memory that is not ready by then is left out.
    """
    n_coordinates = network.anchor.coordinates.n_base
    if network.encoder is None or n_coordinates > MAX_COORDINATES:
        return
    network.eval()
    n_rows = max(MIN_ROWS, MAX_CELLS // network.n_columns)
    rows = torch.randperm(len(values), generator=generator)[:n_rows]
    rows = rows.to(values.device)
    values, observed = values[rows], observed[rows]
    known = Beliefs.of(network, values[:N_LANDMARKS], observed[:N_LANDMARKS])
    memory = Memory(network, known.coordinates(), len(values))
    fitted = _regress(memory, network, values, observed, generator, deadline)
    if not fitted:
        return
    held = Beliefs.of(network, validation.values, validation.kept)
    memory.weight = _weights(memory, held, validation, fitted)
    error = validation.truth - held.mean
    gain = error.square() - (error - held.shift(memory)).square()
    gain = torch.where(validation.hidden, gain, 0.0).sum(1)
    if is_gain(gain.view(-1, len(validation.rows)).sum(0)):
        network.memory = memory


def _regress(memory, network, values, observed, generator, deadline):
    """Fit a memory to cells hidden in turns; the columns that have enough of them.

    None where there is no time to finish.
    """
    truth = network.warp.inverse(values)
    columns = memory.place.ge(0).nonzero()[:, 0].tolist()
    columns = [j for j in columns if int(observed[:, j].sum()) >= MIN_CELLS]
    among = memory.distances(memory.landmarks.T)
    regressions = {j: Regression(memory, j, among) for j in columns}
    turn = torch.randint(N_TURNS, observed.shape, generator=generator)
    turn = turn.to(values.device)
    ridges = {}
    for j in columns:
        memory.center[j] = truth[observed[:, j], j].mean()
    for t in range(N_TURNS):
        asked = observed & (turn == t)
        rows = Beliefs.of(network, values, observed & ~asked).coordinates()
        distances = memory.distances(rows)
        for j, regression in regressions.items():
            if time.monotonic() > deadline:
                return None
            cells = asked[:, j].nonzero()[:, 0]
            features = regression.features(rows[cells], distances[cells])
            y = truth[cells, j] - memory.center[j]
            if t == N_TURNS - 1:
                ridges[j] = regression.best_ridge(features, y)
            regression.feed(features, y)
    for j, regression in regressions.items():
        memory.solution[j] = regression.solve(ridges[j])
    return columns


def _weights(memory, held, validation, fitted):
    """How far each column follows the memory, (d,), by least squares, in [0, 1].

    Columns with few cells follow the table: their own sums are added to its mean ones.
    """
    chosen = torch.zeros_like(memory.center, dtype=torch.bool)
    chosen[fitted] = True
    hidden = validation.hidden & chosen
    step = memory.predict(held.coordinates(), hidden) - held.mean
    error = validation.truth - held.mean
    along = torch.where(hidden, step * error, 0.0).sum(0)
    square = torch.where(hidden, step.square(), 0.0).sum(0)
    along = along + along.sum() / max(1, len(fitted))
    square = square + square.sum() / max(1, len(fitted))
    weight = (along / square.clamp_min(1e-12)).clamp(0.0, 1.0)
    return torch.where(chosen, weight, 0.0)
