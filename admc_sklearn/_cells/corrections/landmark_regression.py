"""Landmark regression: what similar training rows held, on top of the network.

A network learns what holds everywhere; what holds only among neighbours takes it more
rows than small tables have. So the mean of a missing cell is also regressed on the
completed rest of its row, by attention to landmarks, completed training rows: their
weights are exp(-distance / width), with the distance summed over the columns, the
kernel of an infinite forest of random cuts (Balog et al., 2016, arXiv:1606.05241).
The regression is ridge regression on these weights (Nystroem's method). `landmark_fit`
fits it and decides how far it is followed, column by column.

The mean of a cell's distribution moves to where the two agree to put it by tilting the
distribution exponentially, so that outcomes stay those of the column.
"""

from __future__ import annotations

import torch

from ..._shared.contract import Correction
from ..._shared.devices import in_threads, slices
from ..network.posterior import NUMBERS

# Of the kernel, in median distances: narrower where there are more rows to resolve
# what is local.
MAX_WIDTH, MIN_WIDTH, WIDTH_POWER, WIDE_ROWS = 2.0, 1.0, 0.3, 1000
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
# And of the distances of the rows that are completed at once.
KEPT_ELEMENTS = 4_000_000


class LandmarkRegression(Correction):
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
        self.register_buffer("points", landmarks.T.contiguous())  # (D, M)
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

    def apply(self, posteriors, rows, network):
        """Move the means of numbers to where similar training rows put them."""
        if not any(posterior.kind == NUMBERS for posterior in posteriors):
            return posteriors
        completed = CompletedRows(network, rows.values, rows.observed, posteriors)
        shift = completed.shift(self)
        return [
            _with_mean_moved(posterior, posterior.cells.gather(shift))
            if posterior.kind == NUMBERS
            else posterior
            for posterior in posteriors
        ]

    def distances(self, rows):
        """Sum of absolute differences to every landmark, (B, D) -> (B, M)."""
        return torch.cdist(rows, self.points.T, p=1.0)

    def attend(self, rows, distances, column):
        """Weights of the landmarks for cells of a column, (N, M).

        ``rows`` (N, D) and ``distances`` (N, M) are those of the cells' rows; the
        column itself is taken off.
        """
        place = self.place[column]
        weights = rows[:, place, None] - self.points[place]
        weights = weights.abs_().sub_(distances).clamp_max_(0.0)
        return weights.div_(self.width).exp_()

    def predict(self, rows, missing):
        """Tell missing cells, (B, d), in own units; 0 elsewhere."""
        found = torch.zeros(missing.shape, device=rows.device)
        cost = self.points.shape[1]
        for part in slices(len(rows), cost, KEPT_ELEMENTS, rows.device):
            distances = self.distances(rows[part])
            for column in missing[part].any(0).nonzero()[:, 0].tolist():
                cells = part.start + missing[part, column].nonzero()[:, 0]
                for some in slices(len(cells), cost, CACHED_ELEMENTS, rows.device):
                    at = cells[some]
                    weights = self.attend(rows[at], distances[at - part.start], column)
                    told = weights @ self.solution[column]
                    found[at, column] = told + self.center[column]
        return found


class CompletedRows:
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
        How far a regression may move a mean.
    """

    def __init__(self, network, values, observed, posteriors):
        self.network, self.values, self.observed = network, values, observed
        self.mean, self.limit = (torch.zeros_like(values) for _ in range(2))
        for posterior in posteriors:
            posterior.cells.scatter_into(self.mean, posterior.point("mean"))
            if posterior.kind == NUMBERS:
                limit = MAX_SHIFT * _spread(posterior)[0][..., 0]
                posterior.cells.scatter_into(self.limit, limit)

    @classmethod
    def of(cls, network, values, observed):
        """Believe what the network says, computed in batches."""

        def believe(part):
            x, o = values[part], observed[part]
            return cls(network, x, o, network(x, o, ~o))

        parts = in_threads(believe, network.row_batches(len(values)), network.device)
        whole = cls(network, values, observed, [])
        if parts:
            whole.mean = torch.cat([part.mean for part in parts])
            whole.limit = torch.cat([part.limit for part in parts])
        return whole

    def tells(self):
        """Whether anything is known of a row, (B, 1): else nothing is remembered."""
        return self.observed.any(1, keepdim=True)

    def coordinates(self):
        """Coordinates of the completed rows, (B, D)."""
        network, home = self.network, self.network.anchor.device
        filled = torch.where(self.observed, self.values, network.warp(self.mean))
        everywhere = torch.ones_like(self.observed)
        coordinates = network.anchor.coordinates
        rows, _ = coordinates.base(filled.to(home), everywhere.to(home))
        return rows.to(self.values.device, torch.float32).clamp(-REACH, REACH)

    def shift(self, regression):
        """How far a regression moves the means, (B, d)."""
        missing = ~self.observed & (regression.weight > 0)
        missing &= self.tells()
        told = regression.predict(self.coordinates(), missing)
        return torch.where(missing, self.followed(told, regression.weight), 0.0)

    def followed(self, told, weight):
        """How far means move that follow what was told, (B, d), by weights (d,)."""
        return torch.clamp(weight * (told - self.mean), -self.limit, self.limit)


def _with_mean_moved(posterior, shift):
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
        logits = plain + power * score
        share = torch.softmax(logits, -1)
    return posterior.with_logits(logits)


def _spread(posterior):
    """Get sd and mean over atoms, (g, T, 1), and the atoms' shares, (g, T, K)."""
    center = posterior.atoms.center[:, None]
    share = torch.softmax(posterior.logits, -1)
    mean = (share * center).sum(-1, keepdim=True)
    variance = (share * (center - mean).square()).sum(-1, keepdim=True)
    return variance.clamp_min(MIN_SPREAD**2).sqrt(), mean, share
