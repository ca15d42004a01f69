"""Self-masking: cells that are missing because of their own values.

If the log-odds of a cell's being missing are a + t(x) theta, with x its value, Bayes'
rule has two consequences. The distribution of a missing cell, given the rest z of
its row, is that of an observed one, tilted:

    p(x | z, missing)  proportional to  p(x | z, observed) exp(t(x) theta)

and whether it is missing follows from the rest of the row as

    log-odds(missing | z)  =  a + L(z),   L(z) = log E[exp(t(x) theta) | z, observed]

so that theta can be estimated from the pattern of missing cells, by the network's own
distribution of observed ones (exponential tilting: Kim and Yu, 2011, JASA 106). t is
the value of a numeric cell, in standard deviations, and the level of a categorical one.

Columns are often lost together, and then the rest of a row in which a cell is missing
differs from that of a row in which it is observed: fewer columns are left, L(z) is
larger for that reason alone, and any slope explains the pattern. So rows are compared
in pairs. Cells that one row of a pair lacks are hidden in the other one; in every
column that is observed in one of them alone,

    P(the first one lacks it | one of them does)  =  sigmoid(L(z_1) - L(z_2))

with the same cells left in z_1 and z_2 (matched cases and controls: Breslow et al.,
1978, Am. J. Epidemiology 108). Where whole patterns fall on rows by chance the rows of
a pair can be exchanged, and no slope explains anything, however patterns look.

No table proves such a mechanism, but it can be compared with its rivals: cells are
missing completely at random (then theta is 0), or by a logistic model of the observed
cells of their row. Rows are in parts; each mechanism is fitted to the pairs outside of
a part and judged on those within it. Posteriors are tilted only where the tilts predict
best which cells are missing, or nearly best while they add something to the observed
cells. The tilts themselves are estimated by all pairs, many of each row where there are
few rows: by few pairs they depend on which rows happen to meet.
Columns that are lost together are one event of a row, so that significance is computed
over rows, not cells.
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
from .pair_regression import fisher_scoring, fit_tilt, log_odds_of

# Log-odds of being missing in a gap: no posterior has as much against it.
GAP_TILT = 200.0


@dataclass(frozen=True)
class SelfMaskingSettings:
    """How self-masking is estimated and recognised. "NOTES" is benchmarks/NOTES.md.

    Parameters
    ----------
    max_rows, max_cells : int
        Rows, and cells of the table, that are paired. (Not measured.)
    n_parts : int
        Parts of the rows, one of which is held out at a time. (Not measured.)
    n_partners, max_partners : int
        Pairs that a row is in, within its part and as many with any row: at least, and
        at most where there are few rows. (NOTES, "More pairs of few rows".)
    n_pairs : int
        Pairs in all, where that takes no fewer and no more partners. (NOTES, "More
        pairs of few rows".)
    precision : float
        Precision of the normal prior on theta. (Not measured.)
    rival_precisions : tuple of float
        Precisions of the normal prior on the rival's weights, the best of which
        counts. (Not measured.)
    chance_statistic : float
        Where the score statistic is below it, for each parameter, nothing can be
        gained on held-out rows: chance alone makes it 1, the mean of a chi-squared
        distribution.
    min_cells : int
        Cells that a column must have, missing and observed ones each. (Not measured.)
    max_levels : int
        A categorical column with more levels is not tilted. (Not measured.)
    max_competing : int
        Columns on which mechanisms are compared; with more the comparison takes longer
        and comes to the same. (Not measured.)
    max_value : float
        A tilt grows no more beyond so many standard deviations. (Not measured.)
    margin : float
        Nats by which the tilts must gain more than the rival, or that they must add to
        what it gains. (NOTES, "One nat more than the rival".)
    as_good, added : float
        Share of the rival's gain that is enough where they add the margin, and that
        share of its gain. (NOTES, "What the tilts add to the rival".)
    suspicious, min_suspicious : float
        Share of the rival's gain, and nats, that make the tilts of an untrained network
        suspicious. (0.1 where observed cells are the cause, on gesture, the table with
        the most columns; 0.65 and more where the cells' own values are.)
    min_evidence : float
        Nats by which tilts must be better than nothing on held-out rows. (Not
        measured.)
    min_standard_errors : float
        Standard errors, over rows, by which they must be better. (Not measured.)
    """

    max_rows: int = 2000
    max_cells: int = 400_000
    n_parts: int = 4
    n_partners: int = 4
    max_partners: int = 16
    n_pairs: int = 2400
    precision: float = 1.0
    rival_precisions: tuple[float, ...] = (1.0, 10.0, 100.0)
    chance_statistic: float = 1.0
    min_cells: int = 20
    max_levels: int = 50
    max_competing: int = 64
    max_value: float = 6.0
    margin: float = 1.0
    as_good: float = 0.8
    added: float = 0.04
    suspicious: float = 0.4
    min_suspicious: float = 10.0
    min_evidence: float = 3.0
    min_standard_errors: float = 3.0

    def partners(self, n_rows):
        """Pairs that a row is in within its part, and as many with any row."""
        few = self.n_pairs // max(1, n_rows)
        return int(np.clip(few, self.n_partners, self.max_partners))


DEFAULT = SelfMaskingSettings()


class SelfMasking(Correction):
    """Tilts posteriors of cells that are missing because of their own values.

    Parameters
    ----------
    tilts : list of float tensor (g, 1, K)
        Log-odds of every outcome of each head, 0 where nothing is estimated.
    slopes : float64 array of shape (d,)
        Change of the log-odds by a standard deviation of a numeric column, or the
        standard deviation of the log-odds of a categorical column's levels.
    """

    def __init__(self, tilts, slopes):
        super().__init__()
        self.slopes = slopes
        for k, tilt in enumerate(tilts):
            self.register_buffer(f"tilt_{k}", tilt.float())

    def factors(self, posteriors, outcome, network):
        """Find the logs of factors that tilting gives posteriors and outcomes.

        Parameters
        ----------
        posteriors : list of CellPosterior
            Of cells of B rows, not tilted.
        outcome : int tensor of shape (B, R, d)
            Outcomes, below 0 where there is none.
        network : CompletionNetwork

        Returns
        -------
        mass : float tensor of shape (B, d)
            Of all of a cell's outcomes together; 0 where it has no posterior.
        log_odds : float tensor of shape (B, R, d)
        """
        mass = torch.zeros(outcome[:, 0].shape, device=outcome.device)
        for posterior in posteriors:
            share = torch.log_softmax(posterior.logits, -1)
            tilt = getattr(self, f"tilt_{posterior.head}")
            posterior.cells.scatter_into(mass, torch.logsumexp(share + tilt, -1))
        log_odds = torch.zeros(outcome.shape, device=outcome.device)
        for k, head in enumerate(network.heads):
            tilt = getattr(self, f"tilt_{k}").mT[:, :, 0]  # (g, K)
            own = outcome[..., head.columns].clamp_min(0)
            slot = torch.arange(len(tilt), device=own.device)
            log_odds[..., head.columns] = tilt[slot, own]
        return mass, log_odds

    def add_gaps(self, network):
        """Tilt every column that has a gap to it: no value that was seen is missing."""
        for k, own in _gaps(network):
            getattr(self, f"tilt_{k}")[own[:, None].cpu()] = GAP_TILT

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
    """Gains of the mechanisms on held-out rows, in nats.

    Attributes
    ----------
    gain, rival_gain : float
        Gains of the tilts and of the rival over cells that are missing at random.
    added : float
        Gain of the tilts and the rival together over the rival alone.
    is_certain : bool
        Whether the gain of the tilts is more than chance.
    settings : SelfMaskingSettings
    """

    gain: float
    rival_gain: float
    added: float
    is_certain: bool
    settings: SelfMaskingSettings = DEFAULT

    @property
    def is_better(self):
        """Whether tilts predict which cells are missing better than the rival does."""
        settings = self.settings
        least = self.rival_gain + settings.margin
        if self.added >= max(settings.margin, settings.added * self.rival_gain):
            least = settings.as_good * self.rival_gain
        least = max(settings.min_evidence, least)
        return self.is_certain and self.gain >= least

    @property
    def is_suspicious(self):
        """Whether a better network might find that tilts are better."""
        settings = self.settings
        least = max(settings.min_suspicious, settings.suspicious * self.rival_gain)
        return self.is_certain and self.gain >= least


def fit_self_masking(network, rows, generator, *, decide=True, settings=DEFAULT):
    """Estimate the tilts of a network's posteriors from the pattern of missing cells.

    Parameters
    ----------
    network : CompletionNetwork
    rows : Rows
        Tensors in the network's coordinates, on its device.
    generator : torch.Generator on the CPU
    decide : bool
        Whether other mechanisms compete. Otherwise tilts are taken as estimated.
    settings : SelfMaskingSettings

    Returns
    -------
    SelfMasking or None
        None where another mechanism explains the missing cells as well, and no column
        has a gap.
    """
    found, evidence = _compete(network, rows, generator, decide, settings)
    if not found.slopes.any() or (decide and not evidence.is_better):
        found = SelfMasking(*_untilted(network))
    found.add_gaps(network)
    is_tilted = any(bool(tilt.any()) for tilt in found.buffers())
    return found.to(rows.values.device) if is_tilted else None


def is_suspected(network, rows, generator, settings=DEFAULT):
    """Whether cells may well be missing because of their own values.

    This is for a network that is not trained yet, when evidence is weaker. Parameters
    are those of `fit_self_masking`.
    """
    _, evidence = _compete(network, rows, generator, True, settings)
    return evidence.is_suspicious


def _compete(network, rows, generator, decide, settings):
    """Estimate the tilts, and the `Evidence` of a competition if they compete."""
    pairs = Pairs.deal(rows, generator, settings)
    d = rows.observed.shape[1]
    tilts, slopes = _untilted(network)
    if not pairs.n:  # there are too few rows, or none that have a cell in common
        return SelfMasking(tilts, slopes), Evidence(0.0, 0.0, 0.0, False, settings)
    own, rival, both = np.zeros((3, pairs.n))
    competing = torch.randperm(d, generator=generator)[: settings.max_competing]
    competing = competing.tolist()
    differences = _observed_differences(network, pairs)
    for cells in _cells(network, pairs):
        statistics = cells.head.statistic(
            cells.slot, settings.max_value, settings.max_levels
        )
        if statistics is None:
            continue
        least = settings.chance_statistic * statistics.shape[1] if decide else 0.0
        theta = fit_tilt(
            cells.case,
            cells.control,
            statistics,
            precision=settings.precision,
            pair_weight=cells.weight,
            least=least,
        )
        if decide and cells.column in competing:
            gains = cells.held_out_gains(statistics, differences, theta)
            gain, rival_gain, both_gain = gains
            own[cells.pair] += gain
            rival[cells.pair] += rival_gain
            both[cells.pair] += both_gain
        tilt = statistics @ theta
        tilts[cells.k][cells.slot, 0, : len(tilt)] = torch.as_tensor(tilt)
        slopes[cells.column] = theta[0] if theta.shape == (1,) else tilt.std()
    by_row = torch.as_tensor(pairs.by_row(own))
    evidence = Evidence(
        own.sum(),
        max(0.0, rival.sum()),
        both.sum() - max(0.0, rival.sum()),
        bool(is_gain(by_row, settings.min_standard_errors)),
        settings,
    )
    return SelfMasking(tilts, slopes), evidence


def _gaps(network):
    """Yield the numeric heads that have gaps, by their numbers, and these, (g, K)."""
    for k, head in enumerate(network.heads):
        if isinstance(head, NumericHead) and bool(head.atoms.gaps.any()):
            yield k, head.atoms.gaps


def gaps_of(network):
    """Intervals in which the missing cells of columns lie, (d, 2); NaN elsewhere.

    They are in standardised units.
    """
    found = np.full((network.n_columns, 2), np.nan)
    for k, own in _gaps(network):
        head = network.heads[k]
        ends = torch.stack([head.atoms.own_low[own], head.atoms.own_high[own]], -1)
        found[head.columns[own.any(1)].cpu().numpy()] = ends.double().cpu().numpy()
    return found


def _untilted(network):
    """Tilts of a network's heads and slopes of its columns, all 0."""
    tilts = [torch.zeros(len(h.columns), 1, h.n_outcomes) for h in network.heads]
    return tilts, np.zeros(network.n_columns)


@dataclass(frozen=True)
class Pairs:
    """Rows in pairs, P of them, each row in several; both lose what either lacks.

    The first rows of all pairs stand before the second ones. Shape of ``rows``, their
    positions in the table: (2 P,); of ``values``, ``observed``, the cells ``kept`` in
    both rows and those ``compared``, observed in one row alone: (2 P, d); of ``part``,
    that of each row of a pair: (2, P). Half of a row's pairs are within its part.
    ``weight``, (P,), is that of a pair's log-likelihood: a column's cells count twice,
    however many pairs, and rows with weights as often as they would meet if they were
    repeated.
    """

    rows: torch.Tensor
    values: torch.Tensor
    observed: torch.Tensor
    kept: torch.Tensor
    compared: torch.Tensor
    part: np.ndarray
    settings: SelfMaskingSettings
    weight: np.ndarray

    @property
    def n(self):
        """Number of pairs."""
        return len(self.weight)

    @classmethod
    def deal(cls, table, generator, settings=DEFAULT):
        """Pair rows of a `Rows` at random, several times, half of them within parts."""
        values, observed = table.values, table.observed
        d = observed.shape[1]
        affordable = max(2 * settings.min_cells, settings.max_cells // d)
        n = min(len(observed), settings.max_rows, affordable)
        rows = torch.randperm(len(observed), generator=generator)[:n]
        parts = torch.arange(n) * settings.n_parts // max(1, n)  # in ascending order
        # Of a part with an odd number of rows, another one sits out every time.
        sizes = torch.bincount(parts, minlength=settings.n_parts)
        place = torch.arange(n) - (sizes.cumsum(0) - sizes)[parts]
        paired = place < sizes[parts] // 2 * 2
        n_turns, turns = settings.partners(n), []
        for _ in range(n_turns):
            order = (parts + torch.rand(n, generator=generator)).argsort()
            turns.append(order[paired].view(-1, 2).T)
            order = torch.randperm(n, generator=generator)
            turns.append(order[: n // 2 * 2].view(-1, 2).T)
        turns = torch.cat(turns, 1)  # (2, P)
        rows = rows[turns].flatten().to(observed.device)
        seen = observed[rows]
        one, other = seen.view(2, -1, d)
        kept, compared = (part.repeat(2, 1) for part in (one & other, one ^ other))
        weight = np.full(turns.shape[1], 1 / n_turns)
        if table.weight is not None:
            weight *= table.weight[rows].view(2, -1).prod(0).double().cpu().numpy()
        part = parts[turns].numpy()
        return cls(rows, values[rows], seen, kept, compared, part, settings, weight)

    def by_row(self, gains):
        """Gains of pairs, (P,), shared out to the rows in them."""
        _, position = np.unique(self.rows.cpu().numpy(), return_inverse=True)
        return np.bincount(position, np.tile(gains / 2, 2))


@dataclass(frozen=True)
class _Cells:
    """Pairs of cells of one column, a missing one (case) and an observed one (control).

    Shape of ``pair``, which pair they are from: (N,); of ``part``, that of each row of
    the pair: (2, N); of ``case`` and ``control``, probabilities of every outcome given
    the cells kept in both rows: (N, K).
    """

    k: int  # index of the head
    head: torch.nn.Module
    slot: int
    pair: np.ndarray
    part: np.ndarray
    case: np.ndarray
    control: np.ndarray
    sign: np.ndarray  # 1 where the first row of the pair is the case, else -1
    settings: SelfMaskingSettings
    weight: np.ndarray  # weight of every pair's log-likelihood

    @property
    def column(self):
        return int(self.head.columns[self.slot])

    def held_out_gains(self, statistics, differences, theta):
        """Nats that tilts, rival and both gain in every pair, (N,) three times.

        Pairs within a part of the rows are predicted by a fit to the pairs outside of
        it, which starts from ``theta`` (p,) for the tilts. Those between parts gain 0.
        """
        difference = self.sign[:, None] * differences[self.pair]
        difference = difference[:, difference.any(0)]
        trials = [
            (self._held_out(statistics[:, :0], difference, precision), precision)
            for precision in self.settings.rival_precisions
        ]
        rival, precision = max(trials, key=lambda trial: trial[0].sum())
        if rival.sum() <= 0:
            rival, difference = np.zeros_like(rival), difference[:, :0]
        if not theta.any():
            return np.zeros_like(rival), rival, rival
        own = self._held_out(statistics, difference[:, :0], precision, theta)
        if not difference.shape[1]:
            return own, rival, own
        return own, rival, self._held_out(statistics, difference, precision, theta)

    def _held_out(self, statistics, difference, precision, theta=()):
        settings, size = self.settings, difference.shape[1]
        precisions = [settings.precision, precision]
        precision = np.repeat(precisions, [statistics.shape[1], size])
        start = np.concatenate([theta, np.zeros(size)])
        gains = np.zeros(len(self.pair))
        for k in range(settings.n_parts):
            is_held, is_outside = (self.part == k).all(0), (self.part != k).all(0)
            kept, held = (
                (self.case[rows], self.control[rows], statistics, difference[rows])
                for rows in (is_outside, is_held)
            )
            evaluate, weight = partial(log_odds_of, *kept), self.weight[is_outside]
            parameters = fisher_scoring(evaluate, precision, start, weight)
            log_odds, _ = log_odds_of(*held, parameters)
            # Half of the pairs are within parts, and stand for all.
            gain = 2 * self.weight[is_held] * (log_expit(log_odds) + np.log(2))
            gains[is_held] = gain
        return gains


@torch.no_grad()
def _cells(network, pairs):
    """Yield `_Cells` of every column that has enough of them."""
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
            _, first = np.unique(pairs.rows[rows].cpu().numpy(), return_index=True)
            n_seen = int(seen[first].sum())
            if min(n_seen, len(first) - n_seen) < pairs.settings.min_cells:
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
                pairs.part[:, pair],
                np.where(first_lacks, one, other),
                np.where(first_lacks, other, one),
                np.where(first_lacks[:, 0], 1.0, -1.0),
                pairs.settings,
                pairs.weight[pair],
            )


def _pieces(posterior, observed, first_row):
    """Yield each column of a posterior with its cells.

    The cells are given by their rows and whether they are observed, (n,) twice, and
    the probabilities of their outcomes, (n, K).
    """
    cells = posterior.cells
    share = torch.softmax(posterior.logits, -1).cpu().numpy()
    seen = cells.gather(observed).cpu().numpy()
    rows = cells.rows.cpu().numpy() + first_row
    filled = cells.filled.cpu().numpy()
    for slot, column in enumerate(cells.columns[:, 0].tolist()):
        own = filled[slot]
        yield column, (rows[slot, own], seen[slot, own], share[slot, own])


def _observed_differences(network, pairs):
    """Differences between the rows of a pair, which the rival explains by, (P, D).

    They are taken in the standardised coordinates of the cells kept in both rows.
    """
    device = network.anchor.device
    coordinates = network.anchor.coordinates
    x, seen = coordinates.base(pairs.values.to(device), pairs.kept.to(device))
    one, other = (
        torch.where(seen, x, 0.0).double().cpu().numpy().reshape(2, pairs.n, -1)
    )
    difference = one - other
    spread = difference.std(axis=0)
    return difference / np.where(spread > 0, spread, 1.0)
