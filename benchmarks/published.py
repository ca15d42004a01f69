"""DiffPuter's published table (arXiv:2405.20690), its masks and figures made anew.

    python -m benchmarks.published --data DIR [--tables ...] [--seeds 0 ... 9]

Numbers of training rows, 30 % missing at random: 30 % of the columns, the target among
them, stay complete, and the others lose three cells in seven by a logistic model of
these in their own units, scaled so that its logits have a variance of one. Means over
ten masks, each with complete columns of its own; z-scores are by all training cells.
The published figures are means of fifty draws, from second-hand copies.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit

from benchmarks._protocol import Split, arguments, compare
from benchmarks._summary import PUBLISHED
from benchmarks.mcar import LINE, measure

COMPLETE_SHARE, RATE = 0.3, 0.3
# Between these, rates of 0 and 1 lie.
MAX_INTERCEPT = 500.0


def load_with_target(name, data):
    """All numbers of a table, and what masks depend on besides: two float arrays.

    The target of california, a number, is completed as well; its category is not.
    """
    path = Path(data or ".") / "tabular" / f"{name}.parquet"
    if not path.exists():
        return None
    frame = pd.read_parquet(path)
    numbers = frame.select_dtypes("number")
    (left,) = frame.columns.difference(numbers.columns)
    codes = pd.factorize(frame[left])[0][:, None]
    return numbers.to_numpy(np.float64), codes.astype(np.float64)


def missing_at_random(X, rng):
    """Where cells go missing, bool (n, d)."""
    n, d = X.shape
    complete = rng.choice(d, max(1, int(COMPLETE_SHARE * d)), replace=False)
    lost = np.setdiff1d(np.arange(d), complete)
    logits = X[:, complete] @ rng.normal(size=(len(complete), len(lost)))
    logits /= logits.std(axis=0)
    rate = RATE / (1 - COMPLETE_SHARE)
    mask = np.zeros(X.shape, dtype=bool)
    for j, logit in zip(lost, logits.T, strict=True):
        shift = brentq(
            lambda c, logit=logit: expit(logit + c).mean() - rate,
            -MAX_INTERCEPT - np.abs(logit).max(),
            MAX_INTERCEPT + np.abs(logit).max(),
        )
        mask[:, j] = rng.random(n) < expit(logit + shift)
    return mask


def split_training(parts, seed):
    """Take the training rows of a 70/30 split, to be learnt from and completed."""
    numbers, codes = parts
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(numbers))[: int(0.7 * len(numbers))]
    numbers, codes = numbers[rows], codes[rows]
    mask = missing_at_random(np.hstack([numbers, codes]), rng)
    X = (numbers - numbers.mean(0)) / numbers.std(0)
    hidden = np.where(mask[:, : numbers.shape[1]], np.nan, X)
    return Split(X, X, hidden, hidden)


def main():
    """Measure, print as it goes, then the means and what was published."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments(parser, PUBLISHED, ["admc"], seeds=range(10))
    options = parser.parse_args()
    compare(options, load_with_target, split_training, measure, LINE)
    for table in options.tables:
        mae, rmse = PUBLISHED[table]["DiffPuter"]
        print(f"{table:14s} published: rmse {rmse:.3f} mae {mae:.3f}")


if __name__ == "__main__":
    main()
