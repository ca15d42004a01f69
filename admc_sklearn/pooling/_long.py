"""Draws as one long frame, as R's mice has them, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd


def to_long(
    draws: Sequence[Any] | np.ndarray, X: pd.DataFrame | np.ndarray | None = None
) -> pd.DataFrame:
    """Stack draws into one long frame.

    Written to a CSV file, ``mice::as.mids`` of R reads it.

    Parameters
    ----------
    draws : list of data frames, or array of shape (n_draws, n, d)
        As `ADMCImputer.sample` returns them.
    X : data frame or array of shape (n, d), default=None
        The incomplete table, which ``as.mids`` needs; it becomes draw 0. Its columns
        are matched to those of the draws by name, and name those of arrays.

    Returns
    -------
    DataFrame of shape (n_draws * n, d + 2), or n rows more with ``X``
        ``.imp``, the number of the draw from 1; ``.id``, that of the row from 1; then
        the columns, ``x0``, ``x1``, ... where they have no names.

    Raises
    ------
    ValueError
        If there is no draw, or a table has other columns or rows than the first.
    """
    tables = list(draws)
    if not tables:
        raise ValueError("draws must hold at least one table.")
    names = next((list(t.columns) for t in [*tables, X] if hasattr(t, "columns")), None)
    frames = [_frame(table, names) for table in tables]
    first = frames[0]
    if X is not None:
        own = _frame(X, names)
        is_same = set(own) == set(first) and own.shape[1] == first.shape[1]
        frames.insert(0, own[list(first)] if is_same else own)
    parts = []
    for k, frame in enumerate(frames, start=0 if X is not None else 1):
        if list(frame) != list(first) or len(frame) != len(first):
            raise ValueError(f"draw {k} has other columns or rows than the first one.")
        own = frame.reset_index(drop=True)
        own.insert(0, ".id", np.arange(1, len(own) + 1))
        own.insert(0, ".imp", k)
        parts.append(own)
    return pd.concat(parts, ignore_index=True)


def _frame(table, names=None):
    """Return a pandas frame; an array's columns take the names, where they fit."""
    if hasattr(table, "to_pandas"):
        return table.to_pandas()
    if isinstance(table, pd.DataFrame):
        return table
    table = np.asarray(table)
    if names is None or len(names) != table.shape[1]:
        names = [f"x{j}" for j in range(table.shape[1])]
    return pd.DataFrame(table, columns=names)


def from_long(frame: Any) -> list[pd.DataFrame]:
    """Split a long frame into its draws, in the order of their numbers.

    Parameters
    ----------
    frame : DataFrame of pandas or polars
        With the columns ``.imp`` and ``.id``, as `to_long` returns it or
        ``mice::complete(imp, "long")`` of R. Draw 0, the incomplete table, is left out.

    Returns
    -------
    draws : list of DataFrame
        Indexed by ``.id``.

    Raises
    ------
    ValueError
        If one of the two columns is absent, or draws have other rows than the first.
    """
    frame = _frame(frame)
    if not {".imp", ".id"} <= set(frame):
        raise ValueError("frame must have the columns .imp and .id.")
    draws = [
        part.drop(columns=".imp").set_index(".id").sort_index()
        for k, part in frame.groupby(".imp", sort=True)
        if k != 0
    ]
    for k, draw in enumerate(draws, start=1):
        if not draw.index.equals(draws[0].index):
            raise ValueError(f"draw {k} has other rows than the first one.")
    return draws
