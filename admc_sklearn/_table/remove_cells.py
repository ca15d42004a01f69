"""Removing cells of a table, in the container that it came in."""

from __future__ import annotations

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd

from .containers import as_table, is_frame
from .missing_markers import codes_of, matches


class Table:
    """An array or a frame: its columns, its known cells, a copy without some."""

    def __init__(self, X):
        frame = nw.from_native(X, eager_only=True, pass_through=True)
        self.is_frame = isinstance(frame, nw.DataFrame)
        self.native = X if self.is_frame else np.asarray(as_table(X))
        if self.is_frame:
            self.names = frame.columns
            self.columns = [column.to_numpy() for column in frame.iter_columns()]
            dtypes, categories = frame.schema.dtypes(), nw.Categorical | nw.Enum
            self.categorical = {
                j for j, dtype in enumerate(dtypes) if isinstance(dtype, categories)
            }
        elif self.native.ndim != 2 or self.native.dtype.kind not in "fiubOUSmM":
            raise ValueError(f"X must be a frame or an (n, d) array; got {X!r}.")
        else:
            self.names = list(range(self.native.shape[1]))
            self.columns, self.categorical = list(self.native.T), set()
        self.known = ~np.array([pd.isna(c) for c in self.columns], dtype=bool).T
        if 0 in self.known.shape:
            raise ValueError(f"X must have at least one cell; got {X!r}.")

    def without(self, removed):
        """Copy with the given cells missing."""
        return remove_cells(self.native, removed)


def without_codes(X, missing_values):
    """X with a null where a cell holds a code of an imputer's ``missing_values``."""
    table = Table(X)
    names = [f"x{j}" if name == j else name for j, name in enumerate(table.names)]
    codes = codes_of(missing_values, table.native, names)
    held = ~table.known
    for j, values in enumerate(table.columns):
        rows = np.flatnonzero(table.known[:, j] if codes[j] else [])
        held[rows, j] = matches(values[rows], codes[j])
    held &= table.known
    return table.without(held) if held.any() else X


def remove_cells(X, removed, marker=np.nan):
    """Copy of a frame or an array in which the given cells are missing.

    Parameters
    ----------
    X : frame or array of shape (n, d)
        Only columns that lose cells can have another dtype in the copy.
    removed : bool array of shape (n, d)
    marker : scalar
        Stands in those cells of an array; a frame has its own null.
    """
    if not is_frame(X):
        holders = dict.fromkeys("iub", np.float64) | dict.fromkeys("US", object)
        X = X.astype(holders.get(X.dtype.kind, X.dtype))
        X[removed] = "NaT" if X.dtype.kind in "mM" else marker
        return X
    frame = nw.from_native(X, eager_only=True)
    losers = {n: j for j, n in enumerate(frame.columns) if removed[:, j].any()}
    backend = frame.implementation
    if backend.is_pandas():
        # Booleans of its own dtype would become objects.
        booleans = [name for name in losers if X[name].dtype == bool]
        frame = nw.from_native(X.copy().astype(dict.fromkeys(booleans, "boolean")))
    columns = []
    for name, j in losers.items():
        kept = nw.new_series("", (~removed[:, j]).tolist(), nw.Boolean, backend=backend)
        columns.append(nw.when(kept).then(nw.col(name)).alias(name))
    return frame.with_columns(columns).to_native()
