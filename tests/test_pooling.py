"""Rubin's rules: published figures of R's mice, limits, units, coverage and errors."""

import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from admc_sklearn.pooling import pool_estimates, pool_over_draws


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# Reference page of mice's pool.scalar, printed by pkgdown: amices/mice on GitHub,
# docs/reference/pool.scalar.html. The first is of mice 3.13.1 (commit c7da4e2, slopes
# of bmi ~ age, nhanes, n = 25, k = 2), the second of 3.10.3 (commit 0002f74, means of
# bmi, n = 25, k = 1).
NHANES = {
    "slope of bmi on age": (
        ([-1.5457, -1.428], [0.9723**2, 1.041**2], 23),
        {
            "estimate": -1.48685,
            "within": 1.014524,
            "between": 0.006926645,
            "variance": 1.024914,
            "df": 20.97025,
            "riv": 0.01024122,
            "fmi": 0.09272831,
        },
    ),
    "mean of bmi": (
        (
            [26.816, 26.184, 26.692, 27.076, 26.528],
            [0.7888227, 0.5449227, 0.7764973, 0.6764760, 0.5379173],
            24,
        ),
        {
            "estimate": 26.6592,
            "within": 0.6649272,
            "between": 0.1106032,
            "variance": 0.797651,
            "df": 16.41929,
            "riv": 0.1996066,
            "fmi": 0.2522468,
        },
    ),
}


@pytest.mark.parametrize("example", NHANES)
def test_nhanes_as_on_the_reference_page_of_mice(example):
    (estimates, variances, dfcom), expected = NHANES[example]
    pooled = pool_estimates(estimates, variances, dfcom=dfcom)
    for name, value in expected.items():
        assert getattr(pooled, name) == pytest.approx(value, rel=5e-7), name


def test_nhanes_regression_as_printed_by_mice_pool():
    """Same page as the slope above: both analyses, then the output of ``pool(fit)``.

    R pools unrounded analyses; ours are those printed, to 4 or 5 digits, hence the
    tolerance of 1e-3.
    """
    names = ["(Intercept)", "age"]
    estimates = pd.DataFrame([[28.1043, -1.5457], [29.189, -1.428]], columns=names)
    errors = np.array([[1.8853, 0.9723], [2.019, 1.041]])
    pooled = pool_estimates(estimates, errors**2, dfcom=23)
    expected = pd.DataFrame(
        {
            "estimate": [28.646618, -1.486715],
            "within": [3.814682, 1.014543],
            "between": [0.588114658, 0.006947187],
            "variance": [4.696854, 1.024964],
            "df": [10.72144, 20.96937],
            "riv": [0.2312570, 0.0102714],
            "lambda_": [0.18782190, 0.01016697],
            "fmi": [0.30620278, 0.09275848],
        },
        index=names,
    )
    got = pooled.to_frame()[expected.columns]
    # The variance between two estimates of 4 digits is itself known to 4e-3.
    loose = ["between", "riv", "lambda_"]
    pd.testing.assert_frame_equal(got[loose], expected[loose], rtol=4e-3)
    tight = expected.columns.difference(loose)
    pd.testing.assert_frame_equal(got[tight], expected[tight], rtol=1e-3)


# Output of mice 3.19.0 on R 4.4.0, 17 digits: aaronjdanielson/longmi on GitHub,
# validation/r/rubin_reference.csv (commit 74bd4f2), whose rubin_reference.R and
# tests/cross_language/test_rubin_r_parity.py hold the inputs. Case E has a share of
# missing information so small that older mice (which floored it at 1e-4) differs.
_D = [[0.90, 0.42, -0.15], [1.10, 0.38, -0.09], [0.95, 0.45, -0.20]]
_D += [[1.05, 0.40, -0.12], [1.00, 0.35, -0.14]]
_D_VARIANCES = [[0.040, 0.0110, 0.0050], [0.044, 0.0100, 0.0055]]
_D_VARIANCES += [[0.042, 0.0115, 0.0048], [0.041, 0.0105, 0.0052]]
_D_VARIANCES += [[0.043, 0.0095, 0.0051]]
_A = [1.5, 2.0, 2.5, 1.8, 2.2], [0.36, 0.44, 0.40, 0.38, 0.42]
MICE_NAMES = ("estimate", "within", "between", "variance", "riv", "lambda_", "fmi")
MICE = {
    "A": (
        (*_A, None),
        (2.0, 0.4, 0.145, 0.574, 0.435, 0.30313588850174217, 0.33308943231237648),
        43.529660457127754,
    ),
    "B": (
        (*_A, 96),
        (2.0, 0.4, 0.145, 0.574, 0.435, 0.30313588850174217, 0.35093476818517616),
        26.158177602215858,
    ),
    "C": (
        ([0.10, 0.30, 0.20], [0.09, 0.11, 0.10], 48),
        (
            *(0.2, 0.1, 0.01, 0.11333333333333334, 0.13333333333333333),
            *(0.11764705882352938, 0.16842875710724831),
        ),
        31.750824450444224,
    ),
    "D": (
        (_D, _D_VARIANCES, 194),
        (
            (1.0, 0.4, -0.14),
            (0.042, 0.0105, 0.00512),
            (0.00625, 0.00145, 0.00165),
            (0.0495, 0.01224, 0.0071),
            (0.17857142857142871, 0.16571428571428579, 0.38671875000000022),
            (0.15151515151515163, 0.14215686274509809, 0.27887323943661985),
            (0.17097604260786894, 0.16062357627925528, 0.31448103983711057),
        ),
        (84.198971973320198, 89.906963187378437, 37.503864459622250),
    ),
    "E": (
        ([0.5, 0.5005, 0.4995], [0.04, 0.04, 0.04], 48),
        (
            *(0.5, 0.04, 2.4999999999997272e-07, 0.0400003333333333322),
            *(8.3333333333324223e-06, 8.3332638894666780e-06, 0.040726875474353358),
        ),
        46.117262674454572,
    ),
    "F": (
        ([0.25] * 4, [0.01, 0.012, 0.011, 0.009], None),
        (0.25, 0.0105, 0.0, 0.0105, 0.0, 0.0, 0.0),
        np.inf,
    ),
}


@pytest.mark.parametrize("case", MICE)
def test_figures_of_mice_3_19(case):
    (estimates, variances, dfcom), expected, df = MICE[case]
    pooled = pool_estimates(estimates, variances, dfcom=dfcom)
    np.testing.assert_allclose(pooled.df, df, rtol=1e-12)
    for name, value in zip(MICE_NAMES, expected, strict=True):
        np.testing.assert_allclose(getattr(pooled, name), value, rtol=1e-12)


def test_intervals_and_p_values_of_mice():
    """``summary(pool(fit))`` of lm(bmi ~ hyp + chl) on nhanes, documentation of mice.

    https://rdocumentation.org/packages/mice/versions/2.30/topics/pool prints no
    analyses of single draws, so this starts from the estimates, se and df there.
    """
    error = np.array([4.94086, 2.26789, 0.02829])
    pooled = replace(
        pool_estimates(np.zeros((2, 3)), np.ones((2, 3))),
        estimate=np.array([22.01313, -1.45578, 0.03459]),
        variance=error**2,
        df=np.array([12.016, 20.613, 9.347]),
    )
    np.testing.assert_allclose(pooled.statistic, [4.4553, -0.6419, 1.2228], rtol=2e-4)
    np.testing.assert_allclose(
        pooled.p_value, [0.000783, 0.528006, 0.251332], rtol=1e-3
    )
    limits = [[11.24954, 32.77673], [-6.17752, 3.26596], [-0.02904, 0.09822]]
    np.testing.assert_allclose(pooled.conf_int, limits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dfcom", [None, 7, 100])
def test_identical_draws_give_the_plain_interval(dfcom):
    """The mean of five 0.1 is not 0.1 in floating point: agreement is exact."""
    pooled = pool_estimates([[0.1, -3.0]] * 5, [[0.04, 9.0]] * 5, dfcom=dfcom)
    df = np.inf if dfcom is None else dfcom
    np.testing.assert_array_equal(pooled.between, 0)
    np.testing.assert_array_equal(pooled.lambda_, 0)
    np.testing.assert_array_equal(pooled.df, df)
    plain = stats.t.interval(0.95, df, loc=[0.1, -3.0], scale=[0.2, 3.0])
    np.testing.assert_allclose(pooled.conf_int.T, plain)
    p_value = 2 * stats.t.sf([0.5, 1.0], df)
    np.testing.assert_allclose(pooled.p_value, p_value)


def test_differences_of_rounding_leave_dfcom():
    pooled = pool_estimates([0.3, 0.1 + 0.2, 0.3], [0.01] * 3, dfcom=20)
    assert pooled.between > 0
    assert pooled.df == 20


def test_no_variance_at_all_is_certainty():
    pooled = pool_estimates([[0.0, 2.0]] * 3, [[0.0, 0.0]] * 3, dfcom=9)
    np.testing.assert_array_equal(pooled.p_value, [1, 0])
    np.testing.assert_array_equal(pooled.conf_int, [[0, 0], [2, 2]])
    assert not pooled.to_frame().isna().any(axis=None)


def test_estimates_without_variance_within_rest_on_the_draws():
    """Lambda is 1 and df n_draws - 1: the t interval of the draws, widened by 1 / m."""
    pooled = pool_estimates([1.0, 2.0, 4.0], [0.0, 0.0, 0.0])
    assert pooled.riv == np.inf
    assert (pooled.lambda_, pooled.fmi, pooled.df) == (1, 1, pytest.approx(2))
    assert pooled.variance == pytest.approx((1 + 1 / 3) * np.var([1, 2, 4], ddof=1))


def test_units_change_estimates_alone():
    rng = np.random.default_rng(0)
    estimates = rng.normal(size=(6, 3))
    variances = rng.uniform(0.5, 2, size=(6, 3))
    units = np.array([1e-9, -3.0, 1e12])
    ours = pool_estimates(estimates, variances, dfcom=30)
    other = pool_estimates(estimates * units, variances * units**2, dfcom=30)
    for name in ("df", "riv", "lambda_", "fmi", "p_value"):
        np.testing.assert_allclose(getattr(other, name), getattr(ours, name))
    np.testing.assert_allclose(other.estimate, ours.estimate * units)
    np.testing.assert_allclose(other.standard_error, ours.standard_error * abs(units))
    limits = np.sort(ours.conf_int * units[:, None])
    np.testing.assert_allclose(other.conf_int, limits)


def test_origin_changes_nothing_else():
    near = pool_estimates([1.0, 2.0, 4.0], [1.0, 1.0, 2.0])
    far = pool_estimates([1e8 + 1, 1e8 + 2, 1e8 + 4], [1.0, 1.0, 2.0])
    assert far.between == near.between
    assert far.df == near.df


def test_columns_are_pooled_alone_and_order_does_not_matter():
    rng = np.random.default_rng(1)
    estimates, variances = rng.normal(size=(4, 3)), rng.uniform(1, 2, size=(4, 3))
    together = pool_estimates(estimates, variances, dfcom=12)
    turned = pool_estimates(estimates[::-1], variances[::-1], dfcom=12)
    for name in ("estimate", "variance", "df", "fmi", "conf_int"):
        values = getattr(together, name)
        np.testing.assert_allclose(getattr(turned, name), values)
        for j in range(3):
            alone = pool_estimates(estimates[:, j], variances[:, j], dfcom=12)
            np.testing.assert_allclose(getattr(alone, name), values[j])
            assert np.shape(getattr(alone, name)) == values[j].shape


def test_covariances_are_pooled_as_every_contrast_is():
    rng = np.random.default_rng(2)
    estimates, roots = rng.normal(size=(5, 3)), rng.normal(size=(5, 3, 3))
    covariances = roots @ roots.transpose(0, 2, 1)
    pooled = pool_estimates(estimates, covariances)
    np.testing.assert_allclose(np.diag(pooled.covariance), pooled.variance)
    contrast = np.array([1.0, -2.0, 0.5])
    alone = pool_estimates(
        estimates @ contrast, np.einsum("i,mij,j->m", contrast, covariances, contrast)
    )
    assert alone.variance == pytest.approx(contrast @ pooled.covariance @ contrast)
    diagonals = np.diagonal(covariances, axis1=1, axis2=2)
    assert pool_estimates(estimates, diagonals).covariance is None


def _half_missing_mean(rng, n=40, n_draws=5):
    """Proper draws of half of a normal sample, by its posterior under a flat prior."""
    values = rng.normal(size=n)
    seen = values[: n // 2]
    draws = []
    for _ in range(n_draws):
        spread = seen.var(ddof=1) * (len(seen) - 1) / rng.chisquare(len(seen) - 1)
        center = rng.normal(seen.mean(), np.sqrt(spread / len(seen)))
        new = rng.normal(center, np.sqrt(spread), n - len(seen))
        draws.append(np.concatenate([seen, new]))
    return draws


def _mean(draw):
    return draw.mean(), draw.var(ddof=1) / len(draw), len(draw) - 1


def test_intervals_cover():
    """Four standard errors of a share of 0.95 in 1500 trials are 0.0225."""
    rng = np.random.default_rng(0)
    trials = [pool_over_draws(_half_missing_mean(rng), _mean) for _ in range(1500)]
    limits = np.array([pooled.conf_int for pooled in trials])
    covered = (limits[:, 0] < 0) & (limits[:, 1] > 0)
    assert covered.mean() == pytest.approx(0.95, abs=0.0225)
    # Half of the information, and a little for the finite degrees of freedom.
    assert 0.5 < np.mean([pooled.fmi for pooled in trials]) < 0.62


def test_level_widens_the_interval():
    pooled = [
        pool_estimates([1.0, 2.0], [1.0, 1.0], confidence_level=level)
        for level in (0.5, 0.9, 0.99)
    ]
    assert (np.diff([np.ptp(each.conf_int) for each in pooled]) > 0).all()


def test_names_are_kept_and_matched():
    estimates = [pd.Series({"a": 1.0, "b": 5.0}), pd.Series({"b": 6.0, "a": 2.0})]
    variances = [pd.Series({"b": 4.0, "a": 1.0})] * 2
    pooled = pool_estimates(estimates, variances)
    assert list(pooled.names) == ["a", "b"]
    np.testing.assert_array_equal(pooled.estimate, [1.5, 5.5])
    np.testing.assert_array_equal(pooled.within, [1.0, 4.0])
    matrix = pd.DataFrame([[4.0, 0.5], [0.5, 1.0]], ["b", "a"], ["b", "a"])
    pooled = pool_estimates(estimates, [matrix, matrix])
    np.testing.assert_array_equal(pooled.within, [1.0, 4.0])
    np.testing.assert_allclose(pooled.covariance[0, 1], 0.5 + 1.5 * 0.5)
    assert list(pooled.to_frame().index) == ["a", "b"]


def test_frame_and_repr_show_the_inference():
    pooled = pool_estimates([1.0, 2.0], [1.0, 1.0], dfcom=20)
    frame = pooled.to_frame()
    assert frame.shape == (1, 13)
    assert frame.loc[0, "upper"] == pooled.conf_int[1]
    assert "2 draws, 95 % confidence limits, dfcom=20" in repr(pooled)
    assert "standard_error" in repr(pooled)
    assert len(repr(pool_estimates(np.ones((2, 500)), np.ones((2, 500))))) < 3000


def _least_squares(draw, **attributes):
    """Results as statsmodels gives them: y regressed on x, with labels."""
    design = np.column_stack([np.ones(len(draw)), draw["x"]])
    params, (rss,), *_ = np.linalg.lstsq(design, draw["y"], rcond=None)
    df_resid = len(draw) - 2
    names = ["const", "x"]
    covariance = np.linalg.inv(design.T @ design) * rss / df_resid
    return SimpleNamespace(
        params=pd.Series(params, names),
        bse=pd.Series(np.sqrt(np.diag(covariance)), names),
        cov_params=lambda: pd.DataFrame(covariance, names, names),
        df_resid=df_resid,
    )


def test_results_like_those_of_statsmodels():
    rng = np.random.default_rng(3)
    draws = [pd.DataFrame(rng.normal(size=(15, 2)), columns=["x", "y"]) for _ in "abc"]
    pooled = pool_over_draws(iter(draws), _least_squares)
    lines = [stats.linregress(draw["x"], draw["y"]) for draw in draws]
    by_hand = pool_estimates(
        [(line.intercept, line.slope) for line in lines],
        [(line.intercept_stderr**2, line.stderr**2) for line in lines],
        dfcom=13,
    )
    assert pooled.dfcom == 13
    assert list(pooled.names) == ["const", "x"]
    assert pooled.covariance.shape == (2, 2)
    np.testing.assert_allclose(pooled.conf_int, by_hand.conf_int)

    def errors_alone(draw):
        results = _least_squares(draw)
        del results.cov_params
        return results

    whole = pool_estimates([_least_squares(draw) for draw in draws])
    np.testing.assert_array_equal(whole.conf_int, pooled.conf_int)
    assert whole.dfcom == 13
    assert pool_estimates([_least_squares(d) for d in draws], dfcom=9).dfcom == 9
    alone = pool_over_draws(draws, errors_alone, confidence_level=0.95)
    assert alone.covariance is None
    np.testing.assert_allclose(alone.conf_int, by_hand.conf_int)


def test_degrees_of_freedom_come_from_the_caller_first():
    draws = [np.arange(5.0), np.arange(6.0) + 1]
    assert pool_over_draws(draws, _mean).dfcom == 4
    assert pool_over_draws(draws, _mean, dfcom=9).dfcom == 9
    assert pool_over_draws(draws, lambda draw: _mean(draw)[:2]).dfcom == np.inf


@pytest.mark.parametrize(
    ("estimates", "variances", "options", "message"),
    [
        ([1.0], [1.0], {}, "at least two draws, got 1"),
        ([], [], {}, "at least two draws, got 0"),
        ([1.0, 2.0], [1.0] * 3, {}, r"got \(2,\) and \(3,\)"),
        ([1.0, 2.0], np.ones((2, 2)), {}, r"got \(2,\) and \(2, 2\)"),
        (np.ones((3, 2)), np.ones((3, 3)), {}, r"got \(3, 2\) and \(3, 3\)"),
        (np.ones((3, 2)), np.ones((3, 2, 3)), {}, r"got \(3, 2\) and \(3, 2, 3\)"),
        (np.ones((2, 2, 2)), np.ones((2, 2, 2)), {}, r"got \(2, 2, 2\)"),
        ([[1.0], [1.0, 2.0]], [[1.0], [1.0]], {}, r"one shape .* \[\(1,\), \(2,\)\]"),
        ([1.0, np.nan], [1.0, 1.0], {}, "estimates must be finite, got nan in draw 1"),
        ([1.0, 2.0], [np.inf, 1.0], {}, "variances must be finite, got inf in draw 0"),
        ([1.0, 2.0], [1.0, -0.5], {}, "must not be negative, got -0.5"),
        (np.ones((2, 1)), -np.ones((2, 1, 1)), {}, "must not be negative, got -1.0"),
        ([1.0, 2.0], [1.0, 1.0], {"dfcom": 0}, "dfcom must be positive, got 0"),
        ([1.0, 2.0], [1.0, 1.0], {"dfcom": np.nan}, "dfcom must be positive, got nan"),
        ([1.0, 2.0], [1.0, 1.0], {"confidence_level": 95}, r"in \(0, 1\), got 95"),
        ([1.0, 2.0], [0.0, 0.0], {"dfcom": 9}, "must not be 0 .* got dfcom=9"),
    ],
)
def test_errors_name_the_rule_and_the_value(estimates, variances, options, message):
    with pytest.raises(ValueError, match=message):
        pool_estimates(estimates, variances, **options)


def test_a_parameter_that_one_draw_lacks_is_an_error():
    estimates = [pd.Series({"a": 1.0, "b": 5.0}), pd.Series({"a": 2.0, "c": 6.0})]
    with pytest.raises(ValueError, match=r"\['a', 'b'\].* \['a', 'c'\] in draw 1"):
        pool_estimates(estimates, np.ones((2, 2)))
    with pytest.raises(ValueError, match="variances must name"):
        pool_estimates([estimates[0]] * 2, [estimates[1]] * 2)


def test_a_fit_that_returns_something_else_is_an_error():
    with pytest.raises(TypeError, match=r"\(estimates, variances\), .* got 1\.0\."):
        pool_over_draws([1.0, 1.0], lambda draw: draw)
    # Penalised fits have estimates alone.
    penalised = SimpleNamespace(params=pd.Series({"a": 1.0}))
    with pytest.raises(TypeError, match=r"cov_params\(\) or bse"):
        pool_estimates([penalised] * 2)
    # Models of several outcomes have a frame of them.
    several = pd.DataFrame(np.ones((2, 2)))
    with pytest.raises(ValueError, match="one dimension"):
        pool_over_draws([1, 2], lambda draw: (several, several))


def test_inputs_are_left_alone():
    estimates, variances = np.array([[1.0], [2.0]]), np.ones((2, 1))
    frames = [pd.Series({"a": 1.0}), pd.Series({"a": 2.0})]
    kept = list(frames)
    pool_estimates(estimates, variances)
    pool_estimates(frames, frames)
    np.testing.assert_array_equal(estimates, [[1.0], [2.0]])
    assert all(now is then for now, then in zip(frames, kept, strict=True))
