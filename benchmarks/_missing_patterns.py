"""Thirteen patterns of missing cells, after TabImpute's benchmark (arXiv:2510.02625).

A pattern takes a complete table of z-scores, (n, d), and a generator, and returns
which cells are lost, bool (n, d). The code is written from the descriptions alone.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from admc_sklearn.missingness import ampute

RATE = 0.3
COMPLETE_SHARE = 0.3


def _at_rate(logits, rng, rate=RATE):
    """Lose cells by logits, shifted so that the expected share is the rate."""
    low, high = -50.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if expit(logits + middle).mean() < rate else (low, middle)
        )
    return rng.random(logits.shape) < expit(logits + low)


def _standardised(values):
    spread = values.std(axis=0)
    return (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def _complete_columns(d, rng):
    """Columns that stay complete, and the others."""
    order = rng.permutation(d)
    n_complete = max(1, round(COMPLETE_SHARE * d))
    return order[:n_complete], order[n_complete:]


def _ampute(mechanism):
    def pattern(X, rng):
        options = {"allow_empty_rows": True, "random_state": int(rng.integers(2**31))}
        return np.isnan(ampute(X, mechanism=mechanism, rate=RATE, **options))

    return pattern


def neighbours(X, rng):
    """Lose cells by a random network that reads complete cells around them.

    These are the complete columns in the row itself and in the rows before and after.
    """
    lost = np.zeros(X.shape, dtype=bool)
    complete, others = _complete_columns(X.shape[1], rng)
    inputs = np.hstack([np.roll(X[:, complete], k, axis=0) for k in (-1, 0, 1)])
    hidden = np.tanh(inputs @ rng.normal(size=(inputs.shape[1], 16)))
    logits = 2 * _standardised(hidden @ rng.normal(size=(16, len(others))))
    lost[:, others] = _at_rate(logits, rng)
    return lost


def blocks(X, rng):
    """Lose whole blocks of rows and columns, by the blocks' means of complete ones."""
    lost = np.zeros(X.shape, dtype=bool)
    complete, others = _complete_columns(X.shape[1], rng)
    height = max(1, len(X) // 20)
    row_block = np.arange(len(X)) // height
    n_blocks = row_block[-1] + 1
    means = np.array([X[row_block == b][:, complete].mean(0) for b in range(n_blocks)])
    width = max(1, len(others) // 3)
    column_block = np.arange(len(others)) // width
    weights = rng.normal(size=(len(complete), column_block[-1] + 1))
    is_lost = _at_rate(2 * _standardised(means @ weights), rng)
    lost[:, others] = is_lost[row_block][:, column_block]
    return lost


def sequential(X, rng):
    """Observe, row by row, the columns that paid most so far: an epsilon-greedy bandit.

    A column pays its values that were observed.
    """
    n, d = X.shape
    n_seen = max(1, round((1 - RATE) * d))
    total, count = np.zeros(d), np.zeros(d)
    lost = np.ones(X.shape, dtype=bool)
    for i in range(n):
        worth = np.where(count > 0, total / np.maximum(count, 1), np.inf)
        worth = rng.normal(size=d) if rng.random() < 0.4 else worth
        seen = np.lexsort((rng.random(d), -worth))[:n_seen]
        lost[i, seen] = False
        total[seen] += X[i, seen]
        count[seen] += 1
    return lost


def panel(X, rng):
    """Lose everything from a random column on, in 60 % of the rows: they drop out."""
    n, d = X.shape
    first = np.where(rng.random(n) < 0.6, rng.integers(1, d, size=n), d)
    return np.arange(d) >= first[:, None]


def polarisation(X, rng):
    """Lose the middle half of every column."""
    low, high = np.quantile(X, [0.25, 0.75], axis=0)
    return (low <= X) & (high >= X)


def soft_polarisation(X, rng):
    """Lose cells the more often the nearer they are to the middle of their column."""
    distance = np.abs(X - np.median(X, axis=0))
    return _at_rate(-3 * distance, rng)


def latent_factor(X, rng):
    """Lose cells by logits of low rank, with biases of rows and columns."""
    n, d = X.shape
    logits = rng.normal(size=(n, 3)) @ rng.normal(size=(3, d))
    logits += rng.normal(size=(n, 1)) + rng.normal(size=d)
    return _at_rate(logits, rng)


def clusters(X, rng):
    """Lose cells by random effects of clusters of rows and of columns."""
    n, d = X.shape
    effects = 2 * rng.normal(size=(5, 3))
    logits = effects[rng.integers(5, size=n)][:, rng.integers(3, size=d)]
    return _at_rate(logits, rng)


def two_phase(X, rng):
    """Lose the costly half of the columns together, by the cheap ones."""
    lost = np.zeros(X.shape, dtype=bool)
    order = rng.permutation(X.shape[1])
    cheap, costly = np.split(order, [len(order) - len(order) // 2])
    logits = _standardised(X[:, cheap] @ rng.normal(size=len(cheap)))
    lost[:, costly] = _at_rate(2 * logits, rng, 0.6)[:, None]
    return lost


def censoring(X, rng):
    """Lose a tail of every column, below the first quartile or above the third."""
    low, high = np.quantile(X, [0.25, 0.75], axis=0)
    return np.where(rng.random(X.shape[1]) < 0.5, low > X, high < X)


PATTERNS = {
    "mcar": _ampute("mcar"),
    "mar": _ampute("mar"),
    "self_masking": _ampute("mnar"),
    "neighbours": neighbours,
    "blocks": blocks,
    "sequential": sequential,
    "panel": panel,
    "polarisation": polarisation,
    "soft_polarisation": soft_polarisation,
    "latent_factor": latent_factor,
    "clusters": clusters,
    "two_phase": two_phase,
    "censoring": censoring,
}


def hide(X, pattern, rng):
    """Table of z-scores of what is seen, its truth, and which cells are lost.

    A column keeps ten cells at least, drawn among the lost ones where it has fewer:
    nothing can be learnt of less.
    """
    lost = PATTERNS[pattern](_standardised(X), rng)
    for j in range(X.shape[1]):
        short = 10 - int((~lost[:, j]).sum())
        if short > 0:
            gone = np.flatnonzero(lost[:, j])
            lost[rng.choice(gone, min(short, len(gone)), replace=False), j] = False
    seen = np.where(lost, np.nan, X)
    scale = np.nanstd(seen, axis=0)
    truth = (X - np.nanmean(seen, axis=0)) / np.where(scale > 1e-9, scale, 1.0)
    return np.where(lost, np.nan, truth), truth, lost


def error(completed, truth, lost):
    """RMSE of lost cells over their standard deviation, mean over columns."""
    found = []
    for j in range(truth.shape[1]):
        own = lost[:, j]
        spread = truth[own, j].std() if own.sum() >= 5 else 0.0
        if spread > 0.05:  # z-scores; lost cells that are all alike have no unit
            miss = completed[own, j] - truth[own, j]
            found.append(np.sqrt(np.mean(miss**2)) / spread)
    return float(np.mean(found)) if found else np.nan
