"""Do pooled intervals cover? Known models, a regressor missing at random.

    python -m benchmarks.pooled [--designs linear hard ...] [--rows 300] [--repeats 300]
        [--draws 20] [--jobs 2] [--mice pmm cart norm] [--csv FILE]

Each repeat draws a table (a, b, y), loses a with a probability that depends on y,
and estimates the coefficients: on the complete data (for reference), on complete cases,
on a single draw as if it were data, and on draws pooled by Rubin's rules: ours without
and with bootstrapped anchors, and those of R's mice where R has it, of which "norm" is
the true model where everything is linear. Printed are bias in standard deviations of
the estimate, its standard deviation beside the mean standard error, how many of the
95 % intervals cover the truth, and their mean width.

The designs: "linear", y = 1 + 0.5 a - 0.5 b + noise, 40 % of a missing; "hard", the
same, 62 % missing by a steeper function of y; "logistic", a yes or no with the log-odds
0.8 a - 0.6 b; "interaction", with 0.4 a b more; "quadratic", with 0.3 a^2 more.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import joblib
import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import t as student_t

from admc_sklearn import ADMCImputer
from admc_sklearn.pooling import pool_over_draws
from benchmarks._mice import has_mice, mice_draws


@dataclass(frozen=True)
class Design:
    """A model, and how its first regressor is lost.

    Parameters
    ----------
    truth : dict
        Coefficients by the names of their terms.
    lost_at : tuple of float
        Intercept and slope by y of the log-odds that a is lost.
    is_binary : bool
    """

    truth: dict
    lost_at: tuple[float, float] = (-0.55, 1.2)
    is_binary: bool = False

    def terms(self, a, b):
        """Regressors, (n, k)."""
        every = {"intercept": np.ones(len(a)), "a": a, "b": b, "a b": a * b}
        every["a a"] = a * a
        return np.column_stack([every[name] for name in self.truth])

    def table(self, n, seed):
        """Complete rows (a, b, y) and which of them lose a: (n, 3), (n,)."""
        rng = np.random.default_rng(seed)
        b = rng.normal(size=n)
        a = 0.6 * b + 0.8 * rng.normal(size=n)
        mean = self.terms(a, b) @ np.array(list(self.truth.values()))
        if self.is_binary:
            y = (rng.random(n) < expit(mean)).astype(float)
        else:
            y = mean + rng.normal(size=n)
        start, slope = self.lost_at
        lost = rng.random(n) < expit(start + slope * (y - self.truth["intercept"]))
        return np.column_stack([a, b, y]), lost

    def estimate(self, rows):
        """Coefficients, their variances and degrees of freedom."""
        X, y = self.terms(*rows[:, :2].T), rows[:, 2]
        df = len(y) - X.shape[1]
        if self.is_binary:
            return *logistic_regression(X, y), df
        found = np.linalg.lstsq(X, y, rcond=None)[0]
        residual = y - X @ found
        return found, np.diag(np.linalg.inv(X.T @ X)) * (residual @ residual) / df, df


def logistic_regression(X, y):
    """Estimates by Newton's steps, and their variances."""
    found = np.zeros(X.shape[1])
    for _ in range(25):
        p = expit(X @ found)
        information = (X * (p * (1 - p))[:, None]).T @ X
        step = np.linalg.solve(information, X.T @ (y - p))
        found = found + step
        if np.abs(step).max() < 1e-12:
            break
    return found, np.diag(np.linalg.inv(information))


LINEAR = {"intercept": 1.0, "a": 0.5, "b": -0.5}
DESIGNS = {
    "linear": Design(LINEAR),
    "hard": Design(LINEAR, (0.9, 2.5)),
    "logistic": Design({"intercept": 0.0, "a": 0.8, "b": -0.6}, (-1.0, 1.2), True),
    "interaction": Design(LINEAR | {"a b": 0.4}),
    "quadratic": Design(LINEAR | {"a a": 0.3}),
}
MICE = ["pmm", "cart", "norm"]


def simulate(seed, n_draws=20, design="linear", n_rows=300, mice=(), **parameters):
    """One repeat: a row for every method and coefficient.

    Parameters
    ----------
    mice : sequence of str
        Methods of R's mice that take part.
    parameters : dict
        Parameters of `ADMCImputer`.
    """
    model = DESIGNS[design]
    rows, lost = model.table(n_rows, seed)
    incomplete = rows.copy()
    incomplete[lost, 0] = np.nan
    draws = {
        name: ADMCImputer(random_state=seed, n_bootstraps=n, **parameters)
        .fit(incomplete)
        .sample(incomplete, n_draws)
        for name, n in {"pooled, one anchor": 0, "pooled": n_draws}.items()
    }
    for method in mice:
        found = mice_draws(incomplete, incomplete, n_draws, method, seed)
        draws[f"mice, {method}"] = list(found)
    single = {
        "complete data": rows,
        "complete cases": rows[~lost],
        "one draw": draws["pooled, one anchor"][0],
    }
    found = {}
    for name, data in single.items():
        estimate, variance, df = model.estimate(data)
        error = np.sqrt(variance)
        found[name] = estimate, error, student_t.ppf(0.975, df) * error
    for name, many in draws.items():
        pooled = pool_over_draws(many, model.estimate)
        half = (pooled.conf_int[:, 1] - pooled.conf_int[:, 0]) / 2
        found[name] = pooled.estimate, pooled.standard_error, half
    truth = np.array(list(model.truth.values()))
    parts = [
        pd.DataFrame(
            {
                "method": name,
                "coefficient": list(model.truth),
                "truth": truth,
                "estimate": estimate,
                "error": error,
                "width": 2 * half,
                "covered": np.abs(estimate - truth) < half,
            }
        )
        for name, (estimate, error, half) in found.items()
    ]
    return pd.concat(parts).assign(seed=seed, design=design, rows=n_rows)


def summary(frame):
    """Bias in standard deviations, spread beside standard error, coverage, width."""
    records, keys = [], ["design", "rows", "method", "coefficient"]
    for key, part in frame.groupby(keys, sort=False):
        estimate = part["estimate"]
        bias = estimate.mean() - part["truth"].iloc[0]
        record = dict(zip(keys, key, strict=True))
        record |= {"bias / sd": bias / estimate.std(), "sd": estimate.std()}
        record |= {"standard error": part["error"].mean()}
        record |= {"coverage": part["covered"].mean(), "width": part["width"].mean()}
        records.append(record)
    return pd.DataFrame(records).set_index(keys)


def main(words=None):
    """Repeat, and print the summary."""
    from benchmarks import pooled  # other processes do not know what __main__ is

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--designs", nargs="+", default=["linear"], choices=DESIGNS)
    parser.add_argument("--rows", nargs="+", type=int, default=[300])
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--epochs", type=int, help="max_epochs; 0 is the anchor alone")
    parser.add_argument("--mice", nargs="*", default=MICE, choices=MICE)
    parser.add_argument("--csv", help="where every repeat is written")
    options = parser.parse_args(words)
    mice = options.mice if has_mice() else []
    if len(mice) < len(options.mice):
        print("R's mice is not installed: it is left out.")
    extra = {} if options.epochs is None else {"max_epochs": options.epochs}
    frames = []
    for design in options.designs:
        for n_rows in options.rows:
            frames += joblib.Parallel(n_jobs=options.jobs)(
                joblib.delayed(pooled.simulate)(
                    seed, options.draws, design, n_rows, mice, **extra
                )
                for seed in range(options.repeats)
            )
            print(summary(pd.concat(frames[-options.repeats :])).round(3).to_string())
            if options.csv:
                pd.concat(frames).to_csv(options.csv, index=False)


if __name__ == "__main__":
    main()
