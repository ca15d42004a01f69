"""Rows that lose whole modalities: sets, patterns and scores of the protocol."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from benchmarks._loaders import load_modalities

# The views to read, and the name of the groups; mfeat's fac and pix alone nearly solve
# its task, so that they would hide the differences.
SETS = {
    "mfeat": (("fou", "kar", "zer", "mor"), "group"),
    "mosi": (("text", "audio", "visual"), "dialogue"),
}


@dataclass(frozen=True)
class Blocks:
    """Complete rows, standardised by the training rows.

    Attributes
    ----------
    X : ndarray of shape (n_samples, n_features)
    y : ndarray of shape (n_samples,)
    train : ndarray of bool of shape (n_samples,)
        The other rows are for testing.
    columns : dict of ndarray
        Columns of each modality, by its name.
    group : ndarray of shape (n_samples,) or None
    """

    X: np.ndarray
    y: np.ndarray
    train: np.ndarray
    columns: dict
    group: np.ndarray | None = None

    def only(self, names):
        """Keep some of the modalities."""
        kept = np.concatenate([self.columns[name] for name in names])
        sizes = [len(self.columns[name]) for name in names]
        return Blocks(
            self.X[:, kept], self.y, self.train, _runs(names, sizes), self.group
        )

    def at(self, rows):
        """Keep some of the rows, given by a mask."""
        group = None if self.group is None else self.group[rows]
        return Blocks(self.X[rows], self.y[rows], self.train[rows], self.columns, group)

    def cut(self, n_rows):
        """Keep so many of the training rows, by chance, standardised by these."""
        rng = np.random.default_rng(n_rows)
        train = np.flatnonzero(self.train)
        rows = ~self.train
        rows[rng.permutation(train)[:n_rows]] = True
        found = self.at(rows)
        own = found.X[found.train]
        spread = own.std(axis=0)
        X = (found.X - own.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        return replace(found, X=X)


def _runs(names, sizes):
    ends = np.cumsum(sizes)
    return {
        name: np.arange(end - size, end)
        for name, size, end in zip(names, sizes, ends, strict=True)
    }


def load_blocks(name, data, *, drop_constant=True):
    """One of `SETS`, or a path to one's own features, as `load_modalities` reads them.

    Rows of neither split, and rows that lack features, are left out.

    Returns
    -------
    Blocks, or None where the file is absent
    """
    path, views, group = Path(name), None, "group"
    if name in SETS:
        path = Path(data or ".") / "multimodal" / f"{name}.npz"
        views, group = SETS[name]
    if not path.exists():
        return None
    own = load_modalities(path, views, group=group)
    parts = own.modalities
    kept = np.isin(own.split, ["train", "test"])
    kept &= ~np.any([np.isnan(part).any(axis=1) for part in parts.values()], axis=0)
    train = own.split[kept] == "train"
    parts = {k: standardised(v[kept], train, drop_constant) for k, v in parts.items()}
    return Blocks(
        np.hstack(list(parts.values())),
        own.label[kept],
        train,
        _runs(list(parts), [part.shape[1] for part in parts.values()]),
        None if own.group is None else own.group[kept],
    )


def standardised(part, train, drop_constant=True):
    """Columns in standard deviations of rows to train on; constant ones may go."""
    scale = part[train].std(axis=0)
    if drop_constant:
        part, scale = part[:, scale > 0], scale[scale > 0]
    scale[scale == 0] = 1.0
    return (part - part[train].mean(axis=0)) / scale


def subsets(columns):
    """All proper non-empty subsets of modalities, small ones first."""
    return [
        kept
        for size in range(1, len(columns))
        for kept in itertools.combinations(columns, size)
    ]


def hide(X, columns, kept):
    """Copy rows that have only the modalities `kept`."""
    incomplete = X.copy()
    for name in set(columns) - set(kept):
        incomplete[:, columns[name]] = np.nan
    return incomplete


def lose(X, columns, rate, rng):
    """Copy rows that lose each modality at the rate; one stays where all would go."""
    lost = rng.random((len(X), len(columns))) < rate
    empty = np.flatnonzero(lost.all(axis=1))
    lost[empty, rng.integers(0, len(columns), len(empty))] = False
    incomplete = X.copy()
    for gone, part in zip(lost.T, columns.values(), strict=True):
        incomplete[np.ix_(gone, part)] = np.nan
    return incomplete


def rmse(truth, incomplete, completed):
    """Root mean squared error over the missing cells."""
    return np.sqrt(np.mean((completed - truth)[np.isnan(incomplete)] ** 2))


def classifier(X, y):
    """Fit the classifier of all accuracies: 0.984 on mfeat's complete rows."""
    return LogisticRegression(C=0.05, max_iter=2000).fit(X, y)
