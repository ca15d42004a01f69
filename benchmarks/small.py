"""Small tables: points and draws beside the peers and R's mice, cut to few rows.

    python -m benchmarks.small --data DIR --out OUT [--tables ...] [--rows 150 500 1500]
        [--mechanisms mcar mar mnar] [--seeds 0 1 2] [--imputers admc trees ...]
    python -m benchmarks.small --out OUT          # only the summary of what is there

Numeric columns; 30 % of the cells hidden in 70 % of the rows, to train on, and in the
others, which are measured; z-scores by the observed training cells. Points have RMSE
(of means) and MAE (of medians, where there are any). Draws, 20 of each row, have energy
score by row and CRPS by cell, both unbiased, the coverage of central 50, 80 and 95 %
intervals of 100 draws (ours) or of the 20, the RMSE of their mean, and the AUC with
which boosting tells completed rows from other, complete ones (`benchmarks.draws`).

Every measurement is a line of OUT/small.csv; those that are there are not made again.
R's mice (``mice_pmm``, ``mice_cart``, ``mice_rf``) takes part where R has it. It learns
from the training rows alone; columns that others nearly determine it leaves out, and
their mean stands for them. miceforest and HyperImpute take part where they are
installed, in environments of their own (`benchmarks._peers`) that add to the same CSV.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

from benchmarks._mice import mice_draws
from benchmarks._peers import HyperImpute
from benchmarks._protocol import load_numeric, split_frame
from benchmarks._resumed import append, available, measured
from benchmarks.draws import MiceForest, coverage, crps, energy_score, told_apart

TABLES = "breast_cancer diabetes iris wine bean beijing_pm25 california concrete "
TABLES += "default gesture letter magic mammographic penguins shoppers wine_red"
TABLES = TABLES.split()
N_DRAWS, N_WIDE, N_TOLD_APART = 20, 100, 3
MAX_TEST_ROWS = 1000
LEVELS = (0.5, 0.8, 0.95)
KEYS = ["table", "n", "mechanism", "seed", "imputer"]


class Mice:
    """R's mice: draws of the test rows."""

    def __init__(self, method, seed):
        self.method, self.seed = method, seed

    def fit(self, X):
        """Remember the training rows: chains run on these and the others together."""
        self.train_ = X
        return self

    def sample(self, X, n_draws):
        """Draws, (n_draws, n, d)."""
        found = mice_draws(self.train_, X, n_draws, self.method, self.seed)
        return np.where(np.isnan(found), 0.0, found)


class BoostedTrees:
    """miceforest: draws of arrays."""

    def __init__(self, seed):
        self.peer = MiceForest(seed)

    def fit(self, X):
        """Fit to the training rows."""
        self.peer.fit(pd.DataFrame(X).add_prefix("v"))
        return self

    def sample(self, X, n_draws):
        """Draws, (n_draws, n, d)."""
        return self.peer.draw(pd.DataFrame(X).add_prefix("v"), n_draws)


def _ours(seed, **parameters):
    from admc_sklearn import ADMCImputer

    options = {"keep_whole_numbers": False, "random_state": seed}
    return ADMCImputer(**options, **parameters)


def _trees(seed):
    trees = ExtraTreesRegressor(50, min_samples_leaf=2, random_state=seed)
    return _iterative(seed, trees)


def _iterative(seed, estimator=None):
    options = {"max_iter": 5, "random_state": seed, "keep_empty_features": True}
    return IterativeImputer(estimator, **options)


IMPUTERS = {
    "admc": _ours,
    "anchor": lambda seed: _ours(seed, max_epochs=0),
    "mean": lambda seed: SimpleImputer(keep_empty_features=True),
    "knn": lambda seed: KNNImputer(keep_empty_features=True),
    "ridge": _iterative,
    "trees": _trees,
    "mice_pmm": lambda seed: Mice("pmm", seed),
    "mice_cart": lambda seed: Mice("cart", seed),
    "mice_rf": lambda seed: Mice("rf", seed),
    "miceforest": BoostedTrees,
    "hyperimpute": HyperImpute,
}


def measure(imputer, split):
    """Figures of an imputer on the test rows: a dict."""
    truth, hidden = split.test, split.test_incomplete
    lost = np.isnan(hidden)
    started = time.perf_counter()
    imputer.fit(split.train_incomplete)
    record = {"fit_s": time.perf_counter() - started}
    started = time.perf_counter()
    if hasattr(imputer, "transform"):
        error = imputer.transform(hidden) - truth
        record["transform_s"] = time.perf_counter() - started
        record |= {"rmse": _rms(error[lost]), "mae": np.abs(error[lost]).mean()}
    if hasattr(imputer, "predict_quantiles"):
        (median,) = imputer.predict_quantiles(hidden, [0.5])
        record["mae"] = np.abs(median - truth)[lost].mean()
    if not hasattr(imputer, "sample"):
        return record
    started = time.perf_counter()
    draws = np.stack(imputer.sample(hidden, N_DRAWS))
    record["draw_s"] = time.perf_counter() - started
    cells = draws[:, lost]
    error = cells.mean(0) - truth[lost]
    record |= {
        "energy": energy_score(draws, truth, lost),
        "crps": crps(cells, truth[lost]).mean(),
        "rmse_draws": _rms(error),
        "auc": _told_apart(draws[:N_TOLD_APART], truth),
    }
    if "rmse" not in record:  # an imputer that only draws
        middle = np.median(cells, axis=0) - truth[lost]
        record |= {"rmse": record["rmse_draws"], "mae": np.abs(middle).mean()}
        wide = cells
    else:
        wide = np.stack(imputer.sample(hidden, N_WIDE))[:, lost]
    for level in LEVELS:
        record[f"cover{level:.0%}"] = coverage(wide, truth[lost], level)
    return record


def _told_apart(draws, truth):
    half = len(truth) // 2
    # R writes 15 digits: a classifier would tell draws apart by the 16th.
    draws, truth = np.round(draws, 6), np.round(truth, 6)
    found = [told_apart(draw[:half], truth[half:], seed=0) for draw in draws]
    return float(np.mean(found))


def _rms(error):
    return float(np.sqrt(np.mean(np.square(error))))


def tables(options):
    """Yield what identifies each table that is there, and its numbers."""
    for name in options.tables:
        X = load_numeric(name, options.data)
        if X is None:
            print(f"{name}: not found, skipped (see --data)", flush=True)
            continue
        X = X[~np.isnan(X).any(1)]
        for n in options.rows:
            for seed in options.seeds:
                rng = np.random.default_rng(seed)
                some = X[rng.permutation(len(X))[: round(n / 0.7)]]
                if len(some) < 0.9 * n / 0.7 and n != min(options.rows):
                    continue
                yield name, n, seed, some


def cut(X, seed, mechanism):
    """Split of a table, its constant columns left out, at most so many test rows."""
    frame = pd.DataFrame(X).add_prefix("v")
    split = split_frame(frame, seed, mechanism)
    varies = split.train_incomplete.nunique() > 1
    few = slice(MAX_TEST_ROWS)
    parts = {
        "train": split.train,
        "test": split.test[few],
        "train_incomplete": split.train_incomplete,
        "test_incomplete": split.test_incomplete[few],
    }
    parts = {k: part.loc[:, varies].to_numpy() for k, part in parts.items()}
    return type(split)(**parts)


def run(options):
    """Measure what is not in the CSV yet."""
    path = options.out / "small.csv"
    done = measured(path, KEYS)
    names = available(options.imputers)
    for table, n, seed, X in tables(options):
        for mechanism in options.mechanisms:
            split = cut(X, seed, mechanism)
            for name in names:
                if (table, n, mechanism, seed, name) in done:
                    continue
                record = dict(zip(KEYS, (table, n, mechanism, seed, name), strict=True))
                try:
                    record |= measure(IMPUTERS[name](seed), split)
                except (ValueError, subprocess.CalledProcessError) as error:
                    record["error"] = f"{type(error).__name__}: {error}"[:200]
                append(path, record, COLUMNS)
                print(_line(record), flush=True)


COLUMNS = [*KEYS, "rmse", "mae", "energy", "crps", "rmse_draws", "auc"]
COLUMNS += [*(f"cover{level:.0%}" for level in LEVELS), "fit_s", "transform_s"]
COLUMNS += ["draw_s", "error"]


def _line(record):
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in record.items()}
    return " ".join(f"{k} {v}" for k, v in rounded.items())


def summarise(frame):
    """Wins and gains of `ADMCImputer`, by size: a frame.

    A gain is that of the lowest error of the peers over ours, in per cent of it.
    """
    rows = []
    for n, part in frame.groupby("n"):
        row = {"rows": n}
        for figure in ("rmse", "mae", "energy", "crps"):
            wide = part.pivot_table(index=KEYS[:-1], columns="imputer", values=figure)
            peers = [c for c in wide if c not in ("admc", "anchor")]
            if "admc" not in wide or not peers:
                continue
            wide = wide.dropna(subset=["admc"])
            best = wide[peers].min(axis=1)
            won = wide["admc"] < best
            row[figure] = f"{won.sum()} of {len(won)}"
            row[f"gain, {figure}"] = 100 * (1 - wide["admc"] / best).mean()
        ours = part[part["imputer"] == "admc"]
        for level in LEVELS:
            row[f"cover{level:.0%}"] = ours[f"cover{level:.0%}"].mean()
        rows.append(row)
    return pd.DataFrame(rows).set_index("rows")


def main(words=None):
    """Measure and print a summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder that holds tabular/NAME.parquet")
    parser.add_argument("--out", required=True, type=Path, help="where small.csv is")
    parser.add_argument("--tables", nargs="+", default=TABLES)
    parser.add_argument("--rows", nargs="+", type=int, default=[150, 500, 1500])
    parser.add_argument("--mechanisms", nargs="+", default=["mcar"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument(
        "--imputers", nargs="+", default=list(IMPUTERS), choices=list(IMPUTERS)
    )
    options = parser.parse_args(words)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.data:
        run(options)
    path = options.out / "small.csv"
    if not path.exists():
        parser.error(f"there is no {path}: measure first, with --data DIR")
    print(summarise(pd.read_csv(path)).round(3).T.to_string())


if __name__ == "__main__":
    main()
