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

import torch
from torch import nn

from ._posterior import NumericPosterior

# The second finds rows that the first has completed better.
MAX_MEMORIES = 2
MAX_ROWS = 4000
N_LANDMARKS = 800
# Observed cells are hidden in so many turns, each to be told by the others.
N_TURNS = 6
# Beyond, distances say little and products cost much.
MAX_COORDINATES = 64
MIN_CELLS, MAX_CELLS = 40, 3000
# Widths of the kernel in median distances.
WIDTH = 2.0
RIDGES = (0.1, 0.5, 2.5, 12.0)
JITTER = 1e-4
# Standardised values beyond it are as far as it.
REACH = 5.0
# Share of a column's cells that decide on the ridge.
HELD_SHARE = 0.2
NEWTON_STEPS = 3
# In standard deviations of the cell's distribution.
MAX_SHIFT = 2.0
MAX_SCORE = 3.0
MIN_SPREAD = 1e-3
MIN_SLOPE = 0.05


class Memory(nn.Module):
    """Regression of numeric columns on the rest of a completed row.

    Parameters
    ----------
    network : CompletionNetwork
        Completes the rows that come in.
    rows : float tensor of shape (n, D)
        Coordinates of completed training rows: the first of them are the landmarks.

    Attributes
    ----------
    landmarks : float tensor of shape (M, D)
    solution : float tensor of shape (d, M)
    center, width, weight : float tensors of shape (d,)
        Mean of the column, width of the kernel, how far the regression is followed.
    """

    def __init__(self, network, rows):
        super().__init__()
        landmarks = rows[:N_LANDMARKS].clone()
        d = network.n_columns
        self.register_buffer("landmarks", landmarks)
        self.register_buffer("solution", landmarks.new_zeros(d, len(landmarks)))
        for name in ("center", "width", "weight"):
            self.register_buffer(name, landmarks.new_zeros(d))
        self.among = self.distances(landmarks)
        # Coordinate of each numeric column.
        self.places = {int(j): k for k, j in enumerate(network.numeric)}

    def attend(self, rows, distances, column):
        """Weights of the landmarks for one column's cells, (B, M).

        ``distances`` are those over all columns; the cell's own is taken off.
        """
        own = self.places[column]
        own = (rows[:, own, None] - self.landmarks[:, own]).abs()
        return torch.exp((own - distances).clamp_max(0.0) / self.width[column])

    def distances(self, rows):
        """Sum of absolute differences to every landmark, (B, D) -> (B, M)."""
        return torch.cdist(rows, self.landmarks, p=1.0)

    def fit_column(self, column, rows, distances, truth):
        """Regress a column's cells, in own units, on the rest of their rows."""
        self.width[column] = WIDTH * distances[:, :100].median().clamp_min(1e-3)
        among = self.attend(self.landmarks, self.among, column)
        among.diagonal().add_(JITTER)
        root = torch.linalg.cholesky(among)
        features = self.attend(rows, distances, column)
        features = torch.linalg.solve_triangular(root, features.T, upper=False).T
        self.center[column] = truth.mean()
        y = truth - self.center[column]
        ridge = _best_ridge(features, y)
        weights = _solve(features.T @ features, features.T @ y, ridge)
        solution = torch.linalg.solve_triangular(root.T, weights, upper=True)
        self.solution[column] = solution[:, 0]

    def predict(self, posteriors, rows, columns=None):
        """Yield numeric posteriors with the regression's means of their cells, (g, T).

        Only of the given columns, or of those that are followed.
        """
        distances = self.distances(rows)
        if columns is None:
            columns = self.weight.nonzero()[:, 0].tolist()
        for posterior in posteriors:
            if not isinstance(posterior, NumericPosterior):
                continue
            cells = posterior.cells
            found = posterior.logits.new_zeros(cells.rows.shape)
            counts = cells.filled.sum(1).tolist()
            for slot, column in enumerate(cells.columns[:, 0].tolist()):
                if counts[slot] and column in columns:
                    own = cells.rows[slot, : counts[slot]]
                    attention = self.attend(rows[own], distances[own], column)
                    found[slot, : len(own)] = attention @ self.solution[column]
            yield posterior, found + self.center[cells.columns]

    def correct(self, posteriors, rows):
        """Move the means of the posteriors of all missing cells of rows, in place."""
        for posterior, found in self.predict(posteriors, rows):
            weight = self.weight[posterior.cells.columns]
            shift = weight * (found - posterior.mean())
            _move_mean(posterior, torch.where(weight > 0, shift, 0.0))


def recalled_posteriors(network, values, observed, anchored=None):
    """Posteriors of all missing cells, corrected by the network's memories."""
    posteriors = network.plain_posteriors(values, observed, ~observed, anchored)
    for memory in network.memories:
        rows = coordinates_of(network, posteriors, values, observed)
        memory.correct(posteriors, rows)
    return posteriors


def coordinates_of(network, posteriors, values, observed):
    """Coordinates of rows completed by the means of posteriors, (B, D)."""
    own = torch.zeros_like(values)
    for posterior in posteriors:
        posterior.cells.scatter_into(own, posterior.point("mean"))
    filled = torch.where(observed, values, network.warp(own))
    everywhere = torch.ones_like(observed)
    home = network.anchor.home
    rows, _ = network.anchor.coordinates.expand(filled.to(home), everywhere.to(home))
    return rows.to(values.device, torch.float32).clamp(-REACH, REACH)


def _move_mean(posterior, shift):
    """Tilt a posterior so that its mean moves by about the shift, (g, T).

    By exp(c t(x)), with t the standardised value, cut where a heavy tail, which has
    next to no weight, would gain all of it.
    """
    center = posterior.atoms.center[:, None]
    plain = posterior.logits
    share = torch.softmax(plain, -1)
    start = (share * center).sum(-1, keepdim=True)
    spread = (share * (center - start).square()).sum(-1, keepdim=True)
    spread = spread.clamp_min(MIN_SPREAD**2).sqrt()
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


def _solve(gram, pull, ridge):
    """Weights of ridge regression by its normal equations, (M, 1)."""
    gram = gram + ridge * torch.eye(len(gram), device=gram.device)
    return torch.cholesky_solve(pull[:, None], torch.linalg.cholesky(gram))


def _best_ridge(features, y):
    """Ridge with the lowest squared error on rows held out, the last ones."""
    held = torch.arange(len(y), device=y.device) >= (1 - HELD_SHARE) * len(y)
    known = features[~held]
    gram, pull = known.T @ known, known.T @ y[~held]
    weights = torch.cat([_solve(gram, pull, ridge) for ridge in RIDGES], 1)
    errors = (features[held] @ weights - y[held, None]).square().mean(0)
    return RIDGES[int(errors.argmin())]


def fit_memories(network, values, observed, validation, generator):
    """Give a network its memories, one after the other, as long as they help.

    See `fit_memory`.
    """
    for _ in range(MAX_MEMORIES):
        memory = fit_memory(network, values, observed, validation, generator)
        if memory is None:
            break
        network.memories.append(memory)


@torch.no_grad()
def fit_memory(network, values, observed, validation, generator):
    """Fit a memory to training rows, weighed by validation cells.

    Parameters
    ----------
    network : CompletionNetwork
        Trained, not tilted.
    values : float tensor of shape (n, d), warped
    observed : bool tensor of shape (n, d)
    validation : Validation
        Held-out rows.
    generator : torch.Generator on the CPU

    Returns
    -------
    Memory or None
        None where it does not help.
    """
    n_coordinates = len(network.anchor.coordinates.column)
    if network.encoder is None or n_coordinates > MAX_COORDINATES:
        return None
    network.eval()
    rows = torch.randperm(len(values), generator=generator)[:MAX_ROWS]
    rows = rows.to(values.device)
    values, observed = values[rows], observed[rows]
    truth = network.warp.inverse(values)
    memory = Memory(network, _completed(network, values, observed))
    turn = torch.randint(N_TURNS, (1, *observed.shape), generator=generator)
    asked = turn == torch.arange(N_TURNS)[:, None, None]
    asked = asked.flatten(0, 1).to(values.device) & observed.repeat(N_TURNS, 1)
    kept = observed.repeat(N_TURNS, 1) & ~asked
    rows = _completed(network, values.repeat(N_TURNS, 1), kept)
    distances = memory.distances(rows)
    fitted = []
    for column in memory.places:
        cells = asked[:, column].nonzero()[:, 0]
        if len(cells) < MIN_CELLS:
            continue
        order = torch.randperm(len(cells), generator=generator)[:MAX_CELLS]
        cells = cells[order.to(cells.device)]
        own = truth[cells % len(values), column]
        memory.fit_column(column, rows[cells], distances[cells], own)
        fitted.append(column)
    del memory.among
    memory.weight = _weights(network, memory, validation, fitted)
    return memory if bool((memory.weight > 0).any()) else None


def _completed(network, values, observed):
    """Coordinates of completed rows, (n, D)."""
    parts = []
    for part in network.row_batches(len(values)):
        x, o = values[part], observed[part]
        posteriors = recalled_posteriors(network, x, o)
        parts.append(coordinates_of(network, posteriors, x, o))
    return torch.cat(parts)


def _weights(network, memory, validation, fitted):
    """How far each column follows the memory, (d,), by least squares, in [0, 1].

    Columns with few cells follow the table: their own sums are added to its mean ones.
    """
    products = torch.zeros(2, network.n_columns, dtype=torch.float64)
    for part, anchored in zip(validation.parts, validation.anchored, strict=True):
        x, o = validation.values[part], validation.kept[part]
        hidden, truth = validation.hidden[part], validation.truth[part]
        posteriors = recalled_posteriors(network, x, o, anchored)
        rows = coordinates_of(network, posteriors, x, o)
        for posterior, found in memory.predict(posteriors, rows, fitted):
            cells = posterior.cells
            mean = posterior.mean()
            known = cells.gather(hidden) & cells.filled
            step = torch.where(known, found - mean, 0.0)
            error = cells.gather(truth) - mean
            columns = cells.columns[:, 0].cpu()
            products[0, columns] += (step * error).sum(1).double().cpu()
            products[1, columns] += step.square().sum(1).double().cpu()
    chosen = torch.zeros(network.n_columns, dtype=torch.bool)
    chosen[fitted] = True
    products = torch.where(chosen, products, 0.0)
    together = products.sum(1) / max(1, len(fitted))
    along, square = products + together[:, None]
    weight = (along / square.clamp_min(1e-12)).clamp(0.0, 1.0)
    return torch.where(chosen, weight, 0.0).float().to(memory.landmarks.device)
