"""Do pooled intervals cover? A linear model with 40 % of a regressor missing (MAR).

    python -m benchmarks.pooled [--repeats 300] [--draws 20] [--jobs 2]

Each repeat draws 300 rows of y = 1 + 0.5 a - 0.5 b + noise, loses a with a probability
that depends on y, and estimates the coefficients by least squares: on the complete data
(for reference), on complete cases, on a single draw as if it were data, and on draws
pooled by Rubin's rules, with and without bootstrapped anchors. Printed are bias in
standard errors, the estimates' standard deviation beside the mean standard error, and
how many of the 95 % intervals cover the truth.
"""

from __future__ import annotations

import argparse

import joblib
import numpy as np
import pandas as pd
from scipy.stats import t as student_t

from admc_sklearn import ADMCImputer
from admc_sklearn.pooling import pool_over_draws

N_ROWS = 300
TRUTH = np.array([1.0, 0.5, -0.5])


def table(seed):
    """Complete rows (a, b, y) and which of them lose a: (300, 3), (300,)."""
    rng = np.random.default_rng(seed)
    b = rng.normal(size=N_ROWS)
    a = 0.6 * b + 0.8 * rng.normal(size=N_ROWS)
    y = np.column_stack([np.ones(N_ROWS), a, b]) @ TRUTH + rng.normal(size=N_ROWS)
    lost = rng.random(N_ROWS) < 1 / (1 + np.exp(0.55 - 1.2 * (y - 1)))
    return np.column_stack([a, b, y]), lost


def least_squares(rows):
    """Coefficients, their variances and degrees of freedom."""
    A = np.column_stack([np.ones(len(rows)), rows[:, :-1]])
    y = rows[:, -1]
    estimate = np.linalg.lstsq(A, y, rcond=None)[0]
    residual = y - A @ estimate
    df = len(y) - A.shape[1]
    return estimate, np.diag(np.linalg.inv(A.T @ A)) * (residual @ residual) / df, df


def simulate(seed, n_draws=20, **parameters):
    """One repeat: a row for every method and coefficient."""
    rows, lost = table(seed)
    incomplete = rows.copy()
    incomplete[lost, 0] = np.nan
    draws = {
        n: ADMCImputer(random_state=seed, n_bootstraps=n, **parameters)
        .fit(incomplete)
        .sample(incomplete, n_draws)
        for n in (0, n_draws)
    }
    single = {
        "complete data": rows,
        "complete cases": rows[~lost],
        "one draw": draws[0][0],
    }
    found = {}
    for name, data in single.items():
        estimate, variance, df = least_squares(data)
        error = np.sqrt(variance)
        found[name] = estimate, error, student_t.ppf(0.975, df) * error
    for name, n in {"pooled, one anchor": 0, "pooled": n_draws}.items():
        pooled = pool_over_draws(draws[n], least_squares)
        half = (pooled.conf_int[:, 1] - pooled.conf_int[:, 0]) / 2
        found[name] = pooled.estimate, pooled.standard_error, half
    parts = [
        pd.DataFrame(
            {
                "method": name,
                "coefficient": ["intercept", "a", "b"],
                "estimate": estimate,
                "error": error,
                "covered": np.abs(estimate - TRUTH) < half,
            }
        )
        for name, (estimate, error, half) in found.items()
    ]
    return pd.concat(parts).assign(seed=seed)


def summary(frame):
    """Bias in standard errors, spread beside standard error, coverage."""
    truth = dict(zip(["intercept", "a", "b"], TRUTH, strict=True))
    records = []
    for (method, name), part in frame.groupby(["method", "coefficient"], sort=False):
        estimate = part["estimate"]
        records.append(
            {
                "method": method,
                "coefficient": name,
                "bias / sd": (estimate.mean() - truth[name]) / estimate.std(),
                "sd": estimate.std(),
                "standard error": part["error"].mean(),
                "coverage": part["covered"].mean(),
            }
        )
    return pd.DataFrame(records).set_index(["method", "coefficient"])


def main():
    """Repeat, and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--epochs", type=int, help="max_epochs; 0 is the anchor alone")
    options = parser.parse_args()
    extra = {} if options.epochs is None else {"max_epochs": options.epochs}
    frames = joblib.Parallel(n_jobs=options.jobs)(
        joblib.delayed(simulate)(seed, options.draws, **extra)
        for seed in range(options.repeats)
    )
    print(summary(pd.concat(frames)).round(3).to_string())


if __name__ == "__main__":
    main()
