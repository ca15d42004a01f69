"""Unseen rows of mixed tables under 30 % MCAR: ADMCImputer and the peers.

    python -m benchmarks.mixed --data DIR [--tables ...] [--seeds ...] [--imputers ...]

Known cells are hidden on top of those that are really missing. RMSE (of the mean) and
MAE (of the median) are taken over hidden numeric cells in z-scores by the observed
training cells, accuracy over hidden categorical cells. Peers give one completion for
all three; those that know numbers only get ordinal codes, and their completions are
rounded to the nearest code.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.preprocessing import OrdinalEncoder

from admc_sklearn import ADMCImputer
from benchmarks import mcar
from benchmarks._protocol import (
    arguments,
    compare,
    load_frame,
    mixed_errors,
    split_frame,
    timed,
)

TABLES = (
    "adult default shoppers california ckd horse_colic physionet2012 mammographic "
    "penguins"
).split()

LINE = (
    "{table:14s} seed {seed} {imputer:10s} rmse {rmse:.4f} mae {mae:.4f} "
    "accuracy {accuracy:.4f} fit {fit_s:6.1f} s transform {transform_s:6.2f} s"
)


class Ordinal(TransformerMixin, BaseEstimator):
    """An imputer of numbers, given categories as ordinal codes.

    Parameters
    ----------
    imputer : estimator
        Its completions are rounded to the nearest code.
    """

    def __init__(self, imputer):
        self.imputer = imputer

    def fit(self, X, y=None):
        """Fit the codes and the imputer; categorical dtypes are encoded."""
        self.categorical_ = list(X.select_dtypes("category"))
        self.encoder_ = OrdinalEncoder(
            handle_unknown="use_encoded_value", unknown_value=np.nan
        ).fit(X[self.categorical_])
        self.imputer.fit(self._encode(X))
        return self

    def _encode(self, X):
        X = X.copy()
        codes = self.encoder_.transform(X[self.categorical_])
        X = X.assign(**dict(zip(self.categorical_, codes.T, strict=True)))
        # A copy: imputers write into what they get, and pandas forbids it.
        return X.to_numpy(np.float64, copy=True)

    def transform(self, X):
        """Complete, round, decode."""
        filled = pd.DataFrame(self.imputer.transform(self._encode(X)), columns=list(X))
        for name, levels in zip(
            self.categorical_, self.encoder_.categories_, strict=True
        ):
            levels = levels[~pd.isna(levels)]
            codes = filled[name].round().clip(0, len(levels) - 1).astype(int)
            filled[name] = pd.Categorical(levels[codes], X[name].cat.categories)
        return filled.set_index(X.index)


class Simple(TransformerMixin, BaseEstimator):
    """Means and most frequent levels."""

    def fit(self, X, y=None):
        """Remember them."""
        self.fill_ = {c: _center(X[c]) for c in X}
        return self

    def transform(self, X):
        """Fill them in."""
        return X.fillna(self.fill_)


def _center(column):
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.mode().iloc[0]
    return column.mean()


def by_codes(name):
    """Make the factory of a peer that knows numbers only, given codes."""

    def build(seed):
        peer = mcar.IMPUTERS[name](seed)
        return Ordinal(peer.set_params(keep_empty_features=True))

    return build


def admc(seed, **parameters):
    """Build our own imputer, frames in and out."""
    parameters = {"keep_whole_numbers": False, "random_state": seed, **parameters}
    imputer = ADMCImputer(**parameters)
    return imputer.set_output(transform="pandas")


IMPUTERS = {
    "admc": admc,
    "anchor": lambda seed: admc(seed, max_epochs=0),
    "simple": lambda seed: Simple(),
    "knn": by_codes("knn"),
    "iterative": by_codes("iterative"),
    "trees": by_codes("trees"),
}


def measure(name, split, seed):
    """One imputer on one split: a dict of errors and seconds."""
    return {"imputer": name, **timed(IMPUTERS[name](seed), split, mixed_errors)}


def main():
    """Measure, print as it goes, and print the table of means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments(parser, TABLES, ["admc", "anchor", "simple"])
    compare(parser.parse_args(), load_frame, split_frame, measure, LINE)


if __name__ == "__main__":
    main()
