"""Pictures of the report, in shades of grey, small as files."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from benchmarks._summary import OURS, against_peers, cells, ranks

DPI = 90
MARKERS = "osD^vP*X"
METRICS = {"rmse": "RMSE", "mae": "MAE"}
# Face and place in the row: equal values do not hide each other.
PART_STYLES = {"unseen": ("black", -0.14), "training": ("white", 0.14)}


def draw_errors(frame):
    """ADMCImputer's error relative to the best peer's: a panel a mechanism and metric.

    Returns
    -------
    Figure
    """
    tables = list(frame["table"].unique())
    mechanisms = list(frame["mechanism"].unique())
    size = (1.4 + 2.7 * len(mechanisms), 1.6 + 2 * 0.25 * len(tables))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(
        len(METRICS), len(mechanisms), sharex="row", sharey=True, squeeze=False
    )
    for row, (metric, title) in zip(panels, METRICS.items(), strict=True):
        excess = -100 * against_peers(frame, metric)["gain"]
        for panel, mechanism in zip(row, mechanisms, strict=True):
            _excess_panel(panel, excess, tables, mechanism)
            panel.set_title(f"{title}, {mechanism.upper()}", fontsize=9)
    panels[0, 0].set_yticks(range(len(tables)), tables)
    panels[0, 0].set_ylim(len(tables) - 0.5, -0.5)
    figure.supxlabel(
        "error of admc relative to the best peer, % (left of the line: lower)",
        fontsize=9,
    )
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(),
        loc="outside upper right",
        ncols=2,
        frameon=False,
        fontsize=9,
    )
    return figure


def _excess_panel(panel, excess, tables, mechanism):
    rows = np.arange(len(tables))
    for part, (face, shift) in PART_STYLES.items():
        places = [(table, mechanism, part) for table in tables]
        values = excess.reindex(places).to_numpy(np.float64)
        panel.plot(
            values, rows + shift, "o", mec="black", mfc=face, ms=5, zorder=3,
            label=f"{part} rows",
        )  # fmt: skip
    panel.axvline(0, color="black", lw=0.9)
    _plain(panel)


def draw_ranks(frame, part):
    """Mean ranks with the critical difference: a panel a metric.

    Returns
    -------
    Figure or None
        None where there is nothing to rank.
    """
    tables = {metric: ranks(frame, metric, part) for metric in METRICS}
    if any(table is None for table in tables.values()):
        return None
    n_imputers = len(tables["rmse"])
    figure = Figure(figsize=(8, 1.1 + 0.3 * n_imputers), layout="constrained")
    panels = figure.subplots(1, len(METRICS), sharex=True)
    for panel, (metric, table) in zip(panels, tables.items(), strict=True):
        _rank_panel(panel, table)
        panel.set_title(f"{METRICS[metric]}, {part} rows", fontsize=9)
    figure.supxlabel("mean rank (bar: cannot be told apart from the first)", fontsize=9)
    return figure


def _rank_panel(panel, table):
    places = np.arange(len(table))
    first = table["mean_rank"].iloc[0]
    width = table["critical_difference"].iloc[0]
    panel.barh(0, width, left=first, height=0.35, color="0.75", align="center")
    panel.plot([first + width] * 2, [-0.5, len(table) - 0.5], color="0.6", lw=0.8)
    panel.plot(table["mean_rank"], places, "o", color="black", ms=5, zorder=3)
    for place, rank in zip(places, table["mean_rank"], strict=True):
        panel.annotate(
            f"{rank:.2f}", (rank, place), (6, 0), textcoords="offset points",
            va="center", fontsize=8,
        )  # fmt: skip
    panel.set_yticks(places, table.index)
    panel.set_ylim(len(table) - 0.5, -0.5)
    panel.set_xlim(0.8, len(table) + 0.6)
    _plain(panel)


def draw_times(frame):
    """Seconds of `fit` and `transform` against error: every cell, and the middle.

    Returns
    -------
    Figure
    """
    frame = frame[frame["part"] == "unseen"]
    seconds = cells(frame, "total_s")
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    panels = figure.subplots(1, len(METRICS), sharey=True)
    for panel, (metric, title) in zip(panels, METRICS.items(), strict=True):
        errors = cells(frame, metric)
        excess = 100 * (errors.div(errors.min(axis=1), axis=0) - 1)
        for name, marker in zip(errors, MARKERS, strict=False):
            _cloud(panel, seconds[name], excess[name], name, marker)
        panel.set_xscale("log")
        # Linear where imputers are close, so that the best are seen at 0.
        panel.set_yscale("symlog", linthresh=10)
        panel.set_ylim(-1, None)
        ticks = [0, 5, 10, 20, 50, 100, 200, 500, 1000]
        panel.set_yticks(ticks, [f"{tick}" for tick in ticks])
        panel.set_ylim(-1.5, np.nanmax(excess.to_numpy()) * 1.5 + 1)
        panel.set_xlabel("seconds, fit and transform", fontsize=9)
        panel.set_title(f"{title}, unseen rows", fontsize=9)
        _plain(panel, axis="both")
    panels[0].set_ylabel("% above the lowest error of the cell", fontsize=9)
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside right upper",
        frameon=False,
        fontsize=9,
    )
    return figure


def _cloud(panel, seconds, excess, name, marker):
    face = "black" if name in OURS else "white"
    panel.plot(seconds, excess, marker, ms=3, color="0.65", mec="0.65", zorder=1)
    panel.plot(
        [seconds.median()], [excess.median()], marker, ms=10, mfc=face, mec="black",
        ls="", zorder=3, label=name,
    )  # fmt: skip


def _plain(panel, axis="y"):
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis=axis, color="0.9", lw=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(labelsize=8)


def draw_lost_blocks(frame):
    """Error of lost blocks against training rows: a panel for each table and cut.

    Parameters
    ----------
    frame : DataFrame
        Records of `benchmarks.modalities --tables`, of several numbers of rows.

    Returns
    -------
    Figure
    """
    cases = list(frame.groupby(["table", "blocks"], sort=False))
    figure = Figure(figsize=(2.6 * len(cases), 2.9), layout="constrained")
    panels = figure.subplots(1, len(cases), squeeze=False)[0]
    for panel, ((table, n_blocks), part) in zip(panels, cases, strict=True):
        errors = part.pivot_table("rmse", "rows", "imputer", sort=False).sort_index()
        for k, name in enumerate(errors):
            ours = name == OURS[0]
            panel.plot(
                errors.index, errors[name], marker=MARKERS[k], ms=4,
                color="black" if ours else "0.6", lw=2 if ours else 1,
                zorder=3 if ours else 2, label=name,
            )  # fmt: skip
        panel.set_xscale("log")
        panel.set_xticks(errors.index, [str(n) for n in errors.index], fontsize=8)
        panel.minorticks_off()
        panel.set_title(f"{table}, {n_blocks} blocks", fontsize=9)
    panels[0].set_ylabel("RMSE of a lost block", fontsize=9)
    figure.supxlabel("training rows, half of them complete", fontsize=9)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside upper center", ncols=8, frameon=False, fontsize=9
    )
    return figure
