"""Columns of frames and arrays as numbers, and back: what went in comes out.

Every column has a kind, found from its dtype (see `_kinds`). Frame libraries are read
and written through narwhals.
"""

from __future__ import annotations

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd

from ._kinds import CategoryColumn, NumberColumn, TimeColumn, objects
from ._markers import matches

NUMBERS = {"floating", "integer", "mixed-integer-float", "decimal", "empty"}
_KINDS = {"f": "number", "i": "integer", "u": "integer", "b": "category"}
_KINDS |= {"m": "time", "M": "time"}
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


def contents(series):
    """Values of a column and which of them are null, as arrays."""
    if isinstance(series, np.ndarray):
        return series, pd.isna(series)
    null = np.asarray(series.is_null().to_numpy(), dtype=bool)
    if series.dtype.is_integer():
        # Filled, so that neither library makes floats of them.
        values = series.fill_null(0) if null.any() else series
        return np.asarray(values.to_numpy()), null
    if isinstance(series.dtype, nw.Datetime) and series.dtype.time_zone:
        series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    values = series.to_numpy()
    if values.dtype.kind in "fOmM":
        null = null | pd.isna(values)
    return values, null


def kind_of(values, null, dtype, name):
    """Find ``"number"``, ``"integer"``, ``"time"`` or ``"category"``."""
    if isinstance(dtype, (nw.Categorical, nw.Enum, nw.String, nw.Boolean)):
        return "category"
    if isinstance(dtype, (nw.Time, nw.Binary)):
        return "category"
    if isinstance(dtype, (nw.Date, nw.Datetime, nw.Duration)):
        return "time"
    if dtype is not None and dtype.is_integer():
        return "integer"
    if values.dtype.kind in _KINDS:
        return _KINDS[values.dtype.kind]
    found = pd.api.types.infer_dtype(values[~null], skipna=True)
    if found in NUMBERS:
        return "integer" if found == "integer" else "number"
    if found in _TIMES:
        return "time"
    if found == "complex" or values.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: column {name!r}.")
    return "category"


class ColumnCodec:
    """Columns of one table: their kinds, and the way to numbers and back.

    Parameters
    ----------
    codes : list of d lists
        Of every column, what is missing besides nulls.

    Attributes
    ----------
    columns_ : list
        One `NumberColumn`, `TimeColumn` or `CategoryColumn` each.
    n_levels_ : int array of shape (d,)
        Levels of categorical columns, 0 for others.
    whole_ : bool array of shape (d,)
        Columns that are completed by whole numbers, or by codes.
    """

    def __init__(self, codes):
        self.codes = codes

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
        self.names_ = list(names)
        every = series_of(X)
        self.columns_ = [
            self._column(series, names[j], categorical[j], self.codes[j])
            for j, series in enumerate(every)
        ]
        self.dtypes_ = [None if isinstance(s, np.ndarray) else _dtype(s) for s in every]
        self.n_levels_ = np.array([c.n_levels for c in self.columns_])
        self.whole_ = np.array([c.whole for c in self.columns_])
        return self

    def _column(self, series, name, categorical, codes):
        values, missing = self._read_column(series, codes)
        dtype = None if isinstance(series, np.ndarray) else series.dtype
        if isinstance(dtype, (nw.List, nw.Struct, nw.Array)):
            raise TypeError(
                f"Column {name!r} has values of dtype {dtype}: not a table."
            )
        kind = "category" if categorical else kind_of(values, missing, dtype, name)
        values = values[~missing]
        if kind == "number" or kind == "integer":
            return NumberColumn(kind == "integer", values)
        if kind == "time":
            return TimeColumn(values, isinstance(dtype, nw.Duration))
        declared = None
        is_truth = isinstance(dtype, nw.Boolean) or values.dtype.kind == "b"
        if isinstance(dtype, (nw.Categorical, nw.Enum)) and not _is_dictionary(series):
            declared = series.cat.get_categories().to_numpy()
        try:
            return CategoryColumn(values, declared, is_truth, name)
        except TypeError as error:
            raise TypeError(
                f"Column {name!r} has values that cannot be categories: {error}"
            ) from error

    def _read_column(self, series, codes):
        """Values of a column and which of them are missing."""
        values, missing = contents(series)
        if not codes:
            return values, missing
        is_truth = values.dtype.kind == "b" or (
            not isinstance(series, np.ndarray) and isinstance(series.dtype, nw.Boolean)
        )
        seen = ~missing
        missing = missing.copy()
        missing[seen] = matches(values[seen], codes, is_truth)
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
            values, missing[:, j] = self._read_column(series[j], self.codes[j])
            seen = ~missing[:, j]
            try:
                numbers[seen, j] = column.read(values[seen])
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"Column {self.names_[j]!r} does not hold what it held in fit: "
                    f"{error}"
                ) from error
        if not np.isfinite(numbers).all():
            raise ValueError("Input X contains infinity or a value too large.")
        is_level = [isinstance(column, CategoryColumn) for column in self.columns_]
        known = ~missing & ~(np.array(is_level) & (numbers < 0))
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
                if len(rows) == len(missing):
                    filled = _rebuilt(filled, values, self.dtypes_[j])
                else:
                    filled = _scatter(filled, rows, values)
            out.append(filled)
        if flags is not None:
            for k, flag in enumerate(flags.T.astype(bool)):
                # Out of the first column, so that it has the index.
                blank = series[0].is_null().alias(f"flag {k}")
                out.append(_scatter(blank, np.arange(len(flag)), flag))
        if not out:
            return X.iloc[:, :0] if hasattr(X, "iloc") else X.select([])
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
            out[rows, k] = objects(self.columns_[j].write(numbers[rows, j]))
        return out


def _dtype(series):
    """Dtype of the frame library's own, and whether that is pandas."""
    return series.to_native().dtype, series.implementation.is_pandas()


def _is_dictionary(series):
    """Whether pandas holds an Arrow dictionary, which has no accessor of categories."""
    dtype, is_pandas = _dtype(series)
    return is_pandas and not isinstance(dtype, pd.CategoricalDtype)


def _rebuilt(series, values, fitted):
    """Make a column of values where none was known, in the dtype that it had in fit.

    A column without values often has a dtype that says nothing.
    """
    dtype, is_pandas = _dtype(series)
    if fitted is None or fitted[1] != is_pandas or fitted[0] == dtype:
        return _scatter(series, np.arange(len(values)), values)
    if is_pandas:
        index = series.to_native().index
        native = pd.Series(objects(values), index=index, name=series.name)
        native = native.astype(fitted[0])
    else:
        backend = nw.get_native_namespace(series)
        native = backend.Series(series.name, objects(values).tolist()).cast(fitted[0])
    return nw.from_native(native, series_only=True)


def _scatter(series, rows, values):
    """Put values into some rows of a narwhals series, in its dtype."""
    dtype = series.dtype
    backend = series.implementation
    if isinstance(dtype, (nw.Categorical, nw.Enum)) and backend.is_pandas():
        return _scatter_levels(series, rows, values)
    if values.dtype.kind in "mM":
        fill = nw.new_series("", values, backend=backend)
        zone = getattr(dtype, "time_zone", None)
        if zone:
            fill = fill.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
        return series.scatter(rows, fill.cast(dtype))
    if dtype.is_integer():
        values = objects(values)
        values[:] = [
            int(np.rint(v)) if isinstance(v, float) else int(v) for v in values
        ]
    if isinstance(dtype, nw.Enum):
        levels = series.cat.get_categories().to_list()
        new = [level for level in pd.unique(values) if level not in levels]
        dtype = nw.Enum(levels + new)
        series = series.cast(dtype)
    is_object = isinstance(dtype, nw.Object)
    fill = nw.new_series(
        "", values.tolist(), dtype=nw.Object if is_object else None, backend=backend
    )
    if dtype.is_float() or (backend.is_polars() and not is_object):
        fill = fill.cast(dtype)
    return series.scatter(rows, fill)


def _scatter_levels(series, rows, values):
    """Put levels into a pandas column of categories, which may not have them yet."""
    native = series.to_native()
    if not isinstance(native.dtype, pd.CategoricalDtype):  # an Arrow dictionary
        cells = native.astype(object)
        cells.iloc[rows] = values
        return nw.from_native(cells.astype(native.dtype), series_only=True)
    known = native.cat.categories
    new = [level for level in pd.unique(values) if level not in known]
    native = native.cat.add_categories(new) if new else native.copy()
    native.iloc[rows] = values
    return nw.from_native(native, series_only=True)
