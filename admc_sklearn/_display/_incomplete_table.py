"""An incomplete table as pictures need it: typed columns, draws, hidden cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from .._table.columns import NUMBERS
from .._table.containers import as_table, is_frame, series_of
from .._table.missing_markers import codes_of, matches, placeholder
from .._table.remove_cells import remove_cells


@dataclass(frozen=True)
class Table:
    """An incomplete table, as its imputer takes it and column by column.

    ``X`` is a frame or an array; ``columns`` are Series with a null where a cell is
    missing; ``missing`` is a bool array of shape (n, d); ``levels`` holds the levels
    of columns that are categorical and None for others; ``positions`` locate
    the columns in the imputer's output, -1 where a column is dropped.
    """

    imputer: object
    X: object
    names: list
    columns: list
    missing: np.ndarray
    levels: list
    positions: list

    def typed(self, series, j):
        """Non-missing values of column j: floats, dates, durations or categories."""
        series = series.dropna().infer_objects()
        if self.levels[j] is not None:
            return series.astype(pd.CategoricalDtype(self.levels[j]))
        if series.dtype.kind in "mM":
            zone = getattr(series.dtype, "tz", None)
            return series.dt.tz_localize(None) if zone else series
        if series.dtype == object and len(series):
            found = pd.api.types.infer_dtype(series)
            if "date" in found:
                return pd.to_datetime(series)
            if "delta" in found:
                return pd.to_timedelta(series)
        return series.astype(np.float64)

    def draws(self, n_draws, rng, hidden=None):
        """Joint draws, a list of ``n_draws`` lists of Series, one a column of output.

        ``rng`` seeds them; ``hidden``, of shape (n, d), marks cells to hide from the
        imputer besides those that are missing.
        """
        if not hasattr(self.imputer, "sample"):
            raise TypeError(
                "This kind of picture needs draws, and "
                f"{type(self.imputer).__name__} has no `sample`."
            )
        X = self.X
        if hidden is not None:
            X = remove_cells(X, hidden, placeholder(marker_of(self.imputer)))
        seed = rng.randint(np.iinfo(np.int32).max)
        draws = self.imputer.sample(X, n_draws=n_draws, random_state=seed)
        return [as_columns(draw) for draw in draws]


def marker_of(imputer):
    """Return the markers of missing cells: one value, several, or by column."""
    return getattr(imputer, "missing_values", np.nan)


def as_columns(X):
    """Columns of a frame or an array as Series with a fresh index."""
    if not is_frame(X):
        return [pd.Series(column) for column in np.asarray(X).T]
    columns = [series.to_native() for series in series_of(X)]
    return [
        series.reset_index(drop=True)
        if isinstance(series, pd.Series)
        else pd.Series(series.to_numpy())
        for series in columns
    ]


def read_table(imputer, X, n_rows, rng):
    """Read X, at most ``n_rows`` of its rows, chosen by ``rng``; None takes all.

    Raises
    ------
    ValueError
        If X is not a table with the columns that the imputer was fitted to.
    """
    if X is None:
        raise ValueError("X is needed for every kind of picture but 'training'.")
    X = as_table(X)
    n_features = getattr(imputer, "n_features_in_", X.shape[-1])
    if len(X.shape) != 2 or X.shape[1] != n_features:
        raise ValueError(f"X must have {n_features} columns, got shape {X.shape}.")
    if n_rows is not None and len(X) > n_rows:
        rows = np.sort(rng.choice(len(X), n_rows, replace=False))
        X = X.iloc[rows] if hasattr(X, "iloc") else X[rows]
    names = getattr(imputer, "feature_names_in_", None)
    names = [f"x{j}" for j in range(n_features)] if names is None else list(names)
    codes = codes_of(marker_of(imputer), X, names)
    columns = [_without_codes(*pair) for pair in zip(as_columns(X), codes, strict=True)]
    learnt = getattr(imputer, "categories_", None) or [None] * n_features
    positions = _output_positions(names, list(imputer.get_feature_names_out()))
    if len(set(names)) < len(names):
        names = [f"{name} [{j}]" for j, name in enumerate(names)]
    return Table(
        imputer,
        X,
        names,
        columns,
        np.column_stack([series.isna() for series in columns]),
        [_levels(series, known) for series, known in zip(columns, learnt, strict=True)],
        positions,
    )


def _without_codes(series, codes):
    """Column with a null where it holds a code."""
    seen = series.dropna()
    is_truth = pd.api.types.is_bool_dtype(series.dtype)
    found = np.zeros(len(series), dtype=bool)
    values = seen.to_numpy(object if is_truth else None)
    found[seen.index] = matches(np.asarray(values), codes, is_truth)
    return series.mask(found) if found.any() else series


def _levels(series, learnt):
    """Levels of a categorical column, None for other columns.

    Levels that `fit` did not see follow those that it learnt.
    """
    values = series.dropna().infer_objects()
    if learnt is None:
        if isinstance(values.dtype, pd.CategoricalDtype):
            return list(values.dtype.categories)
        found = pd.api.types.infer_dtype(values)
        if found in NUMBERS or "date" in found or "delta" in found:
            return None
    unseen = pd.unique(values.astype(object))
    learnt = sorted(unseen, key=str) if learnt is None else list(learnt)
    return learnt + [level for level in unseen if level not in learnt]


def _output_positions(names, names_out):
    """Position of each column in the output, -1 where it is dropped.

    The output keeps the order of the columns and may append others; names may recur.
    """
    positions, position = [], 0
    for name in names:
        found = position < len(names_out) and str(names_out[position]) == str(name)
        positions.append(position if found else -1)
        position += found
    return positions
