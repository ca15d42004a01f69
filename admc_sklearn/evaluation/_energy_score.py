"""The energy I-score: imputers ranked on cells that are really missing."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from numbers import Integral

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
from sklearn.base import clone

from .._shared.progress import tqdm
from .._table.column_kinds import objects
from .._table.containers import as_table, is_frame, series_of
from .._table.filling import filled
from .._table.remove_cells import remove_cells
from .._table.types import Estimator, RandomState, Table
from ._compare import check_imputers
from ._errors import Columns, check_nothing_missing, spread
from ._runs import complete, failure, in_parallel, rows_of, steps_before
from ._scorer import _draw_seed

# The reference implementation leaves out columns with fewer missing cells; as few
# observed ones say nothing either.
MIN_CELLS = 10


def energy_i_score(
    imputers: Mapping[str, Estimator],
    X: Table,
    *,
    columns: Sequence[str | int] | None = None,
    n_draws: int = 20,
    by_column: bool = False,
    n_jobs: int | None = None,
    verbose: int = 0,
    random_state: RandomState = None,
) -> pd.DataFrame:
    """Rank imputers on an incomplete table whose missing cells nobody knows.

    Nothing is hidden at random, as `compare_imputers` does. Each incomplete column is
    judged in turn [1]_: its missing cells are completed by one draw; the imputer learns
    the column from these rows alone, and draws it where it is observed; the draws are
    compared with what was observed. The imputer whose completions have the distribution
    of the data has the lowest score in expectation. Means, which have the lowest
    squared error, do not win.

    Parameters
    ----------
    imputers : dict of str to estimator
        Imputers by name; they are cloned, and fitted to tables of fewer columns: they
        must not name columns. The draws are those of a method ``sample(X, n_draws,
        random_state)``, as `ADMCImputer` has it. Without one, each `transform` is a
        draw: an imputer with a ``random_state`` is fitted again for every draw, with
        other seeds, unless two seeds complete alike. An imputer may be the last step of
        a pipeline, whose other steps have an `inverse_transform`.
    X : array-like or data frame of shape (n_samples, n_features)
        Incomplete table. Missing cells are NaN, None or null here.
    columns : sequence of str or int, default=None
        Columns to judge, as names or positions. None takes all incomplete ones. An
        imputer is fitted once for each, and once more.
    n_draws : int, default=20
        Number of draws of each cell.
    by_column : bool, default=False
        Whether to return the scores of each column.
    n_jobs : int, default=None
        Number of processes.
    verbose : int, default=0
        How much is printed. 1 shows a progress bar.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws, and of every ``random_state`` of an imputer that is None.

    Returns
    -------
    scores : pandas.DataFrame
        One row for each imputer, the best one first. The names are the index; the
        columns are:

        - ``score``: the energy I-score; lower is better, nan after a failure;
        - ``rank``: 1 for the lowest score, ties averaged, failures last;
        - ``difference``: the score, less that of the best imputer;
        - ``standard_error`` of the difference, over the rows: what the choice of rows
          would change, not another training;
        - ``as_good_as_best``: whether the difference is below two standard errors;
        - ``error``: the step that failed and its error; missing if nothing failed.

        With ``by_column`` it has one row for each imputer and column, in their order,
        with ``imputer``, ``column``, ``weight`` (the share of the column in the score),
        ``n_observed`` (cells that were compared), ``n_predictors`` (columns from which
        they were drawn), ``score``, ``rank`` (in the column) and ``error``.

    Raises
    ------
    TypeError
        If ``imputers`` is no dict of imputers.
    ValueError
        If ``n_draws`` is no int of at least 1, a column does not exist, or no column
        can be judged: this takes ten missing and ten observed cells beside another
        column. Errors of an imputer are recorded.

    See Also
    --------
    compare_imputers : Errors of cells that are hidden on purpose.

    Notes
    -----
    Let column j be observed in the rows L_j. Its predictors are the other columns that
    are observed in all of L_j; where there is none, L_j is cut to the rows in which the
    most frequently observed other column is observed too. A table of these columns has
    the completed rows outside L_j, and the rows of L_j with j missing. N draws x_1 ...
    x_N of a cell whose value is y have the energy score::

        mean_l |x_l - y| - sum_lm |x_l - x_m| / (2 N (N - 1)),

    without the second term for a single draw. The column's score is the mean over L_j;
    the columns have weights proportional to the number of observed times the number of
    missing cells. Distances are in standard deviations of the observed cells;
    different levels of a category are sqrt(2) apart, as one-hot vectors are. The
    authors divide by 2 N^2: the score then depends on N, and single values have an
    advantage over few draws.

    The score is proper where the observed predictors explain both the column and its
    gaps. It knows the draws of one column at a time: how the draws of several columns
    depend on each other does not count. In the tables that imputers get, cells are
    missing where they were observed: set ``self_masking=False`` of `ADMCImputer`, which
    would take this for the way in which the data lose cells.

    References
    ----------
    .. [1] Näf, Grzesiak and Scornet (2025). "How to rank imputation methods?"
       arXiv:2507.11297.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.experimental import enable_iterative_imputer
    >>> from sklearn.impute import IterativeImputer, SimpleImputer
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 1)) + rng.normal(size=(200, 2))
    >>> X[rng.random(200) < 0.3, 1] = np.nan
    >>> imputers = {
    ...     "mean": SimpleImputer(),
    ...     "draws": IterativeImputer(sample_posterior=True),
    ... }
    >>> energy_i_score(imputers, X, random_state=0)["rank"]
    imputer
    draws    1.0
    mean     2.0
    Name: rank, dtype: float64
    """
    check_imputers(imputers)
    if not isinstance(n_draws, Integral) or isinstance(n_draws, bool) or n_draws < 1:
        raise ValueError(f"n_draws must be an int of at least 1, got {n_draws!r}.")
    X = as_table(X)
    table = Columns(X, "X")
    tasks = _tasks(table, columns)
    seed = _draw_seed(random_state)
    names = list(imputers)
    # Seeds depend on the task, not on the imputers beside it.
    starts = [(imputers[name], X, zlib.crc32(b"%d" % seed)) for name in names]
    runs = [(name, task) for task in tasks for name in names]
    bar = tqdm(
        total=len(starts) + len(runs),
        desc="energy_i_score",
        unit="fit",
        disable=not verbose,
    )
    completed, found = {}, {}
    with bar:
        for k, result in in_parallel(_completed, starts, n_jobs):
            completed[names[k]] = result
            bar.update()
        calls = []
        for name, task in runs:
            own = zlib.crc32(f"{seed} {task.column}".encode())
            calls.append((imputers[name], X, *completed[name], task, n_draws, own))
        for k, result in in_parallel(_cell_scores, calls, n_jobs):
            found[k] = result
            bar.update()
    frame = pd.DataFrame(
        {
            "imputer": [name for name, _ in runs],
            "column": [table.names[task.column] for _, task in runs],
            "weight": [task.weight for _, task in runs],
            "n_observed": [len(task.test) for _, task in runs],
            "n_predictors": [len(task.predictors) for _, task in runs],
            "score": [found[k][0].mean() for k in range(len(runs))],
        }
    )
    frame["rank"] = frame.groupby("column")["score"].rank(na_option="bottom")
    errors = [found[k][1] for k in range(len(runs))]
    frame["error"] = pd.Series(errors, dtype=object)
    if by_column:
        return frame
    cells = {name: np.zeros(table.shape[0]) for name in names}
    for k, (name, task) in enumerate(runs):
        cells[name][task.test] += task.weight / len(task.test) * found[k][0]
    return _summary(frame, cells)


class _Task:
    """One column to judge.

    Attributes
    ----------
    column : int
    predictors : int array
        Other columns, observed in all test rows.
    test, train : int arrays
        Rows where the column is observed, and where it is missing.
    weight : float
        Of the column in the score; all sum to one.
    """

    def __init__(self, missing, j):
        n = len(missing)
        observed, others = ~missing[:, j], np.delete(np.arange(missing.shape[1]), j)
        self.column, self.train = j, np.flatnonzero(missing[:, j])
        self.weight = len(self.train) * (n - len(self.train)) / n**2
        self.predictors = others[~missing[observed][:, others].any(axis=0)]
        if len(others) and not len(self.predictors):
            counts = (~missing[observed][:, others]).sum(axis=0)
            observed &= ~missing[:, others[counts.argmax()]]
            self.predictors = others[~missing[observed][:, others].any(axis=0)]
        self.test = np.flatnonzero(observed)

    @property
    def is_possible(self):
        n_cells = min(len(self.test), len(self.train))
        return n_cells >= MIN_CELLS and len(self.predictors) > 0


def _tasks(table, columns):
    """List the columns to judge, with their weights."""
    if columns is None:
        positions = np.flatnonzero(table.missing.any(axis=0))
    else:
        every = list(columns) if not isinstance(columns, str) else [columns]
        positions = [_position(table.names, column) for column in every]
    tasks = [_Task(table.missing, int(j)) for j in positions]
    tasks = [task for task in tasks if task.is_possible]
    if not tasks:
        raise ValueError(
            f"No column can be judged: it takes {MIN_CELLS} missing and {MIN_CELLS} "
            "observed cells, beside another column that is observed with these."
        )
    total = sum(task.weight for task in tasks)
    for task in tasks:
        task.weight /= total
    return tasks


def _position(names, column):
    if column in names:
        return names.index(column)
    if isinstance(column, Integral) and 0 <= column < len(names):
        return int(column)
    raise ValueError(f"columns: there is no column {column!r}; there are {names}.")


def _summary(frame, cells):
    """One row for each imputer, the best one first.

    ``cells`` has each imputer's part of the score in every row of the table.
    """
    cells = pd.DataFrame(cells)
    errors = frame.groupby("imputer", sort=False)["error"].first()
    table = pd.DataFrame({"score": cells.sum(skipna=False)})
    table.index.name = "imputer"
    table["rank"] = table["score"].rank(na_option="bottom")
    table = table.sort_values("rank", kind="stable")
    table["difference"] = table["score"] - table["score"].iloc[0]
    rows = cells.sub(cells[table.index[0]], axis=0)
    error = np.sqrt(len(rows)) * rows.std(skipna=False)
    table["standard_error"] = error
    is_close = table["difference"] <= 2 * table["standard_error"]
    return table.assign(as_good_as_best=is_close, error=errors.astype(object))


def _completed(imputer, X, seed):
    """X completed by one draw, in its own dtypes, and the error that stopped it."""
    try:
        (drawn,) = _draws(imputer, X, 1, seed)
        like = Columns(X, "X")
        drawn = Columns(drawn, "X_completed").like(like)
        _check_rows(drawn, len(X))
        return _filled(X, like, drawn), None
    except Exception as error:
        return None, failure("complete", error)


def _cell_scores(imputer, X, completed, error, task, n_draws, seed):
    """Energy scores of the test cells, float (n_test,), and the error or None."""
    none = np.full(len(task.test), np.nan)
    if error is not None:
        return none, error
    try:
        rows = np.sort(np.concatenate([task.test, task.train]))
        columns = np.sort(np.append(task.predictors, task.column))
        own = int(np.searchsorted(columns, task.column))
        table = _part(completed, rows, columns)
        removed = np.zeros((len(rows), len(columns)), dtype=bool)
        is_test = np.isin(rows, task.test)
        removed[is_test, own] = True
        table = remove_cells(table, removed)
        true = Columns(_part(X, rows, columns), "X")
        draws = []
        for drawn in _draws(imputer, table, n_draws, seed):
            drawn = Columns(drawn, "X_completed").like(true)
            _check_rows(drawn, len(rows))
            draws.append(drawn)
        # The kind and the scale are those of the whole column.
        return _energy(Columns(X, "X"), true, draws, task.column, own, is_test), None
    except Exception as caught:
        return none, failure(f"column {task.column}", caught)


def _energy(whole, true, draws, j, own, rows):
    """Energy score of each cell in the given rows of a column: float (n_rows,)."""
    n_draws = len(draws)
    pairs = max(1, n_draws * (n_draws - 1))
    if whole.kind(j) == "category":
        values = objects(true.values[own][rows])
        every = np.stack([objects(draw.values[own][rows]) for draw in draws])
        first = (every != values).mean(axis=0)
        levels = pd.unique(every.ravel())
        counts = np.stack([(every == level).sum(axis=0) for level in levels])
        second = (n_draws**2 - np.square(counts).sum(axis=0)) / (2 * pairs)
        return np.sqrt(2) * (first - second)
    reader = whole.reader(j)
    scale = spread(whole.numbers(j, ~whole.missing[:, j], reader)) or 1.0
    values = true.numbers(own, rows, reader) / scale
    every = np.stack([draw.numbers(own, rows, reader) for draw in draws]) / scale
    first = np.abs(every - values).mean(axis=0)
    # In sorted order, the k-th of N is larger in k pairs and smaller in N - 1 - k.
    factors = 2 * np.arange(n_draws) - (n_draws - 1)
    return first - factors @ np.sort(every, axis=0) / pairs


def _draws(imputer, X, n_draws, seed):
    """Draws of a table, fitted to it: at most ``n_draws``, one where all are equal."""
    before = steps_before(imputer)
    last = imputer if before is None else imputer[-1]
    if hasattr(last, "sample"):
        imputer = _seeded(imputer, seed, given_too=False).fit(X)
        if before is None:
            return imputer.sample(_copy(X), n_draws, random_state=seed)
        before = steps_before(imputer)
        drawn = imputer[-1].sample(before.transform(X), n_draws, random_state=seed)
        return [before.inverse_transform(table) for table in drawn]
    draws = []
    for k in range(n_draws):
        fitted = _seeded(imputer, seed + k, given_too=True).fit(_copy(X))
        draws.append(complete(fitted, _copy(X)))
        is_random = any(_is_seed(name) for name in imputer.get_params())
        if not is_random or (k == 1 and _are_equal(*draws)):
            return draws[:1]
    return draws


def _copy(X):
    """Copy of a table, since an imputer may work in place."""
    return rows_of(X, np.arange(len(X)))


def _is_seed(name):
    return name.split("__")[-1] == "random_state"


def _seeded(imputer, seed, given_too):
    """Clone with a seed in each ``random_state`` that is None, or in all of them."""
    imputer = clone(imputer)
    seeds = {
        name: seed % 2**32
        for name, value in imputer.get_params().items()
        if _is_seed(name) and (given_too or value is None)
    }
    return imputer.set_params(**seeds)


def _are_equal(one, other):
    one, other = Columns(one, "X_completed"), Columns(other, "X_completed")
    pairs = zip(one.values, other.values, strict=True)
    return all(np.array_equal(objects(a), objects(b)) for a, b in pairs)


def _check_rows(completed, n_rows):
    if completed.shape[0] != n_rows:
        raise ValueError(
            f"X_completed must have {n_rows} rows, got {completed.shape[0]}."
        )
    check_nothing_missing(completed)


def _part(X, rows, columns):
    """Copy of some rows and columns of a table."""
    if not is_frame(X):
        return X[np.ix_(rows, columns)]
    part = rows_of(X, rows)
    return part.iloc[:, columns] if hasattr(part, "iloc") else part[:, columns.tolist()]


def _filled(X, table, completed):
    """X with the cells of a completion where it has none, in X's own dtypes."""
    if not is_frame(X):
        X = X.astype(np.float64) if X.dtype.kind in "iub" else X.copy()
        for j, rows in enumerate(table.missing.T):
            X[rows, j] = completed.values[j][rows]
        return X
    columns = []
    for j, series in enumerate(series_of(X)):
        rows = np.flatnonzero(table.missing[:, j])
        if len(rows):
            series = filled(series, rows, completed.values[j][rows], None)
        columns.append(series.alias(str(j)))
    frame = nw.to_native(columns[0].to_frame().with_columns(*columns[1:]))
    frame.columns = list(X.columns)
    return frame
