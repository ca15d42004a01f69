"""Corrections by training rows as operators.

They correct the posteriors of all cells as `LandmarkRegression`, `Donors` and
`PatternRegression` correct those of the missing cells. Distances to training rows are
summed over a few columns at a time, so that the memory of a row does not grow with the
number of its columns.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from .._cells.corrections.donors import fading, mixed, truncated
from .._cells.corrections.pattern_regression import KERNELS
from .._cells.network.posterior import NUMBERS
from .._cells.network.tilt import longest_shift, with_mean_moved
from .summaries import mean_of

# Elements of a row's differences to training rows that are computed at once.
DIFFERENCES = 16_384


def _parts(n_columns, n_rows):
    """Slices of columns whose differences to so many rows are computed at once."""
    size = max(1, DIFFERENCES // n_rows)
    return [slice(lo, lo + size) for lo in range(0, n_columns, size)]


def distances(rows, points, power=1):
    """Sum of powers of absolute differences, (B, D) and (D, M) -> (B, M)."""
    total = 0.0
    for part in _parts(*points.shape):
        if part.stop - part.start == 1:
            difference = rows[:, part] - points[part]  # (B, M)
            total = total + _powered(difference, power)
        else:
            difference = rows[:, part, None] - points[part]  # (B, columns, M)
            total = total + _powered(difference, power).sum(1)
    return total


def _powered(difference, power):
    return difference.abs() if power == 1 else difference * difference


class DenseLandmarks(nn.Module):
    """`LandmarkRegression` of all numbers that it serves.

    Parameters
    ----------
    landmarks : LandmarkRegression
    network : CompletionNetwork
        The first one, with warps that can be exported.
    """

    def __init__(self, landmarks, network):
        super().__init__()
        self.landmarks, self.network = landmarks, network
        served = landmarks.weight > 0
        self.columns = served.nonzero()[:, 0].tolist()
        self.register_buffer("coordinate", landmarks.coordinate[served])
        self.register_buffer("own_points", landmarks.points[self.coordinate])
        self.register_buffer("solution", landmarks.solution[served])

    def apply(self, posteriors, values, observed, base):
        """Move the means of numbers towards the regression's predictions.

        ``values`` are warped, and ``base`` makes coordinates of them.
        """
        landmarks = self.landmarks
        settings = landmarks.settings
        means = [_point(posterior) for posterior in posteriors]
        table = torch.zeros_like(values)
        for posterior, mean in zip(posteriors, means, strict=True):
            table = table.index_copy(1, posterior.cells.own, mean.T)
        filled = torch.where(observed, values, self.network.warp(table))
        rows, _ = base(filled, torch.ones_like(observed))
        rows = rows.float().clamp(-settings.reach, settings.reach)
        columns = torch.tensor(self.columns)
        predicted = table.index_copy(1, columns, self.predict(rows))
        usable = observed.any(1).to(values.dtype)
        weight = landmarks.weight[:, None] * usable  # (d, B)
        parts = zip(posteriors, means, strict=True)
        return [_moved(p, mean, predicted, weight, settings.tilt) for p, mean in parts]

    def predict(self, rows):
        """Predict the columns that are served, (B, D) -> (B, s), in own units."""
        landmarks, found = self.landmarks, []
        total = distances(rows, landmarks.points)[:, None]
        own = rows[:, self.coordinate]
        for part in _parts(*self.solution.shape):
            # The column itself is taken off.
            apart = (own[:, part, None] - self.own_points[part]).abs() - total
            weights = torch.exp(apart.clamp_max(0.0) / landmarks.width)
            found.append((weights * self.solution[part]).sum(-1))
        return torch.cat(found, 1)


def _point(posterior):
    """Means of numbers, codes of the most probable levels, (g, B)."""
    if posterior.kind == NUMBERS:
        return mean_of(posterior)
    return posterior.logits.argmax(-1).to(posterior.logits.dtype)


def _moved(posterior, mean, predicted, weight, tilt, precision=None):
    """Move the means of numbers, (g, B), towards predictions, (B, d).

    By weights (d, B), and narrow them by precisions, (d, B), if any.
    """
    if posterior.kind != NUMBERS:
        return posterior
    own, limit = posterior.cells.own, longest_shift(posterior, tilt)
    step = weight[own] * (predicted.T[own] - mean)
    step = torch.minimum(torch.maximum(step, -limit), limit)
    precision = None if precision is None else precision[own]
    return with_mean_moved(posterior, step, tilt, precision)


class DenseDonors(nn.Module):
    """`Donors` of all cells.

    Parameters
    ----------
    donors : Donors
    """

    def __init__(self, donors):
        super().__init__()
        self.donors = donors
        self.uses = donors.is_used.tolist()
        self.n_candidates = min(donors.settings.n_candidates, len(donors.values))
        is_numeric = torch.zeros(len(donors.concentration), dtype=torch.bool)
        is_numeric[donors.numeric] = True
        self.register_buffer("is_numeric", is_numeric)
        self.register_buffer("search_columns", donors.search_rows.T.contiguous())
        # Of the levels that the search compares: the place of the column among the
        # categorical ones and the code, -1 for "whether the cell is observed".
        pairs = [(k, code) for k, n in donors.searched for code in (*range(n), -1)]
        searched = torch.tensor(pairs).reshape(-1, 2)
        self.register_buffer("owner", searched[:, 0])
        self.register_buffer("level", searched[:, 1])

    def apply(self, posteriors, values, observed):
        """Mix donors' values into posteriors; ``values`` are warped."""
        donors = self.donors
        candidates, z = self.find(values, observed)
        outcome = donors.outcome[candidates]  # (B, R, d)
        return [self._mixed_in(posterior, outcome, z) for posterior in posteriors]

    def _mixed_in(self, posterior, outcome, z):
        if not self.uses[posterior.kind]:
            return posterior
        own = posterior.cells.own
        outcome = outcome[:, :, own].permute(2, 0, 1).long()
        z = z[posterior.kind][None].expand(outcome.shape)
        concentration = self.donors.concentration[own][:, None]
        return posterior.with_logits(mixed(posterior.logits, outcome, z, concentration))

    def find(self, values, observed):
        """Candidates, (B, R), and their log-weights for both kinds, (2, B, R)."""
        donors, reach = self.donors, self.donors.settings.reach
        scaled = values / donors.scale
        scaled = torch.where(self.is_numeric, scaled.clamp(-reach, reach), scaled)
        chance = self._chance(scaled[:, donors.numeric])
        rarity = donors.level_rarity(scaled)
        candidates, faded = self._search(scaled, observed, chance[-1], rarity)
        z = truncated(self._evidence(scaled, observed, candidates, chance, rarity))
        return candidates, donors.counted(z + faded, candidates)

    def _chance(self, x):
        """Log-chances of numbers, (B, numeric) -> (widths, B, numeric)."""
        grid, chance = self.donors.grid, self.donors.chance
        above = (grid < x[..., None]).sum(-1).clamp(1, grid.shape[1] - 1)
        low, high = (grid.T.gather(0, k) for k in (above - 1, above))
        share = ((x - low) / (high - low).clamp_min(1e-9)).clamp(0.0, 1.0)
        found = []
        for own in chance.unbind(0):
            start, end = (own.T.gather(0, k) for k in (above - 1, above))
            found.append(start + share * (end - start))
        return torch.stack(found)

    def _search(self, scaled, observed, chance, rarity):
        """Training rows with the most evidence by the search's width, see `Donors`."""
        donors, settings = self.donors, self.donors.settings
        far, seen = settings.reach / settings.search_width, observed[:, donors.numeric]
        x = donors.in_steps(scaled[:, donors.numeric] / settings.search_width)
        chance, rarity = donors.in_steps(chance), donors.in_steps(rarity)
        flags = seen.to(x.dtype)
        missing = 1 - flags
        # As `Donors.search` takes missing numbers off.
        parts = [missing, flags * (x + far) + 2 * far * missing, -flags * chance]
        if len(self.owner):
            codes, seen_levels = (
                part[:, donors.categorical][:, self.owner]
                for part in (scaled, observed)
            )
            differing = donors.disagreeing
            agreeing = rarity[:, self.owner] - differing
            is_level = self.level >= 0
            factor = torch.where(
                is_level, agreeing, torch.full_like(agreeing, differing)
            )
            holds = seen_levels & (~is_level | (codes == self.level))
            parts.append(torch.where(holds, factor, torch.zeros_like(factor)))
        closeness = torch.cat(parts, 1) @ donors.search_flags
        if x.shape[1]:
            x = torch.where(seen, x, torch.full_like(x, far))
            closeness = closeness - distances(x, self.search_columns)
        closeness, candidates = closeness.topk(self.n_candidates, 1, sorted=False)
        return candidates, fading(closeness)

    def _evidence(self, scaled, observed, candidates, chance, rarity):
        """Evidence that candidates are donors, weighed for both kinds, (2, B, R)."""
        donors, settings = self.donors, self.donors.settings
        rows = donors.scaled_values[candidates]  # (B, R, d)
        both = observed[:, None] & donors.observed[candidates]
        n, c = donors.numeric, donors.categorical
        total = 0.0
        if len(n):
            gap = (scaled[:, None, n] - rows[..., n]).abs().clamp_max(settings.reach)
            for k, width in enumerate(settings.widths):
                found = donors.column_evidence(-gap / width - chance[k][:, None])
                found = torch.where(both[..., n], found, torch.zeros_like(found))
                total = total + found @ donors.weight[:, n, k].T
        if len(c):
            same = scaled[:, None, c] == rows[..., c]
            rarity = rarity[:, None].expand(same.shape)
            differing = torch.full_like(rarity, math.log(settings.differing))
            found = torch.where(same, rarity, differing)
            found = torch.where(both[..., c], found, torch.zeros_like(found))
            total = total + found @ donors.weight[:, c, 0].T
        return total.permute(2, 0, 1)


class DensePatterns(nn.Module):
    """`PatternRegression`, of the rows that have each pattern.

    Parameters
    ----------
    patterns : PatternRegression
    network : CompletionNetwork
        The first one.
    """

    def __init__(self, patterns, network):
        super().__init__()
        self.settings = patterns.settings
        self.patterns = nn.ModuleList(
            DensePattern(pattern, network, patterns.settings)
            for pattern in patterns.patterns
        )

    def apply(self, posteriors, values, observed, base):
        """Move the means of numbers; ``values`` are warped, ``base`` as above."""
        coordinates, _ = base(values.double(), torch.ones_like(observed))
        reach = self.settings.reach
        coordinates = coordinates.clamp(-reach, reach)
        predicted = torch.zeros_like(values)
        weight, precision = (torch.zeros_like(values) for _ in range(2))
        for one in self.patterns:
            has = (observed == one.observed).all(1)
            rows = has.nonzero()[:, 0]
            own = predicted[rows].index_copy(1, one.columns, one(coordinates[rows]))
            predicted = predicted.index_copy(0, rows, own)
            has = has[:, None]
            weight = torch.where(has, one.weight, weight)
            precision = torch.where(has, one.precision, precision)
        own = predicted, weight.T, self.settings.tilt, precision.T
        return [
            _moved(p, mean_of(p), *own) if p.kind == NUMBERS else p for p in posteriors
        ]


class DensePattern(nn.Module):
    """The regressions of one pattern.

    Parameters
    ----------
    pattern : OnePattern
    network : CompletionNetwork
    settings : PatternSettings
    """

    def __init__(self, pattern, network, settings):
        super().__init__()
        d, base = len(pattern.observed), network.anchor.coordinates.base
        for name in ("observed", "weight", "precision"):
            self.register_buffer(name, getattr(pattern, name))
        _, known = base(torch.zeros(1, d), pattern.observed[None])
        self.register_buffer("known", known[0].nonzero()[:, 0])
        self.regressions = pattern.regressions
        self.choices = [r.choice.tolist() for r in pattern.regressions]
        self.register_buffer("columns", torch.cat(pattern.columns))

    def forward(self, coordinates):
        """Predict the columns, (B, D) -> float32 (B, t)."""
        rows = coordinates[:, self.known]
        parts = zip(self.regressions, self.choices, strict=True)
        found = [self._predicted(rows, *part) for part in parts]
        return torch.cat(found, 1).float()

    def _predicted(self, rows, regression, choice):
        """Predict the columns of one regression, float64 (B, t)."""
        found, apart = regression.center, {}
        for k in sorted(set(choice)):
            norm, _, shape = KERNELS[regression.kernels[k]]
            if norm not in apart:
                apart[norm] = distances(rows, regression.points.T, norm)
                if norm == 2:
                    apart[norm] = apart[norm].sqrt()
            own = torch.tensor([float(c == k) for c in choice], dtype=rows.dtype)
            weights = shape(apart[norm] / regression.widths[k])
            found = found + weights @ (regression.solution * own)
        return found
