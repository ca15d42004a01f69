"""What ``self_masking="auto"`` costs where columns are lost together.

    python -m benchmarks.lost_together --data DIR [--tables ...] [--seeds 0 1 2]
        [--epochs 0]

RMSE on the missing cells of the training rows (4000 at most, standardised), with
``"auto"`` over without self-masking, for eight patterns in which groups of columns are
lost and no cell hides itself, and for MCAR, MAR and MNAR. A ratio of 1.00 says that
nothing was tilted; under MNAR it should be lower.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from scipy.special import expit

from admc_sklearn import ADMCImputer
from admc_sklearn.missingness import ampute
from benchmarks._protocol import arguments, load_numeric, report, splits

TABLES = "california letter magic bean gesture default wine_red concrete"
PATTERNS = (
    "one block",
    "two blocks",
    "three blocks",
    "panel",
    "clusters",
    "latent factor",
    "two-phase",
    "second source",
)
MECHANISMS = ("mcar", "mar", "mnar")
MAX_ROWS = 4000


def lost_together(pattern, X, rng):
    """Cells that are lost in groups, whatever they hold: bool array of X's shape.

    Parameters
    ----------
    pattern : str
        One of ``PATTERNS``. In two-phase sampling observed columns decide for all the
        others together.
    X : float array of shape (n, d)
    rng : numpy.random.Generator
    """
    n, d = X.shape
    lost = np.zeros((n, d), dtype=bool)
    if pattern == "one block":
        lost[np.ix_(rng.random(n) < 0.4, np.arange(d // 2))] = True
    elif pattern in ("two blocks", "three blocks"):
        blocks = np.array_split(np.arange(d), 2 if pattern == "two blocks" else 3)
        which = rng.integers(0, 2 * len(blocks), n)
        for k, block in enumerate(blocks):
            lost[np.ix_(which == k, block)] = True
    elif pattern == "panel":
        lost = np.arange(d) >= rng.integers(1, 2 * d, n)[:, None]
    elif pattern == "clusters":
        rates = expit(1.2 * rng.normal(size=(5, 3)) - 1)
        own = rates[rng.integers(0, 5, n)][:, rng.integers(0, 3, d)]
        lost = rng.random((n, d)) < own
    elif pattern == "latent factor":
        factor = rng.normal(size=(n, 2)) @ rng.normal(size=(2, d))
        lost = rng.random((n, d)) < expit(factor - 1)
    elif pattern == "two-phase":
        cheap = X[:, : d // 2] @ rng.normal(size=d // 2)
        cheap = (cheap - cheap.mean()) / cheap.std()
        chosen = rng.random(n) < expit(2 * cheap - 0.8)
        lost[np.ix_(chosen, np.arange(d // 2, d))] = True
    elif pattern == "second source":
        lost[np.ix_(np.arange(n) < 0.4 * n, np.arange(max(2, d // 3)))] = True
    return lost


def rmse(X, lost, choice, epochs):
    """RMSE on the lost cells, and how many columns are tilted."""
    imputer = ADMCImputer(max_epochs=epochs, self_masking=choice, random_state=0)
    completed = imputer.fit_transform(np.where(lost, np.nan, X))
    error = np.sqrt(np.mean((completed - X)[lost] ** 2))
    return float(error), int(np.count_nonzero(imputer.self_masking_))


def standardised(X, seed):
    """Rows of a table at random, their columns standardised."""
    Z = X[np.random.default_rng(seed).permutation(len(X))[:MAX_ROWS]]
    Z = Z[:, Z.std(axis=0) > 0]
    return (Z - Z.mean(axis=0)) / Z.std(axis=0)


def main():
    """Measure all tables, patterns and seeds, and print ratios and their means."""
    parser = argparse.ArgumentParser(description=__doc__)
    arguments(parser, TABLES.split(), ["admc"])
    parser.add_argument("--epochs", type=int, default=0)
    options = parser.parse_args()
    records = []
    for table, seed, Z in splits(options, load_numeric, standardised):
        rng = np.random.default_rng(seed)
        for pattern in (*PATTERNS, *MECHANISMS):
            if pattern in MECHANISMS:
                given = ampute(Z, mechanism=pattern, rate=0.3, random_state=seed)
                lost = np.isnan(given)
            else:
                lost = lost_together(pattern, Z, rng)
            auto, n_tilted = rmse(Z, lost, "auto", options.epochs)
            without, _ = rmse(Z, lost, False, options.epochs)
            record = {"table": table, "seed": seed, "pattern": pattern}
            record |= {"auto": auto, "without": without, "ratio": auto / without}
            records.append(record | {"n_tilted": n_tilted})
            print(
                f"{table:14s} seed {seed} {pattern:14s} {auto:.3f} / {without:.3f} "
                f"= {auto / without:.3f}, {n_tilted} columns tilted",
                flush=True,
            )
    report(records, options, ["pattern", "table"])
    worst = pd.DataFrame(records).query("pattern in @PATTERNS")["ratio"].max()
    print(f"worst ratio where columns are lost together: {worst:.3f}")


if __name__ == "__main__":
    main()
