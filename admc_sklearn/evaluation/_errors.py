"""Errors of completed cells, against the values that were hidden."""

from __future__ import annotations

import narwhals.stable.v2 as nw
import numpy as np

from .._table.column_kinds import NumberColumn, TimeColumn, objects
from .._table.columns import kind_of
from .._table.containers import as_table, contents, is_frame, series_of

# Differences above this share of a standard deviation are not rounding.
CHANGED = 0.1


class Columns:
    """A table column by column.

    Attributes
    ----------
    what : str
        The table's name in error messages.
    names : list
        Names of a frame's columns, positions of an array's.
    values : list of d arrays of shape (n,)
    missing : bool array of shape (n, d)
    """

    def __init__(self, X, what):
        X = as_table(X)
        if len(X.shape) != 2:
            raise ValueError(
                f"{what} must be a frame or an array of shape (n_samples, n_features), "
                f"got shape {X.shape}."
            )
        self.what, self.shape = what, X.shape
        self.names = list(X.columns) if is_frame(X) else list(range(X.shape[1]))
        series = series_of(X)
        self.dtypes = [
            getattr(s, "dtype", None) if is_frame(X) else None for s in series
        ]
        read = [contents(s) for s in series]
        self.values = [values for values, _ in read]
        self.missing = np.zeros(X.shape, dtype=bool)
        for j, (_, null) in enumerate(read):
            self.missing[:, j] = null

    def kind(self, j):
        """Find ``"number"``, ``"integer"``, ``"time"`` or ``"category"``."""
        missing = self.missing[:, j]
        return kind_of(self.values[j], missing, self.dtypes[j], self.names[j])

    def reader(self, j):
        """Make the column whose `read` turns cells into numbers."""
        values = self.values[j][~self.missing[:, j]]
        if self.kind(j) == "time":
            return TimeColumn(values, isinstance(self.dtypes[j], nw.Duration))
        return NumberColumn(False, values)

    def numbers(self, j, rows, reader):
        """Cells of column j in the given rows as finite float64."""
        try:
            numbers = reader.read(self.values[j][rows])
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Column {self.names[j]!r} of {self.what} does not hold what it holds "
                f"in X_true: {str(error).rstrip('.')}."
            ) from error
        if not np.isfinite(numbers).all():
            raise ValueError(
                f"Column {self.names[j]!r} of {self.what} contains infinity."
            )
        return numbers

    def like(self, other):
        """Return this table, its columns in the other's order; check that they are."""
        if self.shape[1] != other.shape[1]:
            raise ValueError(
                f"{self.what} must have the {other.shape[1]} columns of {other.what}, "
                f"got {self.shape[1]}. Neither indicators of missing values nor "
                "dropped columns can be compared (keep_empty_features=True)."
            )
        names = [self.names, other.names]
        are_named = all(isinstance(n, str) for each in names for n in each)
        if self.names == other.names or not are_named:
            return self
        if sorted(self.names) != sorted(other.names) or len(set(self.names)) < len(
            self.names
        ):
            raise ValueError(
                f"{self.what} must have the columns {other.names} of {other.what}, "
                f"got {self.names}."
            )
        order = [self.names.index(name) for name in other.names]
        for part in ("names", "values", "dtypes"):
            setattr(self, part, [getattr(self, part)[j] for j in order])
        self.missing = self.missing[:, order]
        return self


def score_cells(
    X_true, X_incomplete, X_completed, X_reference=None, *, check_observed=False
):
    """RMSE, MAE and accuracy: see `admc_sklearn.evaluation._scorer.imputation_scores`.

    ``check_observed`` adds an error for completions whose observed cells are no longer
    those that went in: other units, or another order of columns.
    """
    true = Columns(X_true, "X_true")
    incomplete = Columns(X_incomplete, "X_incomplete").like(true)
    completed = Columns(X_completed, "X_completed").like(true)
    reference = incomplete
    if X_reference is not None:
        reference = Columns(X_reference, "X_reference").like(true)
    _check_completed(true, incomplete, completed)
    hidden = incomplete.missing & ~true.missing
    errors, matches, changed = [np.empty(0)], [np.empty(0)], []
    for j, rows in enumerate(hidden.T):
        if true.kind(j) == "category":
            matches.append(_matches(true.values[j][rows], completed.values[j][rows]))
            continue
        seen = ~incomplete.missing[:, j] & check_observed
        if not (rows | seen).any():
            continue
        reader = true.reader(j)
        scale = _scale(true, reference, j, reader)
        errors.append(_differences(true, completed, j, rows, reader) / scale)
        moved = _differences(incomplete, completed, j, seen, reader) / scale
        if seen.any() and np.median(np.abs(moved)) > CHANGED:
            changed.append(true.names[j])
    if changed:
        raise ValueError(
            f"X_completed has other values where cells of the columns {changed} were "
            "observed: it may be in other units, or have its columns in another order."
        )
    errors, matches = np.concatenate(errors), np.concatenate(matches)
    with np.errstate(over="ignore"):
        rmse = np.sqrt(np.mean(errors**2)) if len(errors) else np.nan
    mae = np.mean(np.abs(errors)) if len(errors) else np.nan
    accuracy = np.mean(matches) if len(matches) else np.nan
    return {"rmse": float(rmse), "mae": float(mae), "accuracy": float(accuracy)}


def _check_completed(true, incomplete, completed):
    """Check that rows correspond and that nothing is missing any more."""
    for table in (incomplete, completed):
        if table.shape[0] != true.shape[0]:
            raise ValueError(
                f"{table.what} must have the {true.shape[0]} rows of X_true, got "
                f"{table.shape[0]}."
            )
    check_nothing_missing(completed)


def check_nothing_missing(completed):
    """Raise a ValueError that names the columns of a table with missing cells."""
    if completed.missing.any():
        left = np.flatnonzero(completed.missing.any(axis=0))
        raise ValueError(
            "X_completed still has missing values in the columns "
            f"{[completed.names[j] for j in left]}."
        )


def _differences(one, other, j, rows, reader):
    """By how much two tables differ in some cells of a column, in its units."""
    return other.numbers(j, rows, reader) - one.numbers(j, rows, reader)


def _scale(true, reference, j, reader):
    """Return the standard deviation of the reference's cells, or what stands in for it.

    That of the known cells where these do not vary, 1 where none do.
    """
    for table in (reference, true):
        found = spread(table.numbers(j, ~table.missing[:, j], reader))
        if found > 0:
            return found
    return 1.0


def spread(values):
    """Return the standard deviation, 0 where rounding alone explains it."""
    if not len(values):
        return 0.0
    # Sums of squares of very large or very small numbers overflow.
    size = np.abs(values).max() or 1.0
    values = values / size
    constant = np.ptp(values) <= 8 * np.finfo(np.float64).eps
    return 0.0 if constant else values.std() * size


def _matches(true, completed):
    """Whether levels are the same, an array of 0 and 1; True is 1, as in arrays."""
    pairs = zip(objects(true), objects(completed), strict=True)
    return np.array([bool(a == b) for a, b in pairs], dtype=np.float64)
