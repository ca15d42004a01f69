"""Picture of error against seconds: every imputer, at every size.

    python -m benchmarks.pareto OUT FILE.png

OUT holds the small.csv of `benchmarks.small`. A point is an imputer's RMSE over that of
the column mean, and its seconds of fitting and completing, both means over the tables
that all imputers completed at that size. The line joins those that no other imputer
beats in both.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

# Name, colour and marker of each imputer: ours are blue.
LOOKS = {
    "admc": ("ADMCImputer", "tab:blue", "o"),
    "anchor": ("anchor alone", "tab:blue", "v"),
    "trees": ("trees", "tab:green", "s"),
    "ridge": ("BayesianRidge", "tab:orange", "D"),
    "knn": ("KNN", "tab:brown", "P"),
    "miceforest": ("miceforest", "tab:purple", "X"),
    "hyperimpute": ("HyperImpute", "tab:red", "*"),
    "mice_pmm": ("mice, pmm", "0.3", "^"),
    "mice_cart": ("mice, cart", "0.3", "<"),
    "mice_rf": ("mice, rf", "0.3", ">"),
}


def points(frame):
    """Relative error and seconds of every size and imputer: a frame."""
    frame = frame.assign(
        seconds=frame["fit_s"] + frame["transform_s"].fillna(frame["draw_s"])
    )
    rows = []
    for n, part in frame.groupby("n"):
        wide = part.pivot_table(
            index="table", columns="imputer", values="rmse"
        ).dropna()
        time = part.pivot_table(index="table", columns="imputer", values="seconds")
        for imputer in wide:
            share = (wide[imputer] / wide["mean"]).mean()
            seconds = float(np.exp(np.log(time.loc[wide.index, imputer]).mean()))
            rows.append({"n": n, "imputer": imputer, "error": share, "s": seconds})
    return pd.DataFrame(rows)


def draw(found, path):
    """Draw a panel for each size."""
    sizes = sorted(found["n"].unique())
    figure, axes = plt.subplots(
        1,
        len(sizes),
        figsize=(3.2 * len(sizes), 3.8),
        sharey=True,
        layout="constrained",
    )
    for axis, n in zip(np.atleast_1d(axes), sizes, strict=True):
        own = found[(found["n"] == n) & (found["imputer"] != "mean")].sort_values("s")
        best = own[own["error"] <= own["error"].cummin()]
        axis.step(best["s"], best["error"], where="post", color="0.7", zorder=0)
        for row in own.itertuples():
            name, color, marker = LOOKS[row.imputer]
            axis.plot(row.s, row.error, marker, color=color, label=name)
        title = f"{n} rows" if n < 20_000 else "all rows"
        axis.set(xscale="log", title=title, xlabel="seconds, one thread")
        axis.margins(x=0.1, y=0.1)
    np.atleast_1d(axes)[0].set_ylabel("RMSE over that of the mean")
    handles = {
        label: point
        for axis in figure.axes
        for point, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    place = {"loc": "outside lower center", "ncols": 5, "frameon": False}
    figure.legend(handles.values(), handles.keys(), **place)
    figure.savefig(path, dpi=120)


def main():
    """Draw, and print the points."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, nargs="+", help="folders of small.csv")
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    frame = pd.concat([pd.read_csv(out / "small.csv") for out in options.out])
    found = points(frame)
    print(found.round(3).to_string(index=False))
    draw(found, options.picture)


if __name__ == "__main__":
    main()
