"""Gaps: intervals in which no value of a column was ever seen, though many must be.

Where only results outside of some range are written down, the observed values of a
column leave a gap, and the missing ones lie in it. Two things tell that from a column
that has no such values: at both borders of the gap values are so dense that about as
many would lie in it as are missing, and most columns of the table have one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# Frequency of the gap among the observed values: so small that it counts for nothing
# unless a cell is missing.
GAP_SHARE = 1e-9
# Of its width, between the gap and the values at its borders, which lie outside.
EDGE = 0.01
# Of its width among the values that are sorted, when all values are looked at.
MIN_LEFT = 0.8


@dataclass(frozen=True)
class GapSettings:
    """How gaps are recognised; see "Gaps" in benchmarks/NOTES.md.

    Parameters
    ----------
    min_distinct, min_missing : int
        Distinct values and missing cells of a column that counts: where values recur,
        gaps are common.
    max_values : int
        Values of a column that are sorted.
    n_neighbours : int
        Values on either side by which the density at a border is measured.
    edge_share : float
        Share of the values that lies on either side of a gap, at least.
    min_values, min_share, max_share : float
        Values that a gap would hold by the smaller density at its borders: at least so
        many, and so many of the missing cells; at most so many of these.
    min_ratio : float
        Width of a gap, relative to that of the next widest interval without a value.
    min_columns, column_share : int, float
        Columns that must have a gap, and their share of those that count.
    other_ratio : float
        Where they do, any column has a gap whose widest interval is so much wider than
        the next.
    """

    min_distinct: int = 20
    min_missing: int = 10
    max_values: int = 20_000
    n_neighbours: int = 8
    edge_share: float = 0.1
    min_values: float = 12.0
    min_share: float = 0.15
    max_share: float = 3.0
    min_ratio: float = 3.0
    min_columns: int = 2
    column_share: float = 2 / 3
    other_ratio: float = 2.0


def find_gaps(rows, n_levels, settings):
    """Find the gap of each numeric column.

    Parameters
    ----------
    rows : Rows
        Arrays: numbers and codes of levels.
    n_levels : int array of shape (d,)
        Levels of categorical columns, 0 for numeric ones.
    settings : GapSettings or None
        None finds none.

    Returns
    -------
    float array of shape (d, 2)
        The values at the borders; NaN where a column has no gap, and in all columns
        where few of them have one.
    """
    gaps = np.full((len(n_levels), 2), np.nan)
    if settings is None:
        return gaps
    n_counted, n_found = 0, 0
    for j in np.flatnonzero(n_levels == 0):
        seen = rows.observed[:, j]
        n_missing = len(seen) - int(seen.sum())
        if n_missing < settings.min_missing:
            continue
        values = rows.values[seen, j].astype(np.float64)
        step = max(1, math.ceil(len(values) / settings.max_values))
        some = np.sort(values[::step])
        n_missing /= step
        n_distinct = 1 + np.count_nonzero(np.diff(some))
        counts = n_distinct >= settings.min_distinct
        n_counted += counts
        low, high, ratio, would_hold = _widest(some, settings)
        if ratio < settings.other_ratio:
            continue
        middle, width = (low + high) / 2, high - low
        # Of all values, some lie between the borders of the gap of those sorted.
        low, high = values[values <= middle].max(), values[values > middle].min()
        if high - low < MIN_LEFT * width:
            continue
        gaps[j] = low, high
        least = max(settings.min_values, settings.min_share * n_missing)
        fits = least <= would_hold <= settings.max_share * n_missing
        n_found += counts and fits and ratio >= settings.min_ratio
    if n_found < max(settings.min_columns, settings.column_share * n_counted):
        gaps[:] = np.nan
    return gaps


def _widest(values, settings):
    """Widest interval between sorted values, away from their ends.

    Returns
    -------
    low, high : float
    ratio : float
        Of its width to the next, 0 where there are too few values.
    would_hold : float
        Values that it would hold by the smaller density at its borders.
    """
    n, k = len(values), settings.n_neighbours
    edge = max(k, math.ceil(settings.edge_share * n))
    if n < 2 * edge + 2:
        return np.nan, np.nan, 0.0, 0.0
    widths = np.diff(values)[edge - 1 : n - edge]
    second, width = np.sort(widths)[-2:]
    i = edge - 1 + int(widths.argmax())
    reach = max(values[i] - values[i - k + 1], values[i + k] - values[i + 1])
    # Of values that are all alike, nothing can be said.
    ratio = width / max(second, 1e-9) if width else 0.0
    return values[i], values[i + 1], ratio, (k - 1) * width / max(reach, 1e-9)


def with_gap(atoms, low, high):
    """Atoms of a column, see `column_atoms`, with one more for its gap."""
    edge = EDGE * (high - low)
    gap = {
        "low": low + edge,
        "high": high - edge,
        "center": (low + high) / 2,
        "share": GAP_SHARE,
        "is_bin": 1.0,
    }
    place = np.searchsorted(atoms["center"], gap["center"])
    return {name: np.insert(atoms[name], place, gap[name]) for name in atoms}
