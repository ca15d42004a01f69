"""Data of the pictures of `ImputationDisplay`; the module imports no matplotlib."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..missingness import flux
from ._incomplete_table import as_columns

# The coverage of a single column is shown if it has at least so many hidden cells.
MIN_HIDDEN = 20
# Draws of float32 networks equal a value of the column only up to rounding.
TIE = 1e-5
COMPARED = ("rmse", "mae", "accuracy", "fit_time", "transform_time")


def select(columns, names):
    """Positions of the columns that users name: a str, an int or a list of them."""
    if columns is None:
        return list(range(len(names)))
    columns = [columns] if isinstance(columns, (str, int, np.integer)) else columns
    positions = []
    for column in columns:
        if isinstance(column, str) and column in names:
            positions.append(names.index(column))
        elif not isinstance(column, str) and -len(names) <= column < len(names):
            positions.append(range(len(names))[column])
        else:
            raise ValueError(f"There is no column {column!r}; there are {names}.")
    return positions


def _widest_gaps(positions, missing, max_columns):
    """Split positions into those with most missing cells, in order, and the others."""
    if max_columns < 1:
        raise ValueError(f"max_columns must be at least 1, got {max_columns!r}.")
    counts = missing[:, positions].sum(axis=0)
    first = np.sort(np.argsort(-counts, kind="stable")[:max_columns])
    kept = [positions[i] for i in first]
    return kept, [j for j in positions if j not in kept]


def density_data(table, columns, n_draws, max_columns, rng):
    """Observed and imputed values of each column; see `ImputationDisplay`."""
    positions = [
        j
        for j in select(columns, table.names)
        if table.missing[:, j].any() and table.positions[j] >= 0
    ]
    if not positions:
        raise ValueError("There is no missing cell to draw in these columns.")
    kept, left_out = _widest_gaps(
        positions, table.missing, 12 if max_columns is None else max_columns
    )
    if hasattr(table.imputer, "sample"):
        n_draws = 5 if n_draws is None else n_draws
        filled = table.draws(n_draws, rng)
    else:
        n_draws = 0
        filled = [as_columns(table.imputer.transform(table.X))]
    values = {}
    for j in kept:
        rows = np.flatnonzero(table.missing[:, j])
        parts = [table.typed(draw[table.positions[j]].iloc[rows], j) for draw in filled]
        observed = table.typed(table.columns[j], j)
        imputed = pd.concat(parts, ignore_index=True)
        values[table.names[j]] = (observed.reset_index(drop=True), imputed)
    return {
        "columns": values,
        "left_out": [table.names[j] for j in left_out],
        "n_draws": n_draws,
    }


def calibration_data(table, columns, n_draws, hidden_rate, rng):
    """Coverage of central intervals of draws, for cells hidden by ``rng``."""
    if not 0 < hidden_rate < 1:
        raise ValueError(f"hidden_rate must be between 0 and 1, got {hidden_rate!r}.")
    positions = [
        j
        for j in select(columns, table.names)
        if table.levels[j] is None and table.positions[j] >= 0
    ]
    hidden = ~table.missing & (rng.uniform(size=table.missing.shape) < hidden_rate)
    positions = [j for j in positions if hidden[:, j].any()]
    if not positions:
        raise ValueError("There is no known cell of a number or a date to hide.")
    draws = table.draws(50 if n_draws is None else n_draws, rng, hidden)
    depth = {}
    for j in positions:
        rows = np.flatnonzero(hidden[:, j])
        truth = _numbers(table.typed(table.columns[j].iloc[rows], j))
        drawn = [
            _numbers(table.typed(draw[table.positions[j]].iloc[rows], j))
            for draw in draws
        ]
        spread = np.std(_numbers(table.typed(table.columns[j], j)))
        ranks = transform_ranks(truth, np.stack(drawn), TIE * spread, rng)
        depth[j] = np.abs(2 * ranks - 1)
    nominal = np.linspace(0, 1, 21)
    pooled = np.concatenate(list(depth.values()))
    return {
        "nominal": nominal,
        "pooled": _coverage(pooled, nominal),
        "columns": {
            table.names[j]: _coverage(inside, nominal)
            for j, inside in depth.items()
            if len(inside) >= MIN_HIDDEN
        },
        "n_cells": len(pooled),
    }


def transform_ranks(truth, draws, tolerance, rng):
    """Randomised probability integral transform of values among their draws.

    Parameters
    ----------
    truth : array of shape (n,)
    draws : array of shape (n_draws, n)
    tolerance : float
        Values not further apart than this are ties.
    rng : RandomState

    Returns
    -------
    array of shape (n,)
        Uniform on [0, 1] if each value is distributed as its draws are: the value is
        equally likely to have each rank among the ``n_draws + 1``, ties in random
        order, and the rank is spread evenly over its share.
    """
    ties = np.abs(draws - truth) <= tolerance
    below = ((draws < truth) & ~ties).sum(axis=0)
    return (below + rng.uniform(size=len(truth)) * (ties.sum(axis=0) + 1)) / (
        len(draws) + 1
    )


def _numbers(series):
    """Floats of a column of numbers, dates or durations; days for the latter two."""
    if series.dtype.kind == "M":
        series = series - pd.Timestamp(0)
    if series.dtype.kind == "m":
        return (series / pd.Timedelta(days=1)).to_numpy(np.float64)
    return series.to_numpy(np.float64)


def _coverage(depth, nominal):
    """Share of the cells inside each central interval, shape (n_shares,)."""
    return np.searchsorted(np.sort(depth), nominal, side="right") / len(depth)


def scatter_data(table, columns, rng):
    """Two columns, missing cells filled by one draw; see `ImputationDisplay`."""
    pair = [] if columns is None else select(columns, table.names)
    if len(pair) != 2:
        raise ValueError(f"A scatter needs columns=(a, b), got {columns!r}.")
    for j in pair:
        if table.levels[j] is not None or table.positions[j] < 0:
            raise ValueError(f"Column {table.names[j]!r} is not of completed numbers.")
    (draw,) = table.draws(1, rng)
    filled = [table.typed(draw[table.positions[j]], j).to_numpy() for j in pair]
    return {
        "names": [table.names[j] for j in pair],
        "values": pd.DataFrame(dict(enumerate(filled))),
        "missing": table.missing[:, pair],
    }


def pattern_data(table, columns, max_columns):
    """Patterns of missing cells and their counts; see `ImputationDisplay`."""
    positions = select(columns, table.names)
    kept, left_out = _widest_gaps(
        positions, table.missing, 100 if max_columns is None else max_columns
    )
    patterns, counts = np.unique(table.missing[:, kept], axis=0, return_counts=True)
    order = np.lexsort([patterns.sum(axis=1), -counts])
    return {
        "names": [table.names[j] for j in kept],
        "patterns": patterns[order],
        "counts": counts[order],
        "left_out": [table.names[j] for j in left_out],
    }


def training_data(imputer):
    """Collect the validation figures of every epoch; see `ImputationDisplay`."""
    history = getattr(imputer, "history_", None)
    if history is None:
        raise TypeError(f"{type(imputer).__name__} has no `history_` to draw.")
    if not len(history):
        raise ValueError(
            "`history_` is empty: there were too few cells to hold any out."
        )
    if "part" in history:  # cells are trained besides: the modalities are shown
        history = history[history["part"] == history["part"].iloc[-1]]
    return {"history": history.copy(), "kept": int(imputer.n_epochs_)}


def modalities_data(imputer):
    """Collect the shares that modalities explain; see `ImputationDisplay`."""
    shares = getattr(imputer, "dependence_", None)
    if shares is None:
        raise TypeError(
            'kind="modalities" needs an ADMCImputer with a modality that is completed '
            f"as a block, got {imputer!r}."
        )
    return {"shares": shares}


def comparison_data(frame, metric):
    """Values of a metric by panel; see `ImputationDisplay.from_comparison`."""
    if metric not in COMPARED:
        raise ValueError(f"metric must be one of {COMPARED}, got {metric!r}.")
    lacking = {"imputer", "mechanism", "rate", metric} - set(frame.columns)
    if lacking:
        raise ValueError(f"The frame lacks the columns {sorted(lacking)}.")
    columns = dict(zip(frame.columns, as_columns(frame), strict=True))
    keys = ["mechanism", "rate"]
    if "table" in columns and columns["table"].nunique() > 1:
        keys = ["table", *keys]
    runs = pd.DataFrame({key: columns[key] for key in keys})
    runs["imputer"] = columns["imputer"].astype(str)
    runs["value"] = columns[metric].astype(np.float64)
    if runs["value"].isna().all():
        raise ValueError(f"The frame holds no value of {metric!r}.")
    runs["panel"] = [_panel_title(*row) for row in runs[keys].itertuples(index=False)]
    # Tables and mechanisms keep their order, rates rise.
    for key in keys[:-1]:
        runs[key] = pd.factorize(runs[key])[0]
    panels = list(pd.unique(runs.sort_values(keys, kind="stable")["panel"]))
    means = runs.pivot_table(index="imputer", columns="panel", values="value")
    ranks = means.rank(ascending=metric != "accuracy").mean(axis=1)
    order = ranks.reindex(pd.unique(runs["imputer"])).sort_values(kind="stable").index
    n_rates = runs["rate"].nunique()
    is_grid = n_rates > 1 and len(panels) % n_rates == 0
    return {
        "values": runs[["panel", "imputer", "value"]],
        "panels": panels,
        "n_columns": n_rates if is_grid else min(3, len(panels)),
        "order": list(order),
        "metric": metric,
    }


def flux_data(X):
    """Influx and outflux of a table's columns; see `ImputationDisplay.from_table`."""
    found = flux(X)
    share = found["pobs"]
    if (share == 1).all() or (share == 0).all():
        raise ValueError(
            f"{'No' if share.iloc[0] else 'Every'} cell is missing: there is no flux "
            "to draw."
        )
    return {"flux": found}


def _panel_title(*names):
    """Name a panel by its table, where there are several, mechanism and rate."""
    *table, mechanism, rate = names
    return "".join(f"{name}: " for name in table) + f"{mechanism}, {100 * rate:g} %"
