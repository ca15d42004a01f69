"""What differs between the table of `fit` and a later one."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import fisher_exact

from .column_kinds import CategoryColumn, NumberColumn, objects
from .columns import kind_of
from .containers import is_frame, series_of
from .filling import dtype_of

# A missing rate that differs by less is of no consequence, however sure it is.
MIN_RATE_CHANGE = 0.01
FIELDS = ["column", "difference", "in_fit", "in_new", "share"]
# A warning names so many differences, and so many levels of a column.
MAX_NAMED, MAX_LEVELS_NAMED = 8, 3


def compare_tables(codec, names, X, alpha):
    """Differences between the table of `fit` and X; see `compare_new_data`.

    Parameters
    ----------
    codec : TableCodec
        Fitted.
    names : array of d str
    X : frame or array of shape (n, any)
    alpha : float

    Returns
    -------
    DataFrame of `FIELDS`
    """
    own = list(X.columns) if is_frame(X) else [f"x{j}" for j in range(X.shape[1])]
    by_name = is_frame(X) and codec.is_frame_ and all(isinstance(n, str) for n in own)
    places = _places(list(names), own) if by_name else range(X.shape[1])
    places = dict(zip(range(len(names)), places, strict=False))
    series = series_of(X)
    found = []
    for j, name in enumerate(names):
        if places.get(j) is None:
            found.append((name, "column", "present", "absent", np.nan))
        else:
            column = _Column(codec, j, name, series[places[j]])
            found += [(name, *difference) for difference in column.differences(alpha)]
    for k in sorted(set(range(len(own))) - set(places.values())):
        found.append((own[k], "column", "absent", "present", np.nan))
    return pd.DataFrame(found, columns=FIELDS)


def _places(names, own):
    """Position among ``own`` of each name, None where it is not; names may recur."""
    free = {}
    for k, name in enumerate(own):
        free.setdefault(name, []).append(k)
    return [free[name].pop(0) if free.get(name) else None for name in names]


class _Column:
    """A column of `fit` beside the one of a new table."""

    def __init__(self, codec, j, name, series):
        self.codec, self.j, self.series = codec, j, series
        self.column = codec.columns_.columns_[j]
        values, self.missing = codec.columns_.read_column(series, codec.codes_[j])
        dtype = None if isinstance(series, np.ndarray) else series.dtype
        kind = kind_of(values, self.missing, dtype, name)
        self.kind = "number" if kind == "integer" else kind
        self.values = values[~self.missing]

    def differences(self, alpha):
        """List (difference, in_fit, in_new, share)."""
        found = []
        if len(self.values) and not self.column.is_empty:
            found += self._of_values(alpha)
        return found + self._of_rates(alpha)

    def _of_values(self, alpha):
        column = self.column
        if isinstance(column, CategoryColumn):
            known = column.read(self.values) >= 0
            if not known.any() and self.kind != "category":
                return [self._of_kinds()]
            new = pd.unique(objects(self.values[~known])).tolist()
            levels = column.levels.tolist()
            return [("levels", levels, new, np.mean(~known))] if new else []
        is_number = isinstance(column, NumberColumn)
        if (self.kind == "number") != is_number or self.kind == "category":
            return [self._of_kinds()]
        try:
            numbers = column.read(self.values)
        except (TypeError, ValueError):  # durations where dates were
            return [self._of_kinds()]
        return self._of_ranges(numbers, alpha)

    def _of_kinds(self):
        own = {NumberColumn: "number", CategoryColumn: "category"}
        own = own.get(type(self.column), "time")
        dtypes = [self.codec.columns_.dtypes_[self.j], None]
        if not isinstance(self.series, np.ndarray):
            dtypes[1] = dtype_of(self.series)
        texts = [
            text if dtype is None else f"{text} ({dtype[0]})"
            for text, dtype in zip((own, self.kind), dtypes, strict=True)
        ]
        return "kind", *texts, np.nan

    def _of_ranges(self, numbers, alpha):
        scaling = self.codec.scaling_
        k = int(np.searchsorted(scaling.kept_, self.j))
        low, high = (end[k] for end in scaling.seen)
        below, above = (numbers < low).sum(), (numbers > high).sum()
        width = high - low
        is_far = numbers.min() < low - width or numbers.max() > high + width
        if not (below or above):
            return []
        n_rows = getattr(self.codec, "n_rows_", None)
        if n_rows is not None and not is_far:
            n_fit = round(n_rows * (1 - self.codec.missing_rates_[self.j]))
            # That the k largest of all values are new has this probability.
            share = len(numbers) / (n_fit + len(numbers))
            if share ** max(below, above) >= alpha:
                return []
        ends = self.values[[numbers.argmin(), numbers.argmax()]]
        written = self.column.write(np.array([low, high])), ends
        in_fit, in_new = (tuple(objects(pair)) for pair in written)
        return [("range", in_fit, in_new, (below + above) / len(numbers))]

    def _of_rates(self, alpha):
        n_rows, n_new = getattr(self.codec, "n_rows_", None), len(self.missing)
        if n_rows is None or not n_new:  # a file of an earlier release
            return []
        rate, new = self.codec.missing_rates_[self.j], self.missing.mean()
        counts = [[round(rate * n_rows), n_rows], [int(self.missing.sum()), n_new]]
        table = [[lost, n - lost] for lost, n in counts]
        is_clear = abs(new - rate) >= MIN_RATE_CHANGE and fisher_exact(table)[1] < alpha
        if not is_clear and not (new > 0 and rate == 0):
            return []
        return [("missing rate", float(rate), float(new), float(new))]


def sentence(frame):
    """Summary of the differences, for a warning."""
    parts = [_named(*row) for row in frame.itertuples(index=False)]
    more = f"; and {len(parts) - MAX_NAMED} more" if len(parts) > MAX_NAMED else ""
    return f"The table differs from that of fit: {'; '.join(parts[:MAX_NAMED])}{more}."


def _named(column, difference, in_fit, in_new, share):
    if difference == "column":
        return f"column {column!r} is {in_new}" + (
            ", and was not there in fit" if in_new == "present" else ""
        )
    if difference == "kind":
        return f"column {column!r} holds another kind of values, {in_new}, not {in_fit}"
    if difference == "levels":
        shown = ", ".join(repr(level) for level in in_new[:MAX_LEVELS_NAMED])
        more = ", ..." if len(in_new) > MAX_LEVELS_NAMED else ""
        return f"column {column!r} has unknown levels ({shown}{more})"
    if difference == "range":
        low, high = in_fit
        return f"column {column!r} leaves the range {low} to {high}"
    new, old = (f"{100 * rate:.1f} %" for rate in (in_new, in_fit))
    return f"column {column!r} lacks {new} of its cells, where fit saw {old}"
