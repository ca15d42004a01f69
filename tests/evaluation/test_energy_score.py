"""The energy I-score ranks the distribution that made the data first."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from joblib import parallel_config
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from admc_sklearn import ADMCImputer
from admc_sklearn.evaluation import energy_i_score
from admc_sklearn.evaluation._energy_score import _Task
from tests.conftest import FIRST_SEED, mixed_rings

NAMES = ["a", "b", "c"]
COVARIANCE = pd.DataFrame(
    [[1.0, 0.7, 0.4], [0.7, 1.0, 0.5], [0.4, 0.5, 1.0]], NAMES, NAMES
)


class Normal(TransformerMixin, BaseEstimator):
    """Draws from the known normal distribution, its conditional spread multiplied."""

    def __init__(self, factor=1.0):
        self.factor = factor

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def sample(self, X, n_draws, random_state):
        rng = np.random.default_rng(random_state)
        return [self._draw(X, rng) for _ in range(n_draws)]

    def transform(self, X):
        return self._draw(X, np.random.default_rng(0))

    def _draw(self, X, rng):
        X, S = X.copy(), COVARIANCE.loc[X.columns, X.columns].to_numpy()
        values = X.to_numpy(copy=True)
        for row in values:
            m = np.isnan(row)
            if m.any():
                slopes = np.linalg.lstsq(S[~m][:, ~m], S[~m][:, m], rcond=None)[0].T
                left = S[m][:, m] - slopes @ S[~m][:, m]
                noise = np.linalg.cholesky(left) @ rng.normal(size=m.sum())
                row[m] = slopes @ row[~m] + self.factor * noise
        return pd.DataFrame(values, X.index, X.columns)


def table(mechanism, n=400, seed=0):
    """Normal rows; b and c lose cells at random, or where a, always seen, is high."""
    rng = np.random.default_rng(FIRST_SEED + seed)
    X = rng.multivariate_normal(np.zeros(3), COVARIANCE, n, method="cholesky")
    chance = {"mcar": 0.3, "mar": 1 / (1 + np.exp(1 - 2 * X[:, 0]))}[mechanism]
    X[:, 1][rng.random(n) < chance] = np.nan
    X[:, 2][rng.random(n) < chance] = np.nan
    return pd.DataFrame(X, columns=NAMES)


@pytest.mark.parametrize("mechanism", ["mcar", "mar"])
def test_the_distribution_that_made_the_data_wins(mechanism):
    imputers = {
        "mean": SimpleImputer(),
        "narrow": Normal(0.3),
        "true": Normal(),
        "wide": Normal(2.5),
    }
    found = energy_i_score(imputers, table(mechanism), random_state=0)
    assert found.index[0] == "true"
    assert found["rank"].to_list() == [1.0, 2.0, 3.0, 4.0]
    others = found.iloc[1:]
    assert (others["difference"] > 2 * others["standard_error"]).all()
    assert found["as_good_as_best"].to_list() == [True, False, False, False]
    assert found["error"].isna().all()


@pytest.mark.usefixtures("light_fits")
def test_draws_beat_means_and_only_the_seed_changes_them():
    imputers = {
        "regression": IterativeImputer(),
        "draws": IterativeImputer(sample_posterior=True),
        "ours": ADMCImputer(max_epochs=0, self_masking=False),
    }
    X = table("mar", n=120)
    found = energy_i_score(imputers, X, n_draws=5, random_state=0)
    assert found.index[-1] == "regression"
    again = energy_i_score(imputers, X, n_draws=5, random_state=0)
    pd.testing.assert_frame_equal(found, again)
    alone = {"draws": imputers["draws"]}
    alone = energy_i_score(alone, X, n_draws=5, random_state=0)
    assert alone.loc["draws", "score"] == found.loc["draws", "score"]
    other = energy_i_score(imputers, X, n_draws=5, random_state=1)
    assert (other["score"] != found["score"].reindex(other.index))[
        ["ours", "draws"]
    ].all()


def test_the_number_of_draws_does_not_change_the_expected_score():
    X = table("mcar", n=1000)
    few, many = (
        energy_i_score({"true": Normal()}, X, n_draws=n, random_state=0).iloc[0, 0]
        for n in (2, 30)
    )
    # For a normal law the score is 0.564 of its conditional standard deviation; that
    # of a pair has a standard deviation of 0.8 or less in each of some 1400 cells.
    assert abs(few - many) < 4 * 0.8 / np.sqrt(1400)


def test_scores_are_those_of_the_formula():
    """The mean of a column and a constant: all by hand, in standard deviations."""
    X = table("mcar", n=100)
    found = energy_i_score({"mean": SimpleImputer()}, X, by_column=True)
    b = X["b"]
    by_hand = (b - b.mean()).abs().mean() / b.std(ddof=0)
    assert found.set_index("column").loc["b", "score"] == pytest.approx(by_hand)
    assert found["weight"].sum() == pytest.approx(1)
    counts = X[["b", "c"]].isna().sum() * X[["b", "c"]].notna().sum()
    np.testing.assert_allclose(found["weight"], counts / counts.sum())
    whole = energy_i_score({"mean": SimpleImputer()}, X)
    parts = (found["weight"] * found["score"]).sum()
    assert whole.loc["mean", "score"] == pytest.approx(parts)


class Levels(SimpleImputer):
    """Draws each level of a column of text with its own chance."""

    def sample(self, X, n_draws, random_state):
        rng = np.random.default_rng(random_state)
        draws = [X.copy() for _ in range(n_draws)]
        for draw in draws:
            lost = draw["level"].isna()
            draw.loc[lost, "level"] = rng.choice(["x", "y"], lost.sum(), p=[0.8, 0.2])
        return draws


def test_levels_are_scored_as_one_hot_vectors():
    """Twice the error rate less the chance that two draws differ, over sqrt(2)."""
    rng = np.random.default_rng(0)
    level = pd.Series(rng.choice(["x", "y"], 3000, p=[0.8, 0.2]), dtype=object)
    X = pd.DataFrame({"level": level.mask(rng.random(3000) < 0.3), "z": 1.0})
    imputers = {"draws": Levels(strategy="most_frequent")}
    imputers["mode"] = SimpleImputer(strategy="most_frequent")
    found = energy_i_score(imputers, X, random_state=0)["score"]
    share = (X["level"].dropna() == "y").mean()
    assert found["mode"] == pytest.approx(np.sqrt(2) * share)
    expected = np.sqrt(2) * (0.8 * share + 0.2 * (1 - share) - 0.16)
    assert found["draws"] == pytest.approx(expected, abs=0.02)


def test_predictors_are_the_columns_that_are_observed_with_the_column():
    nan = True
    missing = np.zeros((40, 4), dtype=bool)
    missing[:20, 0] = nan
    missing[:30, 1] = nan  # observed in ten of the twenty rows of column 0
    missing[25:, 2] = nan
    task = _Task(missing, 0)
    assert task.predictors.tolist() == [3]
    assert task.test.tolist() == list(range(20, 40))
    task = _Task(missing[:, :3], 0)  # none is: rows are cut to those of column 1
    assert task.predictors.tolist() == [1]
    assert task.test.tolist() == list(range(30, 40))
    assert task.train.tolist() == list(range(20))


@pytest.mark.usefixtures("light_fits")
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_mixed_tables(library):
    X = mixed_rings(80, 0)[["x0", "side"]]
    X["when"] = pd.Series(np.datetime64("2020-01-01") + np.arange(80)).where(
        np.arange(80) % 4 > 0
    )
    X = X if library == "pandas" else pl.from_pandas(X)
    imputers = {
        "numbers alone": make_pipeline(StandardScaler(), ADMCImputer(max_epochs=0)),
        "ours": ADMCImputer(max_epochs=0),
    }
    found = energy_i_score(imputers, X, n_draws=3, random_state=0)
    assert found.index.to_list() == ["ours", "numbers alone"]
    assert 0 < found.loc["ours", "score"] < 1
    assert found.loc["ours", "error"] is None
    assert np.isnan(found.loc["numbers alone", "score"])
    assert found.loc["numbers alone", "error"].startswith("complete: ")
    assert found["rank"].to_list() == [1.0, 2.0]


@pytest.mark.usefixtures("light_fits")
def test_pipelines_and_threads_score_alike():
    X = table("mcar", n=120).to_numpy()[:, :2]
    imputer = IterativeImputer(sample_posterior=True)
    imputers = {
        "alone": ADMCImputer(max_epochs=0, random_state=0),
        "scaled": make_pipeline(
            StandardScaler(), ADMCImputer(max_epochs=0, random_state=0)
        ),
        "refitted": make_pipeline(StandardScaler(), imputer),
    }
    found = energy_i_score(imputers, X, n_draws=4, random_state=0)
    scores = found["score"]
    assert abs(scores["alone"] - scores["scaled"]) < 0.05
    assert abs(scores["alone"] - scores["refitted"]) < 0.15
    with parallel_config("threading"):
        other = energy_i_score(imputers, X, n_draws=4, n_jobs=2, random_state=0)
    np.testing.assert_allclose(other["score"], scores, atol=1e-3)


def test_bad_input():
    X = table("mcar", n=60)
    imputers = {"mean": SimpleImputer()}
    with pytest.raises(TypeError, match="imputers must be a dict"):
        energy_i_score([SimpleImputer()], X)
    with pytest.raises(ValueError, match="n_draws must be an int of at least 1, got 0"):
        energy_i_score(imputers, X, n_draws=0)
    with pytest.raises(ValueError, match="there is no column 'd'"):
        energy_i_score(imputers, X, columns=["d"])
    with pytest.raises(ValueError, match="No column can be judged"):
        energy_i_score(imputers, X.dropna())
    with pytest.raises(ValueError, match="No column can be judged"):
        energy_i_score(imputers, X[["b"]])
    assert energy_i_score(imputers, X, columns="b", by_column=True).shape[0] == 1
