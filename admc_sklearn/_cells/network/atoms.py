"""Atoms: the finite set of outcomes over which a cell's distribution is written.

A column's atoms are its distinct values when there are few, else bins, with single
values that recur often kept as points of their own. The distribution of a cell is

    q(atom k)  proportional to  exp(logit_k) * p_k * mass_k(mu, s) / mass_k(mu_0, s_0)

where mass_k is the probability that the anchor gives to the atom's interval, by its
conditional moments (mu, s) and by its marginal ones (mu_0, s_0), and p_k is the atom's
frequency. The ratio of masses updates it by the row's observed cells (Bayes' rule), and
exp(logit_k) is the network's change.
Where nothing is observed q is p, point masses and tails included; where the column is
Gaussian q is the anchor itself. Within a bin the anchor's own density, cut to the bin,
says where the value lies.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from ..._shared.weights import weighted_counts
from .gaps import GAP_SHARE

MAX_ATOMS = 64
# A column is discrete when its values recur this often on average.
MIN_REPEATS = 4.0
# Share of the column's own frequencies mixed into the anchor's masses: an outlier
# costs the network a bounded number of nats, and no atom is ever impossible.
MARGINAL_SHARE = 1e-3
# In standard deviations.
TAIL = 12.0
# Of an atom that has an inside, in the anchor's standard deviations.
MIN_WIDTH = 0.05
# Of an interval that is open, in the anchor's standard deviations.
REACH = 6.0
# Levels over which the mean of a wide atom, and of a cell with limits, is taken.
N_INNER_LEVELS, N_LEVELS = 16, 64
_SQRT1_2 = math.sqrt(0.5)
_SQRT_2PI = math.sqrt(2 * math.pi)


def column_atoms(values, max_atoms=MAX_ATOMS, weight=None):
    """Atoms of one column.

    Parameters
    ----------
    values : float array of shape (n_observed,), finite
    max_atoms : int
    weight : float array of shape (n_observed,), optional
        Weights of the values, with a mean near 1.

    Returns
    -------
    dict of float arrays of shape (n_atoms,)
        ``low``, ``high``: smallest and largest value of the atom, equal for a point;
        ``center``: mean of the column's values in it; ``share``: its frequency;
        ``is_bin``: 1 where it is a bin, even if of one value.
    """
    if len(values) == 0:
        values, weight = np.zeros(1), None
    distinct, counts = weighted_counts(values, weight)
    n = counts.sum()
    n_bins = int(np.clip(n // 8, 4, max_atoms))
    if len(distinct) <= max_atoms and n >= MIN_REPEATS * len(distinct):
        is_point = np.ones(len(distinct), dtype=bool)
    else:
        is_point = counts > 2 * n / n_bins
    points, rest = distinct[is_point], distinct[~is_point]
    bins = _bins(rest, counts[~is_point], points, max(2, n_bins - len(points)))
    atoms = {
        "low": np.concatenate([bins["low"], points]),
        "high": np.concatenate([bins["high"], points]),
        "center": np.concatenate([bins["center"], points]),
        "share": np.concatenate([bins["count"], counts[is_point]]) / n,
        "is_bin": np.repeat([1.0, 0.0], [len(bins["low"]), len(points)]),
    }
    order = np.lexsort((atoms["high"], atoms["center"]))
    return {name: part[order] for name, part in atoms.items()}


def _bins(distinct, counts, points, n_bins):
    """Bins of the sorted distinct values, cut at the points so that none spans one."""
    bins = {"low": [], "high": [], "center": [], "count": []}
    if len(distinct):
        edges = _bin_edges(distinct, counts, n_bins)
        inner = points[(points > edges[0]) & (points < edges[-1])]
        edges = np.unique(np.concatenate([edges, inner]))
        # The bin of every value: (edges[k], edges[k + 1]], the first one closed.
        index = np.clip(np.searchsorted(edges, distinct) - 1, 0, max(0, len(edges) - 2))
        first = np.flatnonzero(np.diff(index, prepend=-1))
        total = np.add.reduceat(counts, first)
        # A bin ends at its own values: none spans the gap to an outlier.
        bins["low"] = distinct[first]
        bins["high"] = distinct[np.append(first[1:], len(distinct)) - 1]
        bins["center"] = np.add.reduceat(distinct * counts, first) / total
        bins["count"] = total
    return bins


def _bin_edges(distinct, counts, n_bins):
    """Edges halfway between equal frequency and equal width.

    Equal frequency alone leaves one wide bin for a long tail, whose inside the mean
    cannot resolve; equal width alone wastes bins where there are no values.
    """
    if len(distinct) == 1:
        return np.array([distinct[0], distinct[0]])
    rank = (np.cumsum(counts) - counts[0]) / (counts.sum() - counts[0])
    width = (distinct - distinct[0]) / (distinct[-1] - distinct[0])
    position = 0.5 * rank + 0.5 * width
    edges = np.interp(np.linspace(0, 1, n_bins + 1), position, distinct)
    edges[0], edges[-1] = distinct[0], distinct[-1]
    return np.unique(edges)


class Atoms(nn.Module):
    """The atoms of all columns, padded to one number.

    Atoms are given in the columns' own standardised units; the anchor and all values
    that come in are in the coordinates of ``warp``, and so are ``low``, ``high`` and
    ``edges``; ``center`` and means are in the columns' own units.

    Where ``ends`` (d, 2), in own units, lie beyond a column's outermost bins, these
    reach that far: the tails there are the anchor's.

    Shape of ``center``, ``low``, ``high``, ``share``: (d, K); of ``edges``, the
    borders of the intervals that the anchor's mass is taken over: (d, K + 1).
    """

    def __init__(self, columns, warp, ends=None):
        super().__init__()
        self.warp = warp
        reaches = [np.zeros(len(c["low"]), dtype=bool) for c in columns]
        if ends is not None:
            columns = [
                _reaching(c, *own, out)
                for c, own, out in zip(columns, ends, reaches, strict=True)
            ]
        size = max(len(c["low"]) for c in columns)
        shape = (len(columns), size)
        low, high, center = (np.full(shape, np.nan) for _ in range(3))
        share = np.zeros(shape)
        edges = np.full((len(columns), size + 1), np.inf)
        for j, c in enumerate(columns):
            k = len(c["low"])
            low[j, :k], high[j, :k], center[j, :k] = c["low"], c["high"], c["center"]
            low[j, k:] = high[j, k:] = center[j, k:] = c["high"][-1]
            share[j, :k] = c["share"]
            edges[j, 0] = -np.inf
            edges[j, 1:k] = _borders(c)
        own_low, own_high = low, high
        low, high, edges = (self._warped(array) for array in (low, high, edges))
        self.n_atoms = size
        for name, array in {
            "low": low,
            "high": high,
            "own_low": own_low,
            "own_high": own_high,
            "center": center,
            "share": share,
            "edges": edges,
        }.items():
            self.register_buffer(name, torch.tensor(array, dtype=torch.float32))
        self.register_buffer("valid", torch.tensor(share > 0))
        middle = self.warp.inverse((self.low + self.high).T / 2).T
        # What is left of the middle where an atom's mean is that of its values.
        self.register_buffer("offset", self.center - middle)
        self.has_bins = bool((self.high > self.low).any())
        # Atoms that reach beyond the observed range; None where there are none.
        self.register_buffer("reaching", None)
        if any(own.any() for own in reaches):
            found = torch.zeros(shape, dtype=torch.bool)
            for j, own in enumerate(reaches):
                found[j, : len(own)] = torch.as_tensor(own)
            self.reaching = found
            self.offset[found] = 0.0

    @property
    def gaps(self):
        """Which atoms are a column's gap, where missing cells alone lie: (d, K)."""
        return self.valid & (self.share < 2 * GAP_SHARE)

    def _warped(self, array):
        """Rows of per-column values in warped coordinates; infinities stay."""
        values = torch.tensor(array, dtype=torch.float64)
        warped = self.warp(torch.nan_to_num(values, posinf=0.0, neginf=0.0).T).T
        return torch.where(values.isfinite(), warped, values).numpy()

    def index(self, values):
        """Atom of every value: (n, d) -> int64 (n, d)."""
        # Ends of the atoms; a point is caught by a hair's width around it.
        inner = (self.high[:, :-1] + self.low[:, 1:]) / 2  # (d, K - 1)
        is_point = self.high == self.low
        reach = torch.finfo(torch.float32).eps * 4 * self.high.abs().clamp_min(1.0)
        inner = torch.where(
            is_point[:, 1:] & ~is_point[:, :-1], self.low[:, 1:] - reach[:, 1:], inner
        )
        inner = torch.where(
            is_point[:, :-1] & ~is_point[:, 1:],
            self.high[:, :-1] + reach[:, :-1],
            inner,
        )
        inner = torch.where(self.valid[:, 1:], inner, torch.inf)
        return torch.searchsorted(inner.contiguous(), values.T.contiguous()).T

    def log_mass(self, mean, sd, column):
        """Log of the anchor's mass on each atom.

        Shape in: (...,) three times, broadcast; out: (..., K).
        """
        scale = (_SQRT1_2 / sd)[..., None]
        # (..., K + 1)
        below = torch.erf((self.edges[column] - mean[..., None]) * scale)
        # Far out on either side float32 has no digits left, but the columns' own
        # frequencies outweigh what they would say. Beyond a column's last atom: -inf.
        mass = torch.diff(below).clamp_min_(0.0).mul_((1 - MARGINAL_SHARE) / 2)
        return mass.add_(MARGINAL_SHARE * self.share[column]).log_()

    def log_margin(self, mean, sd, share=None):
        """Log of each atom's frequency over the anchor's marginal mass on it, (d, K).

        Shape of ``mean`` and ``sd``: (d,); of ``share``, other frequencies than the
        column's own: (d, K).
        """
        share = self.share if share is None else share
        columns = torch.arange(len(mean), device=mean.device)
        mass = self.log_mass(mean, sd, columns)
        return torch.where(self.valid, share.log() - mass, 0.0)

    def inner_nll(self, mean, sd, column, atom, values):
        """Negative log-density of values in their atoms, against a flat one, in nats.

        Of the normal distribution cut to the atom; 0 for points. All broadcast.
        """
        if not self.has_bins:
            return torch.zeros_like(values)
        low, high = self.low[column, atom], self.high[column, atom]
        width = (high - low).clamp_min(1e-6)
        x = torch.maximum(torch.minimum(values, high), low)
        z, a, b = ((e - mean) / sd for e in (x, low, high))
        log_mass, gap = _log_mass(a, b)
        nll = 0.5 * z * z + math.log(_SQRT_2PI) + sd.log() + log_mass - width.log()
        usable = (high > low) & (gap < -1e-5)
        return torch.where(usable, nll.clamp(-10.0, 10.0), 0.0)

    def mean_within(self, mean, sd, column, atom, between=None):
        """Means of given atoms, under the anchor cut to them, all broadcast.

        In own units. ``between`` may compute the normal mass between two ends.
        """
        center = self.center[column, atom]
        low, high = self.low[column, atom], self.high[column, atom]
        a, b, gap, sharp = _cut(low, high, mean, sd, between)
        density = torch.exp(-0.5 * a * a) - torch.exp(-0.5 * b * b)
        shift = density / (_SQRT_2PI * gap.clamp_min(1e-6))
        # The anchor's mean over the bin where it varies, the values' own where it is
        # flat across the bin; 3.46 is the width of a unit-variance uniform.
        flat = 1.0 / (1.0 + ((b - a) / 3.46).square().square())
        cut = self.warp.inverse(torch.clamp(mean + sd * shift, low, high), column)
        cut = cut + flat * self.offset[column, atom]
        low, high = self.own_low[column, atom], self.own_high[column, atom]
        rough = torch.where(b - a > MIN_WIDTH, torch.where(a > 0, low, high), center)
        found = torch.clamp(torch.where(sharp, cut, rough), low, high)
        if getattr(self, "reaching", None) is None:
            return found
        wide = self.reaching[column, atom].expand(found.shape)
        if wide.any():
            parts = torch.broadcast_tensors(mean, sd, column, atom)
            mean, sd, column, atom = (part[wide] for part in parts)
            levels = midpoints(N_INNER_LEVELS, found)[:, None]
            inner = self.quantile_within(mean, sd, column, atom, levels)
            found[wide] = self.warp.inverse(inner, column).mean(0)
        return found

    def quantile_within(self, mean, sd, column, atom, u, ends=None):
        """Quantiles of given atoms, under the anchor cut to them, all broadcast.

        In warped coordinates, which carry quantiles over; ``u`` lies in (0, 1).
        ``ends``, a pair, may be other ends of the atoms than their own.
        """
        low, high, is_wide = self._ends(column, atom, ends)
        a, _, gap, sharp = _cut(low, high, mean, sd)
        inner = mean + sd * _ndtri(_ndtr(a) + u * gap)
        rest = low + u * (high - low)
        if is_wide is not None:
            near, far, slope = _tail(low, high, mean, sd)
            level = torch.where(near < far, u, 1 - u)
            step = torch.log1p(level * torch.expm1(-slope * (far - near).abs())) / slope
            tail = near + torch.sign(near - far) * step
            rest = torch.where(is_wide, tail, rest)
        return torch.where(sharp, inner, rest).clamp(low, high)

    def level_within(self, mean, sd, column, atom, value):
        """Inverse of `quantile_within` in its last argument; 1/2 for points."""
        low, high, is_wide = self._ends(column, atom)
        a, _, gap, sharp = _cut(low, high, mean, sd)
        inner = (_ndtr((value - mean) / sd) - _ndtr(a)) / gap
        rest = (value - low) / (high - low)
        if is_wide is not None:
            near, far, slope = _tail(low, high, mean, sd)
            level, whole = (
                torch.expm1(-slope * (end - near).abs()) for end in (value, far)
            )
            level = level / whole
            tail = torch.where(near < far, level, 1 - level)
            rest = torch.where(is_wide, tail, rest)
        level = torch.where(sharp, inner, rest).nan_to_num(0.5)
        return torch.where(high > low, level, 0.5).clamp(1e-6, 1 - 1e-6)

    def _ends(self, column, atom, ends=None):
        """Get the ends of atoms, and which of them are wide, or None where none is."""
        if ends is not None:
            return *ends, torch.ones_like(ends[0], dtype=torch.bool)
        reaching = getattr(self, "reaching", None)
        wide = None if reaching is None else reaching[column, atom]
        return self.low[column, atom], self.high[column, atom], wide

    def limited(self, logits, mean, sd, low, high):
        """Logits and ends of a column's atoms, cut to intervals in which cells lie.

        A bin keeps the share of its mass that lies in the interval. An outermost one
        that is cut by the interval reaches to its other end, beyond all atoms. Where no
        atom lies in it, the anchor alone does, cut to it.

        Shapes: of ``logits`` (g, T, K), of the others (g, T), in warped coordinates,
        the ends of intervals infinite where they are open; out: (g, T, K) three times.
        """
        shape, mean, sd = logits.shape, mean[..., None], sd[..., None]
        low, high = low[..., None], high[..., None]
        start, end = (t[:, None].expand(shape) for t in (self.low, self.high))
        is_bin = end > start
        index = torch.arange(shape[-1], device=logits.device)
        last = (self.valid.sum(-1) - 1)[:, None, None]
        # Where an interval holds a whole outermost bin, its end has been seen.
        below = (index == 0) & is_bin & low.isfinite() & (high < end)
        above = (index == last) & is_bin & high.isfinite() & (low > start)
        left = torch.where(below, torch.minimum(start, low), start).clamp_min(low)
        right = torch.where(above, torch.maximum(end, high), end).clamp_max(high)
        inside = self.valid[:, None] & torch.where(
            is_bin, right > left, (start >= low) & (start <= high)
        )
        part, _ = _log_mass((left - mean) / sd, (right - mean) / sd)
        whole, _ = _log_mass((start - mean) / sd, (end - mean) / sd)
        narrow = ((right - left) / (end - start)).clamp_min(1e-30).log()
        share = torch.where(end - start > MIN_WIDTH * sd, part - whole, narrow)
        logits = logits + torch.where(is_bin, share, 0.0)
        logits = torch.where(inside, logits, -torch.inf)
        alone = ~inside.any(-1, keepdim=True)
        first = alone & (index == 0)
        logits = torch.where(alone, torch.where(index == 0, 0.0, -torch.inf), logits)
        # An open side ends where the anchor does, or as far beyond the column's range
        # as that is wide.
        reach, least = REACH * sd, MIN_WIDTH * sd
        span = self.own_high[:, -1] - self.own_low[:, 0]
        far = self.own_low[:, 0] - span, self.own_high[:, -1] + span
        far = [self.warp(end[None])[0][:, None, None] for end in far]
        floor = torch.maximum(torch.minimum(mean, high) - reach, far[0])
        floor = torch.where(low.isfinite(), low, torch.minimum(floor, high - least))
        top = torch.minimum(torch.maximum(mean, low) + reach, far[1])
        top = torch.where(high.isfinite(), high, torch.maximum(top, low + least))
        left, right = torch.where(first, floor, left), torch.where(first, top, right)
        return logits, left, right


def _reaching(column, low, high, reaches):
    """Atoms of a column whose outermost bins reach to its ends; marks them."""
    column = {name: part.copy() for name, part in column.items()}
    for k, name, end in ((0, "low", low), (-1, "high", high)):
        beyond = end < column["low"][0] if k == 0 else end > column["high"][-1]
        if beyond and column["is_bin"][k]:  # NaN is not beyond
            column[name][k], reaches[k] = end, True
    return column


def _log_mass(a, b):
    """Log of a normal's mass between standardised ends; of the ratio of its tails."""
    # The log of a difference of distribution functions, in the tail that is small.
    flip = a > 0
    lower, upper = torch.where(flip, -b, a), torch.where(flip, -a, b)
    # Beyond, nothing is left to learn, and float32 has no masses.
    lower, upper = (_log_ndtr(end.clamp(-TAIL, TAIL)) for end in (lower, upper))
    gap = (lower - upper).clamp(max=-1e-6)
    return upper + torch.log(-torch.expm1(gap)), gap


def _tail(low, high, mean, sd):
    """Nearer and further end of intervals in a tail, and how fast it falls there."""
    below = (low + high) / 2 > mean
    near, far = torch.where(below, low, high), torch.where(below, high, low)
    # A normal's tail falls like an exponential from its nearer end.
    return near, far, ((near - mean).abs() / sd**2).clamp_min(1e-3)


def midpoints(n, like):
    """Levels in the middle of n equal parts of (0, 1)."""
    return (torch.arange(n, dtype=like.dtype, device=like.device) + 0.5) / n


def _cut(low, high, mean, sd, between=None):
    """Standardised ends of atoms, the anchor's mass in between, and if it is usable.

    float32 has no digits left to say where in a bin the far tail lies.
    """
    a, b = (((end - mean) / sd).clamp(-8, 8) for end in (low, high))
    # On the side where both masses are small, and the difference keeps its digits.
    flip = a > 0
    upper, lower = torch.where(flip, -a, b), torch.where(flip, -b, a)
    gap = (between or _between)(lower, upper)
    return a, b, gap, (gap > 1e-5) & (b - a > MIN_WIDTH)


def _between(lower, upper):
    """Mass of the standard normal between two ends."""
    return _ndtr(upper) - _ndtr(lower)


def _ndtr(x):
    """Distribution function of the standard normal; torch's own has no digits left."""
    return 0.5 * torch.erfc(-x * _SQRT1_2)


def _log_ndtr(x):
    """Log of the standard normal's distribution function, within `TAIL`.

    erfc, which keeps its digits there, is many times as fast as torch's log_ndtr.
    """
    return torch.log(_ndtr(x))


def _ndtri(p):
    """Quantile of the standard normal; MPS has no kernel for torch's own."""
    if p.device.type == "mps":
        return math.sqrt(2) * torch.erfinv(2 * p - 1)
    return torch.special.ndtri(p)


def _borders(atoms):
    """Borders between the intervals of neighbouring atoms, (n_atoms - 1,).

    Between points they lie halfway; a point beside a bin takes a strip of it as wide
    as half the bin, since an interval without width would have no mass.
    """
    low, high = atoms["low"], atoms["high"]
    borders = (high[:-1] + low[1:]) / 2
    point = high == low
    width = high - low
    left_point = point[:-1] & ~point[1:]
    right_point = ~point[:-1] & point[1:]
    borders = np.where(left_point, high[:-1] + width[1:] / 4, borders)
    return np.where(right_point, low[1:] - width[:-1] / 4, borders)
