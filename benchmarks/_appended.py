"""Complete rows with the features that other modalities generate, by cross-validation.

Part of `benchmarks.modalities` (``--features``). The imputer and the classifier see the
training folds only; groups, where the set has them, are not torn apart.

mosi's features were evidently learnt with the labels of its training rows: by grouped
folds, logistic regression reaches 0.98 from text and 0.91 from visual features within
these, 0.76 and 0.63 within the test rows. So its folds consist of test rows, unless
all are asked for.
"""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks._blocks import classifier

# Beside all modalities of a set, those among its modalities that are weak alone.
WEAK = {"mfeat": ("zer", "mor"), "mosi": ("audio", "visual")}
# Sets whose training rows' features know the labels.
LEAKING = ("mosi",)


def parts(name, blocks, rows=None):
    """Give what to measure of a set: dict of `Blocks` by the names of the views.

    ``rows`` is "all", "test", or None for what the set allows.
    """
    if (rows or ("test" if name in LEAKING else "all")) == "test":
        blocks = blocks.at(~blocks.train)
    if name not in WEAK:
        return {"all": blocks}
    return {"all": blocks, "+".join(WEAK[name]): blocks.only(WEAK[name])}


def folds(blocks, seed, n_splits=5):
    """Yield (training rows, test rows), stratified."""
    kind = StratifiedKFold if blocks.group is None else StratifiedGroupKFold
    cv = kind(n_splits, shuffle=True, random_state=seed)
    yield from cv.split(blocks.X, blocks.y, blocks.group)


def measure(blocks, counterparts, seed, n_splits=5):
    """Accuracies over the folds, plain and with the counterparts appended.

    Parameters
    ----------
    blocks : Blocks
    counterparts : callable
        Builds, from a seed and the modalities' columns, the transformer that appends.
    seed, n_splits : int

    Returns
    -------
    dict with `plain`, `appended` and their difference, `gain`
    """
    X, y = blocks.X, blocks.y
    right = {"plain": 0, "appended": 0}
    for train, test in folds(blocks, seed, n_splits):
        scaler = StandardScaler().fit(X[train])
        rows = {"plain": (scaler.transform(X[train]), scaler.transform(X[test]))}
        append = make_pipeline(counterparts(seed, blocks.columns), StandardScaler())
        rows["appended"] = (
            append.fit_transform(rows["plain"][0]),
            append.transform(rows["plain"][1]),
        )
        for kind, (seen, unseen) in rows.items():
            right[kind] += np.sum(classifier(seen, y[train]).predict(unseen) == y[test])
    accuracy = {kind: n / len(y) for kind, n in right.items()}
    return {**accuracy, "gain": accuracy["appended"] - accuracy["plain"]}
