"""The rows of a dataset that are fitted to: a sample, and rows that show what it lacks.

Every row has a priority, 64 random bits; the sample is the rows of lowest priority
(bottom-k sampling: Cohen and Kaplan, 2007). Which batches the rows come in and in which
order batches are done changes nothing of this. A sample misses rare levels and the
ends of columns, so single rows are added to it which hold

- the smallest and the largest value of every column of numbers and times,
- every level of other columns,
- a fraction and a missing cell of every column that has one,

each in one pass. With them the imputer knows the levels and ranges of the whole
dataset, and adding some dozens of rows to a sample of many thousands changes nothing
else.
"""

from __future__ import annotations

import math
import pickle

import numpy as np
import pandas as pd
import pyarrow as pa

from .._shared.noise import seeds_of
from .._table.column_selection import find_columns
from .._table.containers import contents, series_of
from .._table.missing_markers import codes_of, matches
from ._arrow import cast, frame_of, hashes_of

# A row of each level is added up to so many levels of a column.
MAX_LEVELS = 10_000
# The share of rows that tasks send is that of the sample and so many standard
# deviations more: the sample is not short of rows.
MARGIN = 6.0


class RowFinder:
    """Finds in a batch the rows that the fit may need; a task of Ray Data.

    Parameters
    ----------
    schema : pyarrow.Schema
        Of the columns to fit.
    key : pyarrow.Schema
        Of the columns that name a row.
    imputer : ADMCImputer
        Whose ``missing_values`` and ``categorical_features`` count.
    n_sample_rows, n_rows : int
        Size of the sample, and of the dataset.
    seed : int
    """

    def __init__(self, schema, key, imputer, n_sample_rows, n_rows, seed):
        self.schema, self.key, self.seed = schema, key, seed
        expected = n_sample_rows + MARGIN * math.sqrt(n_sample_rows)
        self.share = min(1.0, expected / max(1, n_rows))
        head = frame_of(schema.empty_table())
        names = schema.names
        self.codes = codes_of(imputer.missing_values, head, names)
        chosen = imputer.categorical_features
        are_named = [] if isinstance(chosen, str) else chosen
        found = find_columns(are_named, head, names, "categorical_features")
        self.named = set(found.tolist())

    def __call__(self, table):
        """Pack what a batch, a `pyarrow.Table`, has: one row of one column, bytes."""
        return pa.table({"part": [pickle.dumps(self.find(table))]})

    def find(self, table):
        """Rows of a batch: their table, their priorities, and what they show.

        Returns
        -------
        rows : pyarrow.Table
        priorities : uint64 array
        shown : dict
            By column and ``"low"``, ``"high"``, ``"fraction"``, ``"missing"`` or
            ``("level", value)``: (value, place among the rows).
        """
        keys, table = cast(table, self.key), cast(table, self.schema)
        if not len(table):
            return table, np.zeros(0, np.uint64), {}
        # The first row that shows something is then the one of lowest priority.
        priorities = self._priorities(table, keys)
        order = np.argsort(priorities)
        table, priorities = table.take(order), priorities[order]
        is_chosen = priorities <= np.uint64(min(2**64 - 1, int(self.share * 2**64)))
        if self.share == 1.0:
            is_chosen[:] = True
        shown = {}
        for j, series in enumerate(series_of(frame_of(table))):
            for what, (value, row) in self._shown(j, series).items():
                shown[j, what] = value, row
                is_chosen[row] = True
        rows = np.flatnonzero(is_chosen)
        shown = {
            what: (value, int(np.searchsorted(rows, row)))
            for what, (value, row) in shown.items()
        }
        return table.take(rows).combine_chunks(), priorities[rows], shown

    def _priorities(self, table, keys):
        """Random bits of every row, by its key, or by the content of the batch."""
        if keys.num_columns:
            return seeds_of(self.seed, hashes_of(keys))
        # A task that is repeated has the same rows; other batches have others.
        own = hashes_of(table)
        ordinal = np.arange(1, len(own) + 1, dtype=np.uint64)
        with np.errstate(over="ignore"):
            salt = np.bitwise_xor.reduce(own * (2 * ordinal + np.uint64(1)))
            return seeds_of(self.seed, seeds_of(int(salt) % 2**63, ordinal))

    def _shown(self, j, series):
        """Find what the rows of a column show: a dict of values and rows."""
        values, null = contents(series)
        if pa.types.is_decimal(self.schema.field(j).type):
            values = np.array([np.nan if v is None else float(v) for v in values])
        null = null.copy()
        if self.codes[j]:
            seen = np.flatnonzero(~null)
            null[seen] = matches(values[seen], self.codes[j])
        found, seen = {}, np.flatnonzero(~null)
        if len(seen) < len(values):
            found["missing"] = True, int(np.flatnonzero(null)[0])
        if not len(seen):
            return found
        own = values[seen]
        if own.dtype.kind not in "iufmM" or j in self.named:
            codes, levels = pd.factorize(own)
            first = np.unique(codes, return_index=True)[1]
            for level, row in zip(levels[:MAX_LEVELS], first, strict=False):
                found["level", level] = level, int(seen[row])
            return found
        low, high = own.argmin(), own.argmax()
        found["low"] = own[low], int(seen[low])
        found["high"] = own[high], int(seen[high])
        if own.dtype.kind == "f":
            broken = np.flatnonzero(own != np.rint(own))
            if len(broken):
                found["fraction"] = True, int(seen[broken[0]])
        return found


class Gathered:
    """The rows of all batches so far.

    Memory is that of the sample and of the rows that show something.

    Parameters
    ----------
    n_sample_rows : int
    """

    def __init__(self, n_sample_rows):
        self.n_sample_rows = n_sample_rows
        self.parts, self.priorities = [], []
        self.shown, self.n_levels = {}, {}

    def add(self, rows, priorities, shown):
        """Add what `RowFinder.find` returns of a batch."""
        self.parts.append(rows)
        self.priorities.append(priorities)
        for (j, what), (value, row) in shown.items():
            # Of equal values the row of lowest priority: batches come in any order.
            rank = (priorities[row],)
            if what in ("low", "high"):
                size = value.astype(np.int64) if value.dtype.kind in "mM" else value
                rank = (size if what == "low" else -size, priorities[row])
            known = self.shown.get((j, what))
            if known is None and isinstance(what, tuple):
                self.n_levels[j] = self.n_levels.get(j, 0) + 1
                if self.n_levels[j] > MAX_LEVELS:
                    continue
            if known is None or rank < known[0]:
                self.shown[j, what] = rank, priorities[row], rows.slice(row, 1)
        if sum(map(len, self.parts)) > 2 * self.n_sample_rows + 100_000:
            self._prune()

    def _prune(self):
        table = pa.concat_tables(self.parts).unify_dictionaries()
        priorities = np.concatenate(self.priorities)
        order = np.argsort(priorities, kind="stable")[: self.n_sample_rows]
        self.parts, self.priorities = [table.take(order)], [priorities[order]]

    def table(self):
        """Make a table of the sample, by priority, and the rows that show more."""
        self._prune()
        have, more = set(self.priorities[0].tolist()), {}
        for _, priority, row in self.shown.values():
            if int(priority) not in have:
                more[int(priority)] = row
        rows = [more[priority] for priority in sorted(more)]
        return pa.concat_tables([*self.parts, *rows]).unify_dictionaries()
