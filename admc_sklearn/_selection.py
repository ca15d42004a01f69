"""Cells that are missing because of their own values, told from who is missing.

If the log-odds of a cell's being missing are a + t(x) theta, with x its value, Bayes'
rule gives two things at once. The distribution of a missing cell, given the rest z of
its row, is that of an observed one, tilted:

    p(x | z, missing)  proportional to  p(x | z, observed) exp(t(x) theta)

and whether it is missing follows from the rest of the row as

    log-odds(missing | z)  =  a + log E[exp(t(x) theta) | z, observed]

so that theta can be estimated from the pattern of missing cells, by the network's own
distribution of observed ones (exponential tilting: Kim and Yu, 2011, JASA 106). t is
the value of a numeric cell, in standard deviations, and the level of a categorical one.

Nothing in a table proves such a mechanism, but it competes: with one in which nothing
decides (then theta is 0), and with one in which the observed cells of the row do, by a
logistic model. Only where it tells best who is missing, or nearly so and something that
the observed cells do not, are the posteriors tilted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.special import expit, log_expit, logit, logsumexp

from ._posterior import NumericHead

MAX_ROWS = 2000
MAX_CELLS = 400_000
# Observed cells are hidden in so many turns, to stand beside those that are missing.
N_TURNS = 8
# Fewer cells of either kind say nothing.
MIN_CELLS = 20
MAX_LEVELS = 50
# Columns that may decide who is missing, in the rival model.
MAX_REASONS = 30
# Columns that the mechanisms compete for; more would cost much and tell the same.
MAX_COMPETING = 64
# Of normal priors: on theta, and on the rival's weights.
PRECISION = 1.0
# Beyond so many standard deviations a tilt grows no more.
MAX_VALUE = 6.0
# Share of the rival's gain that a tilt must reach: the rival sees an eighth more cells.
# Chosen on Gaussian tables of three columns, where the two are hardest to tell apart.
AS_GOOD = 0.9
# Less is enough where it adds so many nats to the rival's gain, and that share of it.
NEARLY_AS_GOOD, MIN_ADDED, ADDED = 0.8, 10.0, 0.04
# Share that makes an untrained network's tilts suspicious: 0.1 where observed cells
# decide (gesture, the table with the most columns), 0.65 and more where their own do.
SUSPICIOUS = 0.4
# Nats by which tilting must be better than nothing, its parameters paid for.
MIN_EVIDENCE = 3.0


@dataclass(frozen=True)
class Selection:
    """How the chance of being missing depends on the value.

    Attributes
    ----------
    tilts : list of float tensor (g, 1, K)
        Log-odds of every outcome of each head, 0 where nothing is known.
    slopes : float64 array of shape (d,)
        Change of the log-odds by a standard deviation of a numeric column; of a
        categorical one the standard deviation of its levels' log-odds.
    """

    tilts: list
    slopes: np.ndarray


def find_selection(network, values, observed, generator, *, decide=True):
    """Estimate the tilts of a network's posteriors from who is missing.

    Parameters
    ----------
    network : CompletionNetwork
    values : float tensor of shape (n, d), warped, on the network's device
    observed : bool tensor of shape (n, d)
    generator : torch.Generator on the CPU
    decide : bool
        Whether other mechanisms compete. Otherwise tilts are taken as estimated.

    Returns
    -------
    Selection or None
        None where another mechanism tells as well who is missing.
    """
    found, gain, rival_gain, added = _compete(
        network, values, observed, generator, decide
    )
    if not found.slopes.any():
        return None
    return found if not decide or _is_better(gain, rival_gain, added) else None


def is_suspected(network, values, observed, generator):
    """Whether cells may well be missing because of their own values.

    Asked before the network is trained, when evidence is weaker. Parameters are those
    of `find_selection`.
    """
    _, gain, rival_gain, _ = _compete(network, values, observed, generator, True)
    return gain >= max(MIN_ADDED, SUSPICIOUS * rival_gain)


def _compete(network, values, observed, generator, decide):
    """Estimate the tilts, and the evidence in nats of a competition.

    Returns
    -------
    found : Selection
    gain, rival_gain : float
        Of the tilts and of the rival, on nothing.
    added : float
        Of the tilts beside the rival, on the rival.
    """
    values, observed, kept, asked = _deal(values, observed, generator)
    # It sees the hidden cells too: in doubt, what is missing is missing at random.
    rival = _ObservedReasons(network, values, observed)
    tilts = [torch.zeros(len(h.columns), 1, h.n_outcomes) for h in network.heads]
    slopes = np.zeros(observed.shape[1])
    gain, rival_gain, added = 0.0, 0.0, 0.0
    competing = np.ones(len(slopes), dtype=bool)
    if decide and len(slopes) > MAX_COMPETING:
        competing[:] = False
        order = torch.randperm(len(slopes), generator=generator).numpy()
        competing[order[:MAX_COMPETING]] = True
    for cells in _cells(network, values, observed, kept, asked):
        scores, n_free = _outcome_scores(cells.head, cells.slot)
        if scores is None or cells.n_rarer < MIN_CELLS:
            continue
        log_share = cells.log_share[:, : len(scores)]
        theta, nats = fit_tilt(log_share, cells.missing, scores)
        tilt = scores @ theta
        tilts[cells.k][cells.slot, 0, : len(tilt)] = torch.as_tensor(tilt)
        slopes[cells.column] = theta[0] if theta.shape == (1,) else tilt.std()
        if not competing[cells.column]:
            continue
        gain += max(0.0, nats - n_free * cells.price)
        if decide:
            told, reasons = rival.evidence(cells)
            _, nats = fit_tilt(log_share, cells.missing, scores, reasons)
            n_free += reasons.shape[1]
            added += max(0.0, nats - n_free * cells.price - told)
            rival_gain += told
    return Selection(tilts, slopes), gain, rival_gain, added


def _is_better(gain, rival_gain, added):
    """Whether tilts tell who is missing better than the rival, by evidence in nats.

    ``added`` is what they tell beside it.
    """
    share = AS_GOOD
    if added >= max(MIN_ADDED, ADDED * rival_gain):
        share = NEARLY_AS_GOOD
    return gain >= max(MIN_EVIDENCE, share * rival_gain)


@dataclass(frozen=True)
class _Cells:
    """Cells of one column, missing ones and hidden ones.

    Shape of ``rows`` and ``missing``: (n,); of ``log_share``, the log-probability of
    every outcome given the rest of the row: (n, K).
    """

    k: int  # of the head
    head: torch.nn.Module
    slot: int
    rows: np.ndarray
    missing: np.ndarray
    log_share: np.ndarray

    @property
    def column(self):
        return int(self.head.columns[self.slot])

    @property
    def price(self):
        """Nats that a parameter must gain (Schwarz, 1978)."""
        return np.log(len(self.missing)) / 2

    @property
    def n_rarer(self):
        """Number of the missing cells, or of the others where those are fewer."""
        n_missing = int(self.missing.sum())
        return min(n_missing, len(self.missing) - n_missing)


def _deal(values, observed, generator):
    """Take some rows several times, asking for other cells of theirs each time.

    Every cell is asked for once: a missing one, and an observed one, which is hidden
    then. Returns values, observed, kept and asked cells, (N_TURNS * n, d).
    """
    n, d = observed.shape
    limit = min(n, MAX_ROWS, max(MIN_CELLS, MAX_CELLS // d))
    rows = torch.randperm(n, generator=generator)[:limit]
    turn = torch.randint(N_TURNS, (1, limit, d), generator=generator)
    asked = turn == torch.arange(N_TURNS)[:, None, None]
    asked = asked.flatten(0, 1).to(observed.device)
    rows = rows.repeat(N_TURNS).to(observed.device)
    values, observed = values[rows], observed[rows]
    return values, observed, observed & ~asked, asked


@torch.no_grad()
def _cells(network, values, observed, kept, asked):
    """Yield `_Cells` of every column: the cells that `_deal` asks for."""
    network.eval()
    found = {}
    for part in network.row_batches(len(values)):
        for posterior in network(values[part], kept[part], asked[part]):
            for column, piece in _pieces(posterior, observed[part], part.start):
                found.setdefault(column, []).append(piece)
    for k, head in enumerate(network.heads):
        for slot, column in enumerate(head.columns.tolist()):
            if column in found:
                pieces = zip(*found.pop(column), strict=True)
                yield _Cells(k, head, slot, *map(np.concatenate, pieces))


def _pieces(posterior, observed, first_row):
    """Yield each column of a posterior with its cells: see the arrays of `_Cells`."""
    cells = posterior.cells
    log_share = torch.log_softmax(posterior.logits, -1).cpu().numpy()
    missing = (~cells.gather(observed)).cpu().numpy()
    rows = cells.rows.cpu().numpy() + first_row
    filled = cells.filled.cpu().numpy()
    for slot, column in enumerate(cells.columns[:, 0].tolist()):
        own = filled[slot]
        yield column, (rows[slot, own], missing[slot, own], log_share[slot, own])


def _outcome_scores(head, slot):
    """Statistic of every outcome that its log-odds are linear in, (K, p).

    And how many of the p parameters are free: log-odds of levels are told apart only
    from each other. None where there is nothing to estimate.
    """
    if isinstance(head, NumericHead):
        center = head.atoms.center[slot][head.atoms.valid[slot]].cpu().double().numpy()
        return center[:, None].clip(-MAX_VALUE, MAX_VALUE), 1
    n_levels = int((head.share[slot] > 0).sum())
    if not 2 <= n_levels <= MAX_LEVELS:
        return None, 0
    return np.eye(n_levels), n_levels - 1


def fit_tilt(log_share, missing, scores, reasons=None):
    """Log-odds of being missing, by the posterior mode under a normal prior.

    Parameters
    ----------
    log_share : float array of shape (n, K)
        Log-probabilities of a cell's outcomes.
    missing : bool array of shape (n,)
    scores : float array of shape (K, p)
        Statistic t of every outcome.
    reasons : float array of shape (n, m), optional
        What else the log-odds of being missing are linear in.

    Returns
    -------
    theta : float64 array of shape (p,)
    gain : float
        Log-likelihood over that without theta and reasons, in nats.
    """
    log_share, y = log_share.astype(np.float64), missing.astype(np.float64)
    if reasons is None:
        reasons = np.empty((len(y), 0))
    tilting = slice(1, 1 + scores.shape[1])

    def evaluate(parameters):
        tilted = log_share + scores @ parameters[tilting]
        log_mean = logsumexp(tilted, axis=1)
        share = np.exp(tilted - log_mean[:, None])
        log_odds = parameters[0] + log_mean + reasons @ parameters[tilting.stop :]
        return log_odds, np.column_stack([np.ones(len(y)), share @ scores, reasons])

    start = np.zeros(tilting.stop + reasons.shape[1])
    start[0] = logit(y.mean())
    parameters, gain = _fisher_scoring(evaluate, y, start)
    return parameters[tilting], gain


def _fisher_scoring(evaluate, y, parameters, n_iter=25):
    """Parameters of a binary regression, and its gain over the first ones in nats.

    ``evaluate`` returns the log-odds (n,) and their gradient (n, 1 + p); all but the
    intercept have a normal prior.
    """
    precision = _prior_precision(len(parameters))

    def penalised(log_odds, parameters):
        nats = log_expit(np.where(y > 0, log_odds, -log_odds)).sum()
        return nats, nats - 0.5 * precision @ parameters**2

    log_odds, gradient = evaluate(parameters)
    first, best = penalised(log_odds, parameters)
    nats = first
    for _ in range(n_iter):
        chance = expit(log_odds)
        slope = gradient.T @ (y - chance) - precision * parameters
        weighted = gradient * (chance * (1 - chance))[:, None]
        step = np.linalg.solve(weighted.T @ gradient + np.diag(precision), slope)
        # Half the step until it helps: the problem need not be concave.
        for _ in range(8):
            trial = parameters + step
            found = evaluate(trial)
            value = penalised(found[0], trial)
            if value[1] >= best:
                break
            step = step / 2
        else:
            break
        progress = value[1] - best
        parameters, (log_odds, gradient), (nats, best) = trial, found, value
        if progress < 1e-4:
            break
    return parameters, nats - first


class _ObservedReasons:
    """The rival mechanism: observed cells decide, by a logistic model."""

    def __init__(self, network, values, observed):
        coordinates = network.anchor.coordinates
        self.column = coordinates.column.cpu().numpy()
        home = network.anchor.home
        x, seen = coordinates.base(values.to(home), observed.to(home))
        table = torch.where(seen, x, 0.0).double().cpu().numpy()
        spread = table.std(axis=0)
        self.table = (table - table.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        self.usable = spread > 0

    def evidence(self, cells):
        """Nats by which it is better than nothing, less the price of its parameters.

        And the reasons, (n, m), which are added one by one, that with the steepest
        likelihood first, as long as they are worth their price.
        """
        table = self.table[cells.rows][:, self.usable & (self.column != cells.column)]
        y = cells.missing.astype(np.float64)
        chosen = np.ones((len(y), 1))
        log_odds, best, reasons = np.full(len(y), logit(y.mean())), 0.0, chosen[:, 1:]
        for _ in range(min(MAX_REASONS, table.shape[1])):
            promise, reason = _most_promising(table, chosen, log_odds, y)
            if promise <= cells.price:
                break
            chosen = np.column_stack([chosen, table[:, reason]])
            table = np.delete(table, reason, axis=1)
            start = np.append(logit(y.mean()), np.zeros(chosen.shape[1] - 1))
            regression = partial(_linear, chosen)
            weights, nats = _fisher_scoring(regression, y, start)
            log_odds = chosen @ weights
            nats -= (len(weights) - 1) * cells.price
            if nats > best:
                best, reasons = nats, chosen[:, 1:]
        return best, reasons


def _linear(table, weights):
    return table @ weights, table


def _prior_precision(size):
    """Precision of the normal prior of weights, the first being the intercept."""
    precision = np.full(size, PRECISION)
    precision[0] = 1e-6
    return precision


def _most_promising(table, chosen, log_odds, y):
    """Column to add to a logistic regression, and the nats that its score promises."""
    chance = expit(log_odds)
    weighted = chosen * (chance * (1 - chance))[:, None]
    overlap = weighted.T @ table
    # Chosen columns may follow from each other: their prior keeps this solvable.
    among = weighted.T @ chosen + np.diag(_prior_precision(chosen.shape[1]))
    known = np.einsum("kj,kj->j", overlap, np.linalg.solve(among, overlap))
    spread = (chance * (1 - chance)) @ table**2 - known
    promise = ((y - chance) @ table) ** 2 / (2 * spread + PRECISION)
    return promise.max(), promise.argmax()
