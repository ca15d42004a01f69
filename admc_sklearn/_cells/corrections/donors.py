"""Donors: training rows that may be about the same thing.

Tables hold rows that repeat each other in part: one wine measured twice, one concrete
mixture at five ages, one letter drawn in the same fonts. A network smooths over them.
Whether training row b is such a donor of row a is a matter of record linkage
(Fellegi and Sunter, 1969): each column that both know multiplies the odds by how much
likelier the values' distance is among donors than among strangers,

    z(a, b) = sum over columns l and widths s of
              weight_ls * log((1 - e) exp(-|a_l - b_l| / width_s) / chance_ls(a_l) + e)

with chance the mean of the kernel over all training rows, so that agreeing in a rare
value says more, and e the share of donors that differ in a column. The distribution
of a missing cell j is a mixture of the network's and of its donors' values, of
weights exp(prior_j) and exp(z(a, b)), as a Dirichlet process has it whose base measure
is the network. The weights are learnt on cells hidden in held-out rows.
"""

from __future__ import annotations

import math

import torch

from ..._shared.contract import Correction, Rows
from ..._shared.devices import slices

# Candidates by distance; only they are weighed.
N_CANDIDATES = 32
# Of the kernels, in standard deviations of the warped column; the search's is the last.
WIDTHS = (0.015, 0.2)
SEARCH_WIDTH = WIDTHS[-1]
# Share of donors that differ in a column.
DIFFERING = 0.05
# Values beyond, in standard deviations, are as far as it.
REACH = 5.0
# Values of a column that chances are computed at, and rows that they are taken over.
N_GRID, MAX_CHANCE_ROWS = 65, 2000
# One-hot levels that the search compares.
MAX_SEARCH_LEVELS = 256
# Elements of a matrix of distances that stays in a core's cache.
SEARCH_ELEMENTS = 1_000_000
TINY = 1e-30
BLOCK = 64


class Donors(Correction):
    """Training rows, and what makes one a donor of a row to complete.

    Parameters
    ----------
    network : CompletionNetwork
        Whose rows these are.
    values : float tensor of shape (n, d), warped
    observed : bool tensor of shape (n, d)

    Attributes
    ----------
    weight : float tensor of shape (2, d, 2)
        Of the columns' evidence under both widths: for numbers, for levels.
    prior : float tensor of shape (d,)
        Log-weight of the network's distribution.
    is_followed : bool tensor of shape (2,)
        Whether numbers are followed, whether levels are.
    """

    def __init__(self, network, values, observed):
        super().__init__()
        d = network.n_columns
        self.register_buffer("numeric", network.numeric.clone())
        self.register_buffer("categorical", network.categorical.clone())
        scale = values.new_ones(d)
        for j in self.numeric.tolist():
            known = values[observed[:, j], j]
            if len(known) > 1:
                scale[j] = known.std().clamp_min(1e-3)
        self.register_buffer("scale", scale)
        cells = self._scaled(values), observed
        grid, chance = _chances(*(part[:, self.numeric] for part in cells))
        self.register_buffer("grid", grid)  # (numeric, G)
        self.register_buffer("chance", chance)  # (widths, numeric, G)
        level_chance, n_levels = _level_chances(values, observed, self.categorical)
        self.register_buffer("level_chance", level_chance)  # (categorical, L)
        self.searched = _searched(n_levels)
        self.register_buffer("weight", values.new_full((2, d, 2), 0.3))
        self.register_buffer("is_followed", torch.zeros(2, dtype=torch.bool))
        self.register_buffer("prior", values.new_full((d,), math.log(len(values))))
        self.store(network, values, observed)

    def _scaled(self, values):
        """Numbers in standard deviations within reach, codes of levels, (B, d)."""
        scaled = values / self.scale
        numeric = self.numeric
        scaled[:, numeric] = scaled[:, numeric].clamp(-REACH, REACH)
        return scaled

    def follow(self, kind, weight, prior):
        """Retrieve columns of a kind, by weights (d, 2) and priors (d,)."""
        columns = (self.numeric, self.categorical)[kind]
        self.weight[kind], self.prior[columns] = weight, prior[columns]
        self.is_followed[kind] = True

    def store(self, network, values, observed):
        """Keep rows to search."""
        self.register_buffer("values", values)
        self.register_buffer("rows", self._scaled(values))
        self.register_buffer("known", observed)
        outcome = torch.where(observed, network.index(values), -1)
        self.register_buffer("outcome", outcome.to(torch.int32))
        far = REACH / SEARCH_WIDTH
        x, o = self.rows[:, self.numeric] / SEARCH_WIDTH, observed[:, self.numeric]
        self.register_buffer("search_rows", torch.where(o, x, -far))
        flags = o.to(x.dtype)
        agreeing = values.new_ones(len(values), len(self.categorical))
        levels = self._one_hot(values, observed, agreeing, 1.0)
        parts = [flags * (far - x), 1 - flags, flags, levels]
        self.register_buffer("search_flags", torch.cat(parts, 1).T.contiguous())

    def _one_hot(self, values, observed, agreeing, knowing):
        """Levels that the search compares and whether they are known, with their worth.

        Shape of ``agreeing``, the worth of a level: (B, categorical); ``knowing``, that
        of a column, is a number.
        """
        codes, known = values[:, self.categorical], observed[:, self.categorical]
        parts = [values.new_zeros(len(values), 0)]
        for k, n in self.searched:
            seen = known[:, k, None]
            same = codes[:, k, None] == torch.arange(n, device=values.device)
            parts += [(same & seen) * agreeing[:, k, None], seen * knowing]
        return torch.cat(parts, 1)

    def _chance(self, scaled):
        """Log-chances of a row's numbers, (widths, B, numeric)."""
        x = scaled[:, self.numeric].T.contiguous()
        place = torch.searchsorted(self.grid, x).clamp(1, self.grid.shape[1] - 1)
        low, high = self.grid.gather(1, place - 1), self.grid.gather(1, place)
        share = ((x - low) / (high - low).clamp_min(1e-9)).clamp(0.0, 1.0)
        found = []
        for chance in self.chance:
            start, end = chance.gather(1, place - 1), chance.gather(1, place)
            found.append((start + share * (end - start)).T)
        return torch.stack(found)

    def search(self, values, observed):
        """Training rows with the most evidence by the search's width, (B, K)."""
        scaled = self._scaled(values)
        far, o = REACH / SEARCH_WIDTH, observed[:, self.numeric]
        x, flags = scaled[:, self.numeric] / SEARCH_WIDTH, o.to(values.dtype)
        chance = self._chance(scaled)[-1]
        # A missing number lies far below or above all others. What its distances come
        # to is known, and taken off by a product.
        missed = 1 - flags
        parts = [missed, flags * (x + far) + 2 * far * missed, -flags * chance]
        miss = math.log(DIFFERING)
        agreeing = self._level_rarity(values) - miss
        parts.append(self._one_hot(values, observed, agreeing, miss))
        left = torch.cat(parts, 1)
        x = torch.where(o, x, far)
        n_found = min(N_CANDIDATES, len(self.rows))
        found = []
        for part in slices(len(x), len(self.rows), SEARCH_ELEMENTS, x.device):
            if x.shape[1]:
                score = torch.cdist(x[part], self.search_rows, p=1.0)
                score = score.addmm_(left[part], self.search_flags, beta=-1.0)
            else:
                score = left[part] @ self.search_flags
            found.append(_largest(score, n_found))
        return torch.cat(found)

    def _level_rarity(self, values):
        """Evidence of agreeing in a level, (B, categorical)."""
        codes = values[:, self.categorical].long().clamp(0)
        if not codes.shape[1]:
            return codes.to(values.dtype)
        codes = codes.clamp_max(self.level_chance.shape[1] - 1)
        chance = self.level_chance.gather(1, codes.T).T
        return _evidence(-chance)

    def evidence(self, values, observed, found):
        """Evidence of every column that candidates are donors, (B, K, d, 2)."""
        scaled = self._scaled(values)
        both = observed[:, None] & self.known[found]
        out = values.new_zeros(*found.shape, values.shape[1], len(WIDTHS))
        n, c = self.numeric, self.categorical
        rows = self.rows[found]
        if len(n):
            gap = (scaled[:, None, n] - rows[..., n]).abs_().clamp_max_(REACH)
            chance = self._chance(scaled)
            for k, width in enumerate(WIDTHS):
                out[:, :, n, k] = _evidence(-gap / width - chance[k][:, None])
        if len(c):
            same = scaled[:, None, c] == rows[..., c]
            rarity = self._level_rarity(values)[:, None]
            told = torch.where(same, rarity, math.log(DIFFERING))
            out[:, :, c, 0] = told
        return out.masked_fill_(~both[..., None], 0.0)

    def find(self, rows):
        """Candidates, (B, K), and their log-weights for both kinds, (2, B, K)."""
        found, z = [], []
        cost = N_CANDIDATES * rows.values.shape[1]
        for part in slices(len(rows), cost, SEARCH_ELEMENTS, rows.values.device):
            x, o = rows.values[part], rows.observed[part]
            found.append(self.search(x, o))
            told = self.evidence(x, o, found[-1])
            z.append(truncated(torch.einsum("bkdw,tdw->tbk", told, self.weight)))
        return torch.cat(found), torch.cat(z, 1)

    def outcomes(self, found, cells):
        """Outcomes of candidates in packed cells, (g, T, K); -1 where unknown."""
        columns = cells.columns[..., None].expand(-1, *cells.rows.shape[1:], 1)
        return self.outcome[found[cells.rows], columns].long()

    def draw(self, rows, found, z, noise):
        """Copy cells of donors, or of none, in proportion to the weights.

        Every donor of a row has a clock, which rings the sooner the more it weighs,
        and so has the network in each cell: a cell is copied from the first one to ring
        of those that know it, or left to the network. So each cell has the
        distribution that `apply` gives it, and the cells of a row mostly come from one
        donor, so that they belong together.

        Parameters
        ----------
        rows : Rows
            Of B rows, in the network's coordinates.
        found, z : tensors of shapes (B, K) and (2, B, K), from `find`
        noise : float tensor of shape (B, 1 + N_CANDIDATES), uniform on (0, 1)

        Returns
        -------
        Rows
            With what was copied.
        """
        values, observed = rows.values.clone(), rows.observed.clone()
        found, order = found.sort(1)  # the order of a search is arbitrary
        clock = torch.log(-torch.log(noise))
        for kind, columns in enumerate((self.numeric, self.categorical)):
            if not self.is_followed[kind]:
                continue
            ring = clock[:, 1 : 1 + found.shape[1]] - z[kind].gather(1, order)
            known = self.known[found[..., None], columns]  # (B, K, columns)
            first, place = torch.where(known, ring[..., None], torch.inf).min(1)
            own = clock[:, :1] - self.prior[columns]
            copied = (first < own) & ~observed[:, columns]
            there = self.values[found.gather(1, place), columns]
            values[:, columns] = torch.where(copied, there, values[:, columns])
            observed[:, columns] |= copied
        return Rows(values, observed)

    def apply(self, posteriors, rows, network):
        """Mix donors' values into posteriors."""
        del network
        found, z = self.find(rows)
        return [self._mixed_in(posterior, found, z) for posterior in posteriors]

    def _mixed_in(self, posterior, found, z):
        if not self.is_followed[posterior.kind]:
            return posterior
        cells = posterior.cells
        weights = z[posterior.kind][cells.rows]
        prior = self.prior[cells.columns]
        outcome = self.outcomes(found, cells)
        return posterior.with_logits(mixed(posterior.logits, outcome, weights, prior))


def truncated(z):
    """Log of weights (..., K) less the least of a row: none ends abruptly."""
    least = z.amin(-1, keepdim=True)
    return z + torch.log1p(-torch.exp(least - z).clamp_max(1 - 1e-6))


def mixed(logits, outcome, z, prior):
    """Logits of a mixture of a distribution and of outcomes.

    Parameters
    ----------
    logits : float tensor of shape (g, T, K)
    outcome : int tensor of shape (g, T, R)
        -1 for none.
    z : float tensor of shape (g, T, R)
        Log-weights of the outcomes.
    prior : float tensor of shape (g, 1)
        Log-weight of the distribution.
    """
    z = torch.where(outcome < 0, -torch.inf, z)
    top = torch.maximum(z.detach().amax(-1), prior.detach())[..., None]
    mass = torch.softmax(logits, -1) * torch.exp(prior[..., None] - top)
    mass = mass.scatter_add(-1, outcome.clamp_min(0), torch.exp(z - top))
    return mass.clamp_min(TINY).log()


def _largest(score, k):
    """Places of the k largest of every row, (B, n) -> (B, k), in any order.

    They lie in the k blocks with the largest maxima, which are far quicker to find.
    """
    n, n_blocks = score.shape[1], score.shape[1] // BLOCK
    if n_blocks <= 2 * k:
        return score.topk(k, 1, sorted=False).indices
    # Every n_blocks-th place belongs to the same block.
    body = score[:, : n_blocks * BLOCK].unflatten(1, (BLOCK, n_blocks))
    block = body.amax(1).topk(k, 1, sorted=False).indices[:, None]
    rest = torch.arange(n_blocks * BLOCK, n, device=score.device)
    values = body.gather(2, block.expand(-1, BLOCK, -1)).flatten(1)
    values = torch.cat([values, score[:, rest]], 1)
    step = torch.arange(BLOCK, device=score.device)[:, None] * n_blocks
    place = torch.cat([(block + step).flatten(1), rest.expand(len(score), -1)], 1)
    return place.gather(1, values.topk(k, 1, sorted=False).indices)


def _evidence(log_ratio):
    """Evidence of one column, some donors of which differ."""
    return torch.log((1 - DIFFERING) * torch.exp(log_ratio) + DIFFERING)


def _chances(x, observed):
    """Values of numeric columns, (d, G), and log-means of the kernels, (2, d, G)."""
    d = x.shape[1]
    grid, chance = x.new_zeros(d, N_GRID), x.new_zeros(len(WIDTHS), d, N_GRID)
    for j in range(d):
        known = x[observed[:, j], j]
        if not len(known):
            continue
        distinct = known.unique()
        place = torch.linspace(0, len(distinct) - 1, N_GRID, device=x.device)
        grid[j] = distinct[place.round().long()]
        gap = (grid[j][:, None] - known[:MAX_CHANCE_ROWS]).abs().clamp_max(REACH)
        for k, width in enumerate(WIDTHS):
            mean = torch.exp(-gap / width).mean(1)
            chance[k, j] = mean.clamp_min(1 / (2 * len(known))).log()
    return grid, chance


def _level_chances(values, observed, categorical):
    """Log-frequencies of levels, (categorical, L), and their numbers."""
    counts = []
    for j in categorical.tolist():
        known = values[observed[:, j], j].long()
        counts.append(torch.bincount(known) + 1.0)
    n_levels = [len(count) for count in counts]
    table = values.new_zeros(len(counts), max(n_levels, default=0))
    for row, count in zip(table, counts, strict=True):
        row[: len(count)] = (count / count.sum()).log()
    return table, n_levels


def _searched(n_levels):
    """Places of categorical columns that the search compares, and their levels."""
    left, chosen = MAX_SEARCH_LEVELS, []
    for k, n in enumerate(n_levels):
        if n <= left:
            chosen.append((k, n))
            left -= n
    return chosen
