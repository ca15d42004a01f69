"""The imputers of the report, frames in and out, by name.

Optional peers run where they are installed, each in an environment of its own beside
this package's requirements, and add to the same CSV: ``miceforest==6.0.5`` with
``lightgbm==4.5.0`` and ``pandas<3``; ``hyperimpute==0.1.17`` with ``pandas<3`` and
``scikit-learn<1.8``.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin

from benchmarks import draws, mixed

N_DRAWS = 10  # of an imputer that only draws


class Drawn(TransformerMixin, BaseEstimator):
    """The mean or median of several draws, and the level drawn most often.

    Parameters
    ----------
    sampler : object
        Has ``fit(X)`` and ``draw(X, n_draws)``, which returns numbers and codes of
        shape (n_draws, n, d).
    strategy : {"mean", "median"}, default="mean"
    """

    def __init__(self, sampler, strategy="mean"):
        self.sampler = sampler
        self.strategy = strategy

    def fit(self, X, y=None):
        """Fit the sampler."""
        self.sampler.fit(X)
        self.drawn_ = None, None
        return self

    def transform(self, X):
        """Complete by the center of the draws.

        Those of the same frame are kept, so that its median does not draw again.
        """
        if X is not self.drawn_[0]:
            self.drawn_ = X, self.sampler.draw(X, N_DRAWS)
        many = self.drawn_[1]
        center = np.mean if self.strategy == "mean" else np.median
        filled = X.copy()
        for j, name in enumerate(X):
            lost = X[name].isna().to_numpy()
            if isinstance(X[name].dtype, pd.CategoricalDtype):
                values = _most_frequent(many[..., j], X[name].cat.categories)
            else:
                values = center(many[..., j], axis=0)
            filled.loc[lost, name] = values[lost]
        return filled


def _most_frequent(codes, levels):
    counts = (codes[..., None] == np.arange(len(levels))).sum(axis=0)
    return levels.to_numpy()[counts.argmax(axis=1)]


class HyperImpute(TransformerMixin, BaseEstimator):
    """HyperImpute, which has no step of its own for unseen rows.

    It is fitted anew to the training rows and the rows to complete together, so that it
    learns from the observed cells of these, which others do not.

    Parameters
    ----------
    seed : int

    Raises
    ------
    ImportError
        In `fit`, beside pandas 3: HyperImpute 0.1.17 assigns through a column of a
        column, ``X[name][rows] = values``, which changes nothing there. It would return
        the means that it starts from, and say nothing.
    """

    def __init__(self, seed):
        self.seed = seed

    def fit(self, X, y=None):
        """Remember the training rows; X is an array of floats."""
        if not _chained_assignment_works():
            raise ImportError("HyperImpute needs pandas below 3: see its adapter")
        self.train_ = X
        return self

    def transform(self, X):
        """Complete the rows beside the training rows, or these alone."""
        from hyperimpute.plugins.imputers import Imputers

        known = np.array_equal(X, self.train_, equal_nan=True)
        rows = X if known else np.vstack([self.train_, X])
        plugin = Imputers().get("hyperimpute", random_state=self.seed)
        filled = np.asarray(plugin.fit_transform(pd.DataFrame(rows)), np.float64)
        return filled[-len(X) :]


def _chained_assignment_works():
    frame = pd.DataFrame({"x": [0.0]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame["x"][np.array([True])] = 1.0
    return frame["x"].item() == 1.0


def _by_codes(name):
    def build(seed, n_threads, max_time):
        peer = mixed.IMPUTERS[name](seed)
        if name == "trees":
            peer.set_params(imputer__estimator__n_jobs=n_threads)
        return peer

    return build


IMPUTERS = {
    "admc": lambda seed, n_threads, max_time: mixed.admc(seed, max_time=max_time),
    "anchor": lambda seed, n_threads, max_time: mixed.admc(seed, max_epochs=0),
    "trees": _by_codes("trees"),
    "iterative": _by_codes("iterative"),
    "knn": _by_codes("knn"),
    "simple": _by_codes("simple"),
    "miceforest": lambda seed, n_threads, max_time: Drawn(draws.MiceForest(seed)),
    "hyperimpute": lambda seed, n_threads, max_time: mixed.Ordinal(HyperImpute(seed)),
}
OPTIONAL = ("miceforest", "hyperimpute")


def is_available(name):
    """Whether an imputer's package is installed."""
    return name not in OPTIONAL or find_spec(name) is not None
