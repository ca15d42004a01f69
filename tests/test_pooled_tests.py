"""Tests pooled over draws, as R's mice and mitml compute them; long frames."""

import io
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import stats
from sklearn.linear_model import LinearRegression

from admc_sklearn.pooling import (
    from_long,
    pool_chi2,
    pool_correlation,
    pool_estimates,
    pool_likelihood_ratio,
    pool_predictions,
    pool_r_squared,
    pool_wald_test,
    to_long,
)

N = 30


def draw(k):
    """A completed table that R can make too: columns a, b, c, y."""
    i = np.arange(1, N + 1)
    a = np.sin(i) + 0.8 * np.sin(7 * i * k) * (i % 3 == 0)
    b = np.cos(2 * i) + 0.5 * np.cos(3 * i * k) * (i % 4 == 0)
    c = np.sin(5 * i)
    y = 0.5 * np.sin(i) + 0.4 * np.cos(2 * i) + 0.3 * c + np.cos(11 * i)
    return pd.DataFrame({"a": a, "b": b, "c": c, "y": y})


def ols(table, names):
    X = np.column_stack([np.ones(N), table[names]])
    found, residual, *_ = np.linalg.lstsq(X, table["y"], rcond=None)
    df = N - X.shape[1]
    covariance = np.linalg.inv(X.T @ X) * residual[0] / df
    names = ["intercept", *names]
    return SimpleNamespace(
        params=pd.Series(found, names),
        covariance=pd.DataFrame(covariance, names, names),
        rss=residual[0],
    )


DRAWS = [draw(k) for k in range(1, 5)]
FITS = [ols(table, ["a", "b", "c"]) for table in DRAWS]


def check(test, statistic, df1, df2, p_value, riv):
    """Figures as R prints them, with twelve digits."""
    found = [test.statistic, test.df1, test.df2, test.p_value, test.riv]
    np.testing.assert_allclose(found, [statistic, df1, df2, p_value, riv], rtol=1e-9)


def test_d1_as_mice_3_15_has_it():
    parts = [f.params for f in FITS], [f.covariance for f in FITS]
    tested = ["a", "b"]
    expected = 3.59767266838, 2, 20.9530301975, 0.0453777222897, 0.0690455027676
    check(pool_wald_test(*parts, parameters=tested, dfcom=26), *expected)
    expected = 3.59767266838, 2, 231.07746078, 0.0289323095127, 0.0690455027676
    check(pool_wald_test(*parts, parameters=tested, dfcom=1e8), *expected)
    # Positions for arrays; a hypothesis that holds exactly.
    # Results go in as they are, and bring their degrees of freedom.
    results = [
        SimpleNamespace(
            params=f.params, cov_params=lambda f=f: f.covariance, df_resid=26
        )
        for f in FITS
    ]
    assert pool_wald_test(results, parameters=tested) == pool_wald_test(
        *parts, parameters=tested, dfcom=26
    )
    arrays = (
        np.array([p.to_numpy() for p in parts[0]]),
        [c.to_numpy() for c in parts[1]],
    )
    same = pool_wald_test(*arrays, parameters=[1, 2], dfcom=26)
    assert same.statistic == pytest.approx(3.59767266838)
    center = arrays[0].mean(0)
    assert pool_wald_test(*arrays, null=center).p_value == pytest.approx(1)


def test_d2_as_mice_3_15_has_it():
    statistics = [
        f.params[["a", "b"]]
        @ np.linalg.inv(f.covariance.loc[["a", "b"], ["a", "b"]])
        @ f.params[["a", "b"]]
        for f in FITS
    ]
    expected = 3.69621790304, 2, 1450.76175021, 0.0250512229708, 0.0363394509784
    check(pool_chi2(statistics, 2), *expected)


def log_likelihood(slopes, variance, table, names):
    X = np.column_stack([np.ones(N), table[names]])
    residual = table["y"] - X @ np.asarray(slopes)
    if variance is None:
        residual = residual - residual.mean()
        variance = np.mean(residual**2)
    return stats.norm.logpdf(residual, scale=np.sqrt(variance)).sum()


def test_d3_as_mice_3_15_and_mitml_have_it():
    def profile(names):
        """Intercept and variance are fitted anew, as mice does it."""
        return (
            lambda table: ols(table, names).params,
            lambda slopes, table: log_likelihood(slopes, None, table, names),
        )

    def full(names):
        """The variance is a parameter, as in mitml."""

        def fit(table):
            found = ols(table, names)
            return [*found.params, found.rss / N]

        return fit, lambda p, table: log_likelihood(p[:-1], p[-1], table, names)

    expected = {
        profile: (
            3.5006249135217,
            2,
            115.6207594143567,
            0.0334156638002,
            0.1030295665026,
        ),
        full: (3.29807845328, 2, 57.2045024421, 0.0440958385855, 0.160343634681),
    }
    for kind, figures in expected.items():
        (fit, own), (null, other) = kind(["a", "b", "c"]), kind(["c"])
        check(pool_likelihood_ratio(DRAWS, fit, null, own, other, df=2), *figures)


def test_d3_takes_the_log_likelihood_of_results():
    def fit_with(names):
        def fit(table):
            def loglike(slopes):
                return log_likelihood(slopes, None, table, names)

            model = SimpleNamespace(loglike=loglike)
            return SimpleNamespace(params=ols(table, names).params, model=model)

        return fit

    found = pool_likelihood_ratio(
        DRAWS, fit_with(["a", "b", "c"]), fit_with(["c"]), df=2
    )
    figures = 3.5006249135217, 2, 115.6207594143567, 0.0334156638002, 0.1030295665026
    check(found, *figures)
    with pytest.raises(TypeError, match="log_likelihood must be given"):
        pool_likelihood_ratio(DRAWS, lambda t: [1.0], lambda t: [1.0], df=1)


def test_r_squared_as_mice_3_15_has_it():
    total = ((DRAWS[0]["y"] - DRAWS[0]["y"].mean()) ** 2).sum()
    share = np.array([1 - f.rss / total for f in FITS])
    found = pool_r_squared(share, N)
    expected = [0.353951020452, 0.0872931373914, 0.620875035828, 0.0187381421996]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    found = pool_r_squared(1 - (1 - share) * (N - 1) / (N - 4), N)
    expected = [0.279326274608, 0.0414184967742, 0.560401999701, 0.0236952600296]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_correlations_and_limits():
    r = [0.5, 0.55, 0.45]
    found = pool_correlation(r, 100)
    assert found["lower"] < found["estimate"] < found["upper"]
    assert found["estimate"] == pytest.approx(np.tanh(np.arctanh(r).mean()))
    minus = pool_correlation([-one for one in r], 100)
    assert minus["estimate"] == pytest.approx(-found["estimate"])
    assert minus["lower"] == pytest.approx(-found["upper"])
    same = pool_correlation([0.5, 0.5], 100)
    assert same["fmi"] < 1e-10
    assert np.arctanh(same["upper"]) == pytest.approx(
        np.arctanh(0.5) + 1.96 / np.sqrt(97)
    )


def test_draws_that_agree_give_the_test_of_complete_data():
    params, covariance = FITS[0].params.to_numpy(), FITS[0].covariance.to_numpy()
    test = pool_wald_test([params] * 3, [covariance] * 3)
    wald = params @ np.linalg.inv(covariance) @ params
    assert (test.riv, test.df2) == (0, np.inf)
    assert test.p_value == pytest.approx(stats.chi2.sf(wald, 4))
    assert pool_chi2([7.0, 7.0], 3).p_value == pytest.approx(stats.chi2.sf(7, 3))


def test_predictions_of_scikit_learn_models_and_of_statsmodels_results():
    def fit(table):
        return LinearRegression().fit(table[["a", "b"]], table["y"])

    rows = DRAWS[0][["a", "b"]][:5]
    found = pool_predictions(DRAWS, fit, rows)
    each = np.array([fit(table).predict(rows) for table in DRAWS])
    np.testing.assert_allclose(found["estimate"], each.mean(0))
    between = np.sqrt(1.25 * each.var(0, ddof=1))
    np.testing.assert_allclose(found["standard_error"], between)
    wider = pool_predictions(DRAWS, fit, rows, variance=0.1)
    np.testing.assert_allclose(wider["standard_error"], np.sqrt(0.1 + between**2))
    assert (wider["lower"] < found["lower"]).all()
    called = pool_predictions(
        DRAWS, fit, rows, variance=lambda model, X: np.full(len(X), 0.1), dfcom=27
    )
    np.testing.assert_allclose(called["standard_error"], wider["standard_error"])
    assert (called["lower"] < wider["lower"]).all()  # fewer degrees of freedom

    class Result:
        """As statsmodels has them: linear models, and discrete ones."""

        def __init__(self, table, names=("predicted_mean", "se_mean")):
            self.model, self.names = fit(table), names

        def get_prediction(self, X):
            found = self.model.predict(X), np.sqrt([0.1] * len(X))
            return SimpleNamespace(**dict(zip(self.names, found, strict=True)))

    same = pool_predictions(DRAWS, Result, rows)
    pd.testing.assert_frame_equal(same, wider)

    def discrete(table):
        result = Result(table, ("predicted", "se"))
        result.df_resid = 27
        return result

    pd.testing.assert_frame_equal(pool_predictions(DRAWS, discrete, rows), called)


def test_predictions_keep_the_index_of_the_rows():
    def fit(table):
        return LinearRegression().fit(table[["a", "b"]], table["y"])

    rows = DRAWS[0][["a", "b"]][:3].set_axis(["u", "v", "w"])
    assert list(pool_predictions(DRAWS, fit, rows).index) == ["u", "v", "w"]
    labels = SimpleNamespace(predict=lambda X: np.array(["yes"] * len(X)))
    with pytest.raises(ValueError, match="one number for each row"):
        pool_predictions(DRAWS, lambda table: labels, rows)


def test_monte_carlo_error_and_draws_that_suffice():
    rng = np.random.default_rng(0)
    sets = [
        pool_estimates(rng.normal(0, 0.5, 20), np.ones(20)).estimate
        for _ in range(2000)
    ]
    pooled = pool_estimates(rng.normal(0, 0.5, 2000), np.ones(2000))
    assert pooled.monte_carlo_error * 10 == pytest.approx(np.std(sets), rel=0.1)
    assert pooled.n_draws_needed(0.05) == 1 + np.ceil(200 * pooled.fmi**2)
    assert pool_estimates([1.0, 1.0], [1.0, 1.0]).n_draws_needed() == 2
    with pytest.raises(ValueError, match="variation"):
        pooled.n_draws_needed(0)


def test_long_frames_go_there_and_back():
    X = DRAWS[0].mask(np.random.default_rng(0).random((N, 4)) < 0.2)
    long = to_long(DRAWS, X)
    assert list(long) == [".imp", ".id", "a", "b", "c", "y"]
    assert long[".imp"].tolist() == [k for k in range(5) for _ in range(N)]
    for one, again in zip(DRAWS, from_long(long.sample(frac=1)), strict=True):
        np.testing.assert_array_equal(one, again)
    stack = np.stack([table.to_numpy() for table in DRAWS])
    arrays = to_long(stack)
    assert list(arrays)[2:] == ["x0", "x1", "x2", "x3"]
    assert arrays[".imp"].min() == 1
    # Columns are matched by name; the frame among the two names those of arrays.
    for other in (to_long(DRAWS, X[list("ycab")]), to_long(stack, X)):
        pd.testing.assert_frame_equal(other, long)
    pd.testing.assert_frame_equal(to_long(DRAWS, X.to_numpy()), long)
    for one, again in zip(DRAWS, from_long(pl.from_pandas(long)), strict=True):
        np.testing.assert_array_equal(one, again)


@pytest.mark.skipif(shutil.which("Rscript") is None, reason="R is not installed")
def test_r_reads_long_frames(tmp_path):
    X = DRAWS[0].copy()
    for name in "ab":
        changes = np.ptp([table[name] for table in DRAWS], axis=0) > 0
        X.loc[changes, name] = np.nan
    to_long(DRAWS, X).to_csv(tmp_path / "long.csv", index=False)
    script = "library(mice); x <- as.mids(read.csv('long.csv', check.names=FALSE));"
    script += "write.csv(summary(pool(with(x, lm(y ~ a + b + c)))), stdout())"
    command = ["Rscript", "-e", f"suppressMessages({{{script}}})"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    if ran.returncode and "no package called" in ran.stderr:
        pytest.skip("R has no mice")
    found = pd.read_csv(io.StringIO(ran.stdout))
    pooled = pool_estimates(
        [f.params for f in FITS], [np.diag(f.covariance) for f in FITS], dfcom=26
    )
    np.testing.assert_allclose(found["estimate"], pooled.estimate, rtol=1e-6)
    np.testing.assert_allclose(found["std.error"], pooled.standard_error, rtol=1e-6)
    np.testing.assert_allclose(found["df"], pooled.df, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: pool_chi2([1.0], 2), "two draws"),
        (lambda: pool_chi2([1.0, -1.0], 2), "at least 0"),
        (lambda: pool_chi2([1.0, 1.0], 0), "df must be positive, got 0"),
        (
            lambda: pool_wald_test(np.ones((2, 1)), np.ones((2, 1, 1)), dfcom=0),
            "dfcom must be positive, got 0",
        ),
        (
            lambda: pool_wald_test(np.ones((2, 1)), np.ones((2, 1, 1)), null=[0, 0]),
            "null must be a number or 1 numbers",
        ),
        (lambda: pool_correlation([0.5, 1.0], 50), "between -1 and 1"),
        (lambda: pool_correlation([0.5, 0.4], 3), "more than 3"),
        (lambda: pool_r_squared([0.5, 1.2], 50), r"\[0, 1\)"),
        (lambda: pool_wald_test(np.ones((2, 2)), np.ones((2, 2))), "n_draws, p, p"),
        (lambda: pool_wald_test(np.ones((2, 2)), np.zeros((2, 2, 2))), "singular"),
        (
            lambda: pool_wald_test(
                np.ones((2, 2)), np.stack([np.eye(2)] * 2), parameters=["a"]
            ),
            "not among",
        ),
        (lambda: to_long([]), "at least one"),
        (lambda: to_long([DRAWS[0], DRAWS[1][:5]]), "other columns or rows"),
        (lambda: to_long(DRAWS, DRAWS[0][["a", "b"]]), "draw 0 has other columns"),
        (lambda: from_long(DRAWS[0]), ".imp and .id"),
        (lambda: from_long(to_long(DRAWS)[:-1]), "other rows"),
    ],
)
def test_bad_input_is_one_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()
