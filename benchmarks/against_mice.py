"""Pooled quantities beside R's: what mice and mitml make of the same draws.

    python -m benchmarks.against_mice [--draws 10] [--guide]

A line for each quantity: ours, R's, and their relative difference, at the parameter
where it is largest. The draws are of scikit-learn's table of diabetes, a quarter of
its cells removed. R's mice reads them by ``as.mids``, and gives them back.

With ``--guide`` the analyses of the page "Coming from mice" follow: its code of R and
of Python is run as it stands there, and the estimates of the two packages are compared
in Monte-Carlo errors. That takes some minutes.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.datasets import load_diabetes

from admc_sklearn import ADMCImputer
from admc_sklearn.missingness import ampute
from admc_sklearn.pooling import (
    from_long,
    pool_chi2,
    pool_correlation,
    pool_estimates,
    pool_likelihood_ratio,
    pool_over_draws,
    pool_predictions,
    pool_r_squared,
    pool_wald_test,
    to_long,
)
from benchmarks._mice import has_r
from benchmarks.pooled import logistic_regression

SCRIPT = Path(__file__).with_suffix(".R")
GUIDE = Path(__file__).parents[1] / "docs" / "guide" / "from_mice.rst"
SKIPPED = "R with its packages mice and mitml is not installed: skipped."
TESTED, KEPT = ["bmi", "s5"], ["age", "bp"]
NAMES = ["age", "bmi", "bp", "s5"]


def completed(n_draws=10, **parameters):
    """Draws of a table with missing cells, and the table.

    Parameters
    ----------
    n_draws : int
    **parameters : dict
        Parameters of `ADMCImputer`.
    """
    frame, progression = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
    table = frame[NAMES].assign(progression=progression)
    X = ampute(table, rate=0.25, random_state=0)
    imputer = ADMCImputer(random_state=0, **parameters)
    return imputer.fit(X).sample(X, n_draws), X


class LeastSquares:
    """A linear regression of the progression, with what R's ``lm`` has.

    Parameters
    ----------
    draw : DataFrame
    names : list of str
        Regressors beside the intercept.
    """

    def __init__(self, draw, names):
        self.names = names
        X, y = self.design(draw), draw["progression"].to_numpy(np.float64)
        found = np.linalg.lstsq(X, y, rcond=None)[0]
        self.n, self.rss = len(y), np.sum((y - X @ found) ** 2)
        self.df_resid = len(y) - X.shape[1]
        covariance = self.rss / self.df_resid * np.linalg.inv(X.T @ X)
        index = ["intercept", *names]
        self.params = pd.Series(found, index)
        self.covariance = pd.DataFrame(covariance, index, index)
        self.r_squared = 1 - self.rss / np.sum((y - y.mean()) ** 2)
        self.log_likelihood = normal(found, self.rss / len(y), draw, names)

    def design(self, rows):
        """Regressors of rows, the intercept first, (n, p)."""
        return np.column_stack([np.ones(len(rows)), rows[self.names]])

    def cov_params(self):
        """Covariance matrix of the estimates."""
        return self.covariance

    def predict(self, rows):
        """Predict the progression."""
        return self.design(rows) @ self.params.to_numpy()

    def variance(self, rows):
        """Variance of what `predict` gives."""
        X = self.design(rows)
        return np.einsum("ij,jk,ik->i", X, self.covariance, X)


def normal(slopes, variance, draw, names):
    """Compute a normal log-likelihood; variance and intercept are fitted if None."""
    X = np.column_stack([np.ones(len(draw)), draw[names]])
    residual = draw["progression"].to_numpy(np.float64) - X @ slopes
    if variance is None:
        residual = residual - residual.mean()
        variance = np.mean(residual**2)
    return stats.norm.logpdf(residual, scale=np.sqrt(variance)).sum()


def _parts(name, pooled):
    """Quantities of an estimate, as R names them."""
    return {
        f"{name} estimate": pooled.estimate,
        f"{name} std.error": pooled.standard_error,
        f"{name} statistic": pooled.statistic,
        f"{name} df": pooled.df,
        f"{name} p.value": pooled.p_value,
        f"{name} limits": pooled.conf_int.T,
        f"{name} ubar": pooled.within,
        f"{name} b": pooled.between,
        f"{name} t": pooled.variance,
        f"{name} riv": pooled.riv,
        f"{name} lambda": pooled.lambda_,
        f"{name} fmi": pooled.fmi,
    }


def _tests(name, test):
    """Quantities of a test, as R names them."""
    found = {"F": test.statistic, "df2": test.df2, "p": test.p_value, "riv": test.riv}
    return {f"{name}: {part}": value for part, value in found.items()}


def _logistic(draw):
    """Logistic regression of a progression above 140."""
    X = np.column_stack([np.ones(len(draw)), draw[["age", "bmi", "bp"]]])
    y = (draw["progression"] > 140).to_numpy(np.float64)
    # Newton's steps need columns of like size.
    scale = np.abs(X).max(axis=0)
    found, variances = logistic_regression(X / scale, y)
    return found / scale, variances / scale**2, len(X) - X.shape[1]


def ours(draws, rows):
    """All quantities, by the names that R's script gives them.

    Parameters
    ----------
    draws : list of DataFrame
    rows : DataFrame
        Rows to predict.

    Returns
    -------
    dict of float or array
    """
    n = len(draws[0])
    fits = [LeastSquares(draw, NAMES) for draw in draws]
    nulls = [LeastSquares(draw, KEPT) for draw in draws]
    regression = pool_estimates(fits)
    mean = pool_over_draws(
        draws, lambda d: (d["bmi"].mean(), d["bmi"].var() / n, n - 1)
    )
    found = _parts("pool, lm:", regression)
    found |= _parts("pool, glm:", pool_over_draws(draws, _logistic))
    parts = ("estimate", "within", "between", "variance", "df", "fmi")
    found["pool.scalar, mean"] = [getattr(mean, part) for part in parts]

    chosen = [fit.covariance.loc[TESTED, TESTED] for fit in fits]
    wald = [
        fit.params[TESTED] @ np.linalg.solve(part, fit.params[TESTED])
        for fit, part in zip(fits, chosen, strict=True)
    ]
    ratios = [
        2 * (fit.log_likelihood - null.log_likelihood)
        for fit, null in zip(fits, nulls, strict=True)
    ]
    d2 = pool_chi2(wald, len(TESTED))
    found |= _tests("mice D1", pool_wald_test(fits, parameters=TESTED))
    found |= _tests("mice D2, Wald", d2)
    found |= _tests("mice D2, likelihoods", pool_chi2(ratios, len(TESTED)))
    found |= _tests("mice D3", _likelihood_ratio(draws, with_variance=False))
    large = pool_wald_test(fits, parameters=TESTED, dfcom=np.inf)
    found |= _tests("mitml D1", large)
    found |= _tests("mitml D2", d2)
    found |= _tests("mitml D3", _likelihood_ratio(draws, with_variance=True))

    share = np.array([fit.r_squared for fit in fits])
    adjusted = 1 - (1 - share) * (n - 1) / fits[0].df_resid
    correlations = [draw["bmi"].corr(draw["bp"]) for draw in draws]
    for name, pooled in (
        ("pool.r.squared", pool_r_squared(share, n)),
        ("pool.r.squared, adjusted", pool_r_squared(adjusted, n)),
        ("Fisher's z, correlation", pool_correlation(correlations, n)),
    ):
        found[name] = pooled[["estimate", "lower", "upper"]].to_numpy()
        found[f"{name} fmi"] = pooled["fmi"]
    predicted = pool_predictions(
        draws,
        lambda draw: LeastSquares(draw, NAMES),
        rows,
        variance=LeastSquares.variance,
    )
    found["pool.scalar, predictions"] = predicted.drop(columns="fmi")
    found["pool.scalar, predictions fmi"] = predicted["fmi"]
    found["Monte Carlo error, by b"] = regression.monte_carlo_error
    found["draws needed, by fmi"] = regression.n_draws_needed()
    found["cells, by as.mids"] = np.stack([draw.to_numpy() for draw in draws])
    return found


def _likelihood_ratio(draws, with_variance):
    """D3 of mitml, where the variance is a parameter, or of mice, where it is not."""

    def model(names):
        def fit(draw):
            own = LeastSquares(draw, names)
            return [*own.params, own.rss / own.n] if with_variance else own.params

        def likelihood(p, draw):
            return normal(
                *((p[:-1], p[-1]) if with_variance else (p, None)), draw, names
            )

        return fit, likelihood

    (fit, likelihood), (null, of_null) = model(NAMES), model(KEPT)
    return pool_likelihood_ratio(draws, fit, null, likelihood, of_null, df=len(TESTED))


def by_r(draws, X, rows):
    """All quantities by R, as `ours` has them."""
    with tempfile.TemporaryDirectory() as folder:
        names = ("long", "rows", "found", "again")
        paths = [Path(folder) / f"{name}.csv" for name in names]
        to_long(draws, X).to_csv(paths[0], index=False)
        rows.to_csv(paths[1], index=False)
        command = ["Rscript", str(SCRIPT), *map(str, paths)]
        subprocess.run(command, check=True, capture_output=True)
        table, again = pd.read_csv(paths[2]), from_long(pd.read_csv(paths[3]))
    found = {
        name: part["value"].to_numpy()
        for name, part in table.groupby("quantity", sort=False)
    }
    found["cells, by as.mids"] = np.stack([draw.to_numpy() for draw in again])
    return found


def compare(draws, X):
    """Every quantity, ours and R's, where the two differ most.

    Parameters
    ----------
    draws : list of DataFrame
    X : DataFrame
        The incomplete table.

    Returns
    -------
    DataFrame
        ``quantity``, ``ours``, ``R`` and ``difference``, relative to R's.
    """
    rows = draws[0].head(5).drop(columns="progression")
    left, right = ours(draws, rows), by_r(draws, X, rows)
    if set(left) != set(right):
        raise RuntimeError(f"only one of the two has {set(left) ^ set(right)}.")
    records = []
    for name, value in left.items():
        a, b = np.ravel(np.asarray(value, np.float64)), np.ravel(right[name])
        difference = np.abs(a - b) / np.where(b == 0, 1, np.abs(b))
        k = int(np.argmax(difference))
        records.append((name, a[k], b[k], difference[k]))
    return pd.DataFrame(records, columns=["quantity", "ours", "R", "difference"])


def blocks_of_guide(language):
    """Blocks of code of one language in the page, as one text."""
    pattern = rf"\.\. code-block:: {language}\n\n((?:   .*\n|\n)+)"
    return "\n".join(map(textwrap.dedent, re.findall(pattern, GUIDE.read_text())))


def run_guide():
    """Run the analyses of the page in both languages, and compare them."""
    with tempfile.TemporaryDirectory() as folder:
        # The page leaves its pooled regressions in the variables of these names.
        more = "write.csv(rbind(hc$pooled, tv$pooled), 'pooled.csv')"
        script = f"setwd('{folder}')\n{blocks_of_guide('r')}\n{more}\n"
        command = ["Rscript", "-e", script]
        ran = subprocess.run(command, check=True, capture_output=True, text=True)
        print(ran.stdout)
        code = blocks_of_guide("python")
        for name in ("boys.csv", "long.csv"):
            code = code.replace(name, f"{folder}/{name}")
        names: dict = {}
        exec(compile(code, GUIDE.name, "exec"), names)
        mice = pd.read_csv(Path(folder) / "pooled.csv")
    pooled = [names["hc"], names["tv"]]
    table = pd.concat([one.to_frame() for one in pooled])
    error = np.concatenate([one.monte_carlo_error for one in pooled])
    both = np.hypot(error, np.sqrt(mice["b"] / mice["m"]))
    away = table["estimate"].to_numpy() - mice["estimate"]
    shown = {
        "ours": table["estimate"].to_numpy(),
        "mice": mice["estimate"],
        "standard error": table["standard_error"].to_numpy(),
        "mice's": np.sqrt(mice["t"]),
        "in standard errors": away / np.sqrt(mice["t"]),
        "in Monte-Carlo errors": away / both,
    }
    print(pd.DataFrame(shown).set_index(table.index).round(3).to_string())


def main(arguments=None):
    """Print the agreement with R."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=10, help="number of draws")
    parser.add_argument("--guide", action="store_true", help="analyses of the guide")
    options = parser.parse_args(arguments)
    if not has_r("mice", "mitml"):
        print(SKIPPED)
        return
    table = compare(*completed(options.draws, n_bootstraps=options.draws))
    print(f"{'quantity':34s}{'ours':>20s}{'R':>20s}{'difference':>12s}")
    for name, own, other, difference in table.itertuples(index=False):
        print(f"{name:34s}{own:20.12g}{other:20.12g}{difference:12.1e}")
    print(
        f"{len(table)} quantities, largest difference {table['difference'].max():.1e}"
    )
    if options.guide:
        run_guide()


if __name__ == "__main__":
    main()
