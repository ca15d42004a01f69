"""Blocks of a table's columns, lost as a whole in a share of the training rows.

One fit for all patterns, beside one regression for each pattern, which is trained on
complete rows. The part of `benchmarks.modalities` that ``--tables`` asks for.
"""

from __future__ import annotations

import itertools
import time
import zlib
from dataclasses import dataclass

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import RidgeCV

from admc_sklearn import ADMCImputer
from benchmarks import _baselines
from benchmarks._ablation_cells import VARIANTS
from benchmarks._ablation_cells import imputer_of as variant
from benchmarks._baselines import RIDGES, KernelRidge, MaskedAutoencoder
from benchmarks._blocks import Blocks, hide, standardised
from benchmarks._mice import has_mice, mice_draws
from benchmarks._protocol import load_numeric, read_table, splits
from benchmarks.draws import energy_score

# Targets of more values are not classes.
MAX_CLASSES = 50
MAX_TEST_ROWS, N_DRAWS, DRAWN_ROWS = 3000, 20, 500
# Kernel ridge factorises a matrix of the rows.
MAX_KERNEL_ROWS = 3000


@dataclass(frozen=True)
class LostBlocks:
    """Standardised rows: those to train on lack blocks, those to test on are complete.

    Parameters
    ----------
    train, test : arrays of shape (n, d)
    columns : dict of int array
        Columns of each block.
    labels : array of shape (n,), optional
        Classes of the rows to test on.
    classifier : classifier, optional
        Fitted to the complete ones of the rows to train on.
    """

    train: np.ndarray
    test: np.ndarray
    columns: dict
    labels: np.ndarray | None = None
    classifier: ExtraTreesClassifier | None = None

    def without(self, name):
        """Test rows without a block."""
        return hide(self.test, self.columns, set(self.columns) - {name})


def split_blocks(X, n_blocks, n_rows, share, seed, labels=None):
    """Cut the columns into runs, and take a run from a share of the training rows.

    Parameters
    ----------
    X : array of shape (n, d)
        Columns that do not vary, and rows with missing cells, are left out.
    n_blocks, n_rows : int
        Training rows are 70 % of all, and at most ``n_rows``; 0 is no limit.
    share : float
        Share of the training rows that lack one of the blocks.
    seed : int
    labels : array of shape (n,), optional
        Classes of the rows.

    Returns
    -------
    LostBlocks
    """
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(~np.isnan(X).any(axis=1))
    rows = rows[rng.permutation(len(rows))]
    X = X[rows]
    first = round(0.7 * len(X))
    train, test = X[:first][: n_rows or None], X[first:][:MAX_TEST_ROWS]
    kept = train.std(axis=0) > 0
    train, test = train[:, kept], test[:, kept]
    mean, scale = train.mean(axis=0), train.std(axis=0)
    train, test = (train - mean) / scale, (test - mean) / scale
    runs = np.array_split(np.arange(train.shape[1]), n_blocks)
    columns = {f"block{k}": run for k, run in enumerate(runs)}
    lost = np.where(
        rng.random(len(train)) < share, rng.integers(0, n_blocks, len(train)), -1
    )
    for k, run in enumerate(runs):
        train[np.ix_(lost == k, run)] = np.nan
    if labels is None:
        return LostBlocks(train, test, columns)
    labels = labels[rows]
    complete = lost < 0
    classifier = ExtraTreesClassifier(200, n_jobs=-1, random_state=seed)
    classifier.fit(train[complete], labels[: len(train)][complete])
    return LostBlocks(train, test, columns, labels[first:][:MAX_TEST_ROWS], classifier)


class Regression:
    """A regression for each lost block, on complete rows; draws add its residuals.

    Parameters
    ----------
    make : callable
        It makes the regressor, from a seed.
    """

    def __init__(self, make, seed):
        self.make, self.seed = make, seed

    def fit(self, blocks):
        """Fit one regression a block, and the normal law of its residuals."""
        rows = blocks.train[~np.isnan(blocks.train).any(axis=1)]
        n_held = len(rows) // 5
        self.models_, self.roots_ = {}, {}
        for name, own in blocks.columns.items():
            x, y = np.delete(rows, own, axis=1), rows[:, own]
            # The law is that of rows that a first regression was not fitted to.
            first = self.make(self.seed).fit(x[n_held:], y[n_held:])
            left = y[:n_held] - first.predict(x[:n_held]).reshape(y[:n_held].shape)
            second = np.atleast_2d(left.T @ left / len(left))
            values, vectors = np.linalg.eigh(second)
            self.roots_[name] = vectors * np.sqrt(values.clip(0))
            self.models_[name] = self.make(self.seed).fit(x, y)
        return self

    def complete(self, blocks, name):
        """Mean of the lost block in the test rows."""
        own = blocks.columns[name]
        found = self.models_[name].predict(np.delete(blocks.test, own, axis=1))
        return found.reshape(len(blocks.test), len(own))

    def draw(self, blocks, name, rows):
        """Draws of the lost block, (m, n, k)."""
        rng, root = np.random.default_rng(self.seed), self.roots_[name]
        white = rng.normal(size=(N_DRAWS, rows, len(root)))
        return self.complete(blocks, name)[:rows] + white @ root.T


class OneFit:
    """An imputer that is fitted once and completes every pattern."""

    def __init__(self, imputer):
        self.imputer = imputer

    def fit(self, blocks):
        """Fit the imputer."""
        self.imputer.fit(blocks.train)
        return self

    def complete(self, blocks, name):
        """Mean of the lost block in the test rows."""
        found = self.imputer.transform(blocks.without(name))
        return np.asarray(found)[:, blocks.columns[name]]

    def draw(self, blocks, name, rows):
        """Draws of the lost block, (m, n, k), or None where the imputer has none."""
        if not hasattr(self.imputer, "sample"):
            return None
        drawn = self.imputer.sample(blocks.without(name)[:rows], N_DRAWS)
        return np.stack(drawn)[:, :, blocks.columns[name]]


class Mice:
    """R's mice with predictive mean matching, for every lost block anew.

    Its chains are run on the rows to train on and on the rows to complete, of which
    they learn nothing.
    """

    def __init__(self, seed):
        self.seed, self.draws_ = seed, {}

    def fit(self, blocks):
        """Complete the test rows, one block at a time."""
        for name, own in blocks.columns.items():
            rows = blocks.without(name)
            found = mice_draws(blocks.train, rows, N_DRAWS, "pmm", self.seed)
            # The mean, 0, stands for what mice leaves out.
            self.draws_[name] = np.nan_to_num(found)[..., own]
        return self

    def complete(self, blocks, name):
        """Mean of the draws of the lost block in the test rows."""
        return self.draws_[name].mean(axis=0)

    def draw(self, blocks, name, rows):
        """Draws of the lost block, (m, n, k)."""
        return self.draws_[name][:, :rows]


class SomeRows(RegressorMixin, BaseEstimator):
    """A regressor of at most so many rows."""

    def __init__(self, regressor, n_rows):
        self.regressor, self.n_rows = regressor, n_rows

    def fit(self, X, y):
        """Fit to the first rows, which are in random order."""
        self.regressor.fit(X[: self.n_rows], y[: self.n_rows])
        return self

    def predict(self, X):
        """Predict as the regressor does."""
        return self.regressor.predict(X)


REGRESSORS = {
    "ridge": lambda seed: RidgeCV(alphas=RIDGES),
    "kernel": lambda seed: SomeRows(KernelRidge(), MAX_KERNEL_ROWS),
    **_baselines.REGRESSORS,
}


def peers(columns, seed, max_time):
    """Makers of all that are compared, by name; among them ours without its parts."""
    options = {"keep_whole_numbers": False, "random_state": seed, "max_time": max_time}
    made = {
        "admc": lambda: OneFit(ADMCImputer(modalities=columns, **options)),
        "admc_cells": lambda: OneFit(ADMCImputer(**options)),
        "autoencoder": lambda: OneFit(MaskedAutoencoder(columns, random_state=seed)),
    }
    for name in VARIANTS:
        made[name] = lambda name=name: OneFit(
            variant(name, seed).set_params(modalities=columns, max_time=max_time)
        )
    if has_mice():
        made["mice"] = lambda: Mice(seed)
    for name, make in REGRESSORS.items():
        made[name] = lambda make=make: Regression(make, seed)
    return made


def measure(blocks, make):
    """Error, accuracy and energy score, means over the lost blocks, and seconds."""
    started = time.perf_counter()
    peer = make().fit(blocks)
    fit_s = time.perf_counter() - started
    squared, energies, right = [], [], []
    completed = {}
    started = time.perf_counter()
    for name in blocks.columns:
        completed[name] = peer.complete(blocks, name)
    complete_s = time.perf_counter() - started
    for name, own in blocks.columns.items():
        squared.append(np.square(completed[name] - blocks.test[:, own]).mean())
        if blocks.classifier is not None:
            whole = blocks.test.copy()
            whole[:, own] = completed[name]
            right.append(blocks.classifier.score(whole, blocks.labels))
        truth = blocks.test[:DRAWN_ROWS, own]
        draws = peer.draw(blocks, name, len(truth))
        if draws is not None:
            everything = np.ones(truth.shape, dtype=bool)
            energies.append(energy_score(draws, truth, everything))
    return {
        "rmse": float(np.sqrt(squared).mean()),
        "accuracy": float(np.mean(right)) if right else np.nan,
        "energy": float(np.mean(energies)) if energies else np.nan,
        "fit_s": fit_s,
        "complete_s": complete_s,
    }


def load_labelled(name, data):
    """Numeric columns of a table, and the classes of its rows or None."""
    X, table = load_numeric(name, data), read_table(name, data)
    if X is None:
        return None
    labels = None if table is None else table["target"].to_numpy()
    if labels is None or len(np.unique(labels.astype(str))) > MAX_CLASSES:
        return X, None
    return X, labels.astype(str)


def table_blocks(name, data, n_blocks):
    """Columns of a table with classes, in runs, as `Blocks`: complete, unlike above.

    70 % of its complete rows are to train on, at most `MAX_TEST_ROWS` to test. None
    where there is no such table, or where it has no classes.
    """
    X, labels = load_labelled(name, data) or (None, None)
    if labels is None:
        return None
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    rows = rng.permutation(np.flatnonzero(~np.isnan(X).any(axis=1)))
    n_train = round(0.7 * len(rows))
    rows = rows[: n_train + MAX_TEST_ROWS]
    X, labels, train = X[rows], labels[rows], np.arange(len(rows)) < n_train
    X = standardised(X, train)
    runs = np.array_split(np.arange(X.shape[1]), n_blocks)
    return Blocks(X, labels, train, {f"block{k}": run for k, run in enumerate(runs)})


def records(options, show):
    """Measure every table, number of blocks, size and peer that is asked for."""
    out = []
    for table, seed, loaded in splits(options, load_labelled, lambda X, seed: X):
        X, labels = loaded
        # Tables do not share their order of rows.
        own = zlib.crc32(f"{table} {seed}".encode())
        for n_blocks, n_rows in itertools.product(options.blocks, options.n_rows):
            blocks = split_blocks(X, n_blocks, n_rows, options.share, own, labels)
            made = peers(blocks.columns, seed, options.max_time)
            for name in options.imputers:
                if name not in made:
                    print(f"{name}: not installed, skipped")
                    continue
                record = {"table": table, "blocks": n_blocks}
                record |= {"rows": len(blocks.train), "seed": seed}
                record |= {"imputer": name, **measure(blocks, made[name])}
                out.append(record)
                show(record)
    return out
