"""What ADMCImputer costs: against rows, columns and missing cells, and beside peers.

    python -m benchmarks.speed OUT [--data DIR] [--parts scale peers] [--limit SECONDS]

``scale`` fits made-up tables, each in a process of its own, with ``max_time`` as the
only parameter that is not the default; ``peers`` fits real ones beside extremely
randomised trees on two cores and completes unseen rows beside `KNNImputer`, all in one
process. Both write their CSV into OUT, and then ``speed.md`` and ``scale.png`` are made
from what is there.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from admc_sklearn import ADMCImputer
from benchmarks._child import call_within
from benchmarks._figures import DPI
from benchmarks._markdown import markdown_table
from benchmarks._protocol import load_numeric, split_mcar
from benchmarks.mcar import measure

TABLES = ("california", "letter", "magic", "bean")
ROWS, COLUMNS = (1_000, 10_000, 100_000, 1_000_000), (5, 20, 100, 500, 2000)
RATES = (0.05, 0.1, 0.3, 0.5, 0.7)
N_NEW = 1000
N_FACTORS = 4
# What varies: rows, columns, rate.
GRID = {
    "rows": [(n, 20, 0.3) for n in ROWS],
    "columns": [(2000, d, 0.3) for d in COLUMNS],
    "missing": [(10_000, 20, rate) for rate in RATES],
    "largest": [(1_000_000, 50, 0.3)],
}
# Beyond `max_time`: for what it does not bound, and for making the table.
GRACE = 1800.0


def made_up(n, d, seed):
    """Rows of curved factors and noise, float32 (n, d)."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(n, N_FACTORS)).astype(np.float32)
    inner = factors @ rng.normal(size=(N_FACTORS, d)).astype(np.float32)
    X = np.sin(inner) + 0.5 * inner
    X += 0.3 * rng.standard_normal((n, d), dtype=np.float32)
    return X


def cost(n, d, rate, limit):
    """Seconds, epochs and memory of one made-up table: a dict."""
    X = made_up(n + N_NEW, d, 0)
    truth = X[n:].copy()
    X[np.random.default_rng(1).random(X.shape, dtype=np.float32) < rate] = np.nan
    hidden = np.isnan(X[n:])
    before = _peak()
    imputer = ADMCImputer(max_time=limit, random_state=0)
    started = time.perf_counter()
    imputer.fit(X[:n])
    fitted = time.perf_counter()
    completed = imputer.transform(X[n:])
    done = time.perf_counter()
    seconds = imputer.history_["seconds"]
    return {
        "n_samples": n,
        "n_features": d,
        "rate": rate,
        "fit_s": fitted - started,
        "epochs": len(seconds) - 1,
        "epoch_s": seconds.iloc[-1] / max(1, len(seconds) - 1),
        "transform_ms_per_row": 1e3 * (done - fitted) / N_NEW,
        "rmse": float(np.sqrt(np.mean((completed - truth)[hidden] ** 2) / truth.var())),
        "table_gib": X.nbytes / 2**30,
        "before_gib": before,
        "peak_gib": _peak(),
        "n_threads": torch.get_num_threads(),
        "max_time": limit,
    }


def _peak():
    """Largest resident set of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure_scale(limit, grid=GRID):
    """Yield a record for every point of the grid."""
    for varied, points in grid.items():
        for point in points:
            try:
                record = call_within(limit + GRACE, cost, *point, limit)
            except Exception as error:
                n, d, rate = point
                record = {"n_samples": n, "n_features": d, "rate": rate}
                record["error"] = f"{type(error).__name__}: {error}"
            yield {"varied": varied, **record}


def measure_peers(data, seed=0):
    """Yield a record for every real table and imputer."""
    for table in TABLES:
        X = load_numeric(table, data)
        if X is None:
            print(f"{table}: not found, skipped (see --data)", flush=True)
            continue
        split = split_mcar(X, seed)
        for name in ("admc", "trees", "knn"):
            shape = {"n_train": len(split.train), "n_test": len(split.test)}
            yield {"table": table, **shape, **measure(name, split, seed)}


def draw_scale(frame):
    """Seconds of a fit against what varies: a panel each, on logarithmic axes."""
    names = {"rows": "n_samples", "columns": "n_features", "missing": "rate"}
    frame = frame[frame["fit_s"].notna()]
    names = {varied: x for varied, x in names.items() if varied in set(frame["varied"])}
    figure = Figure(figsize=(1 + 2.7 * len(names), 3.2), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for panel, (varied, x) in zip(panels, names.items(), strict=True):
        part = frame[frame["varied"] == varied]
        panel.plot(part[x], part["fit_s"], "o-", color="black", label="fit, s")
        panel.plot(part[x], part["epoch_s"], "s--", color="0.4", label="an epoch, s")
        panel.plot(
            part[x], part["transform_ms_per_row"], "^:", color="0.6",
            label="transform, ms a row",
        )  # fmt: skip
        panel.set_yscale("log")
        if varied != "missing":
            panel.set_xscale("log")
        panel.set_xlabel({"rate": "share of missing cells"}.get(x, varied))
        panel.spines[["top", "right"]].set_visible(False)
    lines = figure.axes[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside upper left", ncols=3, frameon=False, fontsize=8)
    return figure


def scale_section(frame):
    """Markdown of the scale, and the picture's place."""
    shown = pd.DataFrame(
        {
            "rows": frame["n_samples"].map("{:,}".format),
            "columns": frame["n_features"].astype(str),
            "missing": frame["rate"].map("{:.0%}".format),
            "fit, s": frame["fit_s"].map("{:.1f}".format),
            "epochs": frame["epochs"].map("{:.0f}".format),
            "an epoch, s": frame["epoch_s"].map("{:.2f}".format),
            "transform, ms a row": frame["transform_ms_per_row"].map("{:.3f}".format),
            "table, GiB": frame["table_gib"].map("{:.3f}".format),
            "peak, GiB": frame["peak_gib"].map("{:.2f}".format),
            "RMSE": frame["rmse"].map("{:.3f}".format),
        }
    ).set_index("rows")
    limits = ", ".join(f"{v:g}" for v in sorted(frame["max_time"].dropna().unique()))
    lines = [
        "## Against rows, columns and missing cells",
        "",
        f"Made-up tables of {N_FACTORS} curved factors, `max_time={limits}`, otherwise "
        f"default parameters; {N_NEW} new rows to complete. The peak is that of the "
        "process, the table and the libraries included. Where there is one epoch, the "
        "time was up before it was over.",
        "",
        markdown_table(shown),
        "",
        "![seconds against rows, columns and missing cells](scale.png)",
    ]
    failed = frame[frame["fit_s"].isna()]
    for _, row in failed.iterrows():
        size = f"{row['n_samples']:,} x {row['n_features']}"
        lines += ["", f"Failed: {size}, {row['error']}"]
    return lines


def peers_section(frame):
    """Markdown of seconds and errors beside the peers, and their ratios."""
    rows, ratios = [], []
    for table, part in frame.groupby("table", sort=False):
        by = part.set_index("imputer")
        total = by["fit_s"] + by["transform_s"]
        row = {"table": f"{table} ({by['n_train'].iloc[0]} + {by['n_test'].iloc[0]})"}
        for name in ("admc", "trees"):
            row[name] = f"{by.rmse[name]:.4f} / {by.mae[name]:.4f}"
            row[f"{name}: fit, transform"] = (
                f"{by.fit_s[name]:.1f} s, {by.transform_s[name]:.2f} s"
            )
        ratios.append(total["admc"] / total["trees"])
        row["time of trees"] = f"{ratios[-1]:.2f}"
        speed = by.transform_s["knn"] / by.transform_s["admc"]
        row["`KNNImputer`: transform"] = f"{by.transform_s['knn']:.1f} s, {speed:.0f} x"
        rows.append(row)
    mean = np.exp(np.mean(np.log(ratios)))
    return [
        "## Beside trees and neighbours",
        "",
        "Unseen rows of a 70/30 split, 30 % MCAR, RMSE / MAE, default parameters, one "
        "process; trees are 50 extremely randomised ones in `IterativeImputer` with "
        "`n_jobs=2`, five rounds. Time is that of `fit` and `transform` together, "
        f"{mean:.2f} times that of the trees in the geometric mean.",
        "",
        markdown_table(pd.DataFrame(rows).set_index("table")),
    ]


def write_page(out):
    """Make the page from the CSVs that are in a folder."""
    lines = ["# Speed", "", "Made by `python -m benchmarks.speed`."]
    for name, section in (("peers", peers_section), ("scale", scale_section)):
        path = out / f"{name}.csv"
        if path.exists():
            lines += ["", *section(pd.read_csv(path))]
    if (out / "scale.csv").exists():
        draw_scale(pd.read_csv(out / "scale.csv")).savefig(out / "scale.png", dpi=DPI)
    (out / "speed.md").write_text("\n".join(lines) + "\n")


def main():
    """Measure, writing each record as soon as it is there, and make the page."""
    # In this order: a process inherits the peak of the one that starts it.
    sources = {
        "scale": lambda options: measure_scale(options.limit),
        "peers": lambda options: measure_peers(options.data),
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", help="folder that holds tabular/NAME.parquet")
    parser.add_argument(
        "--parts", nargs="*", default=list(sources), choices=list(sources)
    )
    parser.add_argument("--limit", type=float, default=120.0, help="max_time of a fit")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for part, source in sources.items():
        if part not in options.parts:
            continue
        records = []
        for record in source(options):
            records.append(record)
            print(record, flush=True)
            pd.DataFrame(records).to_csv(options.out / f"{part}.csv", index=False)
    write_page(options.out)


if __name__ == "__main__":
    main()
