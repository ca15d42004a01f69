"""The table codec: a frame or an array to values for the network, and back.

It imports neither torch nor scikit-learn; tables come in validated.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd

from .columns import ColumnCodec
from .containers import is_frame
from .missing_markers import codes_of, matches
from .relations import Relations
from .standardiser import Standardiser


@dataclass(frozen=True)
class Cells:
    """A table's cells: as numbers of all columns, and as the model takes them.

    A level that `fit` did not see is neither missing nor observed: it comes back as it
    is, and the other cells of its row are completed without it.

    Attributes
    ----------
    numbers : float array of shape (n, d)
        In the columns' units; codes of levels; steps of time.
    missing : bool array of shape (n, d)
    values : float32 array of shape (n, n_kept)
        Standardised numbers of the columns that are modelled.
    observed : bool array of shape (n, n_kept)
    beside : tuple of arrays of shape (n, q), optional
        Values of further columns that the model takes, and where they are known.
    """

    numbers: np.ndarray
    missing: np.ndarray
    values: np.ndarray
    observed: np.ndarray
    beside: tuple | None = None


class TableCodec:
    """Table to cells, and completed values back to a table.

    Parameters
    ----------
    missing_values : scalar, array-like or dict
        Codes that are missing besides nulls of any kind; see `codes_of`.

    Attributes
    ----------
    codes_ : list of d lists
        Codes of every column that are missing besides nulls.
    columns_ : ColumnCodec
    is_frame_ : bool
        Whether the table of `fit` was a frame.
    n_levels_ : int array of shape (d,)
        Levels of categorical columns, 0 for others.
    scaling_ : Standardiser
    relations_ : Relations
        Among the columns that are modelled, ``scaling_.kept_``.
    n_rows_ : int
        Rows of the table of `fit`. Older files lack it and the next.
    missing_rates_ : float array of shape (d,)
        Shares of missing cells in `fit`.
    """

    def __init__(self, missing_values):
        self.missing_values = missing_values

    def fit(self, X, names, categorical, weight=None):
        """Learn kinds, levels, location and scale of the columns; return the cells.

        Parameters
        ----------
        X : frame, or array of shape (n, d)
        names : sequence of d str
        categorical : bool array of shape (d,)
            Columns that are categorical whatever their dtype.
        weight : float array of shape (n,), optional
            Weights of the rows, with a mean near 1.
        """
        self.is_frame_ = is_frame(X)
        self.codes_ = codes_of(self.missing_values, X, names)
        self.columns_ = ColumnCodec(self.codes_).fit(X, names, categorical)
        self.n_levels_ = self.columns_.n_levels_
        numbers, missing, known = self._numbers(X)
        self.n_rows_, self.missing_rates_ = len(missing), missing.mean(axis=0)
        is_level = self.n_levels_ > 0
        self.scaling_ = Standardiser().fit(
            numbers, ~known, is_level, self.columns_.whole_, weight
        )
        cells = Cells(numbers, missing, *self.scaling_.encode(numbers, ~known))
        kept = self.scaling_.kept_
        self.relations_ = Relations().fit(
            numbers[:, kept], cells.observed, self.n_levels_[kept] > 0
        )
        found, found_known = self.determined(cells)
        found_known &= ~cells.observed
        for position, j in enumerate(kept):
            own, rows = found[:, position], found_known[:, position]
            if rows.any():
                self.columns_.columns_[j].widen(own[rows])
        return cells

    def read(self, X):
        """Cells of a table."""
        numbers, missing, known = self._numbers(X)
        return Cells(numbers, missing, *self.scaling_.encode(numbers, ~known))

    def _numbers(self, X):
        if not self._is_plain(X):
            return self.columns_.read(X)
        missing = np.isnan(X)
        for j, codes in enumerate(self.codes_):
            if codes:
                missing[:, j] |= matches(X[:, j], codes)
        return X, missing, ~missing

    def _is_plain(self, X):
        """Whether X is an array of floats and all its columns are numbers."""
        return not is_frame(X) and X.dtype.kind == "f" and self.columns_.are_numbers_

    def determined(self, cells):
        """Numbers of the modelled columns, with cells that observed ones determine.

        Returns
        -------
        numbers : float64 array of shape (n, n_kept)
        known : bool array of shape (n, n_kept)
            Cells that are observed or determined.
        """
        numbers = cells.numbers[:, self.scaling_.kept_].astype(np.float64)
        known = cells.observed.copy()
        self.relations_.determine(numbers, known)
        return numbers, known

    def complete(self, cells, values, keep_whole="from_frame", agree=None):
        """Numbers with completed values, standardised (n, n_kept), where missing.

        Cells that observed ones determine are computed instead. ``agree`` makes the
        other cells agree with each other: as ``"means"``, which are carried over by
        straight lines alone, as ``"draws"``, or not at all, None. ``keep_whole`` is the
        imputer's ``keep_whole_numbers``.
        """
        numbers = cells.numbers.copy()
        keep_whole = self.keeps_whole(keep_whole)
        self.scaling_.decode_into(numbers, cells.missing, values, keep_whole)
        if not self.relations_.rules_:
            return numbers
        kept = self.scaling_.kept_
        exact, known = self.determined(cells)
        found = np.where(known, exact, numbers[:, kept])
        if agree is not None:
            self.relations_.reconcile(found, known, drawn=agree == "draws")
            inside = found.clip(self.scaling_.low_, self.scaling_.high_)
            whole = self.scaling_.is_whole(keep_whole)
            inside = np.where(whole, np.rint(inside) + 0.0, inside)
            found = np.where(known, found, inside)
        missing = cells.missing[:, kept]
        numbers[:, kept] = np.where(missing, found, numbers[:, kept])
        return numbers

    def reach(self, ends):
        """Let completions of columns go as far as ends (d, 2), where these are not NaN.

        Beyond their observed range, in place.
        """
        kept = self.scaling_.kept_
        self.scaling_.reach(*ends[kept].T)
        for column, pair in zip(self.columns_.columns_, ends, strict=True):
            if np.isfinite(pair).any() and not column.n_levels:
                column.widen(pair[np.isfinite(pair)])

    def reaching(self, ends):
        """Copy whose completions go as far as ends (d, 2); see `reach`."""
        other, columns = copy.copy(self), copy.copy(self.columns_)
        columns.columns_ = [copy.copy(column) for column in columns.columns_]
        other.columns_, other.scaling_ = columns, copy.copy(self.scaling_)
        other.reach(ends)
        return other

    def learn_drawn(self, cells, rows, keep_whole="from_frame"):
        """Cells in which some missing ones were drawn, as `fit` is to take them.

        Columns that are completed by whole numbers get whole ones. The ranges of
        columns hold what was drawn.

        Parameters
        ----------
        cells : Cells
        rows : Rows
            With drawn cells, which are observed there.
        """
        scaling = self.scaling_
        drawn = rows.observed & ~cells.observed
        numbers = rows.values.astype(np.float64) * scaling.scale_ + scaling.mean_
        whole = scaling.is_whole(self.keeps_whole(keep_whole))
        numbers = np.where(drawn & whole, np.rint(numbers), numbers)
        ends = np.full((cells.numbers.shape[1], 2), np.nan)
        own = np.where(drawn, numbers, np.nan)
        some = drawn.any(0)
        ends[scaling.kept_[some], 0] = np.nanmin(own[:, some], axis=0)
        ends[scaling.kept_[some], 1] = np.nanmax(own[:, some], axis=0)
        self.reach(ends)
        values = ((numbers - scaling.mean_) / scaling.scale_).astype(np.float32)
        return np.where(drawn, values, rows.values)

    def keeps_whole(self, keep_whole):
        """Whether columns that look whole are rounded: `keep_whole_numbers` as bool."""
        return self.is_frame_ if isinstance(keep_whole, str) else keep_whole

    def to_array(self, X, cells, numbers, keep):
        """Array of the ``keep`` columns.

        Its dtype is the first that holds it among the dtype of X, floats and objects.
        """
        if self._is_plain(X):
            return numbers[:, keep]
        return self.columns_.write_array(X, numbers, cells.missing, keep)

    def to_frame(self, X, cells, numbers, keep, flags, names, container):
        """Frame of the ``keep`` columns, in the dtypes of X, with flags beside them.

        ``container`` is ``"pandas"``, ``"polars"`` or ``"native"``: X's own library.
        """
        frame = self.columns_.write_frame(X, numbers, cells.missing, keep, flags)
        if container == "pandas":
            frame = nw.from_native(frame, eager_only=True).to_pandas()
        elif container == "polars":
            frame = nw.from_native(frame, eager_only=True).to_polars()
        frame.columns = list(names)
        if isinstance(X, pd.DataFrame) and isinstance(frame, pd.DataFrame):
            frame = X._constructor(frame).__finalize__(X)  # subclasses, attrs
        return frame

    @property
    def is_ordered_(self):
        """Columns of levels whose order has a meaning, bool (d,)."""
        # Files of earlier versions do not say.
        own = [getattr(column, "ordered", False) for column in self.columns_.columns_]
        return np.array(own, dtype=bool)

    def categories(self):
        """Levels of each categorical column, None for others."""
        return [c.levels if c.n_levels else None for c in self.columns_.columns_]
