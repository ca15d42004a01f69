"""What the results of `benchmarks.run` come to: cells, wins, gains, ranks."""

from __future__ import annotations

import numpy as np
import pandas as pd

from admc_sklearn.evaluation import ranking
from benchmarks._peers import OPTIONAL
from benchmarks._sources import TABLES
from benchmarks.run import CELL, MECHANISMS, PARTS, read_results

OURS = ("admc", "anchor")
# Mean of the missing numeric cells, MAE then RMSE: second-hand copies of the tables of
# arXiv:2405.20690 (MAR 30 %, training rows).
PUBLISHED = {
    "california": {"DiffPuter": (0.327, 0.571), "TabCSDI": (0.832, 1.116)},
    "letter": {"DiffPuter": (0.322, 0.481), "TabCSDI": (0.774, 1.003)},
    "magic": {"DiffPuter": (0.297, 0.673), "TabCSDI": (0.769, 1.017)},
    "bean": {"DiffPuter": (0.159, 0.352), "TabCSDI": (0.753, 1.012)},
}


def load(path):
    """Read the results: the last row of each part of each cell, in the report's order.

    Parameters
    ----------
    path : Path
        The CSV.

    Returns
    -------
    DataFrame
        As `read_results`, with ``total_s``, the seconds of `fit` and `transform`.
    """
    frame = read_results(path).drop_duplicates([*CELL, "part"], keep="last")
    for name, order in (("table", TABLES), ("mechanism", MECHANISMS), ("part", PARTS)):
        known = [*order, *sorted(set(frame[name]) - set(order))]
        frame[name] = pd.Categorical(frame[name], known, ordered=True)
    frame["total_s"] = frame["fit_s"] + frame["transform_s"]
    frame = frame.sort_values(["table", "mechanism", "part"], kind="stable")
    return frame.reset_index(drop=True)


def cells(frame, metric):
    """Mean over the seeds by cell, nan where a seed failed.

    Returns
    -------
    DataFrame
        One row for each table, mechanism and part, one column for each imputer.
    """
    frame = frame.assign(value=frame[metric].where(frame["error"].isna()))
    by = ["table", "mechanism", "part", "imputer"]
    means = frame.groupby(by, observed=True)["value"].agg(_strict_mean).unstack()
    names = [name for name in dict.fromkeys(frame["imputer"]) if name in means]
    return means[names]


def _strict_mean(values):
    return values.mean(skipna=False)


def measured(frame):
    """Whether there is a result, or a failure, for each of the `cells`."""
    by = ["table", "mechanism", "part", "imputer"]
    return frame.groupby(by, observed=True).size().unstack().notna()


def core(frame):
    """Names of the imputers that a cell needs, to count.

    Optional peers need an environment of their own, and count where they were measured;
    where there are no others, they are the set.
    """
    names = list(dict.fromkeys(frame["imputer"]))
    return [name for name in names if name not in OPTIONAL] or names


def against_peers(frame, metric):
    """ADMCImputer beside the best peer of each cell.

    Returns
    -------
    DataFrame
        Indexed by table, mechanism and part: ``admc``, ``best`` (its value), ``peer``
        (its name), ``gain`` (by how much the error is lower, relative to the best; for
        the accuracy, by how much it is higher) and ``won``. Cells that some imputer
        of the `core` has not come to, or where no peer has a value, are left out. Where
        ADMCImputer failed it has not won, and has no gain.
    """
    values = cells(frame, metric)
    values = values[measured(frame)[core(frame)].all(axis=1)]
    peers = values.drop(columns=list(OURS), errors="ignore")
    peers = peers[peers.notna().any(axis=1)]
    sign = -1 if metric == "accuracy" else 1
    ours = values.reindex(columns=["admc"])["admc"].loc[peers.index]
    best = sign * (sign * peers).min(axis=1)
    gain = sign * (best - ours) / best.where(best != 0)
    return pd.DataFrame(
        {
            "admc": ours,
            "best": best,
            "peer": (sign * peers).idxmin(axis=1),
            "gain": gain,
            "won": sign * ours < sign * best,
        },
        index=peers.index,
    )


def ranked_rows(frame):
    """Rows that can be ranked together: every run of them has every imputer of them.

    The runs are those, a table under a mechanism with a seed, that have the `core`; the
    imputers are the core and the optional peers that all of these runs have. A failure
    counts as had.
    """
    run = pd.MultiIndex.from_frame(frame[["table", "mechanism", "seed"]].astype(str))
    run = pd.Series(run.to_flat_index(), frame.index)
    names = core(frame)
    is_core = frame["imputer"].isin(names)
    n_had = frame["imputer"][is_core].groupby(run[is_core]).nunique()
    complete = run.isin(n_had.index[n_had == len(names)])
    frame, run = frame[complete], run[complete]
    n_runs = run.groupby(frame["imputer"]).nunique()
    return frame[frame["imputer"].isin(n_runs.index[n_runs == run.nunique()])]


def ranks(frame, metric, part):
    """`ranking` of the imputers over the runs that have all of them.

    Returns
    -------
    DataFrame or None
        None where fewer than two imputers have been run.
    """
    frame = ranked_rows(frame[frame["part"] == part])
    values = frame[metric].where(frame["error"].isna())
    if frame["imputer"].nunique() < 2 or values.isna().all():
        return None
    columns = {"split": frame["seed"], metric: values}
    table = frame[["table", "mechanism", "rate", "imputer"]].assign(**columns)
    return ranking(table.astype({"table": str, "mechanism": str}), metric)


def relative_time(frame, of="admc", to="trees", column="cpu_s"):
    """Geometric mean of one imputer's seconds over another's, over cells of both.

    Returns
    -------
    ratio : float
    n_cells : int
    """
    seconds = cells(frame[frame["part"] == "unseen"], column).reindex(columns=[of, to])
    ratios = np.log(seconds[of] / seconds[to]).dropna()
    return float(np.exp(ratios.mean())), len(ratios)
