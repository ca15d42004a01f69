"""Tables of several modalities side by side in one, and the columns of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd

from .column_selection import quoted
from .containers import is_frame
from .types import ArrayOrFrame, Table

# A NaN of the narrowest type takes the type of the numbers beside it.
_BLANK = np.float16(np.nan)


def join_modalities(
    arrays: Mapping[str, Table | Sequence[Any] | None]
    | Sequence[Table | Sequence[Any] | None],
    like: Mapping[str, Any] | None = None,
) -> tuple[ArrayOrFrame, dict[str, Any]]:
    """Join the tables of several modalities into one, and return their columns.

    Parameters
    ----------
    arrays : dict or list of array-like of shape (n_samples, n_columns)
        Tables of the modalities by name; the modalities of a list are named
        ``modality_0``, ``modality_1``, ... A table holds numbers, or is a pandas or
        polars frame of any columns. A row may be None where a sample lacks the
        modality, and its cells are then NaN. A whole table may be None too, if ``like``
        is given.
    like : dict, default=None
        Modalities that an earlier call returned. The result gets the same modalities
        in the same order and with the same columns. Modalities without a table become
        NaN.

    Returns
    -------
    X : ndarray or frame of shape (n_samples, n_features)
        The tables side by side: an array of floats, or a frame if one of the tables is
        a frame. A column of a frame keeps its name if this is a string and occurs once,
        and is called ``<modality>_<column>`` otherwise.
    modalities : dict
        Columns of each modality, by its name: a slice, or for a frame the list of the
        columns' names. It is what the parameter ``modalities`` of `ADMCImputer` takes.

    Raises
    ------
    ValueError
        If tables differ in length, or pandas frames in their index; if a table has no
        columns or holds something other than numbers; if a modality is None without
        ``like``, or lacks the columns of ``like``; or if names of columns recur in
        spite of the prefix.
    TypeError
        If ``arrays`` is neither a dict nor a list, or mixes pandas and polars frames.

    Examples
    --------
    >>> import numpy as np
    >>> from admc_sklearn import join_modalities
    >>> text = [[0.1, 0.2], None, [0.5, 0.6]]
    >>> audio = np.array([[1.0], [2.0], [np.nan]])
    >>> X, modalities = join_modalities({"text": text, "audio": audio})
    >>> X
    array([[0.1, 0.2, 1. ],
           [nan, nan, 2. ],
           [0.5, 0.6, nan]])
    >>> modalities
    {'text': slice(0, 2, None), 'audio': slice(2, 3, None)}
    >>> join_modalities({"audio": audio[:1]}, like=modalities)[0]
    array([[nan, nan,  1.]])
    """
    named = _named_tables(arrays, like)
    widths = {m: _width(columns) for m, columns in (like or {}).items()}
    tables = {
        modality: _as_table(modality, table, widths.get(modality))
        for modality, table in named.items()
        if table is not None
    }
    n_samples = _common_length(tables)
    for modality, table in tables.items():
        d = widths.get(modality, table.shape[1] or "some")
        if table.shape[1] != d:
            raise ValueError(
                f"The modality {modality!r} must have {d} columns, got "
                f"{table.shape[1]}."
            )
    for modality in named:
        if modality not in tables:
            tables[modality] = np.full((n_samples, widths[modality]), _BLANK)
    tables = {modality: tables[modality] for modality in named}
    if any(is_frame(table) for table in tables.values()):
        modalities = _frame_names(tables, like)
        return _joined_frames(tables, modalities), modalities
    ends = np.cumsum([0, *(table.shape[1] for table in tables.values())]).tolist()
    modalities = dict(zip(tables, map(slice, ends, ends[1:]), strict=False))
    return np.concatenate(list(tables.values()), axis=1), modalities


def _named_tables(arrays, like):
    """Tables by modality, None for those absent, in the order of ``like``."""
    if isinstance(arrays, list | tuple):
        arrays = {f"modality_{k}": table for k, table in enumerate(arrays)}
    if not isinstance(arrays, Mapping):
        raise TypeError(
            "The modalities to join must be a dict or a list of tables, got "
            f"{type(arrays).__name__}."
        )
    if like is not None:
        if unknown := [modality for modality in arrays if modality not in like]:
            raise ValueError(
                f"There is no modality {quoted(unknown)} in like: {quoted(like)}."
            )
        arrays = {modality: arrays.get(modality) for modality in like}
    if all(table is None for table in arrays.values()):
        raise ValueError("There is no table to join.")
    if like is None and (absent := [m for m in arrays if arrays[m] is None]):
        raise ValueError(
            f"The modality {quoted(absent)} is None: how many columns it has must be "
            "said by like, the modalities of an earlier call."
        )
    return arrays


def _width(columns):
    """Columns in a modality that `join_modalities` returned."""
    if isinstance(columns, slice):
        return columns.stop - columns.start
    return len(columns)


def _as_table(modality, table, width):
    """Frame, or array of floats of shape (n, d)."""
    if hasattr(table, "to_frame"):  # a series
        table = table.to_frame()
    if is_frame(table):
        return table
    try:
        table = np.asarray(_with_rows(table, width))
        if table.dtype.kind not in "fiubO":
            raise TypeError(f"it holds values of dtype {table.dtype}")
        if table.dtype.kind != "f":
            table = table.astype(np.float64)
        if table.ndim != 2:
            raise ValueError(f"its shape is {table.shape}")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The modality {modality!r} is not a table of numbers of shape "
            f"(n_samples, n_columns): {error}."
        ) from error
    return table


def _with_rows(table, width):
    """Replace rows that are None by rows of NaN; leave other tables as they are."""
    is_array = isinstance(table, np.ndarray) and table.ndim == 1
    if not (is_array or isinstance(table, list | tuple)):
        return table
    known = [np.size(row) for row in table if row is not None]
    if len(known) == len(table):
        return list(table)
    if not known and width is None:
        raise ValueError("every row is None, and their length can only come from like")
    blank = np.full(known[0] if known else width, _BLANK)
    return [blank if row is None else row for row in table]


def _common_length(tables):
    """Count the rows that all tables have, those of a pandas index among them."""
    (first, n_samples), *others = ((m, len(table)) for m, table in tables.items())
    if odd := [f"{m!r} has {n}" for m, n in others if n != n_samples]:
        raise ValueError(
            f"The modalities must have the same number of rows: {first!r} has "
            f"{n_samples}, but {', '.join(odd)}."
        )
    indices = {m: t.index for m, t in tables.items() if isinstance(t, pd.DataFrame)}
    first = next(iter(indices), None)
    if odd := [m for m, index in indices.items() if not index.equals(indices[first])]:
        raise ValueError(
            f"The modality {quoted(odd)} has another index than {first!r}: rows are "
            "joined in their order, so align the frames, or reset their indices."
        )
    return n_samples


def _frame_names(tables, like):
    """Names of the columns of each modality in a joined frame."""
    own = {
        m: list(table.columns) if is_frame(table) else list(range(table.shape[1]))
        for m, table in tables.items()
    }
    if like is not None and not any(isinstance(c, slice) for c in like.values()):
        for m, table in tables.items():
            ways = [{name, f"{m}_{name}"} for name in own[m]]
            if is_frame(table) and any(
                name not in way for name, way in zip(like[m], ways, strict=True)
            ):
                raise ValueError(
                    f"The modality {m!r} must have the columns {list(like[m])}, got "
                    f"{own[m]}."
                )
        return {modality: list(names) for modality, names in like.items()}
    counts = Counter(name for names in own.values() for name in names)
    modalities = {
        m: [c if isinstance(c, str) and counts[c] == 1 else f"{m}_{c}" for c in names]
        for m, names in own.items()
    }
    counts = Counter(name for names in modalities.values() for name in names)
    if recurring := [name for name, count in counts.items() if count > 1]:
        raise ValueError(f"Joined, several columns are named {quoted(recurring)}.")
    return modalities


def _joined_frames(tables, names):
    """One frame of tables of the same length, of which some are frames."""
    frames = [table for table in tables.values() if is_frame(table)]
    libraries = {nw.get_native_namespace(frame) for frame in frames}
    if len(libraries) > 1:
        raise TypeError("Modalities must not be pandas and polars frames together.")
    (library,) = libraries
    parts = []
    for modality, table in tables.items():
        if not is_frame(table):
            # Frame libraries do not all have the narrowest floats.
            is_narrow = table.dtype == np.float16
            table = table.astype(np.float64) if is_narrow else table
            columns = dict(zip(names[modality], table.T.copy(), strict=True))
            if library is pd:
                parts.append(pd.DataFrame(columns, index=frames[0].index))
            else:
                parts.append(library.DataFrame(columns))
        elif library is pd:
            parts.append(table.set_axis(names[modality], axis=1))
        else:
            new_names = dict(zip(table.columns, names[modality], strict=True))
            parts.append(table.rename(new_names))
    if library is pd:
        return pd.concat(parts, axis=1)
    return library.concat(parts, how="horizontal")
