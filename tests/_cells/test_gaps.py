"""Gaps: where only what is out of the ordinary was written down."""

import numpy as np
import pytest
from sklearn.datasets import load_iris

from admc_sklearn import ADMCImputer
from admc_sklearn._cells.network.gaps import EDGE, GapSettings, find_gaps
from admc_sklearn._cells.settings import CellSettings
from admc_sklearn._combined.settings import Settings
from admc_sklearn._shared.contract import Rows
from admc_sklearn.missingness import ampute
from tests._export.test_dense import check
from tests.conftest import gaussian_table, hide, quick

pytestmark = pytest.mark.usefixtures("light_fits")
LIMITS = np.array([0.25, 0.75])


def without_the_middle(n=150, d=6, seed=0):
    """A Gaussian table, standardised, without the middle half of every column."""
    X, _, _ = gaussian_table(n, d, seed)
    X = (X - X.mean(0)) / X.std(0)
    low, high = np.quantile(X, LIMITS, axis=0)
    return X, np.where((low < X) & (high > X), np.nan, X)


def gaps_of(X, **settings):
    rows = Rows(np.nan_to_num(X).astype(np.float32), ~np.isnan(X))
    return find_gaps(rows, np.zeros(X.shape[1], dtype=int), GapSettings(**settings))


@pytest.fixture(scope="module")
def fitted():
    X, incomplete = without_the_middle()
    return X, incomplete, quick(max_epochs=2).fit(incomplete)


def test_missing_cells_are_completed_within_the_gap(fitted):
    X, incomplete, imputer = fitted
    lost = np.isnan(incomplete)
    seen = np.quantile(X, LIMITS, axis=0).T
    width = np.diff(seen)
    np.testing.assert_allclose(imputer.gaps_, seen, atol=0.15)
    assert (np.abs(imputer.gaps_ - seen) < 0.1 * width + 2 * EDGE).all()
    blind = quick(max_epochs=2, self_masking=False).fit(incomplete)
    assert np.isnan(blind.gaps_).all()
    means = imputer.transform(incomplete)
    error, blind_error, spread = (
        np.sqrt(np.mean((found - X)[lost] ** 2))
        for found in (means, blind.transform(incomplete), X - X + np.median(X, 0))
    )
    assert error < 0.95 * spread
    assert error < 0.7 * blind_error
    low, high = imputer.gaps_.T
    quantiles = imputer.predict_quantiles(incomplete, [0.05, 0.95])
    for found in (means, *quantiles, *imputer.sample(incomplete, 2)):
        within = (found >= low - 1e-6) & (found <= high + 1e-6)
        assert within[lost].all()
        np.testing.assert_array_equal(found[~lost], incomplete[~lost])


def test_draws_spread_over_the_gap(fitted):
    X, incomplete, imputer = fitted
    lost = np.isnan(incomplete)
    draws = np.stack(imputer.sample(incomplete, 60))[:, lost]
    # The anchor's correlations are those of the tails, which are a little too strong.
    covered = np.mean(
        (np.quantile(draws, 0.1, axis=0) <= X[lost])
        & (np.quantile(draws, 0.9, axis=0) >= X[lost])
    )
    assert 0.65 < covered < 0.9


def test_files_reports_and_graphs_know_of_it(fitted, tmp_path):
    _, incomplete, imputer = fitted
    imputer.save(tmp_path / "gaps.safetensors")
    loaded = ADMCImputer.load(tmp_path / "gaps.safetensors")
    np.testing.assert_array_equal(loaded.gaps_, imputer.gaps_)
    np.testing.assert_array_equal(
        loaded.transform(incomplete), imputer.transform(incomplete)
    )
    assert "in the gap from" in loaded._repr_html_()
    check(imputer, incomplete)


def test_where_cells_lie_in_no_gap_none_is_found():
    X, _, _ = gaussian_table(300, 6, 1)
    for mechanism in ("mcar", "mar", "mnar"):
        lost = ampute(X, mechanism=mechanism, rate=0.4, random_state=0)
        assert np.isnan(gaps_of(lost)).all()
    # Two columns have a wide interval without values, between the species.
    assert np.isnan(gaps_of(hide(load_iris().data, 0.4, 0))).all()
    # Whole numbers: every interval between them is empty.
    _, incomplete = without_the_middle()
    assert np.isnan(gaps_of(np.round(2 * incomplete))).all()


def test_one_column_alone_may_be_in_two_parts():
    X, incomplete = without_the_middle()
    few = X.copy()
    few[:, 0] = incomplete[:, 0]
    few[:, 1:] = hide(X[:, 1:], 0.3, 0)
    assert np.isnan(gaps_of(few)).all()
    # Where most columns have a gap, a weaker sign is enough for the others.
    incomplete[:, 0] = np.round(3 * incomplete[:, 0]) / 3
    assert np.isfinite(gaps_of(incomplete)).all()
    assert np.isnan(gaps_of(incomplete, other_ratio=np.inf)).all()


def test_many_rows_need_not_all_be_sorted():
    X, incomplete = without_the_middle(3000)
    whole = gaps_of(incomplete)
    np.testing.assert_array_equal(gaps_of(incomplete, max_values=10_000), whole)
    some = gaps_of(incomplete, max_values=500)
    np.testing.assert_allclose(some, whole, atol=0.1)
    # One value in the gap, in a row that is not looked at first.
    incomplete[1, :] = np.median(X, axis=0)
    assert np.isnan(gaps_of(incomplete, max_values=500)).all()


def test_an_experiment_can_do_without():
    class Blind(ADMCImputer):
        _settings = Settings(cells=CellSettings(gaps=None))

    _, incomplete = without_the_middle()
    assert np.isnan(Blind(max_epochs=0).fit(incomplete).gaps_).all()
