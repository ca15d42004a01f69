"""Columns of frames and arrays as numbers, and back: what went in comes out.

Every column has a kind, found from its dtype: numbers and whole numbers stay what they
are, dates and durations become whole steps of their resolution, categories become the
codes of their levels. Frame libraries are read and written through narwhals.
"""

from __future__ import annotations

import datetime
from numbers import Real

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd

# A categorical column with more levels than this, most of them met once or twice, is
# free text or an identifier.
MIN_TEXT_LEVELS = 32
TEXT_SHARE = 0.8
EMPTY_TEXT = "missing_value"  # what SimpleImputer's constant is for text
NUMBERS = {"floating", "integer", "mixed-integer-float", "decimal", "empty"}
_TIMES = {"datetime64", "datetime", "date", "timedelta64", "timedelta"}


def is_frame(X):
    """Whether X is a pandas or polars data frame."""
    return nw.dependencies.is_pandas_dataframe(
        X
    ) or nw.dependencies.is_polars_dataframe(X)


def series_of(X):
    """Columns of a frame as narwhals series, of an array as they are."""
    if not is_frame(X):
        return list(X.T)
    if nw.dependencies.is_pandas_dataframe(X):
        X = X.set_axis([str(j) for j in range(X.shape[1])], axis=1)  # names may recur
    return list(nw.from_native(X, eager_only=True).iter_columns())


def _contents(series):
    """Values of a column and which of them are null, as arrays."""
    if isinstance(series, np.ndarray):
        return series, pd.isna(series)
    null = series.is_null().to_numpy()
    if isinstance(series.dtype, nw.Datetime) and series.dtype.time_zone:
        series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    values = series.to_numpy()
    if values.dtype.kind in "fOmM":
        null = null | pd.isna(values)
    return values, null


def _kind(values, null, dtype, name):
    """Find ``"number"``, ``"integer"``, ``"time"`` or ``"category"``."""
    if isinstance(dtype, (nw.Categorical, nw.Enum, nw.String, nw.Boolean)):
        return "category"
    if dtype is not None and dtype.is_integer():
        return "integer"
    if values.dtype.kind in "fiumMb":
        return {"i": "integer", "u": "integer", "b": "category"}.get(
            values.dtype.kind, "number" if values.dtype.kind == "f" else "time"
        )
    found = pd.api.types.infer_dtype(values[~null], skipna=True)
    if found in NUMBERS:
        return "integer" if found == "integer" else "number"
    if found in _TIMES:
        return "time"
    if found == "complex" or values.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: column {name!r}.")
    return "category"


class NumberColumn:
    """Numbers; whole ones are completed by whole ones."""

    n_levels = 0
    is_number = True

    def __init__(self, whole):
        self.whole = whole

    def read(self, values):
        """Values as float64."""
        return values.astype(np.float64)

    def write(self, numbers):
        """Completed values, an array."""
        return np.rint(numbers).astype(np.int64) if self.whole else numbers


class TimeColumn:
    """Dates or durations, as whole steps of their resolution since the first one."""

    n_levels = 0
    whole = True
    is_number = False

    def __init__(self, values):
        ticks, self.dtype = self._ticks(values)
        ticks = np.unique(ticks)
        self.start = int(ticks[0]) if len(ticks) else 0
        self.step = max(1, int(np.gcd.reduce(np.diff(ticks)))) if len(ticks) > 1 else 1
        self.of_objects = values.dtype.kind == "O"
        self.type = type(values[0]) if self.of_objects and len(values) else None

    def _ticks(self, values):
        if values.dtype.kind == "O":
            found = pd.api.types.infer_dtype(values)
            convert = pd.to_timedelta if "delta" in found else pd.to_datetime
            values = np.asarray(convert(pd.Series(values, dtype=object)).to_numpy())
        return values.astype(np.int64), values.dtype

    def read(self, values):
        """Return steps since the first value, float64."""
        ticks, dtype = self._ticks(values)
        if dtype != self.dtype:  # the resolution of a frame's column may differ
            ticks = ticks.view(dtype).astype(self.dtype).astype(np.int64)
        return (ticks - self.start) / self.step

    def write(self, numbers):
        """Completed values, an array of datetime64, timedelta64 or objects."""
        ticks = self.start + np.rint(numbers).astype(np.int64) * self.step
        values = ticks.view(self.dtype)
        if not self.of_objects:
            return values
        out = np.empty(len(values), dtype=object)
        wrap = pd.Timedelta if self.dtype.kind == "m" else pd.Timestamp
        for i, value in enumerate(values):
            value = wrap(value)
            out[i] = value.date() if self.type is datetime.date else value
        return out


class CategoryColumn:
    """Levels as their codes, in the order of their dtype or sorted."""

    whole = True

    def __init__(self, values, declared, is_truth, name):
        self.is_number = is_truth
        levels = pd.unique(_objects(values))
        if declared is None:
            levels = _sorted(levels)
            self.fallback = False if self.is_number else EMPTY_TEXT
        else:
            place = pd.Index(declared, dtype=object).get_indexer(levels)
            levels = levels[np.argsort(place)]
            self.fallback = declared[0] if len(declared) else EMPTY_TEXT
        n_levels = len(levels)
        if n_levels > max(MIN_TEXT_LEVELS, TEXT_SHARE * len(values)):
            raise ValueError(
                f"Column {name!r} has {n_levels} distinct values in {len(values)} "
                "observed cells: it looks like free text or an identifier, which "
                "nothing can complete. Drop it, or turn it into numbers or a few "
                "categories before the imputer."
            )
        self.levels, self.n_levels = levels, n_levels
        self._index = pd.Index(levels, dtype=object)

    def read(self, values):
        """Codes as float64; -1 for levels that were not there in `fit`."""
        return self._index.get_indexer(_objects(values)).astype(np.float64)

    def write(self, numbers):
        """Completed levels, an array of objects."""
        if not self.n_levels:
            return np.full(len(numbers), self.fallback, dtype=object)
        codes = np.rint(numbers).astype(np.int64).clip(0, self.n_levels - 1)
        return self.levels[codes]


def _objects(values):
    """Convert to an array of Python's own objects."""
    if values.dtype.kind in "mM":
        return pd.Series(values).astype(object).to_numpy()
    out = np.empty(len(values), dtype=object)
    out[:] = values.tolist()
    return out


def _sorted(levels):
    try:
        return np.array(sorted(levels), dtype=object)
    except TypeError:  # levels of several types
        order = sorted(range(len(levels)), key=lambda i: str(levels[i]))
        return levels[order]


class ColumnCodec:
    """Columns of one table: their kinds, and the way to numbers and back.

    Attributes
    ----------
    columns_ : list
        One `NumberColumn`, `TimeColumn` or `CategoryColumn` each.
    n_levels_ : int array of shape (d,)
        Levels of categorical columns, 0 for others.
    whole_ : bool array of shape (d,)
        Columns that are completed by whole numbers, or by codes.
    """

    def __init__(self, marker):
        self.marker = marker

    def fit(self, X, names, categorical):
        """Find the kinds and learn the levels.

        Parameters
        ----------
        X : frame, or array of shape (n, d)
        names : sequence of d str
            For error messages.
        categorical : bool array of shape (d,)
            Columns that are categorical whatever their dtype.

        Returns
        -------
        self
        """
        self.columns_ = [
            self._column(series, names[j], categorical[j])
            for j, series in enumerate(series_of(X))
        ]
        self.n_levels_ = np.array([c.n_levels for c in self.columns_])
        self.whole_ = np.array([c.whole for c in self.columns_])
        return self

    def _column(self, series, name, categorical):
        values, missing = self._read_column(series)
        dtype = None if isinstance(series, np.ndarray) else series.dtype
        if isinstance(dtype, (nw.List, nw.Struct, nw.Array)):
            raise TypeError(
                f"Column {name!r} has values of dtype {dtype}: not a table."
            )
        kind = "category" if categorical else _kind(values, missing, dtype, name)
        values = values[~missing]
        if kind == "number" or kind == "integer":
            return NumberColumn(kind == "integer")
        if kind == "time":
            return TimeColumn(values)
        declared = None
        is_truth = isinstance(dtype, nw.Boolean) or values.dtype.kind == "b"
        if isinstance(dtype, (nw.Categorical, nw.Enum)):
            declared = series.cat.get_categories().to_numpy()
        try:
            return CategoryColumn(values, declared, is_truth, name)
        except TypeError as error:
            raise TypeError(
                f"Column {name!r} has values that cannot be categories: {error}"
            ) from error

    def _read_column(self, series):
        """Values of a column and which of them are missing."""
        values, missing = _contents(series)
        marker = self.marker
        if marker is not None and not pd.isna(marker):
            same_kind = values.dtype.kind in "OUSb"
            if same_kind or (isinstance(marker, Real) and values.dtype.kind in "fiu"):
                equal = values.astype(object) == marker
                missing = missing | (equal & ~missing).astype(bool)
        return values, missing

    def read(self, X):
        """Numbers of a table's cells.

        Parameters
        ----------
        X : frame, or array of shape (n, d)

        Returns
        -------
        numbers : float64 array of shape (n, d); 0 where nothing is known
        missing : bool array of shape (n, d)
        known : bool array of shape (n, d)
            Cells that are not missing and whose level was there in `fit`.

        Raises
        ------
        ValueError
            If a number is infinite, or a value does not suit its column.
        """
        series = series_of(X)
        shape = (len(series[0]), len(series))
        numbers, missing = np.zeros(shape), np.zeros(shape, dtype=bool)
        for j, column in enumerate(self.columns_):
            values, missing[:, j] = self._read_column(series[j])
            seen = ~missing[:, j]
            try:
                numbers[seen, j] = column.read(values[seen])
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"Column {j} does not hold what it held in fit: {error}"
                ) from error
        if not np.isfinite(numbers).all():
            raise ValueError("Input X contains infinity or a value too large.")
        known = ~missing & ((self.n_levels_ == 0) | (numbers >= 0))
        return np.where(known, numbers, 0.0), missing, known

    def write_frame(self, X, numbers, missing, keep, flags=None):
        """X with its missing cells filled: a frame of X's library.

        Shapes of ``numbers`` and ``missing``: (n, d). ``keep`` holds the columns that
        are wanted; ``flags`` (n, m) are appended as truth values.
        """
        out = []
        series = series_of(X)
        for j in keep:
            rows = np.flatnonzero(missing[:, j])
            filled = series[j].alias(str(j))
            if len(rows):
                values = self.columns_[j].write(numbers[rows, j])
                filled = _scatter(filled, rows, values)
            out.append(filled)
        if flags is not None:
            for k, flag in enumerate(flags.T.astype(bool)):
                # Out of the first column, so that it has the index.
                blank = series[0].is_null().alias(f"flag {k}")
                out.append(_scatter(blank, np.arange(len(flag)), flag))
        if not out:
            return nw.from_native(X, eager_only=True).select([]).to_native()
        return out[0].to_frame().with_columns(*out[1:]).to_native()

    def write_array(self, X, numbers, missing, keep):
        """X with its missing cells filled, as an array of objects."""
        out = np.empty((len(numbers), len(keep)), dtype=object)
        series = series_of(X)
        for k, j in enumerate(keep):
            column = series[j]
            if not isinstance(column, np.ndarray):
                native = column.to_native()
                column = native.astype(object) if hasattr(native, "astype") else native
                column = np.array([*column.to_list(), None], dtype=object)[:-1]
            out[:, k] = column
            rows = missing[:, j]
            out[rows, k] = _objects(self.columns_[j].write(numbers[rows, j]))
        return out


def _scatter(series, rows, values):
    """Put values into some rows of a narwhals series, in its dtype."""
    dtype = series.dtype
    backend = series.implementation
    if values.dtype.kind in "mM":
        fill = nw.new_series("", values, backend=backend)
        zone = getattr(dtype, "time_zone", None)
        if zone:
            fill = fill.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
        return series.scatter(rows, fill.cast(dtype))
    if isinstance(dtype, nw.Categorical) and backend.is_pandas():
        native = series.to_native().copy()
        if len(native.cat.categories):  # without any, nothing can be filled in
            native.iloc[rows] = values
        return nw.from_native(native, series_only=True)
    target = nw.Object if isinstance(dtype, nw.Object) else None
    fill = nw.new_series("", values.tolist(), dtype=target, backend=backend)
    if dtype.is_float() or (backend.is_polars() and not isinstance(dtype, nw.Object)):
        fill = fill.cast(dtype)
    return series.scatter(rows, fill)
