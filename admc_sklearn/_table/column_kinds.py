"""Kinds of columns: each turns its values into numbers, and numbers into values.

Numbers and whole numbers stay what they are, dates and durations become whole steps of
their resolution, categories become the codes of their levels.
"""

from __future__ import annotations

import datetime
from decimal import MAX_PREC, Context, Decimal

import numpy as np
import pandas as pd

from .._shared.caller_warnings import warn_caller

# A categorical column with more levels than this, most of them met once or twice, is
# free text or an identifier.
MIN_TEXT_LEVELS = 32
TEXT_SHARE = 0.8
# So many levels of a column are learnt one by one; the rarer ones share one outcome.
MAX_LEVELS = 1000
EMPTY_TEXT = "missing_value"  # the constant of SimpleImputer for text
# float64 holds whole numbers exactly up to the first limit, int64 up to the second.
EXACT = 2**53
SAFE = 2**62


def objects(values):
    """Convert to an array of Python's own objects."""
    if values.dtype.kind in "mM":
        return pd.Series(values).astype(object).to_numpy()
    out = np.empty(len(values), dtype=object)
    out[:] = values.tolist()
    return out


def _whole(numbers, low, high):
    """Round to whole numbers within exact limits: int64, or objects beyond it."""
    numbers = np.rint(np.asarray(numbers, dtype=np.float64))
    if max(abs(low), abs(high)) < EXACT:
        return numbers.clip(low, high).astype(np.int64)
    exact = [min(max(int(number), low), high) for number in numbers]
    if max(abs(low), abs(high)) < SAFE:
        return np.array(exact, dtype=np.int64)
    return np.array(exact, dtype=object)


class NumberColumn:
    """Numbers; whole ones are completed by whole ones, within their range."""

    n_levels = 0

    def __init__(self, whole, values):
        self.whole = whole
        self.is_empty = not len(values)
        self.exponent = _exponent(values)
        self.is_number = self.exponent is None  # a float is one
        if whole or not self.is_number:
            low, high = (0, 0) if self.is_empty else (values.min(), values.max())
            self.low, self.high = (int(low), int(high)) if whole else (low, high)
            limits = np.iinfo(values.dtype if values.dtype.kind in "iu" else np.int64)
            self.limits = int(limits.min), int(limits.max)

    def widen(self, numbers):
        """Let the range hold further numbers, as far as the column's dtype does."""
        if self.whole:
            low, high = int(np.rint(numbers.min())), int(np.rint(numbers.max()))
            least, most = self.limits
            self.low = min(self.low, max(low, least))
            self.high = max(self.high, min(high, most))
        elif self.exponent is not None and not self.is_empty:
            self.low = min(self.low, Decimal(repr(float(numbers.min()))))
            self.high = max(self.high, Decimal(repr(float(numbers.max()))))

    def read(self, values):
        """Values as float64."""
        if values.dtype.kind in "mM":
            raise ValueError("dates or durations where numbers were")
        if values.dtype.kind == "c":
            raise ValueError("complex values where numbers were")
        if values.dtype.kind == "O":
            if text := [v for v in values if isinstance(v, str | bytes)]:
                raise ValueError(
                    f"text such as {text[0]!r} where numbers were (pandas.to_numeric "
                    "converts a column)"
                )
        return values.astype(np.float64)

    def write(self, numbers):
        """Completed values, an array."""
        if self.exponent is not None:
            return self._decimals(numbers)
        return _whole(numbers, self.low, self.high) if self.whole else numbers

    def fits(self, dtype):
        """Whether an array of the dtype holds completed values as they are."""
        if self.whole:
            return _survive([self.low, self.high], dtype)
        return dtype.kind == "f" and self.is_number

    def _decimals(self, numbers):
        """Round to the last digit that the finest observed value has."""
        step = Decimal((0, (1,), self.exponent))
        context = Context(prec=MAX_PREC)
        out = np.empty(len(numbers), dtype=object)
        for i, number in enumerate(numbers):
            value = Decimal(repr(float(number))).quantize(step, context=context)
            out[i] = min(max(value, self.low), self.high)
        return out


class TimeColumn:
    """Dates or durations, as whole steps of their resolution since the first one."""

    n_levels = 0
    whole = True
    is_number = False

    def __init__(self, values, is_span):
        self.is_empty = not len(values)
        self.of_objects = values.dtype.kind == "O"
        self.type = type(values[0]) if self.of_objects and len(values) else None
        self.zone = getattr(values[0], "tzinfo", None) if self.type else None
        if values.dtype == object and not len(values):
            values = values.astype("m8[us]" if is_span else "M8[us]")
        ticks, self.dtype = self._ticks(values)
        ticks = np.unique(ticks)
        # Differences of sorted ticks are exact as unsigned numbers, whatever the span.
        gaps = np.diff(ticks.view(np.uint64))
        self.step = max(1, int(np.gcd.reduce(gaps))) if len(gaps) else 1
        self.start = int(ticks[0]) if len(ticks) else 0
        self.end = int(ticks[-1]) if len(ticks) else 0
        self.first, self.last = 0, (self.end - self.start) // self.step

    def widen(self, numbers):
        """Let the range hold further steps, as far as they are distinct numbers."""
        if self.end - self.start < SAFE:
            far = (SAFE - abs(self.start)) // self.step
            low, high = np.rint(numbers.min()), np.rint(numbers.max())
            self.first = min(self.first, max(int(low), -far))
            self.last = max(self.last, min(int(high), far))

    def _ticks(self, values):
        if values.dtype == object and len(values):
            found = pd.api.types.infer_dtype(values)
            if found == "period":
                values = pd.PeriodIndex(values)
        if isinstance(values.dtype, pd.PeriodDtype):
            return values.asi8, values.dtype
        if values.dtype == object:
            found = pd.api.types.infer_dtype(values)
            values = pd.Series(values, dtype=object)
            if "delta" in found:
                values = pd.to_timedelta(values)
            else:
                values = pd.to_datetime(values, utc=True).dt.tz_localize(None)
            values = values.to_numpy()
        if values.dtype.kind not in "mM":
            raise ValueError("other values where dates or durations were")
        return values.astype(np.int64), values.dtype

    def read(self, values):
        """Return steps since the first value, float64."""
        ticks, dtype = self._ticks(values)
        is_period = isinstance(self.dtype, pd.PeriodDtype)
        if dtype.kind != self.dtype.kind or (is_period and dtype != self.dtype):
            raise ValueError(f"{dtype} where {self.dtype} was")
        if dtype != self.dtype:  # the resolution of a frame's column may differ
            ticks = ticks.view(dtype).astype(self.dtype).astype(np.int64)
        far = np.abs(ticks.astype(np.float64) - self.start) >= SAFE
        near = (np.where(far, self.start, ticks) - self.start) / self.step
        return np.where(far, (ticks.astype(np.float64) - self.start) / self.step, near)

    def write(self, numbers):
        """Completed values, an array of datetime64, timedelta64 or objects."""
        steps = _whole(numbers, self.first, self.last)
        if self.end - self.start < SAFE:
            ticks = self.start + steps * self.step
        else:
            ticks = np.array(
                [self.start + int(s) * self.step for s in steps], dtype=np.int64
            )
        ticks = ticks.astype(np.int64)
        if isinstance(self.dtype, pd.PeriodDtype):
            return np.array(pd.arrays.PeriodArray(ticks, self.dtype), dtype=object)
        values = ticks.view(self.dtype)
        if not self.of_objects:
            return values
        out = np.empty(len(values), dtype=object)
        for i, value in enumerate(values):
            out[i] = self._object(value)
        return out

    def _object(self, value):
        if self.type is np.datetime64 or self.type is np.timedelta64:
            return value
        if self.dtype.kind == "m":
            value = pd.Timedelta(value)
            is_python = self.type is datetime.timedelta
            return value.to_pytimedelta() if is_python else value
        value = pd.Timestamp(value)
        if self.type is datetime.date:
            return value.date()
        if self.zone is not None:
            value = value.tz_localize("UTC").tz_convert(self.zone)
        return value.to_pydatetime() if self.type is datetime.datetime else value

    def fits(self, dtype):
        """Whether an array of the dtype holds completed values."""
        return not self.of_objects and dtype.kind == self.dtype.kind


class CategoryColumn:
    """Levels as their codes, in the order of their dtype or sorted.

    Where there are more than `MAX_LEVELS` levels, the rarest share one outcome, code 0:
    each of these is a number in (0, 1), in the middle of an interval as long as its
    share of their cells, so that a uniform number is a draw of one of them. The others,
    from 1 on, are in the order of the levels.

    Attributes
    ----------
    levels : array of objects
    n_levels : int
        Number of outcomes.
    rare : RareLevels or None
        None where no levels share an outcome.
    ordered : bool
        Whether the order of the levels has a meaning.
    """

    def __init__(self, values, declared, is_truth, name, ordered=False):
        self.ordered = ordered
        self.is_number = is_truth
        self.is_empty = not len(values)
        levels = pd.unique(objects(values))
        if declared is None:
            levels = _sorted(levels)
            self.fallback = False if self.is_number else EMPTY_TEXT
        else:
            position = pd.Index(declared, dtype=object).get_indexer(levels)
            levels = levels[np.argsort(position)]
            self.fallback = declared[0] if len(declared) else EMPTY_TEXT
        n_levels = len(levels)
        if n_levels > max(MIN_TEXT_LEVELS, TEXT_SHARE * len(values)):
            raise ValueError(
                f"Column {name!r} has {n_levels} distinct values in {len(values)} "
                "observed cells: it looks like free text or an identifier, which "
                "nothing can complete. Drop it, or turn it into numbers or a few "
                "categories before the imputer."
            )
        self.levels, self.n_levels = levels, n_levels
        self._index = pd.Index(levels, dtype=object)
        self.rare, self.whole = None, True
        if n_levels > MAX_LEVELS:
            positions = self._index.get_indexer(objects(values))
            self.rare = RareLevels(np.bincount(positions, minlength=n_levels))
            self.n_levels, self.whole = MAX_LEVELS + 1, False
            warn_caller(
                f"Column {name!r} has {n_levels} levels: the "
                f"{n_levels - MAX_LEVELS} rarest share what is learnt of them."
            )

    def widen(self, numbers):
        """Do nothing: determined values are among the levels."""

    def read(self, values):
        """Codes as float64; -1 for levels that `fit` did not see."""
        positions = self._index.get_indexer(objects(values))
        if self.rare is None:
            return positions.astype(np.float64)
        return np.where(positions < 0, -1.0, self.rare.number[positions])

    def write(self, numbers):
        """Completed levels, an array of objects."""
        if not self.n_levels:
            return np.full(len(numbers), self.fallback, dtype=object)
        if self.rare is not None:
            return self.levels[self.rare.level_of(numbers)]
        codes = np.rint(numbers).astype(np.int64).clip(0, self.n_levels - 1)
        return self.levels[codes]

    def fits(self, dtype):
        """Whether an array of the dtype holds the levels as they are."""
        return _survive(self.levels if self.n_levels else [self.fallback], dtype)

    def probabilities(self, share, numbers, known):
        """Probabilities of all levels, (n, n_levels), from probabilities of outcomes.

        Where ``known``, bool (n,), ``numbers`` give the level, whose probability is 1.
        """
        levels = numbers[known]
        if self.rare is None:
            levels = levels.astype(int)
        else:
            share, levels = self.rare.spread(share), self.rare.level_of(levels)
        share[known] = 0.0
        share[known, levels] = 1.0
        return share


class RareLevels:
    """Numbers of a column's levels where the rarest share outcome 0.

    Parameters
    ----------
    counts : int array of shape (n_levels,)
        Cells of each level.

    Attributes
    ----------
    number : float64 array of shape (n_levels,)
    """

    def __init__(self, counts):
        order = np.argsort(-counts, kind="stable")
        self.own, self.shared = np.sort(order[:MAX_LEVELS]), order[MAX_LEVELS:]
        self.share = counts[self.shared] / counts[self.shared].sum()
        self.ends = np.cumsum(self.share)
        self.number = np.empty(len(counts))
        self.number[self.shared] = self.ends - self.share / 2
        self.number[self.own] = np.arange(1, MAX_LEVELS + 1)

    def level_of(self, numbers):
        """Level of every number, int (n,); the most frequent rare one of 0."""
        numbers = np.asarray(numbers, dtype=np.float64)
        rare = np.searchsorted(self.ends, numbers, side="right")
        rare = self.shared[rare.clip(0, len(self.shared) - 1)]
        own = self.own[(numbers.astype(np.int64) - 1).clip(0, MAX_LEVELS - 1)]
        return np.where(numbers < 1, rare, own)

    def spread(self, share):
        """Probabilities of all levels, from those of the outcomes, (n, 1 + own)."""
        out = np.empty((len(share), len(self.number)))
        out[:, self.shared] = share[:, :1] * self.share
        out[:, self.own] = share[:, 1:]
        return out


def _survive(values, dtype):
    """Whether values are the same in an array of the dtype."""
    values = np.asarray(values, dtype=object)
    try:
        return bool((values.astype(dtype) == values).all())
    except (TypeError, ValueError, OverflowError):
        return False


def _exponent(values):
    """Exponent of the last digit of Decimals, None for other numbers."""
    if values.dtype.kind != "O" or not len(values):
        return None
    if not all(isinstance(value, Decimal) for value in values):
        return None
    # Infinities have a letter as exponent; they are refused when they are read.
    exponents = [value.as_tuple().exponent for value in values]
    return min((e for e in exponents if isinstance(e, int)), default=0)


def _sorted(levels):
    try:
        order = sorted(range(len(levels)), key=levels.__getitem__)
        return levels[order]
    except TypeError:  # levels of several types
        order = sorted(range(len(levels)), key=lambda i: str(levels[i]))
        return levels[order]
