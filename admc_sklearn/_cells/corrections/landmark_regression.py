"""Landmark regression: numbers regressed on similar training rows.

A network learns what holds everywhere; to learn what holds only among neighbours it
needs more rows than small tables have. So the mean of a missing cell is also regressed
on the completed rest of its row, by attention to landmarks, completed training rows:
their weights are exp(-distance / width), with the distance summed over the columns, the
kernel of an infinite forest of random cuts (Balog et al., 2016, arXiv:1606.05241).
The regression is ridge regression on these weights (Nystroem's method). `landmark_fit`
fits it, and a weight of each column by which its predictions count.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ..._shared.contract import Correction
from ..._shared.devices import in_threads, slices
from ..network.posterior import NUMBERS
from ..network.tilt import TiltSettings, longest_shift, with_mean_moved

# Elements of a matrix of weights that stays in a core's cache.
CACHED_ELEMENTS = 250_000
# Elements of the distances of the rows that are completed at once.
KEPT_ELEMENTS = 4_000_000


@dataclass(frozen=True)
class LandmarkSettings:
    """How landmarks are fitted and applied. "NOTES" is benchmarks/NOTES.md.

    Parameters
    ----------
    n_landmarks : int
        Training rows that are landmarks. (NOTES, "Landmark regression": 1600 gain
        another 1 % at twice the cost; "One landmark regression instead of two": 600
        lose 0.1 to 0.3 %.)
    max_cells, min_rows : int
        The regressions are fitted to rows of so many cells, and at least to so many
        rows. (NOTES, "More rows in landmark regression, and the same landmarks".)
    n_turns : int
        Observed cells are hidden in so many turns, each predicted from the others.
        The last turn chooses the ridges and, beside held-out cells, the weights.
        (NOTES, "One landmark regression instead of two": four lose up to 0.7 %; "Ten
        turns instead of six": ten gain on one table alone.)
    max_coordinates : int
        With more coordinates of a row there are no landmarks: distances resolve little
        and products cost much. (Not measured.)
    min_cells : int
        Observed cells that a column must have to be regressed. (Not measured.)
    ridges : tuple of float
        Candidates, of which each column takes its own. (NOTES, "Landmark regression":
        a ridge for all columns loses half of the gain on one table; the candidates
        themselves are not measured.)
    jitter : float
        Added to the kernel of a landmark with itself. Rows that nearly repeat each
        other would otherwise differ by rounding alone in sums over many thousand
        cells. (NOTES, "Sums of products instead of whitened weights".)
    trained_share : float
        How much a cell of a training row counts beside one of a held-out row. (NOTES,
        "Landmarks weighed by cells of training rows too".)
    max_width, min_width, width_power, wide_rows : float
        Width of the kernel in median distances: ``max_width`` up to ``wide_rows`` rows,
        and narrower by this power where there are more rows to resolve what is local.
        (NOTES, "More rows in landmark regression, and the same landmarks"; the power
        is not measured.)
    reach : float
        Coordinates beyond it, in standard deviations, count as it. (Not measured.)
    tilt : TiltSettings
    """

    n_landmarks: int = 800
    max_cells: int = 100_000
    min_rows: int = 4000
    n_turns: int = 6
    max_coordinates: int = 64
    min_cells: int = 40
    ridges: tuple[float, ...] = (0.1, 0.4, 1.5, 6.0)
    jitter: float = 0.05
    trained_share: float = 0.4
    max_width: float = 2.0
    min_width: float = 1.0
    width_power: float = 0.3
    wide_rows: int = 1000
    reach: float = 5.0
    tilt: TiltSettings = field(default_factory=TiltSettings)


DEFAULT = LandmarkSettings()


class LandmarkRegression(Correction):
    """Regression of numeric columns on the rest of a completed row.

    Parameters
    ----------
    network : CompletionNetwork
        The network whose posteriors are corrected.
    landmarks : float tensor of shape (M, D)
        Coordinates of completed training rows.
    n_rows : int
        Rows that the regressions are fitted to.
    settings : LandmarkSettings

    Attributes
    ----------
    width : float tensor of shape ()
        Width of the kernel.
    coordinate : int tensor of shape (d,)
        Coordinate of each numeric column, -1 for others.
    solution : float tensor of shape (d, M)
        Coefficients of the landmarks' weights.
    weight : float tensor of shape (d,)
        By how much each column's predictions count.
    """

    def __init__(self, network, landmarks, n_rows, settings=DEFAULT):
        super().__init__()
        self.settings = settings
        d, device = network.n_columns, landmarks.device
        self.register_buffer("points", landmarks.T.contiguous())  # (D, M)
        self.register_buffer("solution", landmarks.new_zeros(d, len(landmarks)))
        self.register_buffer("weight", landmarks.new_zeros(d))
        coordinate = torch.full((d,), -1, device=device)
        coordinate[network.numeric] = torch.arange(len(network.numeric), device=device)
        self.register_buffer("coordinate", coordinate)
        narrowing = min(1.0, settings.wide_rows / n_rows) ** settings.width_power
        width = max(settings.min_width, settings.max_width * narrowing)
        typical = self.distances(landmarks)[:, :100].median().clamp_min(1e-3)
        self.register_buffer("width", width * typical)

    def apply(self, posteriors, rows, network):
        """Move the means of numbers towards the regression's predictions."""
        if not any(posterior.kind == NUMBERS for posterior in posteriors):
            return posteriors
        completed = CompletedRows(
            network, rows.values, rows.observed, posteriors, self.settings
        )
        shift = completed.shift(self)
        return [
            with_mean_moved(
                posterior, posterior.cells.gather(shift), self.settings.tilt
            )
            if posterior.kind == NUMBERS
            else posterior
            for posterior in posteriors
        ]

    def distances(self, rows):
        """Sum of absolute differences to every landmark, (B, D) -> (B, M)."""
        return torch.cdist(rows, self.points.T, p=1.0)

    def attend(self, rows, distances, column):
        """Weights of the landmarks for cells of a column, or of columns (N,): (N, M).

        ``rows`` (N, D) and ``distances`` (N, M) are those of the cells' rows; the
        column itself is taken off.
        """
        own = self.coordinate[column]
        if own.ndim:
            weights = rows.gather(1, own[:, None]) - self.points[own]
        else:
            weights = rows[:, own, None] - self.points[own]
        weights = weights.abs_().sub_(distances).clamp_max_(0.0)
        return weights.div_(self.width).exp_()

    def predict(self, rows, missing):
        """Predict missing cells, (B, d), in own units; 0 elsewhere."""
        predicted = torch.zeros(missing.shape, device=rows.device)
        cost = self.points.shape[1]
        few = CACHED_ELEMENTS // cost
        for part in slices(len(rows), cost, KEPT_ELEMENTS, rows.device):
            distances = self.distances(rows[part])
            row, column = missing[part].nonzero(as_tuple=True)
            if len(row) <= few:
                # Their columns together: for single rows calls are what takes time.
                weights = self.attend(rows[part][row], distances[row], column)
                found = (weights * self.solution[column]).sum(1)
                predicted[part.start + row, column] = found
                continue
            for own in column.unique().tolist():
                for cells in row[column == own].split(few):
                    at = part.start + cells
                    weights = self.attend(rows[at], distances[cells], own)
                    predicted[at, own] = weights @ self.solution[own]
        return predicted


class CompletedRows:
    """Rows, completed by the means of their missing cells.

    Parameters
    ----------
    network : CompletionNetwork
    values : float tensor of shape (B, d), warped
    observed : bool tensor of shape (B, d)
    posteriors : list of CellPosterior
        Posteriors of the missing cells.
    settings : LandmarkSettings

    Attributes
    ----------
    mean : float tensor of shape (B, d)
        Means of missing numbers, in own units, and codes of levels; 0 at observed
        cells.
    limit : float tensor of shape (B, d)
        How far a regression may move a mean.
    """

    def __init__(self, network, values, observed, posteriors, settings=DEFAULT):
        self.network, self.settings = network, settings
        self.values, self.observed = values, observed
        self.mean, self.limit = (torch.zeros_like(values) for _ in range(2))
        for posterior in posteriors:
            posterior.cells.scatter_into(self.mean, posterior.point("mean"))
            if posterior.kind == NUMBERS:
                limit = longest_shift(posterior, settings.tilt)
                posterior.cells.scatter_into(self.limit, limit)

    @classmethod
    def of(cls, network, values, observed, settings=DEFAULT):
        """Complete rows by the network's posteriors, computed in batches."""

        def complete(part):
            x, o = values[part], observed[part]
            return cls(network, x, o, network(x, o, ~o), settings)

        parts = in_threads(complete, network.row_batches(len(values)), network.device)
        whole = cls(network, values, observed, [], settings)
        if parts:
            whole.mean = torch.cat([part.mean for part in parts])
            whole.limit = torch.cat([part.limit for part in parts])
        return whole

    def has_observed(self):
        """Whether any cell of a row is observed, (B, 1); else nothing is predicted."""
        return self.observed.any(1, keepdim=True)

    def coordinates(self):
        """Coordinates of the completed rows, (B, D)."""
        network, device = self.network, self.network.anchor.device
        filled = torch.where(self.observed, self.values, network.warp(self.mean))
        everywhere = torch.ones_like(self.observed)
        coordinates = network.anchor.coordinates
        rows, _ = coordinates.base(filled.to(device), everywhere.to(device))
        reach = self.settings.reach
        return rows.to(self.values.device, torch.float32).clamp(-reach, reach)

    def shift(self, regression):
        """How far a regression moves the means, (B, d)."""
        missing = ~self.observed & (regression.weight > 0)
        missing &= self.has_observed()
        predicted = regression.predict(self.coordinates(), missing)
        shift = self.limited_shift(predicted, regression.weight)
        return torch.where(missing, shift, 0.0)

    def limited_shift(self, predicted, weight):
        """Shift towards predictions (B, d), by weights (d,), within the limit."""
        return torch.clamp(weight * (predicted - self.mean), -self.limit, self.limit)
