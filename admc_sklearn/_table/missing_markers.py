"""Which cells count as missing: one code or several, in all columns or by column.

Nulls of any kind (NaN, None, NA, NaT) are missing in frames and in arrays of objects,
whatever the codes are. Here a *code* is a value that is no null.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real

import numpy as np
import pandas as pd

from .column_selection import find_columns


def is_null(value):
    """Whether a value is NaN, None, NA or NaT."""
    if value is None or value is pd.NA or value is pd.NaT:
        return True
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def _listed(missing_values):
    """List of markers, also where there is a single one."""
    if isinstance(missing_values, list | tuple | set | frozenset | np.ndarray):
        return list(missing_values)
    return [missing_values]


def accepts_null(missing_values):
    """Whether NaN is missing in an array of floats too.

    By column it always is: a column without codes has nothing else.
    """
    if isinstance(missing_values, Mapping):
        return True
    return any(map(is_null, _listed(missing_values)))


def codes_of(missing_values, X, names):
    """Codes of every column.

    Parameters
    ----------
    missing_values : scalar, array-like of scalars, or dict
        A dict has columns, by name or index, as keys, and their markers as values.
    X : frame or array of shape (n, d)
    names : sequence of d str

    Returns
    -------
    list of d lists
        Without nulls.

    Raises
    ------
    TypeError
        If a marker is neither a number nor text nor a null.
    ValueError
        If a list of markers is empty, or the dict names a column that does not exist.
    """
    if not isinstance(missing_values, Mapping):
        return [_checked(missing_values, "missing_values")] * len(names)
    codes = [[] for _ in names]
    for column, values in missing_values.items():
        found = _checked(values, f"missing_values[{column!r}]")
        for j in find_columns([column], X, names, "missing_values"):
            codes[j] = codes[j] + found
    return codes


def _checked(values, where):
    """Markers without the nulls, once they are seen to be numbers or text."""
    markers = [v.item() if isinstance(v, np.generic) else v for v in _listed(values)]
    if not markers:
        raise ValueError(
            f"{where} is an empty list of markers: leave it at np.nan if nothing but "
            "nulls is missing."
        )
    for marker in markers:
        if not (is_null(marker) or isinstance(marker, Real | str)):
            raise TypeError(
                f"{where} must be a number, text or a null, or a list of these, got "
                f"{marker!r}."
            )
    return [marker for marker in markers if not is_null(marker)]


def matches(values, codes, is_truth=False):
    """Cells of a column, none of them null, that hold one of the codes.

    A code of another type than the column's matches nothing; 0 is not False.

    Parameters
    ----------
    values : array of shape (n,)
    codes : list of numbers and str
    is_truth : bool
        Whether objects are truth values.

    Returns
    -------
    bool array of shape (n,)
    """
    found = np.zeros(len(values), dtype=bool)
    kind = "b" if is_truth else values.dtype.kind
    for code in codes:
        is_number = isinstance(code, Real) and not isinstance(code, bool)
        if is_number and kind in "fiu":
            number = _in_dtype(code, values.dtype)
            found |= False if number is None else values == number
        elif kind in "OUS" or (kind == "b" and not is_number):
            cells = values.astype(object)
            same = (cells == code).astype(bool)
            if kind == "O" and isinstance(code, Real):
                truths = [isinstance(cell, bool | np.bool_) for cell in cells]
                same &= np.array(truths, dtype=bool) != is_number
            found |= same
    return found


def _in_dtype(code, dtype):
    """Code as a number of a dtype; None where the dtype does not hold it."""
    if dtype.kind == "f":
        try:
            with np.errstate(over="ignore"):
                number = dtype.type(code)
        except OverflowError:
            return None
        return number if np.isfinite(number) or np.isinf(code) else None
    if code != code // 1 or not np.iinfo(dtype).min <= code <= np.iinfo(dtype).max:
        return None
    return dtype.type(int(code))


def placeholder(missing_values):
    """Value that makes an array's cell missing: NaN, or a code where NaN does not."""
    if accepts_null(missing_values):
        return np.nan
    markers = _listed(missing_values)
    numbers = [marker for marker in markers if isinstance(marker, Real)]
    return [*numbers, *markers][0]
