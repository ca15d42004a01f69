"""Constraints that completed tables fulfil: sums, one of several columns, orders.

Missing cells are moved as little as a constraint asks. With y the completion, w the
variances of the columns and [low, high] their ranges in training, the parts of a sum s
become

    x_j = min(max(y_j + t w_j, low_j), high_j),    t such that x_1 + ... + x_k = s,

which is the point of the constraint nearest to y in standardised units: it is nearer to
every point of the constraint, hence to the truth, than y is. For independent normal
draws of variances w it is also the draw given the sum (Matheron's rule). An order swaps
two completions that contradict it, which moves neither away from the truth (Hardy,
Littlewood and Polya's rearrangement inequality) and keeps the values that were drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from math import gcd, isfinite
from numbers import Real

import numpy as np
import pandas as pd

from .column_kinds import EXACT, CategoryColumn, TimeColumn
from .column_selection import find_columns, quoted

# Keys of a constraint beside the one that names its kind.
KINDS = {"sum": {"to"}, "one_of": {"level"}, "order": set()}
# A sum that a row misses by this share of its size is a matter of rounding; a
# constraint that this share of the complete rows of `fit` violates is a mistake.
ROUNDING, MOST_VIOLATED = 0.01, 0.05
# Constant columns take part in a shift with this share of the largest variance.
SMALLEST_WEIGHT = 1e-12
NANOSECONDS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9}
NANOSECONDS |= {"h": 3600 * 10**9, "D": 86400 * 10**9, "W": 7 * 86400 * 10**9}


@dataclass(frozen=True)
class Sum:
    """Columns with signs whose sum is ``goal``; a total has the sign -1."""

    where: str
    columns: list
    signs: np.ndarray
    goal: float


@dataclass(frozen=True)
class OneOf:
    """Columns of which exactly one holds its number ``one``, the others ``zero``.

    Both are codes in a column of levels, NaN for a level that `fit` did not see.
    """

    where: str
    columns: list
    one: np.ndarray
    zero: np.ndarray
    of_levels: bool


@dataclass(frozen=True)
class Order:
    """Columns whose values rise, as chains, in common steps.

    ``before`` (k, k) tells which columns precede which; a number x of column j is
    ``offset[j] + unit[j] * x`` common steps.
    """

    chains: list
    columns: list
    before: np.ndarray
    offset: np.ndarray
    unit: np.ndarray


class Constraints:
    """Constraints of one fitted table.

    Parameters
    ----------
    constraints : sequence of dict
        As the user gave them.
    names : sequence of d str
    codec : TableCodec
        Fitted.
    derived : collection of int
        Columns that are computed from others and hence cannot be constrained.

    Attributes
    ----------
    sums : list of Sum
    groups : list of OneOf
    order : Order or None

    Raises
    ------
    ValueError, TypeError
        For what no table can fulfil, naming the constraint and the column.
    """

    def __init__(self, constraints, names, codec, derived=()):
        self.codec, self.names = codec, list(names)
        self.sums, self.groups, chains = [], [], []
        for k, rule in enumerate(constraints):
            where = f"constraints[{k}]"
            kind = _kind_of(rule, where)
            columns = self._columns(rule[kind], f"{where}[{kind!r}]")
            if kind == "sum":
                self.sums.append(self._sum(columns, rule["to"], where))
            elif kind == "one_of":
                self.groups.append(self._one_of(columns, rule.get("level"), where))
            else:
                chains.append((where, columns))
        self.order = self._order(chains) if chains else None
        self._check_shared(derived)
        scaling = codec.scaling_
        kept = scaling.kept_
        # Variances, ranges in training and limits of dtypes; 0 for empty columns.
        self._variance, self._low, self._high = np.zeros((3, len(self.names)))
        self._low[kept], self._high[kept] = scaling.low_, scaling.high_
        scale = np.minimum(scaling.scale_, 1e150)  # whose squares are finite
        self._variance[kept] = np.where(scaling.low_ < scaling.high_, scale**2, 0.0)
        limits = [getattr(c, "limits", None) for c in codec.columns_.columns_]
        limits = [(-np.inf, np.inf) if limit is None else limit for limit in limits]
        self._least, self._most = np.array(limits, dtype=np.float64).T

    def _columns(self, given, where):
        if isinstance(given, str | bytes | Mapping) or not hasattr(given, "__iter__"):
            raise TypeError(f"{where} must be a list of columns; got {given!r}.")
        found = [self._column(column, where) for column in given]
        if len(found) < 2:
            raise ValueError(f"{where} must have at least two columns; got {given!r}.")
        if len(set(found)) < len(found):
            again = [self.names[j] for j in sorted(set(found)) if found.count(j) > 1]
            raise ValueError(f"{where} has {quoted(again)} twice.")
        return found

    def _column(self, column, where):
        if callable(column) or isinstance(column, bool | np.bool_ | slice):
            raise TypeError(f"{where}: {column!r} is neither a name nor an index.")
        (found,) = find_columns([column], None, self.names, where)
        return int(found)

    def _sum(self, columns, to, where):
        columns, goal = list(columns), 0.0
        signs = np.ones(len(columns))
        is_number = isinstance(to, Real) and not isinstance(to, bool | np.bool_)
        if is_number or isinstance(to, Decimal):
            goal = float(to)
            if not isfinite(goal):
                raise ValueError(f"{where}['to'] must be finite; got {to!r}.")
        else:
            to = to[0] if isinstance(to, list) and len(to) == 1 else to
            total = self._column(to, f"{where}['to']")
            if total in columns:
                raise ValueError(
                    f"{where}: {self.names[total]!r} is a part of its own sum."
                )
            columns.append(total)
            signs = np.append(signs, -1.0)
        for j in columns:
            column = self.codec.columns_.columns_[j]
            if isinstance(column, CategoryColumn | TimeColumn):
                is_time = isinstance(column, TimeColumn)
                what = "dates or durations" if is_time else "levels"
                raise ValueError(
                    f"{where}: column {self.names[j]!r} holds {what}, no numbers."
                )
        return Sum(where, columns, signs, goal)

    def _one_of(self, columns, level, where):
        one, zero = np.ones(len(columns)), np.zeros(len(columns))
        of_levels = []
        for k, j in enumerate(columns):
            column, name = self.codec.columns_.columns_[j], self.names[j]
            if isinstance(column, TimeColumn):
                raise ValueError(
                    f"{where}: column {name!r} holds dates or durations, no yes and no."
                )
            of_levels.append(isinstance(column, CategoryColumn))
            if of_levels[-1]:
                one[k], zero[k] = _codes(column, level, where, name)
        if all(of_levels) and np.isnan(one).all():
            raise ValueError(
                f"{where}: none of {quoted(self.names[j] for j in columns)} ever holds "
                f"{True if level is None else level!r}."
            )
        return OneOf(where, columns, one, zero, all(of_levels))

    def _order(self, chains):
        columns = sorted({j for _, chain in chains for j in chain})
        every = self.codec.columns_.columns_
        before = np.zeros((len(columns), len(columns)), dtype=bool)
        for where, chain in chains:
            kinds = [_unit_of(every[j]) for j in chain]
            for j, kind in zip(chain, kinds, strict=True):
                if kind is None or kind != kinds[0]:
                    other = self.names[chain[0]]
                    held = kind or "levels"
                    against = f", {other!r} {kinds[0]}" if kind and kinds[0] else ""
                    raise ValueError(
                        f"{where}: column {self.names[j]!r} holds {held}{against}; an "
                        "order takes numbers, or dates, or durations."
                    )
            at = [columns.index(j) for j in chain]
            before[at[:-1], at[1:]] = True
        for k in range(len(columns)):  # what precedes what precedes
            before |= before[:, [k]] & before[[k]]
        if before.diagonal().any():
            round_ = [self.names[columns[k]] for k in np.flatnonzero(before.diagonal())]
            raise ValueError(f"constraints: the orders of {quoted(round_)} go round.")
        offset, unit = _common_steps([every[j] for j in columns])
        return Order(chains, columns, before, offset, unit)

    def _check_shared(self, derived):
        """Refuse columns in constraints that could not be fulfilled one by one."""
        used = {}
        for rule in (*self.sums, *self.groups):
            for j in rule.columns:
                used.setdefault(j, []).append((type(rule), rule.where))
        for where, chain in self.order.chains if self.order else ():
            for j in chain:
                used.setdefault(j, []).append((Order, where))
        for j, rules in used.items():
            if len({kind for kind, _ in rules}) > 1:
                raise ValueError(
                    f"Column {self.names[j]!r} is in constraints of different kinds, "
                    f"{', '.join(where for _, where in rules)}: keep one of them."
                )
            if j in derived:
                raise ValueError(
                    f"{rules[0][1]}: column {self.names[j]!r} is computed as derived: "
                    "constrain its parts."
                )
        for rules in (self.sums, self.groups):
            # Constraints and columns are the nodes of a graph, which has to be a
            # forest: then each can be fulfilled without breaking those before it.
            tree = {}
            for k, rule in enumerate(rules):
                own = ("rule", k)
                for j in rule.columns:
                    if _root(tree, own) == _root(tree, j):
                        raise ValueError(
                            f"{rule.where}: column {self.names[j]!r} is bound twice by "
                            "constraints that share several columns; give a total of "
                            "its own to the parts that they share."
                        )
                    tree[_root(tree, j)] = _root(tree, own)

    def __bool__(self):
        return bool(self.sums or self.groups or self.order)

    def learn(self, cells):
        """Check the table of `fit`, and let constrained cells leave its ranges.

        Raises
        ------
        ValueError
            If the table plainly violates a constraint.
        """
        if self:
            self._check(cells)
            self._widen()
            self._share_digits()

    def _check(self, cells):
        numbers, seen = cells.numbers, ~cells.missing & ~self._strange(cells)
        for rule in self.sums:
            own = numbers[np.ix_(seen[:, rule.columns].all(1), rule.columns)]
            size = np.maximum(np.abs(own).sum(1), abs(rule.goal))
            gap = np.abs(own @ rule.signs - rule.goal)
            self._refuse(gap > ROUNDING * size, rule.where, rule.columns, "sum")
        for rule in self.groups:
            own, rows = numbers[:, rule.columns], seen[:, rule.columns]
            is_one = np.abs(own - rule.one) < 0.5
            for k, j in enumerate(rule.columns):
                known = own[rows[:, k], k]
                odd = known[(known != rule.one[k]) & (known != rule.zero[k])]
                if len(odd):
                    raise ValueError(
                        f"{rule.where}: column {self.names[j]!r} holds {odd[0]:g}, "
                        "where 0 and 1 were expected."
                    )
            wrong = is_one[rows.all(1)].sum(1) != 1
            self._refuse(wrong, rule.where, rule.columns, "group")
        for where, chain in self.order.chains if self.order else ():
            at = [self.order.columns.index(j) for j in chain]
            steps = self.order.offset[at] + self.order.unit[at] * numbers[:, chain]
            own = steps[seen[:, chain].all(1)]
            self._refuse((np.diff(own) < 0).any(1), where, chain, "order")

    def _refuse(self, violated, where, columns, what):
        if len(violated) and violated.mean() > MOST_VIOLATED:
            raise ValueError(
                f"{where}: {100 * violated.mean():.0f} % of the rows in which "
                f"{quoted(self.names[j] for j in columns)} are known contradict this "
                f"{what}."
            )

    def _widen(self):
        """Let whole numbers, Decimals and dates leave their training range."""
        ends = np.array([1.0 - EXACT, EXACT - 1.0])
        for j in self._constrained():
            column = self.codec.columns_.columns_[j]
            if _is_decimal(column):
                column.low, column.high = (Decimal(int(end)) for end in ends)
            elif not column.n_levels:
                column.widen(ends)

    def _share_digits(self):
        """Let Decimals of a sum have the digits of the finest.

        A total may be a part of another one: so in as many rounds as there are sums.
        """
        for rule in self.sums * len(self.sums):
            columns = [self.codec.columns_.columns_[j] for j in rule.columns]
            decimals = [column for column in columns if _is_decimal(column)]
            finest = min((column.exponent for column in decimals), default=0)
            for column in decimals:
                column.exponent = finest

    def _constrained(self):
        rules = [*self.sums, *self.groups, *([self.order] if self.order else [])]
        return sorted({j for rule in rules for j in rule.columns})

    def _strange(self, cells):
        """Levels that `fit` did not see: neither missing nor known."""
        strange = np.zeros(cells.missing.shape, dtype=bool)
        kept = self.codec.scaling_.kept_
        strange[:, kept] = ~cells.missing[:, kept] & ~cells.observed
        return strange

    def _free(self, cells):
        """Cells that may change: missing, and determined by no other column."""
        free = cells.missing.copy()
        _, known = self.codec.determined(cells)
        free[:, self.codec.scaling_.kept_] &= ~known
        return free

    def _steps(self, keep_whole):
        """Step of every column's values, 0 where any number is one."""
        scaling = self.codec.scaling_
        step = np.zeros(len(self.names))
        step[scaling.kept_] = scaling.is_whole(self.codec.keeps_whole(keep_whole))
        for j, column in enumerate(self.codec.columns_.columns_):
            step[j] = max(step[j], column.whole)
            if _is_decimal(column):
                step[j] = 10.0**column.exponent
        return step

    def chances(self, model, rows):
        """Make a function of row indices (r,): probabilities (r, d) of being one.

        Parameters
        ----------
        model : CompletionModel or None
        rows : Rows
            All rows.
        """
        scaling = self.codec.scaling_
        found = np.full((len(rows), len(self.names)), np.nan)

        def chance(index):
            todo = index[np.isnan(found[index, 0])]
            found[todo] = 1.0
            if model is None or not len(todo):
                return found[index]
            part = rows[todo]
            means = model.summarise(part, ["mean"])[0]
            found[np.ix_(todo, scaling.kept_)] = means * scaling.scale_ + scaling.mean_
            for rule in self.groups:
                for j, one in zip(rule.columns, rule.one, strict=True):
                    if self.codec.n_levels_[j] and not np.isnan(one):
                        k = int(np.searchsorted(scaling.kept_, j))
                        found[todo, j] = model.probabilities(part, k)[:, int(one)]
            return found[index]

        return chance

    def apply(self, numbers, cells, keep_whole, chance, *, joint, fractions):
        """Completed numbers that fulfil the constraints, in place.

        Only missing cells change. Cells that an exact relation determines do so only
        where no other cell of the constraint is missing.

        Parameters
        ----------
        numbers : float64 array of shape (n, d)
            All cells, completed.
        cells : Cells
        keep_whole : bool or "from_frame"
            As the imputer's ``keep_whole_numbers``.
        chance : callable
            Of row indices (r,): the probabilities (r, d) that a cell of a group is one.
        joint : bool
            Whether the cells of a row are completed jointly. If not, as for quantiles,
            sums, and groups of numbers, set only cells that observed ones determine.
        fractions : bool
            Whether a group of numbers holds means: fractions that add up to 1.
        """
        step, strange = self._steps(keep_whole), self._strange(cells)
        free = self._free(cells)
        is_joint = [joint or rule.of_levels for rule in self.groups]
        masks = [free] if (free == cells.missing).all() else [free, cells.missing]
        for mask in masks:
            for rule, rows, own in _in_turn(self.sums, mask, [joint] * len(self.sums)):
                self._solve_sum(rule, numbers, rows, own, step)
            for rule, rows, own in _in_turn(self.groups, mask, is_joint):
                if fractions and not step[rule.columns].any():
                    _share_one(rule, numbers, rows, own)
                else:
                    _choose_one(rule, numbers, rows, own, strange, chance)
            if self.order is not None:
                _solve_order(self.order, numbers, mask, step)

    def choose_in_draws(self, drawn, cells, chance, noise):
        """Draws with exactly one of every group, in place.

        Where a draw has several, one of them is drawn, and where it has none, one of
        the missing cells, by their probabilities.

        Parameters
        ----------
        drawn : float32 array of shape (n_draws, n, n_kept)
            Standardised.
        cells : Cells
        chance : callable
            As for `apply`.
        noise : sequence of n_draws float arrays of shape (n, n_groups)
            Uniform on (0, 1).
        """
        scaling = self.codec.scaling_
        kept = scaling.kept_
        strange, free = self._strange(cells), self._free(cells)
        exact, known = self.codec.determined(cells)
        numbers = np.zeros(cells.missing.shape)
        in_group = np.isin(kept, [j for rule in self.groups for j in rule.columns])
        changed = free[:, kept] & in_group
        is_joint = [True] * len(self.groups)
        for values, uniform in zip(drawn, noise, strict=True):
            own = values * scaling.scale_ + scaling.mean_
            numbers[:, kept] = np.where(known, exact, own)
            for rule, rows, mask in _in_turn(self.groups, free, is_joint):
                u = uniform[rows, self.groups.index(rule)]
                _choose_one(rule, numbers, rows, mask, strange, chance, u)
            found = (numbers[:, kept] - scaling.mean_) / scaling.scale_
            values[changed] = found[changed]

    def _solve_sum(self, rule, numbers, rows, free, step):
        """Move the free cells of some rows, (r, k), to where the sum holds."""
        columns, signs = rule.columns, rule.signs
        step, low, high = step[columns], self._low[columns], self._high[columns]
        weight = self._variance[columns]
        weight = np.maximum(weight / (weight.max() or 1.0), SMALLEST_WEIGHT)
        ranges = [
            (low, high),
            (np.where(low >= 0, 0.0, -np.inf), np.where(high <= 0, 0.0, np.inf)),
            (-np.inf, np.inf),
        ]
        y = numbers[np.ix_(rows, columns)]
        # Cells at an end of their range, such as zeros, stay there where others can
        # make up for them; where none can within their ranges, they leave these.
        inner = free & (y > low) & (y < high)
        x = y * signs
        missed = np.abs(x.sum(1) - rule.goal)
        for k, ends in enumerate([ranges[0], *ranges]):
            ends = [np.clip(e, self._least[columns], self._most[columns]) for e in ends]
            ends = np.sort(np.stack(ends) * signs, axis=0)
            size = np.abs(x).sum(1) + abs(rule.goal)
            left = np.flatnonzero(missed > 1e-12 * size)
            moves = (inner if k == 0 else free)[left]
            found = _spread(y[left] * signs, moves, weight, *ends, rule.goal)
            found = _rounded(found, moves, weight, *ends, rule.goal, step)
            miss = np.abs(found.sum(1) - rule.goal)
            is_nearer = miss < missed[left]
            x[left[is_nearer]], missed[left] = (
                found[is_nearer],
                np.minimum(miss, missed[left]),
            )
        numbers[np.ix_(rows, columns)] = np.where(free, x * signs + 0.0, y)


def _kind_of(rule, where):
    """Check the keys of a constraint, and find its kind."""
    if not isinstance(rule, Mapping):
        raise TypeError(
            f"{where} must be a dict, such as {{'order': ['start', 'end']}}; got "
            f"{rule!r}."
        )
    kinds = [kind for kind in KINDS if kind in rule]
    if len(kinds) != 1:
        raise ValueError(
            f"{where} must have one of the keys {quoted(KINDS)}; got {rule!r}."
        )
    if more := [key for key in rule if key not in {kinds[0], *KINDS[kinds[0]]}]:
        raise ValueError(f"{where}: {kinds[0]!r} does not go with {quoted(more)}.")
    if kinds[0] == "sum" and "to" not in rule:
        raise ValueError(f"{where}: a sum needs 'to', a number or a column.")
    return kinds[0]


def _codes(column, level, where, name):
    """Codes of the level that counts as one, and of the other, NaN if there is none."""
    levels = list(column.levels)
    if len(levels) > 2:
        raise ValueError(
            f"{where}: column {name!r} has {len(levels)} levels, and one_of takes "
            "columns of yes and no."
        )
    if level is None and any(not isinstance(v, Real | np.bool_) for v in levels):
        raise ValueError(
            f"{where}: column {name!r} holds levels such as {levels[0]!r}: say by "
            "'level' which one counts."
        )
    level = True if level is None else level
    one = [k for k, value in enumerate(levels) if value == level]
    if len(levels) == 2 and not one:
        raise ValueError(
            f"{where}: column {name!r} has the levels {quoted(levels)}, without "
            f"{level!r}."
        )
    zero = [k for k in range(max(1, len(levels))) if k not in one]
    return (float(found[0]) if found else np.nan for found in (one, zero))


def _unit_of(column):
    """Name what an order compares, columns of one kind only; None for levels."""
    if isinstance(column, CategoryColumn):
        return None
    if not isinstance(column, TimeColumn):
        return "numbers"
    if isinstance(column.dtype, pd.PeriodDtype):
        return f"values of dtype {column.dtype}"
    unit = np.datetime_data(column.dtype)[0]
    kind = "dates" if column.dtype.kind == "M" else "durations"
    return kind if unit in NANOSECONDS else f"{kind} in steps of {unit}"


def _is_decimal(column):
    return getattr(column, "exponent", None) is not None


def _common_steps(columns):
    """Offset and unit of every column in steps that columns of its kind share.

    Steps of time are whole numbers of the largest unit of which all are multiples, so
    that floats hold them.
    """
    offset, unit = np.zeros(len(columns)), np.ones(len(columns))
    kinds = [_unit_of(column) for column in columns]
    for kind in set(kinds) - {"numbers"}:
        at = [k for k in range(len(columns)) if kinds[k] == kind]
        size = [_nanoseconds(columns[k].dtype) for k in at]
        start = [columns[k].start * s for k, s in zip(at, size, strict=True)]
        steps = [columns[k].step * s for k, s in zip(at, size, strict=True)]
        common = gcd(*steps, *(s - start[0] for s in start))
        offset[at] = [(s - start[0]) // common for s in start]
        unit[at] = [s // common for s in steps]
    return offset, unit


def _nanoseconds(dtype):
    """Nanoseconds in a tick of a dtype; 1 where its ticks are units of their own."""
    if isinstance(dtype, pd.PeriodDtype):
        return 1
    unit, count = np.datetime_data(dtype)
    return NANOSECONDS.get(unit, 1) * count


def _root(tree, node):
    """Find the representative of a node among those joined to it."""
    while node in tree and tree[node] != node:
        node = tree[node]
    return node


def _in_turn(rules, free, is_joint):
    """Iterate over rules, rows and free cells in an order that breaks no rule again.

    Each row goes on with the rule that has the fewest free cells, whose cells are known
    from then on; so cells that known ones determine come first. A rule that is not
    joint is passed over where several of its cells are free.

    Yields
    ------
    rule : Sum or OneOf
    rows : int array of shape (r,)
    free : bool array of shape (r, k)
    """
    if not rules:
        return
    free, done = free.copy(), np.zeros((len(free), len(rules)), dtype=bool)
    most = np.where(is_joint, free.shape[1], 1)
    while True:
        count = np.stack([free[:, rule.columns].sum(1) for rule in rules], axis=1)
        count = np.where(done | (count == 0) | (count > most), free.shape[1] + 1, count)
        pick = np.where(count.min(1) <= free.shape[1], count.argmin(1), -1)
        if (pick < 0).all():
            return
        for k, rule in enumerate(rules):
            rows = np.flatnonzero(pick == k)
            if len(rows):
                cells = np.ix_(rows, rule.columns)
                yield rule, rows, free[cells]
                free[cells], done[rows, k] = False, True


def _spread(y, free, weight, low, high, goal):
    """Nearest x with the sum ``goal`` within the ends, free cells (r, k) moving.

    Cells move by multiples of their weights; those that reach an end stay there, and
    the others make up for it. The sum is missed where all of them reach their ends.
    """
    x = np.where(free, np.clip(y, np.minimum(low, y), np.maximum(high, y)), y)
    for _ in range(x.shape[1] + 1):
        gap = goal - x.sum(1, keepdims=True)
        open_ = free & np.where(gap > 0, x < high, x > low)
        total = (weight * open_).sum(1, keepdims=True)
        move = np.divide(gap, total, out=np.zeros_like(gap), where=total > 0)
        moved = x + move * weight
        moved = np.where(gap > 0, np.minimum(moved, high), np.maximum(moved, low))
        x = np.where(open_, moved, x)
    return x


def _rounded(x, free, weight, low, high, goal, step):
    """Free cells (r, k) as multiples of their steps, with the sum kept if it can be.

    Cells of finer steps make up for those of coarser ones; among the finest, those with
    the largest remainders are rounded up.
    """
    for size in sorted(set(step[step > 0]), reverse=True):
        own, finer = free & (step == size), free & (step < size)
        is_last = ~finer.any(1, keepdims=True)
        below = np.floor(x / size + 1e-9) * size
        below = np.where(
            own & is_last, below, np.where(own, np.rint(x / size) * size, x)
        )
        units = np.rint((goal - below.sum(1, keepdims=True)) / size)
        remainder = np.where(own & (below + size <= high), x - below, -np.inf)
        rank = np.argsort(np.argsort(-remainder, axis=1, kind="stable"), axis=1)
        up = own & is_last & (rank < units) & np.isfinite(remainder)
        x = below + size * up + 0.0
        x = _spread(x, finer, weight, low, high, goal)
    return x


def _share_one(rule, numbers, rows, free):
    """Scale the free cells of some rows, means of 0 and 1, so that all add up to 1."""
    own = numbers[np.ix_(rows, rule.columns)]
    rest = np.maximum(1.0 - np.where(free, 0.0, own).sum(1, keepdims=True), 0.0)
    share = np.where(free, np.clip(own, 0.0, 1.0), 0.0)
    share = np.where(share.any(1, keepdims=True), share, free)
    share = rest * share / share.sum(1, keepdims=True)
    numbers[np.ix_(rows, rule.columns)] = np.where(free, share, own)


def _choose_one(rule, numbers, rows, free, strange, chance, uniform=None):
    """Leave exactly one of the group in some rows, (r, k), if the known cells allow it.

    A single one stays. One of several, or where there is none one of the free cells, is
    drawn with ``uniform`` (r,) by its probability; without it the most probable is
    taken.
    """
    cells = np.ix_(rows, rule.columns)
    own = numbers[cells]
    is_one = (np.abs(own - rule.one) < 0.5) & ~strange[cells]
    is_taken = (is_one & ~free).any(1)
    found = is_one & free
    able = np.where(found.any(1, keepdims=True), found, free & ~np.isnan(rule.one))
    able &= ~is_taken[:, None]
    unsettled = np.flatnonzero(able.sum(1) > 1)
    if len(unsettled):
        share = chance(rows[unsettled])[:, rule.columns]
        share = np.where(able[unsettled], np.maximum(share, 1e-12), 0.0)
        if uniform is None:
            pick = share.argmax(1)
        else:
            ends = np.cumsum(share, axis=1)
            pick = (ends <= uniform[unsettled, None] * ends[:, -1:]).sum(1)
        able[unsettled] = pick[:, None] == np.arange(len(rule.columns))
    value = np.where(able, rule.one, rule.zero)
    numbers[cells] = np.where(free & ~np.isnan(value), value, own)


def _solve_order(order, numbers, free, step):
    """Free cells (n, d) of a row that rise with the others, in place.

    Each moves between those that known cells bound it by; then free cells that
    contradict each other are swapped. A cell without room, because known cells
    contradict each other or no multiple of its step lies between them, stays.
    """
    columns, before = order.columns, order.before
    offset, unit, step = order.offset, order.unit, step[columns]
    free = free[:, columns]
    y = offset + unit * numbers[:, columns]

    def on_grid(values, k, rounding):
        if not step[k]:
            return values
        slack = 0.0 if step[k] >= 1 else (1e-9 if rounding is np.floor else -1e-9)
        return (
            rounding((values - offset[k]) / unit[k] / step[k] + slack)
            * (step[k] * unit[k])
            + offset[k]
        )

    low, high = np.full(y.shape, -np.inf), np.full(y.shape, np.inf)
    upwards = np.argsort(before.sum(0), kind="stable")  # by how many come before
    for k in upwards:
        for i in np.flatnonzero(before[:, k]):
            bound = np.where(free[:, i], low[:, i], y[:, i])
            low[:, k] = np.maximum(low[:, k], bound)
        low[:, k] = on_grid(low[:, k], k, np.ceil)
    for k in upwards[::-1]:
        for i in np.flatnonzero(before[k]):
            bound = np.where(free[:, i], high[:, i], y[:, i])
            high[:, k] = np.minimum(high[:, k], bound)
        high[:, k] = on_grid(high[:, k], k, np.floor)
    moves = free & (low <= high)
    x = np.where(moves, np.clip(y, low, np.maximum(low, high)), y)
    pairs = np.argwhere(before)
    for _ in range(len(columns)):
        for i, k in pairs:
            rows = np.flatnonzero(moves[:, i] & moves[:, k] & (x[:, i] > x[:, k]))
            first, last = x[rows, k], x[rows, i]
            x[rows, i] = on_grid(first, i, np.floor)
            x[rows, k] = on_grid(last, k, np.ceil)
    # Steps of different lengths may have undone a swap.
    for k in upwards:
        for i in np.flatnonzero(before[:, k]):
            rows = np.flatnonzero(moves[:, i] & moves[:, k] & (x[:, i] > x[:, k]))
            x[rows, k] = on_grid(x[rows, i], k, np.ceil)
    for k, j in enumerate(columns):
        rows = np.flatnonzero(x[:, k] != y[:, k])
        numbers[rows, j] = (x[rows, k] - offset[k]) / unit[k]
