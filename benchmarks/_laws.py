"""Laws of imputing that hold for every table, checked on one fit after another."""

from __future__ import annotations

import copy
import itertools
import pickle
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from admc_sklearn import ADMCImputer
from benchmarks._tables import make_table

N_DRAWS = 2
QUANTILES = (0.1, 0.5, 0.9)


class BrokenLaw(AssertionError):
    """A completed table is not what every completed table is."""


def check_laws(recipe, options):
    """Fit an imputer to the table of a recipe, and check what it makes of it.

    Parameters
    ----------
    recipe : Recipe
    options : Options

    Raises
    ------
    BrokenLaw
        Beside whatever the imputer raises: every table can be completed.
    """
    table, new = make_table(recipe)
    with warnings.catch_warnings():
        for category in (RuntimeWarning, FutureWarning, DeprecationWarning):
            warnings.simplefilter("error", category)
        warnings.simplefilter("ignore", UserWarning)
        _check(table, new, recipe, options)


def _check(table, new, recipe, options):
    before = copy.deepcopy(table)
    imputer = ADMCImputer(**options.of(recipe))
    if recipe.container in ("pandas", "polars"):
        imputer.set_output(transform=recipe.container)
    imputer.fit(table)
    laws = Laws(table, imputer)
    completed = imputer.transform(table)
    laws.check("transform", table, completed)
    laws.require(_equal(table, before), "the table itself was changed")
    again = imputer.transform(table)
    laws.require(_equal(again, completed), "a second transform differs")
    for draw in imputer.sample(table, N_DRAWS):
        laws.check("sample", table, draw)
    quantiles = imputer.predict_quantiles(table, QUANTILES)
    for values in quantiles:
        laws.check("predict_quantiles", table, values)
    laws.check_order(quantiles)
    laws.check("transform of new rows", new, imputer.transform(new))
    for k in range(2):
        row = new[k : k + 1]
        laws.check("transform of one row", row, imputer.transform(row))
    if recipe.seed % 3 == 0:
        twin = pickle.loads(pickle.dumps(imputer))
        laws.require(_equal(twin.transform(table), completed), "a pickle differs")
        with tempfile.TemporaryDirectory() as folder:
            imputer.save(Path(folder) / "file")
            twin = ADMCImputer.load(Path(folder) / "file")
        laws.require(_equal(twin.transform(table), completed), "a saved file differs")
        drawn = [each.sample(table, 1)[0] for each in (twin, imputer)]
        laws.require(_equal(*drawn), "draws of a saved file differ")
    if recipe.seed % 3 == 1:
        refitted = imputer.fit(table).transform(table)
        laws.require(_equal(refitted, completed), "a refit differs")
    if recipe.seed % 3 == 2 and len(new) > 1:
        laws = Laws(new, imputer.fit(new))
        laws.check("refit on other rows", new, imputer.transform(new))


def _is_limited(rule):
    return np.isfinite(getattr(rule, "limits", (0.0,))).all()


class Laws:
    """What holds of the completions of a table like the one that was fitted.

    Parameters
    ----------
    table : frame or array
        As it was fitted.
    imputer : ADMCImputer
        Fitted to it.
    """

    def __init__(self, table, imputer):
        columns = _columns(table)
        self.known = [values[~missing] for values, missing, _ in columns]
        self.kept = np.arange(len(columns))
        # An exact line that held in many rows is followed wherever it leads.
        codec = imputer._codec
        free = {r.target for r in codec.relations_.rules_ if not _is_limited(r)}
        self.free = set(codec.scaling_.kept_[sorted(free)])
        if not imputer.keep_empty_features:
            self.kept = np.flatnonzero([len(known) > 0 for known in self.known])

    def require(self, holds, law):
        """Raise where a law does not hold."""
        if not holds:
            raise BrokenLaw(law)

    def check(self, name, table, completed):
        """Nothing is missing, what was observed is as it was, the rest is in range."""
        before, after = _columns(table), _columns(completed)
        self.require(len(after) == len(self.kept), f"{name}: {len(after)} columns")
        for j, (values, missing, dtype) in zip(self.kept, after, strict=True):
            place = f"{name}, column {j} ({dtype})"
            given, was_missing, given_dtype = before[j]
            self.require(not missing.any(), f"{place}: cells are missing")
            same = values[~was_missing] == given[~was_missing]
            self.require(np.all(same), f"{place}: observed cells were changed")
            known = self.known[j]
            has_known = len(known) and not was_missing.all()
            # Objects that are all numbers come back as an array of floats.
            as_it_was = dtype == given_dtype or isinstance(completed, np.ndarray)
            self.require(as_it_was or not has_known, f"{place} was {given_dtype}")
            if len(known) and j not in self.free:
                filled = values[was_missing]
                self._check_range(place, filled, known)

    def _check_range(self, place, filled, known):
        """Require levels that were seen, and numbers between the extremes."""
        if isinstance(known[0], str | bool | np.bool_):
            strange = set(filled) - set(known)
            self.require(not strange, f"{place}: filled with {strange}")
            return
        low, high = min(known), max(known)
        for value in filled:
            inside = low <= value <= high
            self.require(inside, f"{place}: {value!r} not in [{low!r}, {high!r}]")

    def check_order(self, quantiles):
        """Quantiles of numbers rise with their level."""
        tables = [_columns(values) for values in quantiles]
        for j, columns in zip(self.kept, zip(*tables, strict=True), strict=True):
            if not len(self.known[j]) or isinstance(self.known[j][0], str | bool):
                continue
            for (low, _, _), (high, _, _) in itertools.pairwise(columns):
                self.require(np.all(low <= high), f"quantiles of column {j} fall")


def _columns(table):
    """Values, as Python's objects, which of them are missing, and dtype, by column."""
    if isinstance(table, np.ndarray):
        series = [(column, table.dtype) for column in table.T]
    elif isinstance(table, pd.DataFrame):
        series = [(column, column.dtype) for _, column in table.items()]
    else:
        series = [(column.to_list(), column.dtype) for column in table.iter_columns()]
    found = []
    for column, dtype in series:
        values = pd.Series(column, dtype=object).to_numpy()
        found.append((values, pd.isna(values), dtype))
    return found


def _equal(first, second):
    """Whether two tables have the same values, missing ones and dtypes."""
    pairs = zip(_columns(first), _columns(second), strict=True)
    return all(
        dtype == other_dtype
        and np.array_equal(missing, other_missing)
        and np.all(values[~missing] == other[~missing])
        for (values, missing, dtype), (other, other_missing, other_dtype) in pairs
    )
