"""Sections of the report on how it was measured: setting, caps, gaps, time."""

from __future__ import annotations

from itertools import product

from benchmarks._markdown import markdown_table, number
from benchmarks._sources import TABLES
from benchmarks._summary import core, relative_time
from benchmarks.run import CELL, LIMITED, MECHANISMS, PACKAGES

DESCRIBED = {
    "admc": "`ADMCImputer`, mean for RMSE and median for MAE, from one fit",
    "anchor": "`ADMCImputer(max_epochs=0)`, its Gaussian alone",
    "trees": "`IterativeImputer` of `ExtraTreesRegressor(50, min_samples_leaf=2)`, "
    "5 rounds: like MissForest",
    "iterative": "`IterativeImputer` of `BayesianRidge`",
    "knn": '`KNNImputer(n_neighbors=10, weights="distance")`',
    "simple": "means and most frequent levels",
    "miceforest": "means and medians of ten draws by boosted trees (miceforest 6.0.5, "
    "whose completion of new rows was mended; see `benchmarks/draws.py`)",
    "hyperimpute": "HyperImpute 0.1.17, which has no step for new rows: it is fitted "
    "anew to the training rows and those to complete together, so that it also learns "
    "from these, and all of its time is in `transform`",
}


def setup_section(frame):
    """Say what was measured, how, and what was capped."""
    first = frame.iloc[0]
    names = list(dict.fromkeys(frame["imputer"]))
    lines = ["## What was measured", ""]
    lines += [f"- **{name}**: {DESCRIBED.get(name, name)}" for name in names]
    lines += [
        "",
        "Tables are split 70/30 into training and unseen rows; "
        f"{_share(first['rate'])} of the known cells are hidden in both (MAR leaves "
        "30 % of the columns complete, and hides this share of the others). Numbers "
        "are z-scores by the observed "
        "training cells. Imputers that know numbers only get ordinal codes of the "
        "categories, and their completions are rounded to the nearest code. The "
        f"prediction target is left out. Seeds: {_listed(frame['seed'])}.",
        "",
        "All imputers ran one after the other, in one process for each command (or, "
        "where it gave cells a time limit, for each cell), with "
        f"{first['n_threads']} thread(s) each, on: {_listed(frame['processor'])}. "
        f"Versions: {_versions(frame)}. Tables came from: {first['source']}.",
        "",
        "### What was capped",
        "",
        *_caps(frame),
    ]
    return lines


def _share(rate):
    return f"{100 * float(rate):g} %"


def _listed(values):
    return ", ".join(str(value) for value in sorted(set(values.dropna())))


def _versions(frame):
    return "; ".join(
        f"{name} {_listed(frame[name].dropna().astype(str))}"
        for name in ("python", *PACKAGES)
        if frame[name].notna().any()
    )


def _caps(frame):
    peers = _given_up(frame)
    ours = frame[(frame["imputer"] == LIMITED) & (frame["part"] == "unseen")]
    limit = ours["max_time"].iloc[0] if len(ours) else "none"
    if limit == "none":
        time = "- Time: no limit on admc."
    else:
        cut = ours[ours["fit_s"] >= 0.97 * float(limit)]
        time = (
            f"- Time: `max_time={limit}` seconds for admc's fit, which {len(cut)} of "
            f"its {len(ours)} fits reached."
        )
        if cut["cpu_s"].notna().any():
            time += (
                f" Those had {cut['cpu_s'].min():.0f} to {cut['cpu_s'].max():.0f} "
                "seconds of CPU, where other work on the machine took the rest."
            )
    lines = [_row_cap(frame), f"{time} {peers}"]
    if ours["epochs"].notna().any():
        low, middle, high = ours["epochs"].quantile([0, 0.5, 1])
        lines.append(
            "- Epochs: `max_epochs` at its default. The epoch that was kept was number "
            f"{middle:.0f} in the middle, {low:.0f} to {high:.0f}; where it is the "
            "last, more might have helped."
        )
    return lines


def _given_up(frame):
    """Say how long a cell of a peer had: errors tell of a limit that was reached."""
    texts = frame["error"].dropna().str.extract(r"^TimeLimit: more than (.+ s)$")[0]
    limits = " or ".join(sorted(set(texts.dropna())))
    if not limits:
        return "No limit on peers."
    return f"Cells of peers were given up after {limits}, and failed."


def _row_cap(frame):
    cap = frame["row_cap"].iloc[0]
    if cap == "none":
        return "- Rows: all of each table."
    groups = frame.dropna(subset="n_table").groupby(["table", "part"], observed=True)
    used = groups["n_rows"].first().groupby("table", observed=True).sum()
    whole = groups["n_table"].first().groupby("table", observed=True).first()
    cut = [
        f"{table} {used[table]:.0f} of {whole[table]:.0f}"
        for table in used.index
        if used[table] < whole[table]
    ]
    which = f"Capped: {', '.join(cut)}." if cut else "None was larger."
    return f"- Rows: at most {cap} of each table, drawn at random by the seed. {which}"


def status_section(frame):
    """Say what has failed and what is not there, so that neither goes unseen."""
    failed = frame[frame["error"].notna()].drop_duplicates(CELL)
    lines = ["## What is missing", ""]
    lines += [
        f"- failed: {row.imputer} on {row.table}, {row.mechanism}, seed {row.seed}: "
        f"{row.error}"
        for row in failed.itertuples()
    ]
    lines += _not_measured(frame)
    return lines if len(lines) > 2 else [*lines, "Nothing: no cell failed."]


def _not_measured(frame):
    """Say which cells of the protocol have no row.

    A line a table and mechanism for the core set; a line a mechanism for each optional
    peer, which may lack many.
    """
    keys = ["table", "mechanism", "imputer"]
    done = set(map(tuple, frame[keys].astype(str).to_numpy()))
    names = core(frame)
    lines = []
    for table, mechanism in product(TABLES, MECHANISMS):
        absent = [name for name in names if (table, mechanism, name) not in done]
        if absent:
            who = "all" if absent == names else ", ".join(absent)
            lines.append(f"- not measured: {table}, {mechanism}: {who}")
    optional = [name for name in dict.fromkeys(frame["imputer"]) if name not in names]
    for name, mechanism in product(optional, MECHANISMS):
        absent = [table for table in TABLES if (table, mechanism, name) not in done]
        if absent:
            which = "all tables" if absent == TABLES else ", ".join(absent)
            lines.append(f"- not measured: {name}, {mechanism}: {which}")
    return lines


def time_section(frame):
    """Seconds by table, and against error."""
    unseen = frame[frame["part"] == "unseen"]
    lines = ["## Time", ""]
    lines += _ratios(frame)
    lines += [
        "Median seconds of `fit` / `transform` of the unseen rows, over mechanisms and "
        "seeds:",
        "",
        markdown_table(_seconds(unseen)),
        "",
        "Every cell as a small mark, the median as a large one:",
        "",
        "![time](time.png)",
    ]
    return lines


def _ratios(frame):
    """How many times longer than trees, on the clock and by the CPUs' seconds."""
    texts = []
    for column, what in (("cpu_s", "seconds of CPU"), ("total_s", "wall time")):
        ratio, n_cells = relative_time(frame, column=column)
        if n_cells:
            texts.append(f"{ratio:.2f} times the {what} ({n_cells} cells)")
    if not texts:
        return []
    return [
        "`fit` and `transform` of the unseen rows together take admc "
        f"{' and '.join(texts)} that trees take: geometric means. Other work on the "
        "machine lengthens the wall time, not the other.",
        "",
    ]


def _seconds(frame):
    groups = frame.groupby(["table", "imputer"], observed=True)
    fits = groups["fit_s"].median().unstack()
    transforms = groups["transform_s"].median().unstack()
    texts = fits.map(lambda value: number(value, "{:.2f}"))
    texts = texts + " / " + transforms.map(lambda value: number(value, "{:.3f}"))
    texts = texts.mask(fits.isna(), "failed")
    texts = texts.mask(groups.size().unstack().isna(), "not run")
    return texts[list(dict.fromkeys(frame["imputer"]))].rename_axis(columns=None)
