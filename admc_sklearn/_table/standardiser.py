"""Numbers to standardised values and back; codes of levels pass through."""

from __future__ import annotations

import numpy as np

from .._shared.weights import mean_and_sd, weighted_counts


class Standardiser:
    """Standardises each numeric column by its observed training cells.

    Attributes
    ----------
    mean_, scale_ : float64 arrays of shape (n_kept,)
        ``scale_`` is 1 where a column is constant. 0 and 1 for codes of levels.
    kept_ : int array of shape (n_kept,)
        Columns with at least one observed cell; only these are modelled.
    low_, high_ : float64 arrays of shape (n_kept,)
        Smallest and largest value of a completion: that observed, or what `reach` says.
    seen_low_, seen_high_ : float64 arrays of shape (n_kept,)
        Smallest and largest observed value.
    grids_ : list of n_kept float64 arrays
        Values that a completion may have to hit exactly: all of a column with few,
        else those that recur often.
    whole_ : bool array of shape (n_kept,)
        Columns that are completed by whole numbers in any case.
    looks_whole_ : bool array of shape (n_kept,)
        Columns whose observed training cells, `min_whole` or more, are all whole.
    empty_ : int array of shape (n_columns - n_kept,)
        The other columns.
    """

    max_grid = 64
    # One or two whole numbers happen by chance where values are rounded coarsely.
    min_whole = 3

    def fit(self, X, missing, is_level, whole, weight=None):
        """Learn the columns' location and scale.

        Parameters
        ----------
        X : float array of shape (n, d)
        missing : bool array of shape (n, d)
        is_level, whole : bool arrays of shape (d,)
            Columns that hold codes of levels, and whole numbers by their dtype.
        weight : float array of shape (n,), optional
            Weights of the rows, with a mean near 1.

        Returns
        -------
        self
        """
        is_empty = missing.all(axis=0)
        self.kept_, self.empty_ = np.flatnonzero(~is_empty), np.flatnonzero(is_empty)
        self.whole_ = whole[self.kept_]
        mean, scale, low, high, looks_whole, self.grids_ = [], [], [], [], [], []
        for j in self.kept_:
            seen = ~missing[:, j]
            values = X[seen, j].astype(np.float64)
            own = None if weight is None else weight[seen]
            low.append(values.min())
            high.append(values.max())
            is_whole = (values == np.rint(values)).all()
            looks_whole.append(is_whole and len(values) >= self.min_whole)
            if is_level[j]:
                mean.append(0.0)
                scale.append(1.0)
                self.grids_.append(np.empty(0))
                continue
            self.grids_.append(self._grid(values, own))
            # Sums of squares of very large or very small numbers overflow.
            size = np.abs(values).max() or 1.0
            values = values / size
            center, spread = mean_and_sd(values, own)
            # A spread that rounding alone explains is a constant column.
            constant = np.ptp(values) <= 8 * np.finfo(X.dtype).eps
            constant |= spread * size == 0  # subnormal numbers
            mean.append(low[-1] if constant else center * size)
            scale.append(1.0 if constant else spread * size)
        self.mean_, self.scale_ = np.array(mean), np.array(scale)
        self.low_, self.high_ = np.array(low), np.array(high)
        self.seen_low_, self.seen_high_ = self.low_, self.high_
        self.looks_whole_ = np.array(looks_whole, dtype=bool)
        return self

    def _grid(self, values, weight):
        distinct, counts = weighted_counts(values, weight)
        if len(distinct) <= self.max_grid:
            return distinct
        return distinct[counts > max(2, counts.sum() / self.max_grid)]

    def encode(self, X, missing):
        """Standardised float32 values, 0 at missing cells, and the observed mask.

        Shapes in: (n, d); out: (n, n_kept) twice.
        """
        observed = ~missing[:, self.kept_]
        with np.errstate(over="ignore", invalid="ignore"):
            values = (X[:, self.kept_] - self.mean_) / self.scale_
        # A value far outside what `fit` saw must not become infinite in float32.
        values = np.clip(values, -1e6, 1e6)
        return np.where(observed, values, 0.0).astype(np.float32), observed

    def standardised(self, numbers):
        """Standardise numbers of modelled columns, (n, d, ...) -> (n, n_kept, ...)."""
        shape = (-1, *[1] * (numbers.ndim - 2))
        mean, scale = self.mean_.reshape(shape), self.scale_.reshape(shape)
        return (numbers[:, self.kept_] - mean) / scale

    def in_own_units(self, values):
        """Undo `standardised` for values of modelled columns, (n_kept, k)."""
        return values * self.scale_[:, None] + self.mean_[:, None]

    @property
    def seen(self):
        """Smallest and largest observed value, (n_kept,) twice."""
        # Files of earlier versions have the range of completions alone.
        low = getattr(self, "seen_low_", self.low_)
        return low, getattr(self, "seen_high_", self.high_)

    def reach(self, low, high):
        """Let completions of columns go that far, (n_kept,) twice; NaN: as they do."""
        self.low_ = np.fmin(self.low_, low)
        self.high_ = np.fmax(self.high_, high)

    def is_whole(self, keep_whole):
        """Columns that are completed by whole numbers, bool (n_kept,)."""
        return self.whole_ | (self.looks_whole_ & keep_whole)

    def decode_into(self, X, missing, values, keep_whole=True):
        """Write standardised ``values`` into the missing cells of ``X``, in place.

        Shape of ``values``: (n, n_kept). Cells of columns without any observed
        training cell become 0. Values that differ from a point of the column's grid
        by float32 rounding alone become that point; none leaves the range that
        was observed. ``keep_whole`` rounds the columns that look whole; columns that
        are whole by their dtype are always rounded.
        """
        whole = self.is_whole(keep_whole)
        for j in self.empty_:
            X[missing[:, j], j] = 0.0
        lacking = np.flatnonzero(missing[:, self.kept_].any(axis=0))
        columns = self.kept_[lacking]
        holes = missing[:, columns]
        decoded = values[:, lacking].astype(np.float64)
        decoded = decoded * self.scale_[lacking] + self.mean_[lacking]
        for position, k in enumerate(lacking):
            rows = holes[:, position]
            if len(self.grids_[k]):
                reach = 3e-5 * self.scale_[k]
                decoded[rows, position] = _snap(
                    decoded[rows, position], self.grids_[k], reach
                )
            if whole[k]:  # 0 is added since a small negative number becomes -0
                decoded[rows, position] = np.rint(decoded[rows, position]) + 0.0
        low, high = self.low_[lacking], self.high_[lacking]
        whole = whole[lacking]
        low = np.where(whole, np.ceil(low), low)
        decoded = decoded.clip(low, np.where(whole, np.floor(high), high))
        X[:, columns] = np.where(holes, decoded, X[:, columns])


def _snap(values, grid, reach):
    """``values`` moved to the nearest point of the sorted ``grid`` within ``reach``."""
    right = np.searchsorted(grid, values).clip(1, max(1, len(grid) - 1))
    left = grid[right - 1]
    right = grid[np.minimum(right, len(grid) - 1)]
    nearest = np.where(values - left < right - values, left, right)
    return np.where(np.abs(values - nearest) <= reach, nearest, values)
