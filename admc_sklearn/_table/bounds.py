"""Bounds of columns, and limits between which single missing cells are known to lie.

Both come in the columns' own units, dates as dates, and are numbers here as the codec
makes them; infinite where they are open.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from .column_kinds import objects
from .column_selection import find_columns
from .containers import contents, is_frame, series_of


def resolve_bounds(bounds, X, names, codec):
    """Find bounds of columns, float (d, 2): infinite where open, NaN without any.

    Parameters
    ----------
    bounds : dict
        ``{column: (low, high)}``, columns by name or index.
    X : frame or array of shape (n, d)
    names : sequence of d str
    codec : TableCodec

    Raises
    ------
    ValueError
        Naming the column.
    """
    scaling = codec.scaling_
    found = np.full((len(names), 2), np.nan)
    for name, pair in bounds.items():
        (j,) = find_columns([name], X, names, "bounds")
        _check_pair(name, pair)
        low = _number(pair[0], j, name, codec, -1)
        high = _number(pair[1], j, name, codec, 1)
        _check_order(name, low, high)
        if j not in scaling.kept_:
            continue  # nothing is known of the column
        k = int(np.searchsorted(scaling.kept_, j))
        least, most = (end[k] for end in scaling.seen)
        if least < low or most > high:
            value = least if least < low else most
            raise ValueError(
                f"bounds[{name!r}] = {pair!r} exclude observed values of the column, "
                f"such as {codec.columns_.columns_[j].write(np.array([value]))[0]}."
            )
        found[j] = _whole(low, high, codec.columns_.columns_[j].whole, name)
    return found


def ends_of(bounds, scaling):
    """Find ends of completions, (d, 2), by the bounds of `resolve_bounds`.

    Where a bound is open the end lies beyond the observed range, as far as the range is
    wide.
    """
    ends = bounds.copy()
    low, high = scaling.seen
    span = high - low
    reach = np.stack([low - span, high + span], -1)
    own = ends[scaling.kept_]
    ends[scaling.kept_] = np.where(np.isinf(own), reach, own)
    return ends


def intersected(limits, bounds, names):
    """Limits of cells (n, d, 2) that also keep within bounds of columns (d, 2)."""
    low = np.fmax(limits[..., 0], bounds[:, 0])
    high = np.fmin(limits[..., 1], bounds[:, 1])
    known = np.isfinite(limits).any(-1)
    for j in np.flatnonzero(((low > high) & known).any(0)):
        raise ValueError(
            f"bounds[{names[j]!r}]: limits of cells lie beyond the column's bounds "
            f"{tuple(bounds[j].tolist())}."
        )
    return np.where(known[..., None], np.stack([low, high], -1), limits)


def cell_limits(bounds, X, names, codec):
    """Limits of missing cells, float array (n, d, 2).

    Parameters
    ----------
    bounds : pair or dict
        ``(low, high)``, each an array (n, d) or what broadcasts to one, with NaN or
        None where an end is open; or ``{column: (low, high)}``, each a number or an
        array (n,).
    X : frame or array of shape (n, d)
    names : sequence of d str
    codec : TableCodec

    Raises
    ------
    ValueError, TypeError
        Naming the column.
    """
    n, d = X.shape
    limits = np.stack([np.full((n, d), -np.inf), np.full((n, d), np.inf)], -1)
    if isinstance(bounds, Mapping):
        pairs = {}
        for name, pair in bounds.items():
            (j,) = find_columns([name], X, names, "bounds")
            _check_pair(name, pair)
            pairs[int(j)] = pair
    else:
        if not isinstance(bounds, tuple | list) or len(bounds) != 2:
            raise TypeError(
                "bounds must be a pair of arrays (low, high), or a dict of pairs by "
                f"column; got {type(bounds).__name__}."
            )
        ends = [_table_of(end, n, d) for end in bounds]
        pairs = {j: tuple(end[:, j] for end in ends) for j in range(d)}
    for j, pair in pairs.items():
        name = names[j]
        for side, sign in ((0, -1), (1, 1)):
            limits[:, j, side] = _number(pair[side], j, name, codec, sign, n)
        _check_order(name, limits[:, j, 0], limits[:, j, 1])
        whole = codec.columns_.columns_[j].whole
        limits[:, j] = _whole(limits[:, j, 0], limits[:, j, 1], whole, name)
    return limits


def within_limits(numbers, missing, limits, whole):
    """Numbers whose missing cells keep within their limits, (n, d).

    Where ``whole``, bool (d,), they stay whole if a whole number lies between.
    """
    low, high = limits[..., 0], limits[..., 1]
    up, down = np.ceil(low), np.floor(high)
    fits = whole & (up <= down)
    low, high = np.where(fits, up, low), np.where(fits, down, high)
    return np.where(missing, np.clip(numbers, low, high), numbers)


def widest(limits):
    """Outermost finite limits of every column, (n, d, 2) -> (d, 2); NaN without any."""
    finite = np.where(np.isfinite(limits), limits, np.nan)
    found = np.full(limits.shape[1:], np.nan)
    some = ~np.isnan(finite).all((0, 2))
    found[some, 0] = np.nanmin(finite[:, some], axis=(0, 2))
    found[some, 1] = np.nanmax(finite[:, some], axis=(0, 2))
    return found


def _table_of(end, n, d):
    """One end of all cells as an array (n, d), None for what broadcasts."""
    if end is None:
        return np.full((n, d), np.nan)
    if is_frame(end):  # each column by itself: they may be of different dtypes
        columns = np.empty((n, d), dtype=object)
        every = series_of(end)
        if len(every) != d or len(end) != n:
            shape = len(end), len(every)
            raise ValueError(f"bounds must have the shape of X, {(n, d)}; got {shape}.")
        for j, series in enumerate(every):
            values, null = contents(series)
            columns[:, j] = objects(values)
            columns[null, j] = None
        return columns
    end = np.asarray(end)
    try:
        return np.broadcast_to(end, (n, d))
    except ValueError:
        raise ValueError(
            f"bounds must have the shape of X, {(n, d)}; got {end.shape}."
        ) from None


def _number(end, j, name, codec, sign, n=None):
    """Make numbers of ends in a column's units, infinite where there is none.

    A float, or an array (n,).
    """
    column = codec.columns_.columns_[j]
    shape = () if n is None else (n,)
    values = np.asarray(end)
    if values.dtype.kind not in "fiumM":
        values = np.asarray(end, dtype=object)
    if n is None and values.shape:
        raise ValueError(
            f"bounds[{name!r}] must be one pair of numbers for the column. Limits of "
            "single cells are arguments of fit and transform: fit(X, bounds=...)."
        )
    if values.shape not in {(), shape}:
        raise ValueError(
            f"bounds[{name!r}] must be numbers, or arrays of {n} of them; got shape "
            f"{values.shape}."
        )
    flat = np.atleast_1d(values)
    null = np.asarray(pd.isna(flat))
    if flat.dtype.kind == "f":
        null |= np.isinf(flat)
    found = np.full(len(flat), sign * np.inf)
    if not null.all():
        if column.n_levels:
            raise ValueError(f"bounds[{name!r}]: the column holds levels, no numbers.")
        try:
            found[~null] = column.read(flat[~null])
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"bounds[{name!r}]: {flat[~null][0]!r} is no value of this column "
                f"({error})."
            ) from error
    return float(found[0]) if n is None else np.broadcast_to(found, (n,))


def _check_pair(name, pair):
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(
            f"bounds[{name!r}] must be a pair (low, high), with None for an open end; "
            f"got {pair!r}."
        )


def _check_order(name, low, high):
    wrong = np.flatnonzero(np.atleast_1d(low > high))
    if len(wrong):
        k = wrong[0]
        low, high = np.atleast_1d(low)[k], np.atleast_1d(high)[k]
        where = f" in {len(wrong)} rows" if len(wrong) > 1 else ""
        raise ValueError(f"bounds[{name!r}]: {low} is above {high}{where}.")


def _whole(low, high, whole, name):
    """Move ends to whole numbers between them, where the column is whole: (..., 2)."""
    if whole:
        up, down = np.ceil(low), np.floor(high)
        wrong = np.flatnonzero(np.atleast_1d(up > down))
        if len(wrong):
            low, high = (np.atleast_1d(end)[wrong[0]] for end in (low, high))
            raise ValueError(
                f"bounds[{name!r}]: there is no whole number between {low} and {high}."
            )
        low, high = up, down
    return np.stack([low, high], -1)
