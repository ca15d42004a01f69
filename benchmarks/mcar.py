"""Unseen rows under 30 % MCAR: ADMCImputer, its anchor alone, and the peers.

    python -m benchmarks.mcar --data DIR [--tables ...] [--seeds 0 1 2] [--imputers ...]

RMSE is that of the posterior mean, MAE that of the posterior median; peers give one
completion for both. Units are z-scores by the observed training cells. Each figure is
the mean over the seeds; the seconds are wall time of `fit` and `transform`.
"""

from __future__ import annotations

import argparse

from sklearn.ensemble import ExtraTreesRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

from admc_sklearn import ADMCImputer
from benchmarks._protocol import (
    arguments,
    compare,
    errors,
    load_numeric,
    split_mcar,
    timed,
)

TABLES = ("breast_cancer diabetes wine digits bean california letter magic").split()

LINE = (
    "{table:14s} seed {seed} {imputer:10s} rmse {rmse:.4f} mae {mae:.4f} "
    "fit {fit_s:6.1f} s transform {transform_s:6.2f} s"
)


def admc(seed, **parameters):
    """Build our own imputer; peers do not round either."""
    return ADMCImputer(keep_whole_numbers=False, random_state=seed, **parameters)


def extra_trees(seed):
    """Build a MissForest of extremely randomised trees."""
    trees = ExtraTreesRegressor(50, min_samples_leaf=2, n_jobs=2, random_state=seed)
    return IterativeImputer(trees, max_iter=5, random_state=seed)


IMPUTERS = {
    "admc": lambda seed: admc(seed),
    "anchor": lambda seed: admc(seed, max_epochs=0),
    "mean": lambda seed: SimpleImputer(keep_empty_features=True),
    "knn": lambda seed: KNNImputer(n_neighbors=10, weights="distance"),
    "iterative": lambda seed: IterativeImputer(random_state=seed),
    "trees": extra_trees,
}


def scores(truth, incomplete, completed):
    """`errors` as a dict."""
    return dict(zip(("rmse", "mae"), errors(truth, incomplete, completed), strict=True))


def measure(name, split, seed):
    """One imputer on one split: a dict of errors and seconds."""
    return {"imputer": name, **timed(IMPUTERS[name](seed), split, scores)}


def main():
    """Measure, print as it goes, and print the table of means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments(parser, TABLES, ["admc", "anchor"])
    compare(parser.parse_args(), load_numeric, split_mcar, measure, LINE)


if __name__ == "__main__":
    main()
