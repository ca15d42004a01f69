"""Columns of frames and arrays as numbers, and back, in their own dtypes.

Every column has a kind, found from its dtype (see `column_kinds`). Frame libraries are
read and written through narwhals.
"""

from __future__ import annotations

from decimal import Decimal
from numbers import Real

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd

from .._shared.caller_warnings import warn_caller
from .column_kinds import EXACT, CategoryColumn, NumberColumn, TimeColumn, objects
from .containers import contents, is_frame, series_of
from .filling import cells_of, dtype_of, filled, is_dictionary, scatter
from .missing_markers import matches

NUMBERS = {"floating", "integer", "mixed-integer-float", "decimal", "empty"}
_KINDS = {"f": "number", "i": "integer", "u": "integer", "b": "category"}
_KINDS |= {"m": "time", "M": "time"}
_TIMES = {"datetime64", "datetime", "date", "timedelta64", "timedelta", "period"}
_MIXED = {"mixed", "mixed-integer"}  # Decimals beside floats, or words beside numbers
_NESTED = (nw.List, nw.Struct, nw.Array)


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
    values = values[~null]
    found = pd.api.types.infer_dtype(values, skipna=True)
    if found in _MIXED and all(_is_number(value) for value in values):
        return "number"
    if found in NUMBERS:
        return "integer" if found == "integer" else "number"
    if found in _TIMES:
        return "time"
    if found == "complex" or values.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: column {name!r}.")
    return "category"


def _are_spans(values):
    """Whether an array of objects holds durations."""
    found = pd.api.types.infer_dtype(values) if values.dtype == object else ""
    return "delta" in found


def _is_number(value):
    return isinstance(value, Real | Decimal) and not isinstance(value, bool)


class ColumnCodec:
    """Columns of one table: their kinds, and the way to numbers and back.

    Parameters
    ----------
    codes : list of d lists
        Codes of every column that are missing besides nulls.

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
        self.are_numbers_ = all(
            isinstance(column, NumberColumn) and column.is_number
            for column in self.columns_
        )
        self.dtypes_ = [
            None if isinstance(s, np.ndarray) else dtype_of(s) for s in every
        ]
        self.n_levels_ = np.array([c.n_levels for c in self.columns_])
        self.whole_ = np.array([c.whole for c in self.columns_])
        return self

    def _column(self, series, name, categorical, codes, n_values=None):
        """Make a column of its kind, from its first ``n_values`` observed cells."""
        dtype = None if isinstance(series, np.ndarray) else series.dtype
        if isinstance(dtype, _NESTED):
            raise TypeError(
                f"Column {name!r} has values of dtype {dtype}, which nothing can "
                "complete: drop it, or make columns of its parts."
            )
        values, missing = self.read_column(series, codes)
        kind = "category" if categorical else kind_of(values, missing, dtype, name)
        observed = values[~missing]
        values = observed[:n_values]
        if isinstance(dtype, nw.Unknown) and not categorical:
            native = series.to_native().dtype
            if isinstance(native, pd.PeriodDtype):
                return TimeColumn(pd.array(values, dtype=native), False)
        if kind == "number" or kind == "integer":
            return NumberColumn(kind == "integer", values)
        if kind == "time":
            is_span = isinstance(dtype, nw.Duration) or _are_spans(observed)
            return TimeColumn(values, is_span)
        declared = None
        is_truth = isinstance(dtype, nw.Boolean) or values.dtype.kind == "b"
        if isinstance(dtype, (nw.Categorical, nw.Enum)) and not is_dictionary(series):
            declared = series.cat.get_categories().to_numpy()
        try:
            ordered = declared is not None and isinstance(dtype, nw.Enum)
            return CategoryColumn(values, declared, is_truth, name, ordered)
        except TypeError as error:
            raise TypeError(
                f"Column {name!r} has values that cannot be categories ({error}): "
                "drop it, or make columns of its parts."
            ) from error

    def read_column(self, series, codes):
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
        for j, column in enumerate(self._columns_for(series)):
            values, missing[:, j] = self.read_column(series[j], self.codes[j])
            seen = ~missing[:, j]
            if not seen.any():
                continue
            try:
                numbers[seen, j] = column.read(values[seen])
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"Column {self.names_[j]!r} does not hold what it held in fit: "
                    f"{str(error).rstrip('.')}."
                ) from error
            if not np.isfinite(numbers[:, j]).all():
                raise ValueError(
                    "Input X contains infinity or a value too large for float64 in "
                    f"column {self.names_[j]!r}: put NaN there to have it completed."
                )
            if column.n_levels and (numbers[seen, j] < 0).all():
                _warn_of_unknown_levels(self.names_[j], column.levels, values[seen])
        is_level = [isinstance(column, CategoryColumn) for column in self.columns_]
        known = ~missing & ~(np.array(is_level) & (numbers < 0))
        return np.where(known, numbers, 0.0), missing, known

    def _columns_for(self, series):
        """Columns as in `fit`; one that was empty there has the kind it has now."""
        columns = list(self.columns_)
        for j, column in enumerate(columns):
            if (
                column.is_empty
                and not self.read_column(series[j], self.codes[j])[1].all()
            ):
                columns[j] = self._column(
                    series[j], self.names_[j], False, self.codes[j], n_values=0
                )
        return columns

    def write_frame(self, X, numbers, missing, keep, flags=None):
        """X with its missing cells filled: a frame of X's library.

        Shapes of ``numbers`` and ``missing``: (n, d). ``keep`` holds the columns that
        are wanted; ``flags`` (n, m) are appended as truth values.
        """
        out = []
        series = series_of(X)
        columns = self._columns_for(series)
        for j in keep:
            rows = np.flatnonzero(missing[:, j])
            column = series[j].alias(str(j))
            if len(rows):
                values = columns[j].write(numbers[rows, j])
                try:
                    column = filled(column, rows, values, self.dtypes_[j])
                except (TypeError, ValueError, ArithmeticError) as error:
                    raise TypeError(
                        f"Column {self.names_[j]!r}: the completed value {values[0]!r} "
                        f"does not fit its dtype {dtype_of(column)[0]}; convert it to "
                        "the dtype that it had in fit, or to object."
                    ) from error
            out.append(column)
        if flags is not None:
            for k, flag in enumerate(flags.T.astype(bool)):
                # It is made from the first column, so that it has the index.
                blank = series[0].is_null().alias(f"flag {k}")
                out.append(scatter(blank, np.arange(len(flag)), flag))
        if not out:
            return X.iloc[:, :0] if hasattr(X, "iloc") else X.select([])
        return out[0].to_frame().with_columns(*out[1:]).to_native()

    def write_array(self, X, numbers, missing, keep):
        """X with its missing cells filled, as an array.

        Its dtype is that of X if this is an array and its dtype holds what is
        completed, else float64 (float32 for frames of nothing else) if that holds all
        cells as they are, else object.
        """
        series = series_of(X)
        columns = self._columns_for(series)
        pairs = [(columns[j], series[j]) for j in keep]
        dtype = _array_dtype(X, pairs, numbers[:, keep])
        out = np.empty((len(numbers), len(keep)), dtype=dtype)
        for k, j in enumerate(keep):
            rows = missing[:, j]
            values = columns[j].write(numbers[rows, j])
            if dtype.kind == "O":
                out[:, k] = cells_of(series[j])
                out[rows, k] = objects(values)
            else:
                out[~rows, k] = contents(series[j])[0][~rows]
                out[rows, k] = values
        return out


def _array_dtype(X, pairs, numbers):
    """Find the dtype of an array of completed columns, see `write_array`.

    ``pairs`` are the columns as `fit` learnt them, each with its series in X.
    """
    if not is_frame(X) and X.dtype != object:
        if all(column.fits(X.dtype) for column, _ in pairs):
            return X.dtype
    whole = [column.whole for column, _ in pairs]
    exact = not (np.abs(numbers[:, whole]) >= EXACT).any()
    if not exact or not all(_is_float(column, series) for column, series in pairs):
        return np.dtype(object)
    narrow = is_frame(X) and all(isinstance(s.dtype, nw.Float32) for _, s in pairs)
    return np.dtype(np.float32 if narrow else np.float64)


def _is_float(column, series):
    """Whether floats hold a column: truth values may be text in a later table."""
    if not column.is_number or isinstance(column, NumberColumn):
        return column.is_number
    found = pd.api.types.infer_dtype(contents(series)[0], skipna=True)
    return found in NUMBERS | {"boolean", "integer"}


def _warn_of_unknown_levels(name, levels, values):
    """Warn where all values of a column are new: most often they have another type.

    A single new level of the same type is nothing unusual.
    """
    found = pd.unique(objects(values))
    types = [sorted({type(v).__name__ for v in each}) for each in (levels, found)]
    if types[0] == types[1] and len(found) < 2:
        return
    known, new = (" or ".join(each) for each in types)
    warn_caller(
        f"Column {name!r}: all its values are unknown levels. fit saw {known} (such as "
        f"{levels[0]!r}), this table has {new} (such as {found[0]!r}). They stay as "
        "they are and say nothing about other columns; convert the column to what it "
        "was in fit."
    )
