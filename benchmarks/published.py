"""DiffPuter's published table (arXiv:2405.20690), its masks and figures made anew.

    python -m benchmarks.published --data DIR [--tables ...] [--seeds 0 ... 9]
        [--imputers admc trees]

Numbers of training rows, 30 % missing at random: 30 % of the columns (the target is
counted) stay complete, and the others lose three cells in seven by a logistic model of
these in their own units, scaled so that its logits have a variance of one. Means over
ten masks; which columns stay complete decides most, and they are those that the
published code draws, whose models and cells have no seed. z-scores are by all training
cells; our MAE is that of the median. The published figures, from second-hand copies,
are those of the mean of fifty draws.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit

from benchmarks._protocol import Split, arguments, compare, read_table
from benchmarks._summary import PUBLISHED
from benchmarks.mcar import LINE, measure

COMPLETE_SHARE, RATE, TRAINING_SHARE = 0.3, 0.3, 0.7
# Of the published code: its seed, numbers of rates and masks, and this rate among them.
SEED, N_RATES, N_MASKS, RATE_PLACE = 1234, 8, 10, 2
# Between these, rates of 0 and 1 lie.
MAX_INTERCEPT = 500.0


def load_with_target(name, data):
    """All numbers of a table, and what masks depend on besides: two float arrays.

    The target of california, a number, is completed as well; its category is not.
    """
    frame = read_table(name, data)
    if frame is None:
        return None
    numbers = frame.select_dtypes("number")
    (left,) = frame.columns.difference(numbers.columns)
    codes = pd.factorize(frame[left])[0][:, None]
    return numbers.to_numpy(np.float64), codes.astype(np.float64)


def complete_columns(n, d, mask):
    """Columns that the published code leaves complete, by the number of the mask.

    After the split NumPy's generator draws ten masks at random for each of eight rates,
    then the columns of training and test rows for each rate of this mechanism.
    """
    rng = np.random.RandomState(SEED)
    rng.permutation(n)
    n_train = int(TRAINING_SHARE * n)
    for _ in range(N_RATES * N_MASKS):
        rng.random_sample(n_train * d)
        rng.random_sample((n - n_train) * d)
    size = max(1, int(COMPLETE_SHARE * d))
    for _ in range(2 * (RATE_PLACE * N_MASKS + mask)):
        rng.permutation(d)
    return rng.permutation(d)[:size]


def _excess(shift, logit, rate):
    return expit(logit + shift).mean() - rate


def missing_at_random(X, complete, rng):
    """Where cells go missing by what the complete columns hold, bool (n, d)."""
    n, d = X.shape
    lost = np.setdiff1d(np.arange(d), complete)
    logits = X[:, complete] @ rng.normal(size=(len(complete), len(lost)))
    logits /= logits.std(axis=0)
    rate = RATE / (1 - COMPLETE_SHARE)
    mask = np.zeros(X.shape, dtype=bool)
    for j, logit in zip(lost, logits.T, strict=True):
        bound = MAX_INTERCEPT + np.abs(logit).max()
        shift = brentq(_excess, -bound, bound, args=(logit, rate))
        mask[:, j] = rng.random(n) < expit(logit + shift)
    return mask


def split_training(parts, seed):
    """Take the training rows of a 70/30 split, to be learnt from and completed."""
    rng = np.random.default_rng(seed)
    n = len(parts[0])
    rows = rng.permutation(n)[: int(TRAINING_SHARE * n)]
    numbers, codes = (part[rows] for part in parts)
    X = np.hstack([numbers, codes])
    mask = missing_at_random(X, complete_columns(n, X.shape[1], seed), rng)
    X = (numbers - numbers.mean(0)) / numbers.std(0)
    hidden = np.where(mask[:, : numbers.shape[1]], np.nan, X)
    return Split(X, X, hidden, hidden)


def main():
    """Measure, print as it goes, then the means and what was published."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments(parser, PUBLISHED, ["admc"], seeds=range(N_MASKS))
    options = parser.parse_args()
    if not set(options.seeds) <= set(range(N_MASKS)):
        parser.error(f"--seeds are numbers of masks, 0 to {N_MASKS - 1}")
    compare(options, load_with_target, split_training, measure, LINE)
    for table, figures in PUBLISHED.items():
        if table in options.tables:
            mae, rmse = figures["DiffPuter"]
            print(f"{table:14s} published: rmse {rmse:.3f} mae {mae:.3f}")


if __name__ == "__main__":
    main()
