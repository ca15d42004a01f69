"""Donors: training rows whose values are copied into missing cells.

Tables hold rows that repeat each other in part: one wine measured twice, one concrete
mixture at five ages, one letter drawn in the same fonts. A network smooths over them.
The log-odds that training row b is such a donor of row a are a sum over the columns
observed in both (Fellegi and Sunter, 1969), of how much likelier the values' distance
is among donors than among strangers,

    z(a, b) = sum over columns l and widths s of
              weight_ls * log((1 - e) exp(-|a_l - b_l| / width_s) / chance_ls(a_l) + e)

with chance the mean of the kernel over all training rows, so that agreeing in a rare
value counts more, and e the share of donors that differ in a column. The distribution
of a missing cell j is a mixture of the network's and of its donors' values, of
weights exp(c_j) and exp(z(a, b)), as a Dirichlet process has it whose base measure is
the network and whose concentration is exp(c_j). The weights and c are learnt on cells
hidden in held-out rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..._shared.contract import Correction, Rows
from ..._shared.devices import slices
from ..._shared.patterns import rows_by_pattern
from ..._shared.weights import some_weights, total_weight

# Elements of a matrix of distances that stays in a core's cache.
SEARCH_ELEMENTS = 1_000_000
# Logarithms of masses are taken of no less.
TINY = 1e-30
# Rows of a block in the search for the largest sums.
BLOCK = 64
# Integers that float32 adds up without rounding, and the most evidence of a column
# beside distances.
EXACT, MAX_RARITY = 2**24, 14.0
# Nats of the search within which the weight of a candidate goes from nothing to all.
RAMP = 0.25
# Rows for each pattern of missing numbers, from which on each is searched by itself.
ROWS_OF_PATTERN = 4


@dataclass(frozen=True)
class DonorSettings:
    """How donors are found, weighed and learnt. "NOTES" is benchmarks/NOTES.md.

    Parameters
    ----------
    n_candidates : int
        Nearest training rows, which alone are weighed. (NOTES, "Donors": 64 for 32 is
        within 0.5 %, both ways.)
    widths : tuple of float
        Widths of the kernels, in standard deviations of a warped column; the search
        uses the last one. (NOTES, "Donors", widths.)
    differing : float
        Share of donors that differ in a column. (NOTES, "Donors": 0.01 and 0.2 are
        within 1 %.)
    reach : float
        Values and distances beyond it, in standard deviations, count as it. (Not
        measured.)
    n_grid, max_chance_rows : int
        Values of a column at which chances are computed, and rows over which their
        means are taken. (Not measured.)
    max_search_levels : int
        One-hot levels of all columns together that the search compares. (Not
        measured.)
    max_cells, min_rows, max_rows : int
        Rows that are searched: so many cells, within these numbers of rows. (NOTES,
        "Donors", rows searched.)
    max_columns : int
        With more columns there are no donors. (Not measured.)
    n_cells, hide_rate, max_repeats : int, float, int
        Hidden cells that the weights are learnt on, the share of a row's cells that is
        hidden, and how often a row takes turns with several masks. (Not measured.)
    n_kind_cells, max_hide_rate : int, float
        At least so many numbers and so many levels are hidden, for up to this share of
        them: on a few hundred cells weights and gains are noise. (NOTES, "Donor
        weights of levels from more cells".)
    n_steps : int
        Optimisation steps for the weights. (NOTES, "Fewer steps for the weights":
        24 lose a twentieth of the gain in mean absolute error.)
    learning_rate, betas : float, tuple of float
        Parameters of the optimiser, Adam. (Not measured; the betas are those of Kingma
        and Ba, 2015.)
    concentration_scale, column_concentration_scale : float
        Factors by which the concentrations of the table and of the columns are learnt
        faster than weights. (Not measured.)
    weight_penalty, concentration_penalty : float
        Penalties on a column's weights and concentration that differ from the table's.
        (Not measured.)
    freedoms : tuple of float
        Factors that divide both penalties, tried in turn. (Not measured.)
    doubt, max_doubt : float
        Weights learnt on few held-out rows are overconfident: the network's
        log-weight grows by ``doubt`` over the number of these rows, up to a limit.
        (NOTES, "Doubt about donors".)
    min_gain : float
        Least gain, as a share of the score plus a share of the point's error; less is
        not worth the search. (Not measured.)
    min_gain_of_max_rows : float
        Least gain where ``max_rows`` rows are searched, and in proportion for fewer,
        since the search takes the longer the more rows there are. (Not measured.)
    min_point_errors : float
        Least gain of the point's error, in standard errors. (NOTES, "Half a standard
        error is enough of the point's error".)
    """

    n_candidates: int = 32
    widths: tuple[float, ...] = (0.015, 0.2)
    differing: float = 0.05
    reach: float = 5.0
    n_grid: int = 65
    max_chance_rows: int = 2000
    max_search_levels: int = 256
    max_cells: int = 400_000
    min_rows: int = 2000
    max_rows: int = 16_384
    max_columns: int = 256
    n_cells: int = 5000
    hide_rate: float = 0.15
    max_repeats: int = 6
    n_kind_cells: int = 4000
    max_hide_rate: float = 0.5
    n_steps: int = 40
    learning_rate: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    concentration_scale: float = 8.0
    column_concentration_scale: float = 3.0
    weight_penalty: float = 2e-3
    concentration_penalty: float = 2e-4
    freedoms: tuple[float, ...] = (1.0, 0.03)
    doubt: float = 100.0
    max_doubt: float = 2.0
    min_gain: float = 5e-3
    min_gain_of_max_rows: float = 4e-2
    min_point_errors: float = 0.5

    @property
    def search_width(self):
        """Width of the kernel that the search uses."""
        return self.widths[-1]

    def step(self, n_columns):
        """Evidence in a search is a multiple of this.

        So sums are exact, in any order: the candidates of a row do not depend on which
        rows are searched for beside it.
        """
        most = n_columns * (2 * self.reach / self.search_width + MAX_RARITY)
        return 2.0 ** math.ceil(math.log2(most / EXACT))

    def limit(self, n_columns):
        """Most rows that are kept, of so many columns."""
        affordable = self.max_cells // n_columns
        return min(self.max_rows, max(self.min_rows, affordable))


DEFAULT = DonorSettings()


class Donors(Correction):
    """Training rows, and the weights by which they are donors of incomplete rows.

    Parameters
    ----------
    network : CompletionNetwork
        The network whose posteriors are corrected.
    values : float tensor of shape (n, d), warped
    observed : bool tensor of shape (n, d)
    settings : DonorSettings
    row_weight : float tensor of shape (n,), optional
        Weights of the rows: a donor of weight 2 counts as two donors.

    Attributes
    ----------
    weight : float tensor of shape (2, d, 2)
        Weights of the columns' evidence under both widths, for numbers and for levels.
    concentration : float tensor of shape (d,)
        Log-weight of the network's distribution.
    is_used : bool tensor of shape (2,)
        Whether numbers take donors' values, whether levels do.
    log_weight : float tensor of shape (n,)
        Logarithms of the rows' weights, where they differ.
    """

    def __init__(self, network, values, observed, settings=DEFAULT, row_weight=None):
        super().__init__()
        self.settings = settings
        d = network.n_columns
        self.register_buffer("numeric", network.numeric.clone())
        self.register_buffer("categorical", network.categorical.clone())
        scale = values.new_ones(d)
        for j in self.numeric.tolist():
            seen = values[observed[:, j], j]
            if len(seen) > 1:
                scale[j] = seen.std().clamp_min(1e-3)
        self.register_buffer("scale", scale)
        cells = self._scaled(values), observed
        cells = (part[:, self.numeric] for part in cells)
        grid, chance = _chances(*cells, settings, row_weight)
        self.register_buffer("grid", grid)  # (numeric, G)
        self.register_buffer("chance", chance)  # (widths, numeric, G)
        levels = values, observed, self.categorical, row_weight
        level_chance, n_levels = _level_chances(*levels)
        self.register_buffer("level_chance", level_chance)  # (categorical, L)
        self.searched = _searched(n_levels, settings.max_search_levels)
        self.register_buffer("weight", values.new_full((2, d, 2), 0.3))
        self.register_buffer("is_used", torch.zeros(2, dtype=torch.bool))
        self.register_buffer(
            "concentration", values.new_full((d,), math.log(len(values)))
        )
        self.store(network, values, observed, row_weight)

    def _scaled(self, values):
        """Numbers in standard deviations within reach, codes of levels, (B, d)."""
        scaled = values / self.scale
        numeric, reach = self.numeric, self.settings.reach
        scaled[:, numeric] = scaled[:, numeric].clamp(-reach, reach)
        return scaled

    def use(self, kind, weight, concentration):
        """Complete columns of a kind by weights (d, 2) and concentrations (d,)."""
        columns = (self.numeric, self.categorical)[kind]
        self.weight[kind], self.concentration[columns] = weight, concentration[columns]
        self.is_used[kind] = True

    def add(self, network, rows):
        """Keep further rows to search, as many as there is room for."""
        limit = self.settings.limit(rows.values.shape[1])
        values = torch.cat([self.values, rows.values])[:limit]
        observed = torch.cat([self.observed, rows.observed])[:limit]
        weight = rows.weight
        if weight is not None:
            weight = torch.cat([self.log_weight.exp(), weight])[:limit]
        self.store(network, values, observed, weight)

    def store(self, network, values, observed, row_weight=None):
        """Keep rows to search."""
        if row_weight is not None:
            self.register_buffer("log_weight", row_weight.log())
        self.register_buffer("values", values)
        self.register_buffer("scaled_values", self._scaled(values))
        self.register_buffer("observed", observed)
        outcome = torch.where(observed, network.index(values), -1)
        self.register_buffer("outcome", outcome.to(torch.int32))
        width = self.settings.search_width
        far = self.settings.reach / width
        x, o = self.scaled_values[:, self.numeric], observed[:, self.numeric]
        x = self.in_steps(x / width)
        self.register_buffer("search_rows", torch.where(o, x, -far))
        flags = o.to(x.dtype)
        agreeing = values.new_ones(len(values), len(self.categorical))
        levels = self._one_hot(values, observed, agreeing, 1.0)
        parts = [flags * (far - x), 1 - flags, flags, levels]
        self.register_buffer("search_flags", torch.cat(parts, 1).T.contiguous())

    def _one_hot(self, values, observed, agreeing, presence):
        """Levels that the search compares and whether they are observed, times factors.

        Shape of ``agreeing``, the factor of a level: (B, categorical); ``presence``,
        that of being observed, is a number.
        """
        codes, observed = values[:, self.categorical], observed[:, self.categorical]
        parts = [values.new_zeros(len(values), 0)]
        for k, n in self.searched:
            seen = observed[:, k, None]
            same = codes[:, k, None] == torch.arange(n, device=values.device)
            parts += [(same & seen) * agreeing[:, k, None], seen * presence]
        return torch.cat(parts, 1)

    def _chance(self, scaled):
        """Log-chances of a row's numbers, (widths, B, numeric)."""
        x = scaled[:, self.numeric].T.contiguous()
        above = torch.searchsorted(self.grid, x).clamp(1, self.grid.shape[1] - 1)
        low, high = self.grid.gather(1, above - 1), self.grid.gather(1, above)
        share = ((x - low) / (high - low).clamp_min(1e-9)).clamp(0.0, 1.0)
        chances = []
        for chance in self.chance:
            start, end = chance.gather(1, above - 1), chance.gather(1, above)
            chances.append((start + share * (end - start)).T)
        return torch.stack(chances)

    def search(self, values, observed):
        """Training rows with the most evidence by the search's width, in any order.

        Returns
        -------
        candidates : int tensor of shape (B, R)
        fading : float tensor of shape (B, R)
            What is added to their log-weights, see `fading`.
        """
        scaled, width = self._scaled(values), self.settings.search_width
        far, o = self.settings.reach / width, observed[:, self.numeric]
        x, flags = self.in_steps(scaled[:, self.numeric] / width), o.to(values.dtype)
        chance = self.in_steps(self._chance(scaled)[-1])
        # A missing number lies far below or above all others. Its distances follow
        # from that, and a product takes them off.
        missing = 1 - flags
        parts = [missing, flags * (x + far) + 2 * far * missing, -flags * chance]
        disagreeing = self.disagreeing
        agreeing = self.in_steps(self.level_rarity(values)) - disagreeing
        parts.append(self._one_hot(values, observed, agreeing, disagreeing))
        left, x = torch.cat(parts, 1), torch.where(o, x, far)
        shape = len(x), min(self.settings.n_candidates, len(self.values))
        candidates = torch.empty(shape, dtype=torch.long, device=x.device)
        faded = x.new_empty(shape)
        for rows, columns, used in self._parts_of_search(o):
            points, flags = self.search_rows[:, columns], self.search_flags[used]
            for part in slices(len(rows), len(points), SEARCH_ELEMENTS, x.device):
                some = rows[part]
                closeness = left[some][:, used], flags
                if points.shape[1]:
                    distances = torch.cdist(x[some][:, columns], points, p=1.0)
                    closeness = distances.addmm_(*closeness, beta=-1.0)
                else:
                    closeness = torch.mm(*closeness)
                candidates[some] = _largest(closeness, shape[1])
                faded[some] = fading(closeness.gather(1, candidates[some]))
        return candidates, faded

    def in_steps(self, evidence):
        """Round to multiples of the search's step."""
        return torch.round(evidence / self._step) * self._step

    @property
    def disagreeing(self):
        """Evidence of disagreeing in a level, in the search."""
        return round(math.log(self.settings.differing) / self._step) * self._step

    @property
    def _step(self):
        return self.settings.step(len(self.scale))

    def _parts_of_search(self, observed):
        """Rows that are searched for together, numeric columns and flags that count.

        Rows that lack the same numbers need no distances in these. Where few rows do,
        taking columns off costs more than it saves.
        """
        n, every = len(observed), slice(None)
        groups = rows_by_pattern(observed)
        if n < ROWS_OF_PATTERN * len(groups):
            yield torch.arange(n, device=observed.device), every, every
            return
        n_levels = len(self.search_flags) - 3 * observed.shape[1]
        levels = observed.new_ones(n_levels)
        for known, rows in groups:
            yield rows, known, torch.cat([known & ~known, known, known, levels])

    def level_rarity(self, values):
        """Evidence of agreeing in a level, (B, categorical)."""
        codes = values[:, self.categorical].long().clamp(0)
        if not codes.shape[1]:
            return codes.to(values.dtype)
        codes = codes.clamp_max(self.level_chance.shape[1] - 1)
        chance = self.level_chance.gather(1, codes.T).T
        return self.column_evidence(-chance)

    def column_evidence(self, log_ratio):
        """Evidence of one column, in which some donors differ."""
        differing = self.settings.differing
        return torch.log((1 - differing) * torch.exp(log_ratio) + differing)

    def evidence(self, values, observed, candidates):
        """Evidence of every column that candidates are donors, (B, R, d, 2)."""
        scaled, widths = self._scaled(values), self.settings.widths
        both = observed[:, None] & self.observed[candidates]
        evidence = values.new_zeros(*candidates.shape, values.shape[1], len(widths))
        n, c = self.numeric, self.categorical
        rows = self.scaled_values[candidates]
        if len(n):
            gap = (scaled[:, None, n] - rows[..., n]).abs_()
            gap = gap.clamp_max_(self.settings.reach)
            chance = self._chance(scaled)
            for k, width in enumerate(widths):
                log_ratio = -gap / width - chance[k][:, None]
                evidence[:, :, n, k] = self.column_evidence(log_ratio)
        if len(c):
            same = scaled[:, None, c] == rows[..., c]
            rarity = self.level_rarity(values)[:, None]
            disagreeing = math.log(self.settings.differing)
            evidence[:, :, c, 0] = torch.where(same, rarity, disagreeing)
        return evidence.masked_fill_(~both[..., None], 0.0)

    def find(self, rows):
        """Candidates, (B, R), and their log-weights for both kinds, (2, B, R)."""
        candidates, z = [], []
        cost = self.settings.n_candidates * rows.values.shape[1]
        for part in slices(len(rows), cost, SEARCH_ELEMENTS, rows.values.device):
            x, o = rows.values[part], rows.observed[part]
            found, faded = self.search(x, o)
            evidence = self.evidence(x, o, found)
            own = truncated(torch.einsum("bkdw,tdw->tbk", evidence, self.weight))
            candidates.append(found)
            z.append(self.counted(own + faded, found))
        return torch.cat(candidates), torch.cat(z, 1)

    def counted(self, z, candidates):
        """Log-weights (..., B, R) of candidates (B, R) that count by rows' weights."""
        if "log_weight" not in self._buffers:
            return z
        return z + self.log_weight[candidates]

    def outcomes(self, candidates, cells):
        """Outcomes of candidates in packed cells, (g, T, R); -1 where missing."""
        columns = cells.columns[..., None].expand(-1, *cells.rows.shape[1:], 1)
        return self.outcome[candidates[cells.rows], columns].long()

    def draw(self, rows, candidates, z, noise, tilts=None):
        """Copy cells of donors, or of none, in proportion to the weights.

        Every donor of a row has a clock, which rings the sooner the larger its weight,
        and so has the network in each cell: a cell is copied from the first to ring of
        the donors in which it is observed, or left to the network. So each cell has the
        distribution that `apply` gives it, and the cells of a row mostly come from one
        donor, so that they belong together.

        Parameters
        ----------
        rows : Rows
            B rows in the network's coordinates.
        candidates, z : tensors of shapes (B, R) and (2, B, R)
            From `find`, in the order of the candidates.
        noise : float tensor of shape (B, 1 + n_candidates), uniform on (0, 1)
        tilts : tensors of shapes (B, d) and (B, R, d), optional
            Logs of factors of the network's weight in a cell and of its donors', where
            self-masking comes after them.

        Returns
        -------
        Rows
            The rows with the copied cells, which count as observed.
        """
        values, observed = rows.values.clone(), rows.observed.clone()
        n_candidates = candidates.shape[1]
        clock = torch.log(-torch.log(noise))
        for kind, columns in enumerate((self.numeric, self.categorical)):
            if not self.is_used[kind]:
                continue
            ring = clock[:, 1 : 1 + n_candidates] - z[kind]
            seen = self.observed[candidates[..., None], columns]  # (B, R, columns)
            ring = ring[..., None].expand(seen.shape)
            own = clock[:, :1] - self.concentration[columns]
            if tilts is not None:
                mass, log_odds = tilts
                ring = ring - log_odds[..., columns]
                own = own - mass[:, columns]
            first, position = torch.where(seen, ring, torch.inf).min(1)
            copied = (first < own) & ~observed[:, columns]
            donated = self.values[candidates.gather(1, position), columns]
            values[:, columns] = torch.where(copied, donated, values[:, columns])
            observed[:, columns] |= copied
        return Rows(values, observed)

    def apply(self, posteriors, rows, network):
        """Mix donors' values into posteriors."""
        del network
        candidates, z = self.find(rows)
        return [self._mixed_in(posterior, candidates, z) for posterior in posteriors]

    def _mixed_in(self, posterior, candidates, z):
        if not self.is_used[posterior.kind]:
            return posterior
        cells = posterior.cells
        weights = z[posterior.kind][cells.rows]
        concentration = self.concentration[cells.columns]
        outcome = self.outcomes(candidates, cells)
        return posterior.with_logits(
            mixed(posterior.logits, outcome, weights, concentration)
        )


def truncated(z):
    """Log of weights (..., R) less the least of a row, so that they fade to zero."""
    least = z.amin(-1, keepdim=True)
    # Next to nothing is left of the least: which of equal rows are found is chance.
    return z + (-torch.expm1(least - z)).clamp_min(TINY).log()


def fading(closeness):
    """Log of the weight that a search leaves to candidates, (B, R) -> (B, R).

    The least one has none, and those that are better by `RAMP` have all: another row
    that is about to take the place of a candidate changes nothing.
    """
    better = closeness - closeness.amin(-1, keepdim=True)
    return (better / RAMP).clamp(TINY, 1.0).log()


def mixed(logits, outcome, z, concentration):
    """Logits of a mixture of a distribution and of outcomes.

    Parameters
    ----------
    logits : float tensor of shape (g, T, K)
    outcome : int tensor of shape (g, T, R)
        -1 for none.
    z : float tensor of shape (g, T, R)
        Log-weights of the outcomes.
    concentration : float tensor of shape (g, 1)
        Log-weight of the distribution.
    """
    z = torch.where(outcome < 0, -torch.inf, z)
    top = torch.maximum(z.detach().amax(-1), concentration.detach())[..., None]
    mass = torch.softmax(logits, -1) * torch.exp(concentration[..., None] - top)
    mass = mass.scatter_add(-1, outcome.clamp_min(0), torch.exp(z - top))
    return mass.clamp_min(TINY).log()


def _largest(closeness, k):
    """Positions of the k largest of every row, (B, n) -> (B, k), in any order.

    They lie in the k blocks with the largest maxima, which are far quicker to find.
    """
    n, n_blocks = closeness.shape[1], closeness.shape[1] // BLOCK
    if n_blocks <= 2 * k:
        return closeness.topk(k, 1, sorted=False).indices
    # Every n_blocks-th position belongs to the same block.
    body = closeness[:, : n_blocks * BLOCK].unflatten(1, (BLOCK, n_blocks))
    block = body.amax(1).topk(k, 1, sorted=False).indices[:, None]
    rest = torch.arange(n_blocks * BLOCK, n, device=closeness.device)
    values = body.gather(2, block.expand(-1, BLOCK, -1)).flatten(1)
    values = torch.cat([values, closeness[:, rest]], 1)
    step = torch.arange(BLOCK, device=closeness.device)[:, None] * n_blocks
    rest = rest.expand(len(closeness), -1)
    position = torch.cat([(block + step).flatten(1), rest], 1)
    return position.gather(1, values.topk(k, 1, sorted=False).indices)


def _chances(x, observed, settings, row_weight):
    """Values of numeric columns, (d, G), and log-means of the kernels, (2, d, G)."""
    d, n_grid, widths = x.shape[1], settings.n_grid, settings.widths
    grid, chance = x.new_zeros(d, n_grid), x.new_zeros(len(widths), d, n_grid)
    for j in range(d):
        seen = x[observed[:, j], j]
        if not len(seen):
            continue
        distinct = seen.unique()
        position = torch.linspace(0, len(distinct) - 1, n_grid, device=x.device)
        grid[j] = distinct[position.round().long()]
        gap = (grid[j][:, None] - seen[: settings.max_chance_rows]).abs()
        gap = gap.clamp_max(settings.reach)
        own = some_weights(row_weight, observed[:, j])
        least = 1 / (2 * total_weight(own, seen))
        own = some_weights(own, slice(settings.max_chance_rows))
        for k, width in enumerate(widths):
            kernel = torch.exp(-gap / width)
            mean = kernel.mean(1) if own is None else kernel @ (own / own.sum())
            chance[k, j] = mean.clamp_min(least).log()
    return grid, chance


def _level_chances(values, observed, categorical, row_weight):
    """Log-frequencies of levels, (categorical, L), and the numbers of levels."""
    counts = []
    for j in categorical.tolist():
        seen = observed[:, j]
        own = some_weights(row_weight, seen)
        counts.append(torch.bincount(values[seen, j].long(), own) + 1.0)
    n_levels = [len(count) for count in counts]
    table = values.new_zeros(len(counts), max(n_levels, default=0))
    for row, count in zip(table, counts, strict=True):
        row[: len(count)] = (count / count.sum()).log()
    return table, n_levels


def _searched(n_levels, max_search_levels):
    """List the columns that the search compares, by index and number of levels."""
    left, chosen = max_search_levels, []
    for k, n in enumerate(n_levels):
        if n <= left:
            chosen.append((k, n))
            left -= n
    return chosen
