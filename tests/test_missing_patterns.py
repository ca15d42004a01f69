"""Little's test, and the flux of mice."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from admc_sklearn.missingness import ampute, flux, mcar_test

from .conftest import gaussian_table


def p_values(mechanism, n=250):
    found = []
    for seed in range(60):
        X = gaussian_table(n, 4, seed)[0]
        incomplete = ampute(X, mechanism=mechanism, rate=0.25, random_state=seed)
        found.append(mcar_test(incomplete).p_value)
    return np.array(found)


def test_p_values_are_uniform_where_cells_are_missing_completely_at_random():
    found = p_values("mcar")
    assert stats.kstest(found, "uniform").pvalue > 0.001
    assert (found < 0.05).mean() < 0.16  # 5 % and 3.9 standard errors


def test_other_mechanisms_are_found():
    assert (p_values("mar") < 0.05).mean() > 0.9


def test_two_patterns_are_hotellings_test_of_what_both_show():
    """With one column lost in part the statistic compares means, by ML estimates."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 2))
    x[:40, 1] = np.nan
    test = mcar_test(x)
    first = (x[:, 0] - x[:, 0].mean()) / x[:, 0].std()
    groups = first[:40].mean(), first[40:].mean()
    # The second column's mean follows the first one's, and adds nothing.
    expected = 40 * groups[0] ** 2 + 60 * groups[1] ** 2
    assert test.statistic == pytest.approx(expected, rel=1e-4)
    assert (test.df, test.n_patterns) == (1, 2)
    assert test.p_value == pytest.approx(stats.chi2.sf(expected, 1), rel=1e-3)
    scaled = pd.DataFrame(x * [1e6, 1e-6] + 5, columns=["a", "b"])
    assert mcar_test(scaled).statistic == pytest.approx(test.statistic, rel=1e-4)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (pd.DataFrame({"a": [1.0, None, 2], "w": ["x", "y", "x"]}), "'w' holds no"),
        (pd.DataFrame({"a": [1.0, None, 2], "b": [np.nan] * 3}), "'b' has no observed"),
        (pd.DataFrame({"a": [1.0, None, 2], "b": [2.0] * 3}), "'b' is constant"),
        (np.random.default_rng(0).normal(size=(20, 2)), "nothing to compare"),
        (
            np.column_stack([np.arange(30.0), 2 * np.arange(30), [np.nan, 1] * 15])
            + [[0, 0, 1]] * np.random.default_rng(0).normal(size=(30, 1)),
            "collinear",
        ),
    ],
)
def test_what_cannot_be_tested_is_said(table, words):
    with pytest.raises(ValueError, match=words):
        mcar_test(table)


def test_flux_as_mice_3_15_has_it():
    i = np.arange(1, 41)
    table = pd.DataFrame({n: np.sin(k * i) for k, n in enumerate("abce", start=1)})
    table.loc[i % 3 == 0, "a"] = np.nan
    table.loc[i % 4 == 0, "b"] = np.nan
    table.loc[(i % 6 == 0) | (i < 5), "c"] = np.nan
    expected = [
        [0.675, 0.2283464567, 0.3030303030, 0.7435897436, 0.1234567901, 0.3333333333],
        [0.750, 0.1811023622, 0.4848484848, 0.7666666667, 0.1777777778, 0.4000000000],
        [0.750, 0.1496062992, 0.3636363636, 0.6333333333, 0.1333333333, 0.4000000000],
        [1.000, 0.0000000000, 1.0000000000, 0.0000000000, 0.2750000000, 0.5500000000],
    ]
    found = flux(table)
    assert list(found.index) == list("abce")
    np.testing.assert_allclose(found, expected, atol=1e-9)
    np.testing.assert_allclose(flux(table.to_numpy()), expected, atol=1e-9)
