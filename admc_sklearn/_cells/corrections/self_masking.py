"""Cells that are missing because of their own values, recognised by who is missing.

If the log-odds of a cell's being missing are a + t(x) theta, with x its value, Bayes'
rule gives two things at once. The distribution of a missing cell, given the rest z of
its row, is that of an observed one, tilted:

    p(x | z, missing)  proportional to  p(x | z, observed) exp(t(x) theta)

and whether it is missing follows from the rest of the row as

    log-odds(missing | z)  =  a + L(z),   L(z) = log E[exp(t(x) theta) | z, observed]

so that theta can be estimated from the pattern of missing cells, by the network's own
distribution of observed ones (exponential tilting: Kim and Yu, 2011, JASA 106). t is
the value of a numeric cell, in standard deviations, and the level of a categorical one.

Columns are often lost together, and then the rest of a row in which a cell is missing
is another than that of a row in which it is observed: fewer columns are left, L(z) is
larger for that reason alone, and any slope explains the pattern. So rows are compared
in pairs. Both rows of a pair lose what either of them lacks; of every column that one
of them has and the other one lacks,

    P(the first one lacks it | one of them does)  =  sigmoid(L(z_1) - L(z_2))

with the same cells left in z_1 and z_2 (matched cases and controls: Breslow et al.,
1978, Am. J. Epidemiology 108). Where whole patterns fall on rows by chance the rows of
a pair can be exchanged, and no slope explains anything, however patterns look.

Nothing in a table proves such a mechanism, but it competes: with one in which nothing
decides (then theta is 0), and with one in which the observed cells of the row do, by a
logistic model. Each is fitted to the pairs of some of the rows and judged on those of
the others. Only where tilts say best who is missing, or nearly so and something
that the observed cells do not, are the posteriors tilted. Columns that are lost
together are one event of a row: rows are the units of what is significant, not cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.special import log_expit

from ..._shared.contract import Correction
from ..._shared.held_out import is_gain
from ..network.heads import NumericHead
from .pair_regression import (
    N_TURNS,
    PAIR_WEIGHT,
    PRECISION,
    fisher_scoring,
    fit_tilt,
    log_odds_of,
)

MAX_ROWS = 2000
MAX_CELLS = 400_000
# Parts of the rows, each with pairs of its own.
N_PARTS = 4
# Where the score statistic is no more than chance makes it, one a parameter, nothing
# can be gained on held-out rows.
CHANCE_STATISTIC = 1.0
# Fewer cells of either kind say nothing.
MIN_CELLS = 20
MAX_LEVELS = 50
# Columns that the mechanisms compete for; more would cost much and tell the same.
MAX_COMPETING = 64
# Of normal priors on the rival's weights, the best of which counts.
RIVAL_PRECISIONS = (1.0, 10.0, 100.0)
# Beyond so many standard deviations a tilt grows no more.
MAX_VALUE = 6.0
# Share of the rival's gain that a tilt must reach.
# Chosen on Gaussian tables of three columns, where the two are hardest to tell apart.
AS_GOOD = 0.9
# Less is enough where it adds so many nats to the rival's gain, and that share of it.
NEARLY_AS_GOOD, MIN_ADDED, ADDED = 0.8, 10.0, 0.04
# Share that makes an untrained network's tilts suspicious: 0.1 where observed cells
# decide (gesture, the table with the most columns), 0.65 and more where their own do.
SUSPICIOUS = 0.4
# Nats by which tilting must be better than nothing on held-out rows.
MIN_EVIDENCE = 3.0
# And standard errors of that gain, rows being the units.
MIN_STANDARD_ERRORS = 3.0


class SelfMasking(Correction):
    """Tilts posteriors of cells that are missing because of their own values.

    Parameters
    ----------
    tilts : list of float tensor (g, 1, K)
        Log-odds of every outcome of each head, 0 where nothing is known.
    slopes : float64 array of shape (d,)
        Change of the log-odds by a standard deviation of a numeric column; of a
        categorical one the standard deviation of its levels' log-odds.
    """

    def __init__(self, tilts, slopes):
        super().__init__()
        self.slopes = slopes
        for k, tilt in enumerate(tilts):
            self.register_buffer(f"tilt_{k}", tilt.float())

    def apply(self, posteriors, rows, network):
        """Add the log-odds of being missing to those of the outcomes."""
        del rows, network
        return [
            posterior.with_logits(
                posterior.logits + getattr(self, f"tilt_{posterior.head}")
            )
            for posterior in posteriors
        ]


@dataclass(frozen=True)
class Evidence:
    """What mechanisms gain on held-out rows, in nats.

    Attributes
    ----------
    gain, rival_gain : float
        Of the tilts and of the rival, over nothing.
    added : float
        Of the tilts beside the rival, over the rival.
    is_certain : bool
        Whether the gain of the tilts is more than chance.
    """

    gain: float
    rival_gain: float
    added: float
    is_certain: bool

    @property
    def is_better(self):
        """Whether tilts say who is missing better than the rival does."""
        share = AS_GOOD
        if self.added >= max(MIN_ADDED, ADDED * self.rival_gain):
            share = NEARLY_AS_GOOD
        least = max(MIN_EVIDENCE, share * self.rival_gain)
        return self.is_certain and self.gain >= least

    @property
    def is_suspicious(self):
        """Whether a better network might find that tilts are better."""
        least = max(MIN_ADDED, SUSPICIOUS * self.rival_gain)
        return self.is_certain and self.gain >= least


def fit_self_masking(network, rows, generator, *, decide=True):
    """Estimate the tilts of a network's posteriors from who is missing.

    Parameters
    ----------
    network : CompletionNetwork
    rows : Rows
        Tensors in the network's coordinates, on its device.
    generator : torch.Generator on the CPU
    decide : bool
        Whether other mechanisms compete. Otherwise tilts are taken as estimated.

    Returns
    -------
    SelfMasking or None
        None where another mechanism says as well who is missing.
    """
    found, evidence = _compete(network, rows, generator, decide)
    if not found.slopes.any():
        return None
    if decide and not evidence.is_better:
        return None
    return found.to(rows.values.device)


def is_suspected(network, rows, generator):
    """Whether cells may well be missing because of their own values.

    For a network that is not trained yet, when evidence is weaker. Parameters are those
    of `fit_self_masking`.
    """
    _, evidence = _compete(network, rows, generator, True)
    return evidence.is_suspicious


def _compete(network, rows, generator, decide):
    """Estimate the tilts, and the `Evidence` of a competition if they compete."""
    pairs = Pairs.deal(rows.values, rows.observed, generator)
    d = rows.observed.shape[1]
    tilts = [torch.zeros(len(h.columns), 1, h.n_outcomes) for h in network.heads]
    slopes = np.zeros(d)
    if not pairs.n:  # there are too few rows, or none that have a cell in common
        return SelfMasking(tilts, slopes), Evidence(0.0, 0.0, 0.0, False)
    own, rival, both = np.zeros((3, pairs.n))
    competing = torch.randperm(d, generator=generator)[:MAX_COMPETING].tolist()
    reasons = _observed_reasons(network, pairs)
    for cells in _cells(network, pairs):
        scores = _outcome_scores(cells.head, cells.slot)
        if scores is None:
            continue
        least = CHANCE_STATISTIC * scores.shape[1] if decide else 0.0
        theta = fit_tilt(cells.case, cells.control, scores, least)
        if decide and cells.column in competing:
            gain, rival_gain, both_gain = cells.held_out_gains(scores, reasons, theta)
            own[cells.pair] += gain
            rival[cells.pair] += rival_gain
            both[cells.pair] += both_gain
            if gain.sum() <= 0:
                continue
        tilt = scores @ theta
        tilts[cells.k][cells.slot, 0, : len(tilt)] = torch.as_tensor(tilt)
        slopes[cells.column] = theta[0] if theta.shape == (1,) else tilt.std()
    evidence = Evidence(
        own.sum(),
        max(0.0, rival.sum()),
        both.sum() - max(0.0, rival.sum()),
        bool(is_gain(torch.as_tensor(pairs.by_row(own)), MIN_STANDARD_ERRORS)),
    )
    return SelfMasking(tilts, slopes), evidence


@dataclass(frozen=True)
class Pairs:
    """Rows in pairs, P of them, each row in several; both lose what either lacks.

    The first rows of all pairs stand before the second ones. Shape of ``rows``, places
    in the table: (2 P,); of ``values``, ``observed``, the cells ``kept`` in both rows
    and those ``compared``, observed in one row alone: (2 P, d); of ``fold``, the part
    of the rows that a pair is from: (P,).
    """

    rows: torch.Tensor
    values: torch.Tensor
    observed: torch.Tensor
    kept: torch.Tensor
    compared: torch.Tensor
    fold: np.ndarray

    @property
    def n(self):
        """Number of pairs."""
        return len(self.fold)

    @classmethod
    def deal(cls, values, observed, generator):
        """Pair rows at random, several times, within every part of them."""
        n, d = observed.shape
        half = min(n, MAX_ROWS, max(2 * MIN_CELLS, MAX_CELLS // d)) // (2 * N_PARTS)
        rows = torch.randperm(n, generator=generator)[: 2 * N_PARTS * half]
        rows, turns = rows.view(N_PARTS, -1), []
        for _ in range(N_TURNS):
            order = torch.rand(rows.shape, generator=generator).argsort(1)
            turns.append(rows.gather(1, order).view(N_PARTS, 2, half))
        rows = torch.stack(turns).permute(2, 0, 1, 3)  # (2, turns, parts, half)
        fold = np.tile(np.repeat(np.arange(N_PARTS), half), N_TURNS)
        rows = rows.flatten().to(observed.device)
        seen = observed[rows]
        one, other = seen.view(2, -1, d)
        kept = (one & other).repeat(2, 1)
        return cls(rows, values[rows], seen, kept, (one ^ other).repeat(2, 1), fold)

    def by_row(self, gains):
        """Gains of pairs, (P,), shared out to the rows in them."""
        _, place = np.unique(self.rows.cpu().numpy(), return_inverse=True)
        return np.bincount(place, np.tile(gains / 2, 2))


@dataclass(frozen=True)
class _Cells:
    """Pairs of cells of one column, a missing one (case) and an observed one (control).

    Shape of ``pair``, which pair they are from, and of ``fold``: (N,); of ``case`` and
    ``control``, probabilities of every outcome given what both rows kept: (N, K).
    """

    k: int  # of the head
    head: torch.nn.Module
    slot: int
    pair: np.ndarray
    fold: np.ndarray
    case: np.ndarray
    control: np.ndarray
    sign: np.ndarray  # 1 where the first row of the pair is the case, else -1

    @property
    def column(self):
        return int(self.head.columns[self.slot])

    def held_out_gains(self, scores, reasons, theta):
        """Nats that tilts, rival and both gain in every pair, (N,) three times.

        Every part of the rows by what the others teach. ``theta`` (p,) is where tilts
        are looked for.
        """
        difference = self.sign[:, None] * reasons[self.pair]
        difference = difference[:, difference.any(0)]
        trials = [
            (self._held_out(scores[:, :0], difference, precision), precision)
            for precision in RIVAL_PRECISIONS
        ]
        rival, precision = max(trials, key=lambda trial: trial[0].sum())
        if rival.sum() <= 0:
            rival, difference = np.zeros_like(rival), difference[:, :0]
        if not theta.any():
            return np.zeros_like(rival), rival, rival
        own = self._held_out(scores, difference[:, :0], PRECISION, theta)
        if not difference.shape[1]:
            return own, rival, own
        return own, rival, self._held_out(scores, difference, precision, theta)

    def _held_out(self, scores, difference, precision, theta=()):
        size = difference.shape[1]
        precision = np.repeat([PRECISION, precision], [scores.shape[1], size])
        start = np.concatenate([theta, np.zeros(size)])
        gains = np.zeros(len(self.pair))
        for fold in range(N_PARTS):
            taught, held = (
                (self.case[rows], self.control[rows], scores, difference[rows])
                for rows in (self.fold != fold, self.fold == fold)
            )
            found = fisher_scoring(partial(log_odds_of, *taught), precision, start)
            log_odds, _ = log_odds_of(*held, found)
            gains[self.fold == fold] = PAIR_WEIGHT * (log_expit(log_odds) + np.log(2))
        return gains


@torch.no_grad()
def _cells(network, pairs):
    """Yield `_Cells` of every column that has enough of them."""
    network.eval()
    found = {}
    for part in network.row_batches(len(pairs.rows)):
        rows = pairs.values[part], pairs.kept[part], pairs.compared[part]
        for posterior in network(*rows):
            for column, piece in _pieces(posterior, pairs.observed[part], part.start):
                found.setdefault(column, []).append(piece)
    for k, head in enumerate(network.heads):
        for slot, column in enumerate(head.columns.tolist()):
            if column not in found:
                continue
            rows, seen, share = map(
                np.concatenate, zip(*found.pop(column), strict=True)
            )
            _, place = np.unique(pairs.rows[rows].cpu().numpy(), return_index=True)
            n_seen = int(seen[place].sum())
            if min(n_seen, len(place) - n_seen) < MIN_CELLS:
                continue
            # Rows are in order: the first ones of the pairs, then the second ones.
            n = len(rows) // 2
            pair, first_lacks = rows[:n], ~seen[:n, None]
            one, other = share[:n].astype(np.float64), share[n:].astype(np.float64)
            yield _Cells(
                k,
                head,
                slot,
                pair,
                pairs.fold[pair],
                np.where(first_lacks, one, other),
                np.where(first_lacks, other, one),
                np.where(first_lacks[:, 0], 1.0, -1.0),
            )


def _pieces(posterior, observed, first_row):
    """Yield each column of a posterior with its cells.

    Their rows and whether they are observed, (n,) twice, and the probabilities of their
    outcomes, (n, K).
    """
    cells = posterior.cells
    share = torch.softmax(posterior.logits, -1).cpu().numpy()
    seen = cells.gather(observed).cpu().numpy()
    rows = cells.rows.cpu().numpy() + first_row
    filled = cells.filled.cpu().numpy()
    for slot, column in enumerate(cells.columns[:, 0].tolist()):
        own = filled[slot]
        yield column, (rows[slot, own], seen[slot, own], share[slot, own])


def _outcome_scores(head, slot):
    """Statistic of every outcome that its log-odds are linear in, (K, p).

    None where there is nothing to estimate.
    """
    if isinstance(head, NumericHead):
        center = head.atoms.center[slot].cpu().double().numpy()
        return center[:, None].clip(-MAX_VALUE, MAX_VALUE)
    n_levels = int((head.share[slot] > 0).sum())
    if not 2 <= n_levels <= MAX_LEVELS:
        return None
    return np.eye(head.n_outcomes, n_levels)


def _observed_reasons(network, pairs):
    """Tell by what observed cells could decide: differences in a pair's rows, (P, D).

    They are those of the standardised coordinates of the cells that both rows kept.
    """
    home = network.anchor.device
    coordinates = network.anchor.coordinates
    x, seen = coordinates.base(pairs.values.to(home), pairs.kept.to(home))
    one, other = (
        torch.where(seen, x, 0.0).double().cpu().numpy().reshape(2, pairs.n, -1)
    )
    difference = one - other
    spread = difference.std(axis=0)
    return difference / np.where(spread > 0, spread, 1.0)
