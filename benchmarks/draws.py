"""Quality of draws on unseen rows: ADMCImputer and the peers.

    python -m benchmarks.draws --data DIR [--tables ...] [--mechanisms mcar mar] ...
    python -m benchmarks.draws --data DIR --imputers admc --steps 1 2 4 8 16 32

Over hidden cells, in z-scores by the observed training cells: CRPS of the draws;
coverage of the central 50, 80 and 95 % intervals of the draws, where a truth that ties
with draws lies within an interval by the share of the tie that does; accuracy and
log-loss of the levels' frequencies among the draws (for ADMCImputer, of
`predict_proba`); and the AUC with which gradient boosting tells completed rows from
other, complete ones, in five folds: 0.5 where it cannot. Seconds are those of one draw
of all test rows.

Peers that know numbers only get ordinal codes and round. miceforest runs where it is
installed (it needs pandas below 3 and an older lightgbm: an environment of its own, in
which this module needs no torch).
"""

from __future__ import annotations

import argparse
import functools
import time

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer
from sklearn.model_selection import cross_val_score
from sklearn.preprocessing import OrdinalEncoder

from benchmarks._protocol import arguments, load_frame, report, split_frame, splits

TABLES = "california letter magic bean adult".split()
N_DRAWS = 30
INTERVALS = (0.5, 0.8, 0.95)
LINE = (
    "{table:10s} {mechanism} seed {seed} {imputer:10s} crps {crps:.4f} coverage "
    "{cover50:.3f} {cover80:.3f} {cover95:.3f} accuracy {accuracy:.4f} log-loss "
    "{log_loss:.4f} AUC {auc:.3f} {draw_s:6.2f} s a draw, fit {fit_s:.0f} s"
)


def as_numbers(frames, like):
    """Frames with categories as ordinal codes: a list of float arrays."""
    categorical = list(like.select_dtypes("category"))
    encoder = OrdinalEncoder(
        categories=[like[c].cat.categories.to_list() for c in categorical],
        handle_unknown="use_encoded_value",
        unknown_value=np.nan,
    ).fit(like[categorical].astype(object))
    arrays = []
    for frame in frames:
        frame = frame.copy()
        if categorical:
            codes = encoder.transform(frame[categorical].astype(object))
            frame = frame.assign(**dict(zip(categorical, codes.T, strict=True)))
        arrays.append(frame.to_numpy(np.float64))
    return arrays


class Admc:
    """`ADMCImputer`; draws as arrays of numbers and codes."""

    def __init__(self, seed, **parameters):
        from admc_sklearn import ADMCImputer

        parameters = {"keep_whole_numbers": False, **parameters}
        self.imputer = ADMCImputer(random_state=seed, **parameters)

    def fit(self, X):
        """Fit to a frame."""
        self.imputer.fit(X)
        return self

    def draw(self, X, n_draws):
        """(n_draws, n, d) numbers and codes."""
        return np.stack(as_numbers(self.imputer.sample(X, n_draws), X))

    def proba(self, X, column):
        """Probabilities of the column's categories, (n, K)."""
        levels = X[column].cat.categories
        out = np.zeros((len(X), len(levels)))
        j = list(X).index(column)
        seen = levels.get_indexer(self.imputer.categories_[j])
        out[:, seen] = self.imputer.predict_proba(X, column)
        return out


class Iterative:
    """scikit-learn's chained Bayesian ridge with posterior draws."""

    def __init__(self, seed):
        self.seed = seed

    def fit(self, X):
        """Fit to a frame, by ordinal codes."""
        (numbers,) = as_numbers([X], X)
        self.imputer = IterativeImputer(sample_posterior=True, random_state=self.seed)
        self.imputer.fit(numbers)
        self.low, self.high = np.nanmin(numbers, 0), np.nanmax(numbers, 0)
        return self

    def draw(self, X, n_draws):
        """(n_draws, n, d) numbers and codes."""
        (numbers,) = as_numbers([X], X)
        draws = np.stack([self.imputer.transform(numbers) for _ in range(n_draws)])
        return _round_codes(draws, X, self.low, self.high)


class MiceForest:
    """Boosted trees with predictive mean matching, in chained equations."""

    def __init__(self, seed):
        import miceforest

        self.library, self.seed = miceforest, seed

    def fit(self, X):
        """Fit to a frame of numbers and categories."""
        # Its default matching of categories needs finite log-odds, which rare levels
        # do not have.
        fast = {c: "fast" for c in X.select_dtypes("category") if X[c].isna().any()}
        self.kernel = self.library.ImputationKernel(
            X.reset_index(drop=True),
            num_datasets=5,
            mean_match_strategy=fast or "normal",
            random_state=self.seed,
        )
        self.kernel.mice(5, num_threads=1)
        return self

    def draw(self, X, n_draws):
        """(n_draws, n, d) numbers and codes; five kernels take turns.

        miceforest 6.0.5 does not count the iterations on new data, and returns the
        random values that it began with: here they are counted.
        """
        data_class = self.library.imputed_data.ImputedData
        original = data_class.__setitem__

        def counted(data, key, values):
            original(data, key, values)
            if type(data) is data_class:
                data.iteration_tab[key[0], key[2]] = key[1]

        draws = []
        data_class.__setitem__ = counted
        try:
            while len(draws) < n_draws:
                done = self.kernel.impute_new_data(X.reset_index(drop=True))
                frames = [done.complete_data(k) for k in range(done.num_datasets)]
                draws += as_numbers(frames, X)
        finally:
            data_class.__setitem__ = original
        return np.stack(draws[:n_draws])


def _round_codes(draws, X, low, high):
    for j, name in enumerate(X):
        if isinstance(X[name].dtype, pd.CategoricalDtype):
            draws[..., j] = draws[..., j].round().clip(low[j], high[j])
    return draws


IMPUTERS = {"admc": Admc, "iterative": Iterative, "miceforest": MiceForest}


def crps(draws, truth):
    """CRPS of each cell from its draws, (m, n) and (n,) -> (n,), unbiased."""
    m = len(draws)
    ordered = np.sort(draws, axis=0)
    weight = (2 * np.arange(1, m + 1) - m - 1)[:, None]
    spread = 2 * (weight * ordered).sum(0) / (m * (m - 1))
    return np.abs(draws - truth).mean(0) - spread / 2


def energy_score(draws, truth, lost):
    """Mean energy score of the rows, (m, n, d) and (n, d) twice; unbiased."""
    m, scores = len(draws), []
    for row in np.flatnonzero(lost.any(1)):
        own, aim = draws[:, row, lost[row]], truth[row, lost[row]]
        spread = np.linalg.norm(own[:, None] - own[None], axis=2).sum() / (m * (m - 1))
        scores.append(np.linalg.norm(own - aim, axis=1).mean() - spread / 2)
    return float(np.mean(scores))


def coverage(draws, truth, level):
    """Share of truths within the central interval of the draws.

    The truth's rank among the draws is uniform where draws are right; ranks of ties are
    spread over the tie.
    """
    m = len(draws)
    below = (draws < truth - 1e-9).sum(0) / (m + 1)
    above = (draws > truth + 1e-9).sum(0) / (m + 1)
    start, end = below, 1 - above  # the rank lies uniformly between, end > start
    low, high = (1 - level) / 2, (1 + level) / 2
    inside = np.clip(np.minimum(end, high) - np.maximum(start, low), 0, None)
    return float((inside / (end - start)).mean())


def told_apart(completed, complete, seed):
    """AUC of boosting that tells completed rows from other, complete ones."""
    n = min(len(completed), len(complete))
    X = np.vstack([completed[:n], complete[:n]])
    y = np.repeat([1, 0], n)
    boosting = HistGradientBoostingClassifier(random_state=seed)
    order = np.random.default_rng(seed).permutation(2 * n)
    return cross_val_score(boosting, X[order], y[order], cv=5, scoring="roc_auc").mean()


def measure(imputer, split, seed, fit_s=np.nan):
    """Scores of a fitted imputer on the test rows."""
    hidden = split.test_incomplete
    started = time.perf_counter()
    draws = imputer.draw(hidden, N_DRAWS)
    draw_s = (time.perf_counter() - started) / N_DRAWS
    truth, given = as_numbers([split.test, hidden], split.test)
    lost = np.isnan(given) & ~np.isnan(truth)
    is_level = np.array(
        [isinstance(dtype, pd.CategoricalDtype) for dtype in split.test.dtypes]
    )
    cells = lost & ~is_level
    record = {"crps": crps(draws[:, cells], truth[cells]).mean()}
    for level in INTERVALS:
        name = f"cover{100 * level:.0f}"
        record[name] = coverage(draws[:, cells], truth[cells], level)
    record |= _levels(imputer, split, draws, truth, lost, np.flatnonzero(is_level))
    half = len(truth) // 2
    everything = ~np.isnan(truth).any(1)
    first, second = np.arange(len(truth)) < half, np.arange(len(truth)) >= half
    record["auc"] = told_apart(
        draws[0][first & everything], truth[second & everything], seed
    )
    return record | {"draw_s": draw_s, "fit_s": fit_s}


def _levels(imputer, split, draws, truth, lost, columns):
    right, nats = [], []
    for j in columns:
        rows = lost[:, j]
        if not rows.any():  # complete under MAR
            continue
        name = split.test.columns[j]
        n_levels = len(split.test[name].cat.categories)
        code = truth[rows, j].astype(int)
        if hasattr(imputer, "proba"):
            proba = imputer.proba(split.test_incomplete[rows], name)
        else:
            every = np.arange(n_levels)
            proba = (draws[:, rows, j][..., None] == every).mean(0)
        right.append(proba.argmax(1) == code)
        # A level that is never drawn would cost infinitely much.
        proba = (proba * N_DRAWS + 0.5 / n_levels) / (N_DRAWS + 0.5)
        nats.append(-np.log(proba[np.arange(len(code)), code]))
    if not right:
        return {"accuracy": np.nan, "log_loss": np.nan}
    return {
        "accuracy": np.concatenate(right).mean(),
        "log_loss": np.concatenate(nats).mean(),
    }


def main():
    """Measure, print as it goes, and print the means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments(parser, TABLES, ["admc", "iterative"], seeds=[0])
    parser.add_argument("--mechanisms", nargs="+", default=["mcar", "mar"])
    parser.add_argument("--steps", nargs="+", type=int, help="study of n_steps")
    parser.add_argument("--max-time", type=float, help="seconds for ADMCImputer's fit")
    options = parser.parse_args()
    records = []
    for mechanism in options.mechanisms:
        split_by = functools.partial(split_frame, mechanism=mechanism)
        for table, seed, split in splits(options, load_frame, split_by):
            for record in _runs(split, seed, options):
                record |= {"table": table, "mechanism": mechanism, "seed": seed}
                records.append(record)
                print(LINE.format(**record), flush=True)
    report(records, options, ["table", "mechanism", "imputer"])


def _runs(split, seed, options):
    for name in options.imputers:
        extra = {}
        if name == "admc" and options.max_time:
            extra = {"max_time": options.max_time}
        imputer = IMPUTERS[name](seed, **extra)
        started = time.perf_counter()
        imputer.fit(split.train_incomplete)
        fit_s = time.perf_counter() - started
        if name != "admc" or not options.steps:
            yield {"imputer": name, **measure(imputer, split, seed, fit_s)}
            continue
        for n_steps in options.steps:
            imputer.imputer.set_params(n_steps=n_steps)
            record = measure(imputer, split, seed, fit_s)
            yield {"imputer": f"{name} {n_steps}", **record}


if __name__ == "__main__":
    main()
