"""The model of cells as ordinary operators, of one size for every pattern.

The fitted model looks at the missing cells alone, which are others in every row. An
exchange format wants arrays whose shapes do not depend on values: here every cell is a
target, whatever is observed, and the completed table takes what it needs.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace

import torch
from torch import nn

from .._cells.anchor.factor_model import FactorAnchor
from .._cells.anchor.gaussian import MIN_SD, MIN_VARIANCE_LEFT
from .._cells.anchor.power_transform import _TINY, PowerTransform
from .._cells.corrections.forests import pooled
from .._cells.network.posterior import NUMBERS, averaged
from .._cells.network.tilt import with_mean_moved
from .row_corrections import DenseDonors, DenseLandmarks, DensePatterns
from .summaries import mean_of, quantile_of


class DenseCells:
    """All cells of some columns, with the interface of `PackedCells`.

    Parameters
    ----------
    n : int
        Rows.
    columns : int tensor of shape (g,)
    """

    def __init__(self, n, columns):
        self.own = columns
        self.columns = columns[:, None]
        self.rows = torch.arange(n)[None].expand(len(columns), n)
        self.filled = torch.ones(len(columns), n, dtype=torch.bool)

    def gather(self, table):
        """Cells' entries of a (B, d) table: (g, B)."""
        return table[:, self.own].T


class DenseWarp(nn.Module):
    """A `PowerTransform` without log1p and expm1, which the format lacks.

    They are computed in float64, all else in float32 as it is there: near an origin
    what the last digit of a value says is magnified.
    """

    def __init__(self, warp):
        super().__init__()
        self.is_identity = warp.is_identity
        for name in PowerTransform.fields:
            self.register_buffer(name, getattr(warp, name).clone())
        self.register_buffer("above", _kept_off(self.power))
        self.register_buffer("below", _kept_off(2.0 - self.power))

    def forward(self, values):
        """Warped values, (n, d) -> (n, d)."""
        if self.is_identity:
            return values
        x = (values - self.origin) / self.unit
        power = torch.where(x >= 0, self.above, self.below)
        size = _expm1(power * _log1p(x.abs())) / power
        warped = (torch.sign(x) * size - self.shift) / self.scale
        return torch.where(self.power == 1, values, warped)

    def inverse(self, warped, columns=slice(None)):
        """Values of warped ones in the given columns; shapes are broadcast."""
        if self.is_identity:
            return warped
        z = warped * self.scale[columns] + self.shift[columns]
        power = torch.where(z >= 0, self.above[columns], self.below[columns])
        size = _expm1(_log1p((power * z.abs()).clamp_min(_TINY - 1)) / power)
        values = torch.sign(z) * size * self.unit[columns] + self.origin[columns]
        return torch.where(self.power[columns] == 1, warped, values)


def _log1p(x):
    return torch.log(1 + x.double()).float()


def _expm1(x):
    return (torch.exp(x.double()) - 1).float()


def _kept_off(power):
    """Powers off their removable singularity."""
    return torch.where(power.abs() < _TINY, torch.full_like(power, _TINY), power)


def inverted(matrices, size):
    """Inverse of positive definite matrices (..., k, k), by Gauss and Jordan."""
    # Few operators a step: they are written out in the graph, step by step.
    eye = torch.eye(size, dtype=matrices.dtype)
    for k in range(size):
        row, unit = matrices.narrow(-2, k, 1), eye.narrow(0, k, 1)
        column = matrices.narrow(-1, k, 1) - unit.T
        matrices = matrices - column * ((row + unit) / row.narrow(-1, k, 1))
    return matrices


class DenseAnchor(nn.Module):
    """The anchor conditioned on what is observed, by a masked solve of fixed size.

    Parameters
    ----------
    anchor : ColumnAnchor
    """

    def __init__(self, anchor):
        super().__init__()
        self.anchor, c = anchor, anchor.coordinates
        self.size = c.n_all
        if not c.is_plain:
            place = c.used.nonzero()
            self.register_buffer("used_column", place[:, 0])
            self.register_buffer("used_score", place[:, 1])
        gaussian = anchor.gaussian
        self.is_full = not isinstance(gaussian, FactorAnchor)
        if self.is_full:
            self.register_buffer("square", gaussian.precision @ gaussian.precision)

    def base(self, values, observed):
        """Cells of columns to cells of coordinates: (B, d) twice -> (B, D) twice."""
        c = self.anchor.coordinates
        if c.is_plain:
            return values, observed
        scores = c.scores(values)[:, self.used_column, self.used_score]
        x = torch.cat([values[:, c.numeric], scores.to(values.dtype)], 1)
        return x, observed[:, c.column]

    def condition(self, values, observed):
        """Moments of rows, as `Anchored` names them."""
        c = self.anchor.coordinates
        x, o = self.base(values, observed)
        if c.distances is not None:
            x, o = c.distances.append(x, o)
        moments = self._full if self.is_full else self._factors
        mean, variance, cov = moments(x, o, c.n_base)
        known, n = o[:, : c.n_base], values.dtype
        mean = torch.where(known, x[:, : c.n_base], mean.to(n))
        sd = variance.clamp_min(MIN_SD**2).sqrt().to(n)
        sd = torch.where(known, torch.zeros_like(sd), sd)
        found = SimpleNamespace(mean=self._columns(mean), sd=self._columns(sd))
        if c.is_plain:
            return found
        score_mean, cov = self.anchor._unused(mean[:, c.slots].double(), cov)
        r, shape = c.slots.shape[1], cov.shape
        precision = inverted(cov.reshape(-1, r, r), r).reshape(shape)
        found.score_mean, found.score_precision = score_mean, precision
        return found

    def _columns(self, coordinates):
        c = self.anchor.coordinates
        if c.is_plain:
            return coordinates[:, : c.n_columns]
        out = coordinates.new_zeros(coordinates.shape[0], c.n_columns)
        return out.index_copy(1, c.numeric, coordinates[:, : c.n_numeric])

    def _full(self, x, o, n_first):
        gaussian = self.anchor.gaussian
        missing = ~o
        both = missing[:, :, None] & missing[:, None]
        eye = torch.eye(self.size, dtype=torch.float64)
        # Where a cell is observed stands the identity, so that the size is fixed.
        inverse = inverted(torch.where(both, gaussian.precision, eye), self.size)
        inverse = torch.where(both, inverse, torch.zeros_like(inverse))
        known = torch.where(o, x.double() - gaussian.mean, torch.zeros_like(x.double()))
        pull = known @ gaussian.precision
        deviation = -(inverse @ pull[..., None])[..., 0]
        variance = torch.diagonal(inverse, dim1=1, dim2=2)
        if gaussian.excess:
            relief = ((inverse @ self.square) * inverse).sum(-1)
            less = variance - gaussian.excess * relief
            variance = torch.maximum(less, MIN_VARIANCE_LEFT * variance)
        mean = (deviation + gaussian.mean)[:, :n_first]
        return mean, variance[:, :n_first], self._blocks(inverse)

    def _blocks(self, cov):
        """Covariances of the scores of each categorical column, (n, C, r, r)."""
        c = self.anchor.coordinates
        if c.is_plain:
            return None
        found = cov[:, c.slots[:, :, None], c.slots[:, None]]
        seen = torch.diagonal(found, dim1=2, dim2=3)[:, :, :1] == 0  # observed levels
        eye = torch.eye(c.slots.shape[1], dtype=cov.dtype)
        return torch.where(seen[..., None], eye, found)

    def _factors(self, x, o, n_first):
        factors, c = self.anchor.gaussian, self.anchor.coordinates
        k, kind = factors.loadings.shape[1], torch.float64
        loadings, noise = factors.loadings.to(kind), factors.noise.to(kind)
        scaled = loadings / noise[:, None]
        outer = (scaled[:, :, None] * loadings[:, None, :]).flatten(1)
        eye = torch.eye(k, dtype=kind)
        precision = (o.to(kind) @ outer).reshape(-1, k, k) + eye
        cov = inverted(precision, k)
        known = torch.where(o, x.to(kind) - factors.mean, torch.zeros_like(x.to(kind)))
        z = (cov @ (known @ scaled)[..., None])[..., 0]
        square = (loadings[:, :, None] * loadings[:, None, :]).flatten(1)
        mean = factors.mean + z @ loadings.T
        variance = noise + cov.flatten(1) @ square.T
        joint = None
        if not c.is_plain:
            own = loadings[c.slots]  # (C, r, k)
            joint = own @ cov[:, None] @ own.mT + noise[c.slots].diag_embed()
        return mean[:, :n_first], variance[:, :n_first], joint


class DenseNetwork(nn.Module):
    """One network: the posteriors of all cells.

    Parameters
    ----------
    network : CompletionNetwork
        Without others; its parts are used, its warps replaced by `DenseWarp`.
    """

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.anchor = DenseAnchor(network.anchor)
        head = network.mean_head
        self.has_means = head is not None and bool(head.weight.any())

    def forward(self, values, observed):
        """Posteriors of all cells, for every head, and the rows' anchored moments."""
        network = self.network
        n = values.shape[0]
        anchored = self.anchor.condition(values, observed)
        prior = network.prior
        summaries = network.summarise(values, observed, anchored)
        found = []
        for k, head in enumerate(network.heads):
            cells = DenseCells(n, head.columns)
            own = summaries[None].expand(len(head.columns), -1, -1)
            posterior = head.posterior(
                cells, own, prior.anchor, prior.margin(k), anchored
            )
            found.append(posterior.of_head(k))
        if self.has_means:
            means = network.means(summaries, values, observed, anchored)
            found = [self._moved(p, means) if p.kind == NUMBERS else p for p in found]
        return found, anchored

    def _moved(self, posterior, means):
        cells = posterior.cells
        weight = self.network.mean_head.weight[cells.columns]
        shift = weight * (cells.gather(means) - mean_of(posterior))
        return with_mean_moved(posterior, shift)


class DenseForests(nn.Module):
    """Forests whose leaves are rows of a table, padded to the largest.

    Parameters
    ----------
    forests : Forests
    """

    def __init__(self, forests):
        super().__init__()
        self.settings, self.depth = forests.settings, forests.depth
        is_served = (forests.weight > 0) & (forests.root[:, 0] >= 0)
        self.serves = is_served.tolist()
        self.register_buffer("feature", forests.feature.long())
        for name in ("threshold", "child", "weight"):
            self.register_buffer(name, getattr(forests, name))
        self.n_trees = forests.root.shape[1]
        # All trees of the columns that are served, (s trees,).
        self.register_buffer("root", forests.root[is_served].flatten())
        largest = max(1, int(forests.size.max())) if len(forests.size) else 1
        place = torch.arange(largest)
        inside = place < forests.size[:, None]
        entry = (forests.start[:, None] + place).clamp_max(len(forests.outcome) - 1)
        outcome = torch.where(inside, forests.outcome[entry].int(), 0)
        self.register_buffer("outcome", outcome)
        mass = torch.where(inside, forests.mass[entry], 0.0)
        self.register_buffer("mass", mass)

    def apply(self, posteriors, places, points, usable):
        """Pool posteriors of all cells with what the leaves say.

        ``places`` are the columns of every posterior, as lists.
        """
        if not len(self.root):
            return posteriors
        node = self._leaves(points)
        share = self.mass[node] / self.n_trees * usable[:, :, None]
        shape = points.shape[0], -1, self.n_trees * self.mass.shape[1]
        leaves = self.outcome[node].long().reshape(shape), share.reshape(shape)
        parts = zip(posteriors, places, strict=True)
        return [self._pooled(posterior, own, *leaves) for posterior, own in parts]

    def _leaves(self, points):
        """Leaves that rows reach, (B, f) -> (B, s trees)."""
        node = self.root[None].expand(points.shape[0], -1)
        for _ in range(self.depth):
            value = points.gather(1, self.feature[node])
            right = (value > self.threshold[node]).long()
            node = self.child[2 * node + right]
        return node

    def _pooled(self, posterior, places, outcome, share):
        """Pool one posterior with leaves (B, s, entries) of all columns served."""
        served = [k for k, j in enumerate(places) if self.serves[j]]
        if not served:
            return posterior
        order = [sum(self.serves[: places[k]]) for k in served]
        outcome, share = outcome[:, order], share[:, order]
        mass = torch.zeros_like(posterior.logits)
        found = torch.zeros(*share.shape[:2], mass.shape[2], dtype=share.dtype)
        found = found.scatter_add(2, outcome, share).transpose(0, 1)
        mass = mass.index_copy(0, torch.tensor(served), found)
        weight = self.weight[posterior.cells.own][:, None]
        return pooled(posterior, mass, weight, self.settings.own_share)


class DenseModel(nn.Module):
    """A model of cells: standardised values to completed ones.

    Parameters
    ----------
    model : CellModel
    statistic : "mean" or float
    """

    def __init__(self, model, statistic):
        super().__init__()
        model = copy.deepcopy(model).move_to("cpu")
        for module in list(model.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, PowerTransform):
                    setattr(module, name, DenseWarp(child))
        first = model.network
        others, first.others = list(first.others), nn.ModuleList()
        self.networks = nn.ModuleList(DenseNetwork(one) for one in (first, *others))
        self.statistic, self.self_masking = statistic, model.self_masking
        self.landmarks = self.donors = self.forests = self.patterns = None
        if model.landmarks is not None:
            self.landmarks = DenseLandmarks(model.landmarks, first)
        if model.donors is not None:
            self.donors = DenseDonors(model.donors)
        if model.forests is not None:
            self.forests = DenseForests(model.forests)
        if model.patterns is not None:
            self.patterns = DensePatterns(model.patterns, first)
        # Columns of every head.
        self.places = [head.columns.tolist() for head in first.heads]

    def forward(self, values, observed):
        """Completed values (B, d) and posteriors, of standardised ones (B, d)."""
        first = self.networks[0].network
        x = first.coordinates(values)
        truth = first.warp.inverse(x) if len(self.networks) > 1 else None
        parts, anchored = [], None
        for k, one in enumerate(self.networks):
            own = x if k == 0 else one.network.coordinates(truth)
            posteriors, moments = one(own, observed)
            anchored = moments if k == 0 else anchored
            parts.append(posteriors)
        posteriors = [averaged(same) for same in zip(*parts, strict=True)]
        posteriors = self._corrected(posteriors, x, observed, anchored)
        completed = self.completed(values, observed, posteriors, self.statistic)
        return completed, posteriors

    def completed(self, values, observed, posteriors, statistic):
        """Values with a statistic of the posteriors where they are missing, (B, d)."""
        out = torch.zeros_like(values)
        for posterior in posteriors:
            point = _point(posterior, statistic)
            out = out.index_copy(1, posterior.cells.own, point.T)
        return torch.where(observed, values, out)

    def _corrected(self, posteriors, x, observed, anchored):
        """Correct posteriors in the order of `CellModel.corrections`."""
        base = self.networks[0].anchor.base
        if self.landmarks is not None:
            posteriors = self.landmarks.apply(posteriors, x, observed, base)
        if self.donors is not None:
            posteriors = self.donors.apply(posteriors, x, observed)
        if self.forests is not None:
            points = self._points(x, observed, anchored)
            usable = observed.any(1, keepdim=True).to(points.dtype)
            posteriors = self.forests.apply(posteriors, self.places, points, usable)
        if self.patterns is not None:
            posteriors = self.patterns.apply(posteriors, x, observed, base)
        if self.self_masking is not None:
            posteriors = self.self_masking.apply(posteriors, None, None)
        return posteriors

    def _points(self, x, observed, anchored):
        """As `forests.inputs`."""
        one = self.networks[0]
        network, c = one.network, one.network.anchor.coordinates
        mean = anchored.mean.clamp(network.low, network.high)
        filled = torch.where(observed, x, mean)
        points, known = one.anchor.base(filled, observed)
        if not c.is_plain:
            scores = anchored.score_mean[
                :, one.anchor.used_column, one.anchor.used_score
            ]
            numeric, own = points[:, : c.n_numeric], points[:, c.n_numeric :]
            seen = known[:, c.n_numeric :]
            own = torch.where(seen, own, scores.to(points.dtype))
            points = torch.cat([numeric, own], 1)
        return torch.cat([points, observed.to(points.dtype)], 1)


def _point(posterior, statistic):
    """Mean or quantile of every cell, (g, B), as `CellPosterior.point`."""
    if posterior.kind != NUMBERS:
        likely = posterior.logits.argmax(-1).to(torch.float32)
        if posterior.ordered is None or statistic == "mean":
            return likely
        below = torch.softmax(posterior.logits, -1).cumsum(-1)
        place = (below < statistic).sum(-1).to(torch.float32)
        return torch.where(posterior.ordered[:, None], place, likely)
    if statistic == "mean":
        return mean_of(posterior)
    return quantile_of(posterior, statistic)
