"""Columns that are functions of others: recomputed, and inverted, after completion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .column_selection import find_columns

# A part is sought on a grid of so many values, over its training range and as much
# again on both sides; halving then goes on for so many steps.
GRID, HALVINGS = 257, 60
# A value that is missed by this share of its size and of the column's spread is a
# matter of rounding; a rule that this share of at least so many rows contradicts is a
# mistake.
ROUNDING, MOST_VIOLATED, MIN_ROWS = 0.05, 0.2, 5


@dataclass(frozen=True)
class Derived:
    """One derived column.

    Parameters
    ----------
    name : hashable
        As the user gave it.
    target : int
    parts : list of int
    function : callable
        Of the parts' values, arrays (n,), to those of the column, (n,).
    """

    name: Any
    target: int
    parts: list
    function: Any

    def __call__(self, *values):
        """Values of the column, NaN where there are none."""
        try:
            with np.errstate(all="ignore"):
                found = np.asarray(self.function(*values), dtype=np.float64)
        except Exception as error:
            raise ValueError(
                f"derived[{self.name!r}]: its function fails ({type(error).__name__}: "
                f"{error})."
            ) from error
        if found.shape != values[0].shape:
            raise ValueError(
                f"derived[{self.name!r}]: its function returns shape {found.shape} for "
                f"arrays of shape {values[0].shape}."
            )
        return np.where(np.isfinite(found), found, np.nan)


def resolve_derived(derived, X, names, n_levels):
    """List of `Derived` from what users give: a dict of functions and parts.

    Parameters
    ----------
    derived : dict
        ``{column: (function, parts)}``, columns by name or index.
    X : frame or array of shape (n, d)
    names : sequence of str
    n_levels : int array of shape (d,)

    Raises
    ------
    ValueError, TypeError
        Naming the column.
    """
    found = []
    for name, rule in derived.items():
        if not isinstance(rule, tuple) or len(rule) != 2 or not callable(rule[0]):
            raise TypeError(
                f"derived[{name!r}] must be a pair (function, [columns]); got {rule!r}."
            )
        function, parts = rule
        (target,) = find_columns([name], X, names, "derived")
        own = [
            int(j)
            for part in parts
            for j in find_columns([part], X, names, f"derived[{name!r}]")
        ]
        if not own or target in own:
            raise ValueError(f"derived[{name!r}] must have other columns as its parts.")
        for j in (target, *own):
            if n_levels[j]:
                raise ValueError(
                    f"derived[{name!r}]: column {names[j]!r} holds levels, no numbers."
                )
        found.append(Derived(name, int(target), own, function))
    return found


def check_derived(rules, numbers, known):
    """Raise a ValueError where rows of `fit` contradict a rule.

    Parameters
    ----------
    rules : list of Derived
    numbers : float array of shape (n, d)
    known : bool array of shape (n, d)
    """
    for rule in rules:
        rows = known[:, [rule.target, *rule.parts]].all(axis=1)
        if rows.sum() < MIN_ROWS:
            continue
        values = numbers[rows].astype(np.float64)
        truth, found = values[:, rule.target], rule(*values[:, rule.parts].T)
        near = ROUNDING * (truth.std() + np.abs(truth))
        share = 1 - np.mean(np.abs(found - truth) <= near)  # NaN is not near
        if share > MOST_VIOLATED:
            raise ValueError(
                f"derived[{rule.name!r}]: {share:.0%} of the rows in which the column "
                "and its parts are known contradict its function. Are the parts in the "
                "order of its arguments?"
            )


def recompute(rules, numbers, missing, low, high):
    """Completed numbers that fulfil the rules, in place.

    A missing derived cell is computed from its parts. Where it is known, a missing part
    is solved for; of several missing parts the last one, beside the completions of the
    others. Of several solutions the one nearest to the completion is taken; where there
    is none the completion stays.

    Parameters
    ----------
    rules : list of Derived
    numbers : float array of shape (n, d)
        All cells, completed.
    missing : bool array of shape (n, d)
    low, high : float arrays of shape (d,)
        Range of every column in training.
    """
    solved = np.zeros_like(missing)
    for rule in rules:
        lost = missing[:, rule.parts] & ~solved[:, rule.parts]
        known = ~missing[:, rule.target] & lost.any(axis=1)
        last = lost.shape[1] - 1 - lost[:, ::-1].argmax(axis=1)
        for k, j in enumerate(rule.parts):
            rows = np.flatnonzero(known & (last == k))
            if len(rows):
                found = _solved(rule, k, numbers[rows], low[j], high[j])
                has = ~np.isnan(found)
                numbers[rows[has], j] = found[has]
                solved[rows[has], j] = True
    for rule in rules:
        rows = np.flatnonzero(missing[:, rule.target])
        if len(rows):
            found = rule(*numbers[np.ix_(rows, rule.parts)].T)
            has = ~np.isnan(found)
            numbers[rows[has], rule.target] = found[has]


def _solved(rule, k, numbers, low, high):
    """Values of part k with which the rule gives the column's, NaN where none do."""
    goal, start = numbers[:, rule.target], numbers[:, rule.parts[k]]
    span = max(high - low, 1e-12 * max(abs(low), abs(high), 1.0))
    grid = np.linspace(low - span, high + span, GRID)
    values = [numbers[:, [j]].repeat(GRID, 1) for j in rule.parts]
    values[k] = np.broadcast_to(grid, (len(numbers), GRID)).copy()
    flat = rule(*(value.ravel() for value in values))
    excess = flat.reshape(-1, GRID) - goal[:, None]
    turns = np.sign(excess[:, :-1]) * np.sign(excess[:, 1:]) <= 0  # False beside NaN
    # Poles change the sign too: there the excess is huge on both sides.
    middle = (grid[:-1] + grid[1:]) / 2
    distance = np.where(turns, np.abs(middle - start[:, None]), np.inf)
    cell = distance.argmin(axis=1)
    a, b = grid[cell], grid[cell + 1]
    at = np.arange(len(numbers))
    sign = np.sign(excess[at, cell])
    columns = [numbers[:, j] for j in rule.parts]
    for _ in range(HALVINGS):
        columns[k] = (a + b) / 2
        below = np.sign(rule(*columns) - goal) == sign
        a, b = np.where(below, columns[k], a), np.where(below, b, columns[k])
    columns[k] = (a + b) / 2
    left = np.abs(rule(*columns) - goal)
    step = np.abs(excess[at, cell]) + np.abs(excess[at, cell + 1])
    found = turns[at, cell] & (left <= 1e-6 * step + 1e-9 * np.abs(goal))
    return np.where(found, columns[k], np.nan)
