"""Kinds of columns: each turns its values into numbers, and numbers into values.

Numbers and whole numbers stay what they are, dates and durations become whole steps of
their resolution, categories become the codes of their levels.
"""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd

# A categorical column with more levels than this, most of them met once or twice, is
# free text or an identifier.
MIN_TEXT_LEVELS = 32
TEXT_SHARE = 0.8
EMPTY_TEXT = "missing_value"  # what SimpleImputer's constant is for text
# Whole numbers that float64 holds exactly, and those that int64 holds for certain.
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
    is_number = True

    def __init__(self, whole, values):
        self.whole = whole
        if whole:
            empty = not len(values)
            self.low, self.high = (
                (0, 0) if empty else (int(values.min()), int(values.max()))
            )
            limits = np.iinfo(values.dtype if values.dtype.kind in "iu" else np.int64)
            self.limits = int(limits.min), int(limits.max)

    def widen(self, numbers):
        """Let the range hold further numbers, as far as the column's dtype does."""
        if self.whole:
            low, high = int(np.rint(numbers.min())), int(np.rint(numbers.max()))
            least, most = self.limits
            self.low = min(self.low, max(low, least))
            self.high = max(self.high, min(high, most))

    def read(self, values):
        """Values as float64."""
        if values.dtype.kind in "mM":
            raise ValueError("dates or durations where numbers were")
        return values.astype(np.float64)

    def write(self, numbers):
        """Completed values, an array."""
        return _whole(numbers, self.low, self.high) if self.whole else numbers


class TimeColumn:
    """Dates or durations, as whole steps of their resolution since the first one."""

    n_levels = 0
    whole = True
    is_number = False

    def __init__(self, values, is_span):
        self.of_objects = values.dtype.kind == "O"
        self.type = type(values[0]) if self.of_objects and len(values) else None
        self.zone = getattr(values[0], "tzinfo", None) if self.type else None
        if self.of_objects and not len(values):
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
        """Let the range hold further steps, as far as they can be told apart."""
        if self.end - self.start < SAFE:
            far = (SAFE - abs(self.start)) // self.step
            low, high = np.rint(numbers.min()), np.rint(numbers.max())
            self.first = min(self.first, max(int(low), -far))
            self.last = max(self.last, min(int(high), far))

    def _ticks(self, values):
        if values.dtype.kind == "O":
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
        if dtype.kind != self.dtype.kind:
            raise ValueError("durations where dates were, or the other way around")
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
        values = ticks.astype(np.int64).view(self.dtype)
        if not self.of_objects:
            return values
        out = np.empty(len(values), dtype=object)
        for i, value in enumerate(values):
            out[i] = self._object(value)
        return out

    def _object(self, value):
        if self.dtype.kind == "m":
            return pd.Timedelta(value)
        value = pd.Timestamp(value)
        if self.zone is not None:
            return value.tz_localize("UTC").tz_convert(self.zone)
        return value.date() if self.type is datetime.date else value


class CategoryColumn:
    """Levels as their codes, in the order of their dtype or sorted."""

    whole = True

    def __init__(self, values, declared, is_truth, name):
        self.is_number = is_truth
        levels = pd.unique(objects(values))
        if declared is None:
            levels = _sorted(levels)
            self.fallback = False if self.is_number else EMPTY_TEXT
        else:
            place = pd.Index(declared, dtype=object).get_indexer(levels)
            levels = levels[np.argsort(place)]
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

    def widen(self, numbers):
        """Nothing: what is determined is one of the levels."""

    def read(self, values):
        """Codes as float64; -1 for levels that were not there in `fit`."""
        return self._index.get_indexer(objects(values)).astype(np.float64)

    def write(self, numbers):
        """Completed levels, an array of objects."""
        if not self.n_levels:
            return np.full(len(numbers), self.fallback, dtype=object)
        codes = np.rint(numbers).astype(np.int64).clip(0, self.n_levels - 1)
        return self.levels[codes]


def _sorted(levels):
    try:
        return np.array(sorted(levels), dtype=object)
    except TypeError:  # levels of several types
        order = sorted(range(len(levels)), key=lambda i: str(levels[i]))
        return levels[order]
