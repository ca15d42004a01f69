"""Mean ranks of imputers, and the difference that chance would explain."""

from __future__ import annotations

from typing import Literal

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
from scipy.stats import studentized_range

from .._table.types import Frame
from ._result_file import FIGURES, KEY

# Higher values of these metrics are better.
_GAINS = {"accuracy", "score"}


def ranking(
    results: Frame,
    metric: Literal[
        "rmse", "mae", "accuracy", "fit_time", "transform_time", "score"
    ] = "rmse",
    *,
    alpha: float = 0.05,
) -> pd.DataFrame:
    """Rank imputers over all runs, with the critical difference of Nemenyi's test.

    Parameters
    ----------
    results : pandas or polars DataFrame
        Results of `compare_imputers`. The results of several tables may be in one
        frame, with a column ``table`` that distinguishes them.
    metric : {"rmse", "mae", "accuracy", "fit_time", "transform_time", "score"}, \
            default="rmse"
        Column of the results by which the imputers are ranked.
    alpha : float, default=0.05
        Probability of finding any difference where there is none, in (0, 1).

    Returns
    -------
    ranks : pandas.DataFrame
        One row for each imputer, the best one first. The names are the index; the
        columns are:

        - ``mean_rank``: the mean rank over the runs, ties averaged, failures last;
        - ``n_failures``: the number of runs without a value;
        - ``critical_difference``: imputers whose mean ranks differ by less than this
          cannot be distinguished;
        - ``as_good_as_best``: whether the imputer cannot be distinguished from the
          first.

    Raises
    ------
    ValueError
        If a column is lacking, if there are fewer than two imputers, if an imputer does
        not have exactly one row in each run, or if no run has a value.

    Notes
    -----
    For k imputers and N runs the critical difference is q sqrt(k (k + 1) / (6 N)), q
    being the quantile of the studentised range of k means, with infinite degrees of
    freedom, divided by sqrt(2) [1]_. The test is made for N independent tables. Splits
    of one table share most of their rows. The difference is then a lower limit: it
    shows how far the result depends on the split, not how the imputers would compare on
    other tables.

    References
    ----------
    .. [1] Demsar (2006). "Statistical comparisons of classifiers over multiple data
       sets". Journal of Machine Learning Research 7, 1-30.

    Examples
    --------
    >>> import pandas as pd
    >>> results = pd.DataFrame({"imputer": ["a", "b"] * 8, "mechanism": "mcar",
    ...     "rate": 0.3, "split": sorted(list(range(8)) * 2), "rmse": [0.5, 0.7] * 8})
    >>> ranking(results)["critical_difference"].round(2).to_dict()
    {'a': 0.69, 'b': 0.69}
    """
    if metric not in FIGURES:
        raise ValueError(f"metric must be one of {FIGURES}, got {metric!r}.")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1), got {alpha!r}.")
    frame = nw.from_native(results, eager_only=True).to_dict(as_series=False)
    frame = pd.DataFrame(frame)
    lacking = {*KEY, metric} - set(frame.columns)
    if lacking:
        raise ValueError(f"results lacks the columns {sorted(lacking)}.")
    run = [name for name in ("table", *KEY[1:]) if name in frame.columns]
    if frame.duplicated([*run, "imputer"]).any():
        raise ValueError(f"results has an imputer twice in one of its runs, by {run}.")
    values = frame.pivot(index=run, columns="imputer", values=metric)
    n_imputers = values.shape[1]
    if n_imputers < 2:
        raise ValueError(f"results must have two imputers or more, got {n_imputers}.")
    if len(frame) < values.size:
        raise ValueError("results must have every imputer in each of its runs.")
    values = values[values.notna().any(axis=1)].astype(np.float64)
    if values.empty:
        raise ValueError(f"results holds no value of {metric!r}.")
    ranks = values.rank(axis=1, ascending=metric not in _GAINS, na_option="bottom")
    table = pd.DataFrame({"mean_rank": ranks.mean(), "n_failures": values.isna().sum()})
    table = table.sort_values("mean_rank", kind="stable")
    q = studentized_range.ppf(1 - alpha, n_imputers, np.inf) / np.sqrt(2)
    difference = q * np.sqrt(n_imputers * (n_imputers + 1) / (6 * len(values)))
    table["critical_difference"] = difference
    behind = table["mean_rank"] - table["mean_rank"].iloc[0]
    return table.assign(as_good_as_best=behind < difference)


def _ranks(frame):
    """Ranks within each split, mechanism and rate."""
    by_error = frame["rmse"].notna().any()
    values = frame["rmse"] if by_error else -frame["accuracy"]
    groups = values.groupby([frame[name] for name in KEY[1:]])
    return groups.rank(na_option="bottom")
