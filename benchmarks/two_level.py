"""Groups: a simulated two-level model, completed with and without its groups.

    python -m benchmarks.two_level [--repeats 20] [--groups 40] [--size 10] [--draws 20]
        [--imputers ...]

x = u + e and y = x / 2 + v + f, with effects u and v of the group whose variances are
those of e and f; 30 % of y are missing completely at random and 30 % of x by y. Two
analyses are pooled: the slope of y on x within the groups (fixed effects, true value
0.5), and the share of the variance of y that lies between the groups (true value 9/20).
RMSE is that of the mean of the draws, in standard deviations. R's mice (2l.pan) and
jomo take part where R has them.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from admc_sklearn import ADMCImputer
from admc_sklearn.pooling import pool_over_draws
from benchmarks._mice import has_r

SLOPE, SHARE = 0.5, 9 / 20
SCRIPT = Path(__file__).with_name("two_level.R")
OURS = {"groups": True, "no groups": False}
RIVALS = {"2l.pan": ("mice", "pan"), "jomo": ("mice", "jomo")}


def simulated(rng, n_groups, size):
    """Make a complete table, an incomplete one, and the groups."""
    group = np.repeat(np.arange(n_groups), size)
    u, v = rng.normal(size=(2, n_groups))[:, group]
    e, f = rng.normal(size=(2, len(group)))
    x = u + e
    truth = pd.DataFrame({"x": x, "y": SLOPE * x + v + f})
    table = truth.copy()
    table.loc[rng.random(len(x)) < 0.3, "y"] = np.nan
    z = (truth["y"] - truth["y"].mean()) / truth["y"].std()
    by_y = 1 / (1 + np.exp(1.0 - 1.0 * z))  # 0.3 in the mean
    table.loc[table["y"].notna() & (rng.random(len(x)) < by_y), "x"] = np.nan
    return truth, table, group


def draws_of(name, table, group, n_draws, seed):
    """Completed tables, a list of frames."""
    if name in OURS:
        options = {"n_bootstraps": n_draws, "self_masking": False, "random_state": seed}
        own = group if OURS[name] else None
        imputer = ADMCImputer(group_effects=OURS[name], **options)
        imputer.fit(table, groups=group if OURS[name] else None)
        return imputer.sample(table, n_draws, groups=own)
    with tempfile.TemporaryDirectory() as folder:
        given, drawn = Path(folder) / "given.csv", Path(folder) / "drawn.csv"
        table.assign(group=group).to_csv(given, index=False)
        command = ["Rscript", SCRIPT, given, n_draws, seed, name, drawn]
        subprocess.run([*map(str, command)], check=True, capture_output=True)
        found = pd.read_csv(drawn)
    return [found.iloc[k * len(table) : (k + 1) * len(table)] for k in range(n_draws)]


def within(draw, group):
    """Slope of y on x within the groups, its variance and degrees of freedom."""
    x, y = draw["x"].to_numpy(), draw["y"].to_numpy()
    x, y = (v - (np.bincount(group, v) / np.bincount(group))[group] for v in (x, y))
    slope = (x @ y) / (x @ x)
    df = len(x) - group.max() - 2
    return slope, ((y - slope * x) ** 2).sum() / df / (x @ x), df


def share_between(draw, group):
    """Share of the variance of y that lies between the groups."""
    y = draw["y"].to_numpy()
    count, total = np.bincount(group), np.bincount(group, y)
    means = total / count
    k, n = len(count), len(y)
    mean_square = (count * (means - y.mean()) ** 2).sum() / (k - 1)
    rest = ((y - means[group]) ** 2).sum() / (n - k)
    effect = max(0.0, (mean_square - rest) / (n / k))
    return effect / (effect + rest)


def measured(name, truth, table, group, n_draws, seed):
    """One repeat: a dict."""
    started = time.perf_counter()
    draws = draws_of(name, table, group, n_draws, seed)
    seconds = time.perf_counter() - started
    gone = table.isna().to_numpy()
    mean = np.mean([draw.to_numpy(dtype=float) for draw in draws], axis=0)
    z = (mean - truth.to_numpy()) / truth.std().to_numpy()
    pooled = pool_over_draws(draws, lambda draw: within(draw, group))
    low, high = pooled.conf_int
    return {
        "rmse": np.sqrt(np.mean(z[gone] ** 2)),
        "slope": pooled.estimate,
        "standard_error": pooled.standard_error,
        "covers": low <= SLOPE <= high,
        "between": np.mean([share_between(draw, group) for draw in draws]),
        "seconds": seconds,
    }


def run(options):
    """Measure every imputer on every repeat: a frame."""
    names = list(options.imputers)
    for name, packages in RIVALS.items():
        if name in names and not has_r(*packages):
            print(f"{name} is left out: R or one of {packages} is not there.")
            names.remove(name)
    rows = []
    for seed in range(options.repeats):
        rng = np.random.default_rng(options.first_seed + seed)
        truth, table, group = simulated(rng, options.groups, options.size)
        complete = within(truth, group)[0]
        for name in names:
            found = measured(name, truth, table, group, options.draws, seed)
            rows.append({"imputer": name, "seed": seed, "complete": complete, **found})
    return pd.DataFrame(rows)


def summary(found):
    """Table of the means over repeats."""
    table = found.groupby("imputer", sort=False).agg(
        rmse=("rmse", "mean"),
        slope=("slope", "mean"),
        sd=("slope", "std"),
        standard_error=("standard_error", "mean"),
        covers=("covers", "mean"),
        between=("between", "mean"),
        seconds=("seconds", "median"),
    )
    return table.round(3)


def main(arguments=None):
    """Run the program."""
    names = [*OURS, *RIVALS]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--groups", type=int, default=40)
    parser.add_argument("--size", type=int, default=10)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--imputers", nargs="+", choices=names, default=names)
    options = parser.parse_args(arguments)
    print(f"true slope {SLOPE}, true share between groups {SHARE}")
    print(summary(run(options)).to_string())


if __name__ == "__main__":
    main()
