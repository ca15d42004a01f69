"""Distributions of missing cells: over atoms of numbers, over levels of categories."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch

from ..._table.column_kinds import MAX_LEVELS
from .atoms import N_LEVELS, midpoints

# In standard deviations of a column: an atom that moves the mean by less, wherever in
# it a value lies, is as good as a point.
NEGLIGIBLE = 3e-5
# Kinds of cells.
NUMBERS, LEVELS = 0, 1


@dataclass(frozen=True)
class PackedCells:
    """Target cells of some columns, sorted by column and padded to one number each.

    Heads differ between columns: packed, all their products are one batched product.

    Shape of ``rows``, the row of each cell, and of ``filled``, False where padded:
    (g, T). ``columns`` is (g, 1).
    """

    rows: torch.Tensor
    filled: torch.Tensor
    columns: torch.Tensor

    @classmethod
    def from_mask(cls, targets, columns):
        """Pack the True cells of the given columns of a mask of shape (B, d)."""
        targets = targets[:, columns].T.contiguous()
        counts = targets.sum(1, keepdim=True)
        size = max(1, int(counts.max()))
        # Other cells all go to one slot more, which is then left out.
        slot = torch.where(targets, targets.cumsum(1) - 1, size)
        row = torch.arange(targets.shape[1], device=targets.device).expand_as(slot)
        rows = row.new_zeros(len(targets), size + 1).scatter_(1, slot, row)
        filled = torch.arange(size, device=targets.device) < counts
        return cls(rows[:, :size], filled, columns[:, None])

    def gather(self, table):
        """Cells' entries of a (B, d) table: (g, T)."""
        return table[self.rows, self.columns]

    def scatter_into(self, table, entries):
        """Write (g, T) entries into their cells of a (B, d) table, in place."""
        columns = self.columns.expand_as(self.rows)
        table[self.rows[self.filled], columns[self.filled]] = entries[self.filled]

    def total(self, entries, weight=None):
        """Sum of (g, T) entries over the cells, by weights of the rows (B,), if any."""
        if weight is not None:
            entries = entries * weight[self.rows]
        return torch.where(self.filled, entries, 0.0).sum()


class CellPosterior:
    """Distribution of packed target cells over a finite set of outcomes.

    Shape of ``logits``: (g, T, K), the anchor's log-mass included. ``head`` is the
    index of the head that it comes from, ``kind`` 0 for numbers and 1 for
    levels.
    """

    head = kind = None

    def __init__(self, cells, logits):
        self.cells, self.logits = cells, logits

    def of_head(self, head):
        """Return the same with the index of its head."""
        return self._with(head=head)

    def with_logits(self, logits):
        """Return the same cells with other logits, (g, T, K)."""
        return self._with(logits=logits)

    def of_cells(self, cells, logits):
        """Return a posterior of some of the cells, by their logits, (g, T, K)."""
        return self._with(cells=cells, logits=logits)

    def limited(self, limits):
        """Return the same where cells lie within limits of a table, (B, d, 2).

        Levels have none.
        """
        del limits
        return self

    def _with(self, **changes):
        other = copy.copy(self)
        vars(other).update(changes)
        return other

    def nll(self, outcome):
        """Negative log-likelihood of the outcomes (g, T) in nats, (g, T)."""
        log_share = torch.log_softmax(self.logits, -1)
        return -log_share.gather(-1, outcome[..., None]).squeeze(-1)

    def _locate(self, level, n_outcomes):
        """Outcome at a quantile, (g, T), and how far into it the quantile lies."""
        share = torch.softmax(self.logits, -1)
        below = share.cumsum(-1)
        level = torch.as_tensor(level, dtype=share.dtype, device=share.device)
        level = level.expand(share.shape[:2]).contiguous()
        outcome = torch.searchsorted(below, level[..., None]).squeeze(-1)
        outcome = torch.minimum(outcome, n_outcomes[:, None] - 1)
        inside = share.gather(-1, outcome[..., None]).squeeze(-1)
        start = below.gather(-1, outcome[..., None]).squeeze(-1) - inside
        u = ((level - start) / inside.clamp_min(1e-12)).clamp(1e-6, 1 - 1e-6)
        return outcome, u


class NumericPosterior(CellPosterior):
    """Over a column's atoms; within an atom a normal distribution, cut to it.

    Shape of ``inner_mean`` and ``inner_sd``: (g, T).
    """

    kind = NUMBERS
    # Ends of atoms, a pair of (g, T, K), where cells have limits.
    ends = None
    # Means within atoms, (g, T, K), and where they have been computed.
    known = None

    def __init__(self, cells, logits, atoms, inner_mean, inner_sd):
        super().__init__(cells, logits)
        self.atoms, self.inner_mean, self.inner_sd = atoms, inner_mean, inner_sd
        self.slots = torch.arange(len(logits), device=logits.device)[:, None]

    def mean(self):
        """Posterior mean in the columns' own standardised units, (g, T).

        Atoms whose inside hardly moves it count as their centers.
        """
        if self.ends is not None:
            levels = midpoints(N_LEVELS, self.logits)
            return sum(self.point(float(level)) for level in levels) / N_LEVELS
        share = torch.softmax(self.logits, -1)
        if not self.atoms.has_bins:
            return (share * self.atoms.center[:, None]).sum(-1)
        return (share * self._means_within(share)).sum(-1)

    def _means_within(self, share):
        """Mean of every atom, (g, T, K): its center, unless its share matters.

        Corrections move shares and nothing else, so that what is known stays known.
        """
        if self.known is None:
            means = self.atoms.center[:, None].expand_as(share).clone()
            self.known = means, torch.zeros_like(share, dtype=torch.bool)
        means, is_known = self.known
        least = NEGLIGIBLE / (self.atoms.own_high - self.atoms.own_low)
        unsure = (share > least[:, None]) & ~is_known
        slot, cell, atom = unsure.nonzero(as_tuple=True)
        moments = self.inner_mean[slot, cell], self.inner_sd[slot, cell]
        means[slot, cell, atom] = self.atoms.mean_within(*moments, slot, atom)
        is_known |= unsure
        return means

    def _with(self, **changes):
        other = super()._with(**changes)
        if changes.keys() - {"logits", "head"}:
            other.known = None
        return other

    def quantile(self, level):
        """Posterior quantile, (g, T); ``level`` is a number or of shape (g, T).

        It is in the coordinates of the warp, as the network's input is. With uniform
        noise for a level it is a draw.
        """
        atom, u = self._locate(level, self.atoms.valid.sum(-1))
        mean, sd = self.inner_mean, self.inner_sd
        ends = self.ends
        if ends is not None:
            ends = [e.gather(-1, atom[..., None]).squeeze(-1) for e in ends]
        return self.atoms.quantile_within(mean, sd, self.slots, atom, u, ends)

    def limited(self, limits):
        """Return the same where cells lie within limits of a table, (B, d, 2).

        In the coordinates of the warp, infinite where they are open.
        """
        low, high = (self.cells.gather(end) for end in limits.unbind(-1))
        moments = self.inner_mean, self.inner_sd
        logits, *ends = self.atoms.limited(self.logits, *moments, low, high)
        return self._with(logits=logits, ends=ends)

    def carried_from(self, source, values, noise, is_copy):
        """Move draws from another distribution of the same cells to this one, (g, T).

        Each value becomes the same quantile here. Where in its atom a value lies is
        chance by uniform ``noise``, if it is a point or a copy of a donor's; such a
        copy stays what it is while it stays in its atom.

        Shapes: (g, T) three times; values are in the coordinates of the warp.
        """
        atoms, slots, index = self.atoms, self.slots, source._index(values)
        share = torch.softmax(source.logits, -1)
        own = share.gather(-1, index[..., None]).squeeze(-1)
        below = share.cumsum(-1).gather(-1, index[..., None]).squeeze(-1) - own
        mean, sd = source.inner_mean, source.inner_sd
        inside = atoms.level_within(mean, sd, slots, index, values)
        is_point = atoms.low[slots, index] == atoms.high[slots, index]
        inside = torch.where(is_point | is_copy, noise, inside)
        carried = self.quantile(below + own * inside)
        stays = (is_copy | is_point) & (self._index(carried) == index)
        return torch.where(stays, values, carried)

    def _index(self, values):
        """Atom of values, (g, T)."""
        return self.atoms.index(values.T).T

    def point(self, statistic):
        """Summary in own units, (g, T): ``"mean"`` or the quantile of a level."""
        if statistic == "mean":
            return self.mean()
        return self.atoms.warp.inverse(self.quantile(statistic), self.slots)

    def point_error(self, atom):
        """Squared error of the mean for true atoms (g, T), which count as centers."""
        center = self.atoms.center
        mean = (torch.softmax(self.logits, -1) * center[:, None]).sum(-1)
        return (mean - center.gather(1, atom)).square()

    def inner_nll(self, atom, values):
        """Negative log-density of warped values within their atoms, (g, T).

        Against a flat density there; 0 for atoms that are points.
        """
        return self.atoms.inner_nll(
            self.inner_mean, self.inner_sd, self.slots, atom, values
        )

    def score(self, atom):
        """Continuous ranked probability score of atoms (g, T), (g, T), in own units.

        Every atom counts as its center.
        """
        width = torch.diff(self.atoms.center)[:, None]
        places = torch.arange(width.shape[-1], device=width.device)
        reached = (atom[..., None] <= places).to(width.dtype)
        error = torch.softmax(self.logits, -1).cumsum(-1)[..., :-1] - reached
        return (error.square() * width).sum(-1)

    def error(self, truth):
        """Squared error of the mean, (g, T), for a truth (g, T) in own units."""
        return (self.mean() - truth).square()


class LevelPosterior(CellPosterior):
    """Over a column's levels; a level's value is its code.

    Shape of ``share``, the levels' frequencies: (g, K); of ``ordered``, (g,), which
    columns' levels have an order, or None.
    """

    kind = LEVELS

    def __init__(self, cells, logits, share, ordered=None):
        super().__init__(cells, logits)
        self.share, self.ordered = share, ordered

    @property
    def is_shared(self):
        """Whether outcome 0 is shared by rare levels, by column, (g,)."""
        return (self.share > 0).sum(-1) > MAX_LEVELS

    def probabilities(self):
        """Probability of every level, (g, T, K)."""
        return torch.softmax(self.logits, -1)

    def quantile(self, level):
        """Code at a quantile of the levels in their order: a draw, with noise."""
        n_levels = (self.share > 0).sum(-1)
        code, u = self._locate(level, n_levels)
        return self._value(code, u)

    def _value(self, code, u):
        """Values of codes, (g, T).

        Rare levels that share an outcome differ by their position within it.
        """
        inside = torch.where((code == 0) & self.is_shared[:, None], u, 0.0)
        return code.to(self.logits.dtype) + inside

    def carried_from(self, source, values, noise, is_copy):
        """Move draws from another distribution of the same cells to this one, (g, T).

        A level stays as often as it can: it is given up where it is rarer here, by
        uniform ``noise`` (g, T), for one of the levels that are more frequent here.
        """
        del is_copy
        share, before = self.probabilities(), source.probabilities()
        code = values.long()[..., None]
        own, was = (p.gather(-1, code).squeeze(-1) for p in (share, before))
        kept = (own / was.clamp_min(1e-12)).clamp(max=1.0)
        gain = (share - before).clamp_min(0.0).cumsum(-1)
        rest = ((noise - kept) / (1 - kept).clamp_min(1e-6)).clamp(0.0, 1 - 1e-6)
        total = gain[..., -1:]
        other = torch.searchsorted(gain, rest[..., None] * total, right=True)
        other = other.squeeze(-1).clamp(max=gain.shape[-1] - 1)
        stays = (noise < kept) | (total.squeeze(-1) <= 1e-6)
        return torch.where(stays, values, self._value(other, rest))

    def point(self, statistic):
        """Code of the most probable level, (g, T).

        The quantile of a level's place, if the levels have an order.
        """
        if self.ordered is not None and statistic != "mean":
            place = self.quantile(statistic).floor()
            return torch.where(self.ordered[:, None], place, self.point("mean"))
        logits = self.logits
        if bool(self.is_shared.any()):
            # No level that shares outcome 0 is more frequent than the rarest of the
            # others, whose frequency therefore bounds the probability of one of them.
            rarest = torch.where(self.share > 0, self.share, 1.0).amin(-1)
            peak = torch.where(self.is_shared, rarest / self.share[:, 0], 1.0)
            first = logits[..., :1] + peak.clamp(max=1.0).log()[:, None, None]
            logits = torch.cat([first, logits[..., 1:]], -1)
        return logits.argmax(-1).to(logits.dtype)

    def inner_nll(self, level, values):
        """Nothing: a level has no inside."""
        del values
        return torch.zeros_like(level, dtype=self.logits.dtype)

    def point_error(self, level):
        """Whether the most probable level is another than the true one, (g, T)."""
        return (self.logits.argmax(-1) != level).to(self.logits.dtype)

    def score(self, level):
        """Brier score of levels (g, T), as `error` has it, (g, T)."""
        truth = torch.nn.functional.one_hot(level, self.logits.shape[-1])
        error = self.probabilities() - truth
        return error.square().sum(-1) / self._spread

    def error(self, truth):
        """Brier score of true codes (g, T), in units of that of the frequencies.

        So 1 is the error of knowing nothing, as the squared error of a standardised
        number has it.
        """
        q = self.probabilities()
        right = q.gather(-1, truth.long()[..., None]).squeeze(-1)
        return (q.square().sum(-1) - 2 * right + 1) / self._spread

    @property
    def _spread(self):
        """Brier score of the frequencies, (g, 1)."""
        return (1 - self.share.square().sum(-1)).clamp_min(1e-3)[:, None]


def mixed(posteriors):
    """Mixture, in equal parts, of several posteriors of the same cells."""
    first, *others = posteriors
    if not others:
        return first
    logs = [torch.log_softmax(posterior.logits, -1) for posterior in posteriors]
    found = first.with_logits(torch.stack(logs).logsumexp(0))
    if first.kind == NUMBERS:
        means = torch.stack([posterior.inner_mean for posterior in posteriors])
        spread = torch.stack([posterior.inner_sd for posterior in posteriors])
        variance = spread.square().mean(0) + means.var(0, correction=0)
        found = found._with(inner_mean=means.mean(0), inner_sd=variance.sqrt())
    return found


def averaged(posteriors):
    """One posterior of the mean log-probabilities of several of the same cells.

    Where in an atom a value lies is as the first one says.
    """
    first, *others = posteriors
    if not others:
        return first
    logits = [torch.log_softmax(posterior.logits, -1) for posterior in posteriors]
    return first.with_logits(torch.stack(logits).mean(0))
