"""Conditional logistic regression of pairs: which of two rows lacks a cell.

Log-odds are linear in differences of the observed cells and in statistics of the cell's
own value, of which only a distribution is given; see `self_masking`. Pairs that share
rows repeat each other, so that their likelihood counts by a weight below 1.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy.special import expit, log_expit

# Exponents of a tilt are cut there, so that sums stay finite.
MAX_EXPONENT = 500.0
# A step whose score statistic is smaller ends a fit.
MIN_STATISTIC = 0.02


def log_odds_of(case, control, statistics, difference, parameters):
    """Log-odds that the case is the missing one, (N,), and their gradient, (N, p).

    ``parameters`` are theta and the weights of the ``difference``, (N, m).
    """
    n_statistics = statistics.shape[1]
    theta, weights = parameters[:n_statistics], parameters[n_statistics:]
    log_odds, gradient = difference @ weights, difference
    if n_statistics:
        growth = np.exp(
            np.clip(statistics @ theta, -MAX_EXPONENT, MAX_EXPONENT)
        )  # (K,)
        moments = growth[:, None] * np.column_stack([np.ones(len(growth)), statistics])
        (case, case_slope), (control, control_slope) = (
            np.split(share @ moments, [1], axis=1) for share in (case, control)
        )
        log_odds = log_odds + np.log(case / control)[:, 0]
        slope = case_slope / case - control_slope / control
        gradient = np.concatenate([slope, difference], 1)
    return log_odds, gradient


def fit_tilt(case, control, statistics, *, precision, pair_weight, least=0.0):
    """Log-odds of being missing, by the posterior mode under a normal prior.

    Parameters
    ----------
    case, control : float arrays of shape (N, K)
        Probabilities of the outcomes of a missing cell and of an observed one, given
        the same cells of their rows.
    statistics : float array of shape (K, p)
        Statistic t of every outcome.
    precision : float
        Precision of the normal prior on theta.
    pair_weight : float or float array of shape (N,)
        Weight of a pair's log-likelihood.
    least : float
        Score statistic, of a chi-squared distribution with p degrees of freedom by
        chance, below which theta is 0.

    Returns
    -------
    float64 array of shape (p,)
    """
    evaluate = partial(log_odds_of, case, control, statistics, np.empty((len(case), 0)))
    start = np.zeros(statistics.shape[1])
    precision = np.full(len(start), precision)
    return fisher_scoring(evaluate, precision, start, pair_weight, least)


def fisher_scoring(evaluate, precision, start, pair_weight, least=0.0, n_iter=25):
    """Parameters of a conditional logistic regression, (p,).

    ``evaluate`` returns the log-odds (N,) of the outcomes and their gradient (N, p);
    ``precision`` (p,) is the precision of the parameters' normal prior, ``pair_weight``
    a weight of all outcomes or one of each, (N,). A first step whose score statistic is
    below ``least`` is not taken.
    """

    def penalised(log_odds, parameters):
        fit = (pair_weight * log_expit(log_odds)).sum()
        return fit - 0.5 * precision @ parameters**2

    parameters = start
    log_odds, gradient = evaluate(parameters)
    best = penalised(log_odds, parameters)
    for iteration in range(n_iter):
        chance = expit(log_odds)
        slope = gradient.T @ (pair_weight * (1 - chance)) - precision * parameters
        weighted = gradient * (pair_weight * chance * (1 - chance))[:, None]
        # The prior's precision keeps the system from being singular.
        step = np.linalg.solve(weighted.T @ gradient + np.diag(precision), slope)
        if slope @ step < (MIN_STATISTIC if iteration else least):
            break
        # Half the step until it helps: the problem need not be concave.
        for _ in range(8):
            trial = parameters + step
            found = evaluate(trial)
            value = penalised(found[0], trial)
            if value >= best:
                break
            step = step / 2
        else:
            break
        parameters, (log_odds, gradient), best = trial, found, value
    return parameters
