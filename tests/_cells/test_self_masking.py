"""Self-masking: recognised against other mechanisms, and its cells completed."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit
from sklearn.datasets import load_breast_cancer

from admc_sklearn import ADMCImputer
from admc_sklearn._cells.corrections.pair_regression import fit_tilt
from admc_sklearn._cells.corrections.self_masking import (
    Evidence,
    SelfMaskingSettings,
    fit_self_masking,
)
from admc_sklearn._shared.contract import Rows
from admc_sklearn.missingness import ampute
from benchmarks.lost_together import PATTERNS, lost_together
from tests.conftest import gaussian_table, hide, quick

# Prior of a tilt, and weight of a pair.
PAIRS = {"precision": 1.0, "pair_weight": 0.25}
SLOPES = np.array([1.5, -1.5, 1.0, 0.0, -1.0, 1.0])

pytestmark = pytest.mark.usefixtures("light_fits")


def self_masked(n, seed, slopes=SLOPES):
    """A Gaussian table, standardised, whose cells hide by their own value."""
    X, _, _ = gaussian_table(n, len(slopes), seed)
    X = (X - X.mean(0)) / X.std(0)
    rng = np.random.default_rng(seed)
    lost = rng.random(X.shape) < expit(X * slopes - 1.0)
    lost[lost.all(1), 0] = False
    return X, np.where(lost, np.nan, X)


def rmse(imputer, X, incomplete):
    error = (imputer.transform(incomplete) - X)[np.isnan(incomplete)]
    return np.sqrt(np.mean(error**2))


@pytest.fixture(scope="module")
def masked():
    X, incomplete = self_masked(3000, 1)
    imputer = quick(max_epochs=0).fit(incomplete)
    blind = quick(max_epochs=0, self_masking=False).fit(incomplete)
    return X, incomplete, imputer, blind


def test_slopes_are_found_and_the_error_falls(masked):
    X, incomplete, imputer, blind = masked
    # A slope is one in standard deviations of the observed cells, which are fewer.
    expected = SLOPES * np.nanstd(incomplete, axis=0)
    np.testing.assert_allclose(imputer.self_masking_, expected, atol=0.3)
    assert not blind.self_masking_.any()
    assert rmse(imputer, X, incomplete) < 0.85 * rmse(blind, X, incomplete)


def test_the_completed_column_has_the_mean_of_the_whole_one(masked):
    X, incomplete, imputer, blind = masked
    bias, blind_bias = (
        np.abs(model.transform(incomplete).mean(0) - X.mean(0))[SLOPES != 0].mean()
        for model in (imputer, blind)
    )
    # How much a column hides depends on the others. Five tables have 0.15 to 0.27.
    assert blind_bias > 0.05
    assert bias < 0.35 * blind_bias


def test_quantiles_and_draws_are_tilted_too(masked):
    X, incomplete, imputer, _ = masked
    lost = np.isnan(incomplete)
    low, high = imputer.predict_quantiles(incomplete, (0.1, 0.9))
    assert np.mean((X > low) & (X < high), where=lost) == pytest.approx(0.8, abs=0.05)
    draws = imputer.sample(incomplete, n_draws=3)
    for j in range(3):
        drawn = draws[:, lost[:, j], j].mean()
        assert drawn == pytest.approx(X[lost[:, j], j].mean(), abs=0.2)


def test_draws_from_bootstrap_priors_are_tilted():
    X, incomplete = self_masked(800, 1)
    lost = np.isnan(incomplete[:, 0])
    means = [
        quick(max_epochs=0, n_bootstraps=3, self_masking=choice)
        .fit(incomplete)
        .sample(incomplete, n_draws=6)[:, lost, 0]
        .mean()
        for choice in ("auto", False)
    ]
    truth = X[lost, 0].mean()
    assert abs(means[0] - truth) < 0.5 * abs(means[1] - truth)


@pytest.mark.parametrize("mechanism", ["mcar", "mar"])
@pytest.mark.parametrize("seed", range(4))
def test_other_mechanisms_are_not_taken_for_self_masking(mechanism, seed):
    X, _, _ = gaussian_table(1000, 5, seed)
    incomplete = ampute(X, mechanism=mechanism, rate=0.3, random_state=seed)
    imputer = quick(max_epochs=0).fit(incomplete)
    assert not imputer.self_masking_.any()
    blind = quick(max_epochs=0, self_masking=False).fit(incomplete)
    np.testing.assert_array_equal(
        imputer.transform(incomplete), blind.transform(incomplete)
    )


@pytest.mark.parametrize("seed", range(4))
def test_self_masking_is_recognised(seed):
    X, _, _ = gaussian_table(1000, 5, seed)
    incomplete = ampute(X, mechanism="mnar", rate=0.3, random_state=seed)
    assert np.abs(quick(max_epochs=0).fit(incomplete).self_masking_).min() > 0.2


@pytest.mark.parametrize("table", ["gaussian", "skewed", "breast_cancer"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_columns_that_are_lost_together_do_not_hide_themselves(pattern, table):
    """A false slope makes the error of a lost block two to six times as large."""
    X, _, _ = gaussian_table(1000, 8, 3)
    if table == "skewed":
        X = np.exp(X)
    elif table == "breast_cancer":
        X = load_breast_cancer().data[:, :14]
    rng = np.random.default_rng(PATTERNS.index(pattern))
    X = X[rng.permutation(len(X))]
    incomplete = np.where(lost_together(pattern, X, rng), np.nan, X)
    assert not quick(max_epochs=0).fit(incomplete).self_masking_.any()


def test_a_column_that_hides_itself_is_recognised_beside_a_block_that_does_not():
    X, _, _ = gaussian_table(2000, 8, 5)
    X = (X - X.mean(0)) / X.std(0)
    rng = np.random.default_rng(0)
    lost = lost_together("one block", X, rng)
    lost[:, 6:] = rng.random((2000, 2)) < expit(2 * X[:, 6:] - 1)
    slopes = quick(max_epochs=0).fit(np.where(lost, np.nan, X)).self_masking_
    assert slopes[6:].min() > 0.7
    assert np.abs(slopes[:6]).max() < 0.3


def test_levels_are_tilted():
    rng = np.random.default_rng(0)
    z = rng.normal(size=4000)
    levels = np.where(z + 0.7 * rng.normal(size=4000) > 0, "high", "low")
    frame = pd.DataFrame(
        {"z": z, "w": z + rng.normal(size=4000), "level": pd.Categorical(levels)}
    )
    lost = rng.random(4000) < np.where(levels == "high", 0.6, 0.1)
    incomplete = frame.assign(level=frame["level"].mask(lost))
    imputer = quick(max_epochs=0, self_masking=True).fit(incomplete)
    assert imputer.self_masking_[2] > 0.5
    assert not imputer.self_masking_[:2].any()
    share = imputer.predict_proba(incomplete, "level")[lost, 0].mean()
    blind = quick(max_epochs=0, self_masking=False).fit(incomplete)
    wrong = blind.predict_proba(incomplete, "level")[lost, 0].mean()
    truth = np.mean(levels[lost] == "high")
    assert abs(share - truth) < 0.06 < abs(wrong - truth)


def test_it_can_be_imposed():
    """Slopes are estimated on request where evidence is too weak to choose them."""
    X, _, _ = gaussian_table(1000, 5, 0)
    incomplete = hide(X, 0.3, 0)
    slopes = quick(max_epochs=0, self_masking=True).fit(incomplete).self_masking_
    assert slopes.any()


def test_going_on_with_training_tilts_once():
    _, incomplete = self_masked(1500, 2)
    imputer = quick(max_epochs=0, warm_start=True).fit(incomplete)
    once = imputer.transform(incomplete)
    again = imputer.fit(incomplete).transform(incomplete)
    np.testing.assert_allclose(again, once, atol=0.15)
    loaded = pickle.loads(pickle.dumps(imputer))
    np.testing.assert_array_equal(loaded.transform(incomplete), again)
    np.testing.assert_array_equal(loaded.self_masking_, imputer.self_masking_)


@pytest.mark.parametrize("choice", ["auto", True])
def test_too_few_missing_cells_and_empty_columns_have_no_slope(choice):
    X, _, _ = gaussian_table(60, 4, 0)
    X[:5, 0] = np.nan
    X[:, 1] = np.nan
    with pytest.warns(UserWarning, match="without a single observed value"):
        imputer = quick(max_epochs=0, self_masking=choice).fit(X)
    assert imputer.self_masking_.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("theta", [-1.5, 0.0, 0.7])
def test_fit_tilt_against_a_known_mechanism(theta):
    rng = np.random.default_rng(1)
    n, values = 12_000, np.linspace(-2, 2, 9)
    mean = rng.normal(size=n)
    observed = np.exp(-2 * (values - mean[:, None]) ** 2)
    observed /= observed.sum(1, keepdims=True)
    # Odds of missing, given the row: the mean of exp(theta x) among observed cells.
    odds = 0.5 * (observed * np.exp(theta * values)).sum(1)
    missing = rng.random(n) < odds / (1 + odds)
    size = min(missing.sum(), (~missing).sum())
    case, control = observed[missing][:size], observed[~missing][:size]
    (found,) = fit_tilt(case, control, values[:, None], **PAIRS)
    # Some 4000 pairs have an information of at least 0.3 each: the standard error is
    # at most 0.03.
    assert found == pytest.approx(theta, abs=0.12)


def test_a_tilt_that_chance_explains_is_not_fitted():
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(5), size=(2, 400))
    scores = np.linspace(-1, 1, 5)[:, None]
    assert fit_tilt(*shares, scores, **PAIRS).any()
    assert not fit_tilt(*shares, scores, least=20.0, **PAIRS).any()


def test_tilts_must_gain_more_than_the_rival_or_add_to_it():
    def is_better(gain, rival_gain, added, is_certain=True):
        return Evidence(gain, rival_gain, added, is_certain).is_better

    assert is_better(gain=101.5, rival_gain=100.0, added=0.0)
    assert not is_better(gain=101.5, rival_gain=100.0, added=0.0, is_certain=False)
    assert not is_better(gain=100.5, rival_gain=100.0, added=0.0)
    assert is_better(gain=85.0, rival_gain=100.0, added=4.5)
    assert not is_better(gain=850.0, rival_gain=1000.0, added=4.5)
    assert not is_better(gain=75.0, rival_gain=100.0, added=60.0)
    assert is_better(gain=8.5, rival_gain=10.0, added=1.5)
    assert not is_better(gain=8.5, rival_gain=10.0, added=0.5)
    assert not is_better(gain=2.0, rival_gain=0.0, added=2.0)
    lenient = SelfMaskingSettings(as_good=0.5)
    assert Evidence(60.0, 100.0, 4.5, True, lenient).is_better


def test_an_unknown_choice_is_an_error():
    with pytest.raises(ValueError, match="self_masking"):
        ADMCImputer(self_masking="perhaps").fit(np.eye(3))


def test_slopes_of_few_rows_hardly_depend_on_the_pairs():
    """Which rows meet is chance, and should not decide how large a slope is."""
    _, incomplete = self_masked(150, 2)
    imputer = quick(max_epochs=0, self_masking=False).fit(incomplete)
    model, rows = imputer.model_, imputer._codec.read(incomplete)
    rows = model.coordinates(Rows(rows.values, rows.observed))

    def spread(**settings):
        slopes = [
            fit_self_masking(
                model.network,
                rows,
                torch.Generator().manual_seed(seed),
                decide=False,
                settings=SelfMaskingSettings(**settings),
            ).slopes
            for seed in range(8)
        ]
        return np.std(slopes, axis=0).mean()

    found = spread()
    assert found < 0.07  # of slopes of about 1
    assert found < 0.75 * spread(max_partners=4)


def test_few_rows_have_more_pairs_each():
    settings = SelfMaskingSettings()
    assert [settings.partners(n) for n in (20, 150, 300, 2000)] == [16, 16, 8, 4]
