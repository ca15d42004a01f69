"""Filling completed values into a frame's column, in the dtype it has or had in fit."""

from __future__ import annotations

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd

from .column_kinds import objects
from .containers import LONG

# Dtypes of polars and of Arrow that hold nothing.
NULLS = ("Null", "null[pyarrow]")


def dtype_of(series):
    """Dtype of the frame library's own, and whether that is pandas."""
    return series.to_native().dtype, series.implementation.is_pandas()


def is_dictionary(series):
    """Whether pandas holds an Arrow dictionary, which has no accessor of categories."""
    dtype, is_pandas = dtype_of(series)
    return is_pandas and not isinstance(dtype, pd.CategoricalDtype)


def cells_of(series):
    """Cells of a column as an array of objects."""
    if isinstance(series, np.ndarray):
        return objects(series)
    native = series.to_native()
    native = native.astype(object) if hasattr(native, "astype") else native
    return np.array([*native.to_list(), None], dtype=object)[:-1]


def filled(series, rows, values, fitted):
    """Put values into some rows of a narwhals series, in its dtype.

    A column without values often has an arbitrary dtype: it gets the dtype that
    it had in fit, ``fitted``.
    """
    dtype, is_pandas = dtype_of(series)
    is_blank = len(rows) == len(series)
    was_blank = fitted is not None and str(fitted[0]) in NULLS
    if is_blank and fitted is not None and fitted[1] == is_pandas and not was_blank:
        if fitted[0] != dtype:
            return _rewritten(series, rows, values, fitted[0])
    is_categorical = isinstance(series.dtype, (nw.Categorical, nw.Enum))
    if is_pandas and is_categorical and not is_dictionary(series):
        return _scatter_levels(series, rows, values)
    is_plain = not isinstance(series.dtype, (nw.Unknown, nw.Decimal, *LONG))
    if is_plain and not (is_pandas and is_categorical):
        if is_pandas or not isinstance(series.dtype, nw.Object):
            return scatter(series, rows, values)
    return _rewritten(series, rows, values, None if str(dtype) in NULLS else dtype)


def _rewritten(series, rows, values, dtype):
    """Put values into a series as Python's objects, and make ``dtype`` of the whole.

    This works for every dtype of both libraries, but is slow; None finds a dtype.
    """
    cells, filling = cells_of(series), objects(values)
    arrow = getattr(dtype, "pyarrow_dtype", None)
    if values.dtype.kind == "M" and getattr(dtype, "tz", getattr(arrow, "tz", None)):
        filling = [value.tz_localize("UTC") for value in filling]
    cells[rows] = filling
    native = series.to_native()
    if series.implementation.is_pandas():
        native = pd.Series(cells, index=native.index, name=series.name, dtype=object)
        native = native.infer_objects() if dtype is None else native.astype(dtype)
    else:
        backend = nw.get_native_namespace(series)
        native = backend.Series(series.name, cells.tolist(), dtype=dtype, strict=False)
    return nw.from_native(native, series_only=True)


def scatter(series, rows, values):
    """Put values into some rows of a narwhals series, by the library's own means."""
    dtype = series.dtype
    backend = series.implementation
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
    if isinstance(dtype, (nw.Categorical, nw.Enum)):  # numbers, where fit saw nothing
        values = objects(values)
        values[:] = [v if isinstance(v, str) else str(v) for v in values]
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
    known = native.cat.categories
    new = [level for level in pd.unique(values) if level not in known]
    native = native.cat.add_categories(new) if new else native.copy()
    native.iloc[rows] = values
    return nw.from_native(native, series_only=True)
