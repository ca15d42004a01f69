"""Tables of users: frames, or arrays that keep their values."""

from __future__ import annotations

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd

from .column_kinds import EXACT

# NumPy has no dtype for these whole numbers.
LONG = (nw.Int128, nw.UInt128)
# Tables of other libraries have one of these, and one of the ways to convert them.
_NAMES = ("columns", "column_names", "schema")
_CONVERSIONS = ("collect", "compute", "to_pandas", "toPandas")


def is_frame(X):
    """Whether X is a pandas or polars data frame."""
    return nw.dependencies.is_pandas_dataframe(
        X
    ) or nw.dependencies.is_polars_dataframe(X)


def as_table(X):
    """Convert a table to a frame, or to an array that keeps its values.

    Parameters
    ----------
    X : frame or array-like
        Masked cells of a masked array become NaN, NaT or None.

    Returns
    -------
    frame, ndarray, or what scikit-learn's own check refuses
        Arrays of text are arrays of objects.

    Raises
    ------
    TypeError
        If X is no table, or one of a library that is not supported; the message names
        what converts it.
    """
    cls = type(X)
    is_void = getattr(getattr(X, "dtype", None), "kind", "") == "V"
    if is_frame(X) or hasattr(X, "tocsr"):
        return X
    if getattr(X, "ndim", 2) != 2 and not is_void:
        return X
    if any(hasattr(cls, name) for name in _NAMES):
        ways = [f"X.{name}()" for name in _CONVERSIONS if hasattr(cls, name)]
        raise TypeError(
            f"X is a {cls.__module__}.{cls.__name__}, which is not supported: pass "
            f"{' or '.join(ways[:1] or ['a pandas or polars data frame'])} instead."
        )
    if isinstance(X, np.ma.MaskedArray):
        return _unmasked(X)
    table = _as_array(X)
    if is_void or (table.dtype == object and table.ndim < 2):
        cells = f" of {type(table[0]).__name__}" if table.ndim and len(table) else ""
        raise TypeError(
            f"X must be a data frame or an array-like of rows, got {cls.__name__}"
            f"{cells}: pass pandas.DataFrame(X), or pandas.DataFrame(list(X))."
        )
    return table.astype(object) if table.dtype.kind in "UST" else table


def _as_array(X):
    if isinstance(X, np.ndarray):
        return X
    try:
        table = np.asarray(X)
    except (TypeError, RuntimeError) as error:  # a tensor that NumPy cannot hold
        raise TypeError(
            f"X is a {type(X).__module__}.{type(X).__name__} that cannot become an "
            f"array: {error}. Pass an array of floats instead."
        ) from error
    except ValueError as error:
        raise ValueError(
            "X has rows of different lengths, or cells that are no single values: "
            "every row needs one value for each column, NaN where it is missing."
        ) from error
    if hasattr(X, "dtype") or table.dtype.kind not in "USf":
        return table
    # NumPy turns all numbers of a list into text beside text, and rounds large whole
    # numbers beside a fraction.
    if table.dtype.kind == "f" and not (np.abs(table) >= EXACT).any():
        return table
    return np.asarray(X, dtype=object)


def _unmasked(X):
    """Put a null of its dtype, or None into an array of objects, where X is masked."""
    blank = {"f": np.nan, "m": "NaT", "M": "NaT"}.get(X.dtype.kind)
    table = X.data.astype(object if blank is None else X.dtype)
    table[np.ma.getmaskarray(X)] = blank
    return table


def rows_of(X, chosen):
    """Rows of a frame or an array that a mask (n,) chooses."""
    if not is_frame(X):
        return X[chosen]
    return nw.from_native(X, eager_only=True).filter(chosen.tolist()).to_native()


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
    if isinstance(series.dtype, LONG):  # NumPy has none of this length
        return np.array([*series.to_list(), None], dtype=object)[:-1], null
    if series.dtype.is_integer():
        # Nulls are filled, so that neither library makes floats of the column.
        values = series.fill_null(0) if null.any() else series
        return np.asarray(values.to_numpy()), null
    if isinstance(series.dtype, nw.Datetime) and series.dtype.time_zone:
        series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    values = series.to_numpy()
    if values.dtype.kind in "fOmM":
        null = null | pd.isna(values)
    return values, null
