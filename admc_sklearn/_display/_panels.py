"""Drawing of the pictures of `ImputationDisplay`, in shades of grey.

Every function takes the data, the axes to draw in or None for a new figure, and the
size of that figure or None, and returns the panels. matplotlib is optional.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ._figure import (
    SMALL,
    TINY,
    caption,
    labels,
    left_out_note,
    new_figure,
    open_grid,
    plain,
)

PALE, MIDDLE, DARK = "0.78", "0.55", "0.1"
MAX_PATTERNS = 20  # rows of a picture of patterns
MAX_LEVELS = 8  # levels of a categorical column that get bars of their own
MAX_BINS = 24
POINT_MASS = 0.7  # a bin with more flattens the others, but on a logarithmic axis
N_NAMED = 3  # columns named in a picture of coverage
MAX_LABELS = 50
NEAR = 0.035  # columns so near to each other share a label in a picture of flux
MAX_OTHERS = 2  # the bar of all other patterns is cut at so many of the longest


def draw_density(data, ax, figsize):
    """Shares of observed and imputed values, one panel a column."""
    from matplotlib.patches import Patch

    columns = data["columns"]
    n_cols = min(4, int(np.ceil(np.sqrt(len(columns)))))
    n_rows = -(-len(columns) // n_cols)
    default = (6.4, 4.8) if len(columns) == 1 else (2.4 * n_cols, 1.9 * n_rows + 0.6)
    canvas, panels = open_grid(ax, figsize or default, n_rows, n_cols)
    panels = panels.ravel()
    for panel in panels[len(columns) :]:
        panel.remove()
    n_draws = max(1, data["n_draws"])
    names = labels(columns)
    for panel, name, (observed, imputed) in zip(
        panels, names, columns.values(), strict=False
    ):
        categorical = isinstance(observed.dtype, pd.CategoricalDtype)
        (_bars if categorical else _histogram)(panel, observed, imputed)
        n_missing = len(imputed) // n_draws
        share = 100 * n_missing / (n_missing + len(observed))
        panel.set_title(f"{name}, {share:.0f} % missing", fontsize=TINY)
        plain(panel)
    source = f"{data['n_draws']} draws" if data["n_draws"] else "completion"
    handles = [
        Patch(facecolor=PALE, label="observed"),
        Patch(facecolor="white", edgecolor=DARK, label=f"imputed ({source})"),
    ]
    caption(canvas, "Share of cells", left_out_note(data["left_out"]), handles)
    return panels[: len(columns)]


def _histogram(ax, observed, imputed):
    """Draw shares of numbers, dates or durations in common bins."""
    observed, imputed = (_on_axis(ax, values) for values in (observed, imputed))
    edges = bin_edges(observed, imputed)
    tallest = 0.0
    for values, style in (
        (observed, {"fill": True, "color": PALE}),
        (imputed, {"color": DARK, "lw": 1.3, "baseline": None}),
    ):
        inside = np.clip(values, edges[0], edges[-1])
        counts, _ = np.histogram(inside, edges)
        shares = counts / max(1, len(values))
        tallest = max(tallest, shares.max())
        ax.stairs(shares, edges, **style)
    if tallest > POINT_MASS:
        n_cells = max(len(observed), len(imputed))
        ax.set(yscale="log", ylim=(0.5 / n_cells, 1))
        ax.set_ylabel("logarithmic", fontsize=TINY)
    else:
        ax.set_ylim(bottom=0)
        ax.locator_params(axis="y", nbins=4)


def _on_axis(ax, values):
    """Values as floats for the x axis, which shows them as dates where they are."""
    if values.dtype.kind == "m":
        ax.set_xlabel("days", fontsize=TINY)
        return (values / pd.Timedelta(days=1)).to_numpy(np.float64)
    if values.dtype.kind == "M":
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num

        locator = AutoDateLocator(minticks=2, maxticks=4)
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        return np.asarray(date2num(values.to_numpy()), dtype=np.float64)
    ax.locator_params(axis="x", nbins=3)
    return values.to_numpy(np.float64)


def bin_edges(observed, imputed):
    """Edges of common bins over the central 99 %; whole numbers have whole widths.

    Shapes in: (n,) and (m,), one of which may be empty.
    """
    both = np.concatenate([observed, imputed])
    low, high = np.quantile(both, [0.005, 0.995])
    if low == high:  # almost all cells are one value: the outer bins are the others
        low, high = both.min(), both.max()
    n_bins = int(np.clip(2 * len(observed) ** (1 / 3), 8, MAX_BINS))  # Rice's rule
    if (observed == np.rint(observed)).all() and high - low <= 1e9:
        width = max(1, int(np.ceil((high - low + 1) / n_bins)))
        return np.arange(np.floor(low), np.ceil(high) + width + 1, width) - 0.5
    if low == high:
        return np.array([low - 0.5, high + 0.5])
    return np.linspace(low, high, n_bins + 1)


def _bars(ax, observed, imputed):
    """Shares of levels, two bars each; rare levels are gathered in one."""
    levels = observed.cat.categories
    shares = np.stack(
        [
            np.bincount(values.cat.codes, minlength=len(levels)) / max(1, len(values))
            for values in (observed, imputed)
        ]
    )
    ticks = labels(levels, 12)
    if len(levels) > MAX_LEVELS:
        often = np.sort(
            np.argsort(-shares.sum(axis=0), kind="stable")[: MAX_LEVELS - 1]
        )
        rest = np.delete(shares, often, axis=1).sum(axis=1, keepdims=True)
        shares = np.hstack([shares[:, often], rest])
        ticks = [ticks[i] for i in often] + [f"{len(levels) - len(often)} others"]
    heights = np.arange(len(ticks))
    ax.barh(heights - 0.2, shares[0], 0.38, color=PALE)
    ax.barh(heights + 0.2, shares[1], 0.38, color="white", edgecolor=DARK, lw=1)
    ax.set_yticks(heights, ticks)
    ax.locator_params(axis="x", nbins=4)
    ax.invert_yaxis()


def draw_calibration(data, ax, figsize):
    """Coverage against nominal share: all cells, and each column as a thin line."""
    if ax is None:
        ax = new_figure(figsize or (5, 4.8)).add_subplot()
    nominal, columns = data["nominal"], data["columns"]
    gaps = {name: np.abs(line - nominal).mean() for name, line in columns.items()}
    named = sorted(gaps, key=gaps.get, reverse=True)[:N_NAMED]
    ax.plot([0, 1], [0, 1], color=MIDDLE, lw=1, ls=(0, (6, 4)), label="nominal")
    n_plain = len(columns) - len(named)
    label = f"{n_plain} other columns" if n_plain > 1 else "1 other column"
    for name, line in columns.items():
        if name not in named:
            ax.plot(nominal, line, color=PALE, lw=0.8, label=label, zorder=1)
            label = None  # one entry of the legend stands for all
    styles = zip(named, labels(named), (":", "-.", "--"), strict=False)
    for name, label, style in styles:
        ax.plot(nominal, columns[name], color="0.35", lw=1.2, ls=style, label=label)
    label = f"all {data['n_cells']} hidden cells"
    ax.plot(nominal, data["pooled"], color="black", lw=2.2, label=label)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.set(xlabel="share of the central interval", ylabel="share of hidden cells in it")
    ax.set_title("above the diagonal: intervals too wide", fontsize=SMALL)
    ax.legend(fontsize=TINY, loc="lower right", frameon=False)
    return np.array([ax])


def draw_scatter(data, ax, figsize):
    """Two columns: rows with both observed, and drawn rows by what was missing."""
    if ax is None:
        ax = new_figure(figsize).add_subplot()
    x, y = (data["values"][k] for k in (0, 1))
    lost_x, lost_y = data["missing"].T
    names = labels(data["names"])
    groups = [
        ("both observed", ~lost_x & ~lost_y, {"color": PALE, "marker": "o"}),
        (f"{names[0]} drawn", lost_x & ~lost_y, {"marker": "_"}),
        (f"{names[1]} drawn", ~lost_x & lost_y, {"marker": "|"}),
        ("both drawn", lost_x & lost_y, {"marker": "x"}),
    ]
    size = np.clip(12000 / len(x), 9, 28)
    for label, rows, style in groups:
        style = {"color": DARK, "linewidths": 1.1} | style
        label = f"{label} ({rows.sum()})"
        ax.scatter(x[rows], y[rows], s=size, label=label, **style)
    names = labels(data["names"], 50)
    ax.set(xlabel=names[0], ylabel=names[1])
    ax.legend(
        fontsize=SMALL, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False
    )
    plain(ax)
    return np.array([ax])


def draw_pattern(data, ax, figsize):
    """Patterns of missing cells: columns' shares, patterns, how many rows have them."""
    patterns, counts = data["patterns"], data["counts"]
    cells, sizes = patterns[:MAX_PATTERNS].astype(float), counts[:MAX_PATTERNS]
    sums = [f"{n}" for n in patterns[:MAX_PATTERNS].sum(axis=1)]
    rest = counts[MAX_PATTERNS:]
    if len(rest):
        share = rest @ patterns[MAX_PATTERNS:] / rest.sum()
        cells, sums = np.vstack([cells, share]), [*sums, f"{len(rest)} others"]
    n_rows, n_columns = cells.shape
    width = float(np.clip(2.4 + 0.25 * n_columns, 5, 9.5))
    side = 0.8 / (width - 1.6)  # width of the counts, relative to the cells
    ratios = {"width_ratios": [1, side], "height_ratios": [0.6, 0.17 * n_rows + 0.3]}
    canvas, ((top, corner), (middle, right)) = open_grid(
        ax,
        figsize or (width, 2.4 + 0.17 * n_rows),
        2,
        2,
        hspace=0.02,
        wspace=0.02,
        **ratios,
    )
    corner.remove()
    top.bar(np.arange(n_columns), counts @ patterns / counts.sum(), 0.8, color=MIDDLE)
    top.set(xticks=[], xlim=(-0.5, n_columns - 0.5))
    top.yaxis.set_major_formatter("{x:.0%}")
    _cells(middle, cells, sums, data["names"])
    _counts(right, sizes, rest.sum(), middle.get_ylim())
    for panel in (top, right):
        plain(panel)
    title = f"{len(counts)} patterns in {counts.sum()} rows; dark cells are missing"
    if len(rest):
        title += f"\nThe {MAX_PATTERNS} most frequent patterns are "
        title += f"{100 * sizes.sum() / counts.sum():.0f} % of the rows"
    caption(canvas, title, left_out_note(data["left_out"]))
    return np.array([top, middle, right])


def _cells(ax, cells, sums, names):
    """Draw a matrix of shares missing, 0 to 1, with named columns and rows."""
    n_rows, n_columns = cells.shape
    ax.pcolormesh(0.1 + 0.8 * cells, cmap="Greys", vmin=0, vmax=1)
    ax.hlines(np.arange(n_rows + 1), 0, n_columns, color="white", lw=1)
    if n_columns <= MAX_LABELS:  # lines between narrower cells would hide them
        ax.vlines(np.arange(n_columns + 1), 0, n_rows, color="white", lw=1)
    labelled = np.arange(0, n_columns, -(-n_columns // MAX_LABELS))
    names = labels(names)
    ax.set_xticks(labelled + 0.5, [names[i] for i in labelled], rotation=90)
    ax.set_yticks(np.arange(n_rows) + 0.5, sums)
    ax.set_ylabel("missing cells in a row", fontsize=SMALL)
    ax.set(xlim=(0, n_columns), ylim=(n_rows, 0))
    ax.tick_params(length=0, labelsize=TINY)
    ax.spines[:].set_visible(False)


def _counts(ax, sizes, n_others, limits):
    """Draw how many rows have each pattern; a paler bar is for all others together.

    It is cut at the edge of the panel where it would dwarf the patterns' bars.
    """
    limit = MAX_OTHERS * max(sizes)
    shades = [MIDDLE] * len(sizes)
    if n_others:
        sizes, shades = [*sizes, n_others], [*shades, PALE]
    heights = np.arange(len(sizes)) + 0.5
    ax.barh(heights, sizes, 0.8, color=shades)
    style = {"textcoords": "offset points", "va": "center", "fontsize": TINY}
    for height, size in zip(heights, sizes, strict=True):
        ax.annotate(f"{size}", (min(size, limit), height), (2, 0), **style)
    ax.set(ylim=limits, yticks=[], xticks=[])
    ax.set_xlabel("rows", fontsize=SMALL)
    ax.margins(x=0.4)
    if n_others > limit:
        ax.set_xlim(0, 1.4 * limit)
        cut = {"color": "white", "ha": "center", "va": "center", "fontsize": SMALL}
        ax.text(0.75 * limit, heights[-1], "//", **cut)


def draw_training(data, ax, figsize):
    """Draw error and losses over the epochs, the anchor, the kept epoch."""
    history, kept = data["history"].set_index("epoch"), data["kept"]
    left, right = panels = open_grid(ax, figsize or (8, 3.4), 1, 2)[1].ravel()
    lines = [
        (left, "valid_rmse", {"color": "black", "marker": "."}, "validation RMSE"),
        (right, "valid_loss", {"color": "black", "marker": "."}, "validation"),
        (right, "train_loss", {"color": MIDDLE, "marker": "."}, "training"),
    ]
    for panel, name, style, label in lines:
        panel.plot(history.index, history[name], lw=1.2, ms=4, label=label, **style)
    for panel, name in ((left, "valid_rmse"), (right, "valid_loss")):
        anchor = history[name].get(0)
        if anchor is not None:
            panel.axhline(anchor, color=MIDDLE, ls="--", lw=1, label="anchor (epoch 0)")
        if kept in history.index:
            panel.plot(
                [kept], [history[name][kept]], ls="", marker="o", ms=9, mfc="none",
                mec="black", label=f"kept (epoch {kept})",
            )  # fmt: skip
        panel.set_xlabel("epoch", fontsize=SMALL)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.legend(fontsize=TINY, frameon=False)
        plain(panel)
    left.set_title("RMSE of hidden cells, standardised", fontsize=SMALL)
    right.set_title("loss, nats a cell", fontsize=SMALL)
    return panels


def draw_modalities(data, ax, figsize):
    """Draw the share of each modality that each other one explains."""
    shares = data["shares"].to_numpy(float)
    side = 1.6 + 0.8 * len(shares)
    panels = open_grid(ax, figsize or (side + 0.8, side), 1, 1)[1].ravel()
    panel = panels[0]
    known = np.where(np.eye(len(shares), dtype=bool), np.nan, shares)
    panel.imshow(known, cmap="Greys", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(known):
        if row != column:
            text = "?" if np.isnan(share) else f"{100 * share:.0f} %"
            shade = "white" if share > 0.5 else "black"
            panel.text(column, row, text, ha="center", va="center", color=shade)
    names = labels(data["shares"].columns)
    ticks = range(len(names))
    panel.set_xticks(ticks, names, fontsize=SMALL, rotation=30, ha="right")
    panel.set_yticks(ticks, names, fontsize=SMALL)
    panel.set_xlabel("from this modality alone", fontsize=SMALL)
    panel.set_ylabel("of this one", fontsize=SMALL)
    panel.set_title("share of the variance explained", fontsize=SMALL)
    return panels


def draw_comparison(data, ax, figsize):
    """Dot plot of imputers' scores: every split, and the mean, best first."""
    from matplotlib.lines import Line2D

    values, order, metric = data["values"], data["order"], data["metric"]
    titles, n_cols = data["panels"], min(4, data["n_columns"])
    n_rows = -(-len(titles) // n_cols)
    default = (max(6.4, 1 + 2.8 * n_cols), n_rows * (0.5 + 0.26 * len(order)) + 1)
    canvas, panels = open_grid(ax, figsize or default, n_rows, n_cols)
    panels = panels.ravel()
    for panel in panels[len(titles) :]:
        panel.remove()
    panels = panels[: len(titles)]
    cut = labels(titles, 40)
    for k, (panel, title) in enumerate(zip(panels, titles, strict=True)):
        _dots(panel, values[values["panel"] == title], order, metric)
        panel.set_title(cut[k], fontsize=SMALL)
        if k % n_cols:
            panel.set_yticklabels([])
    dot = {"color": "white", "ls": "", "marker": "o"}
    best = "highest" if metric == "accuracy" else "lowest"
    handles = [
        Line2D([], [], **dot | {"marker": "."}, mfc=MIDDLE, mec=MIDDLE, label="split"),
        Line2D([], [], **dot, mec="black", label="mean"),
        Line2D([], [], **dot, mfc="black", mec="black", label=f"{best} mean"),
    ]
    unit = ", seconds" if metric.endswith("_time") else ""
    caption(canvas, metric.replace("_", " ") + unit, handles=handles)
    return panels


def _dots(ax, values, order, metric):
    """Draw one panel: a row an imputer, its splits and its mean."""
    means = values.groupby("imputer")["value"].mean().reindex(order)
    best = means.max() if metric == "accuracy" else means.min()
    for row, name in enumerate(order):
        splits = values.loc[values["imputer"] == name, "value"]
        mean = means[name]
        ax.plot(splits, np.full(len(splits), row), ".", color=MIDDLE, ms=4)
        if np.isnan(mean):
            text = "none"
        else:
            face = "black" if mean == best else "white"
            ax.plot([mean], [row], "o", mfc=face, mec="black", ms=6, zorder=3)
            text = f"{mean:.0f}" if mean >= 100 else f"{mean:#.3g}"
        ax.annotate(
            text, (1, row), (3, 0), xycoords=ax.get_yaxis_transform(),
            textcoords="offset points", va="center", fontsize=TINY,
        )  # fmt: skip
    if metric.endswith("_time"):
        ax.set_xscale("log")
    else:
        ax.locator_params(axis="x", nbins=4)
    ax.set_yticks(range(len(order)), labels(order, 28))
    ax.set_ylim(len(order) - 0.5, -0.5)
    ax.grid(axis="y", color="0.9", lw=0.8)
    ax.set_axisbelow(True)
    plain(ax)


def draw_flux(data, ax, figsize):
    """Draw the outflux of each column over its influx, with their names."""
    if ax is None:
        ax = new_figure(figsize or (5.4, 5)).add_subplot()
    points = data["flux"][["influx", "outflux"]].to_numpy(float)
    ax.plot([0, 1], [1, 0], color=MIDDLE, lw=1, ls=(0, (6, 4)), zorder=1)
    ax.plot(*points.T, "o", mfc=PALE, mec=DARK, ms=6, clip_on=False)
    groups = []  # first point of each, and its names
    for point, name in zip(points, labels(data["flux"].index), strict=True):
        near = (own for own in groups if np.abs(own[0] - point).max() < NEAR)
        group = next(near, None)
        if group is None:
            groups.append((point, [name]))
        else:
            group[1].append(name)
    for (x, y), names in groups:
        text = ", ".join(names[:N_NAMED])
        if len(names) > N_NAMED:
            text += f" and {len(names) - N_NAMED} more"
        # Columns lie below the diagonal: text on the left meets it least.
        side, offset = ("left", (6, 4)) if x < 0.3 else ("right", (-6, -3))
        ax.annotate(
            text, (x, y), offset, textcoords="offset points", ha=side, fontsize=TINY,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.3},
        )  # fmt: skip
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.set_xlabel("influx: how much of the others is there to impute it")
    ax.set_ylabel("outflux: how much it serves to impute the others")
    ax.xaxis.label.set_size(SMALL)
    ax.yaxis.label.set_size(SMALL)
    plain(ax)
    return np.array([ax])
