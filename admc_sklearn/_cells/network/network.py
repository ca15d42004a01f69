"""The completion network: encoders, anchor, denoiser and heads put together.

One call gives the posteriors of the target cells, given a row's observed cells.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from ..._shared.devices import GPU_SHARE, slices
from ..._shared.trunk import matrices_of
from ..._shared.weights import some_weights
from ..anchor.column_anchor import fit_anchor
from .atoms import Atoms, column_atoms
from .cell_encoding import LevelEmbedding, PiecewiseLinearEncoder, quantile_knots
from .denoiser import Denoiser
from .gaps import with_gap
from .heads import LevelHead, NumericHead
from .mean_head import MeanHead
from .posterior import NUMBERS, PackedCells, averaged
from .tilt import with_mean_moved

MAX_TOKENS = 64
N_KNOTS = 17
# Elements of one (cells, outcomes) array; several of them are alive at once, in each
# thread. Batches of 500 narrow rows leave work for two threads in small tables.
BATCH_ELEMENTS = 500_000
# On a GPU there are 128 times as many, and no more than attention's kernels take.
BATCHES_OF_GPU = 8
MAX_BATCH_ROWS = 65_535 // GPU_SHARE
# Heads of columns with like numbers of outcomes are computed together.
HEAD_SIZES = (8, 64, 512)
# Values further beyond the training range, in standard deviations, count as this far.
REACH = 10.0
# Scores of rare levels are large; as features they need not be.
MAX_SCORE = 4.0


class Prior(nn.Module):
    """The distribution before the network corrects it: the anchor and the margins.

    Parameters
    ----------
    anchor : ColumnAnchor
    margins : list of float tensor or None
        One for each head, see `NumericHead.margin`.
    """

    def __init__(self, anchor, margins):
        super().__init__()
        self.anchor = anchor
        for k, margin in enumerate(margins):
            self.register_buffer(f"margin_{k}", margin)

    def margin(self, k):
        """Margin of head k."""
        return getattr(self, f"margin_{k}")


class CompletionNetwork(nn.Module):
    """Posterior of missing cells given the observed ones, for every pattern.

    Parameters
    ----------
    prior : Prior
    warp : PowerTransform
        Of all columns; the identity for categorical ones.
    encoder : PiecewiseLinearEncoder
        Of the numeric columns.
    heads : list of NumericHead and LevelHead
        Of all columns.
    mean_head : MeanHead or None
    size : NetworkSize
    generator : torch.Generator on the CPU
        Of the weights.
    """

    def __init__(self, prior, warp, encoder, heads, mean_head, size, generator):
        super().__init__()
        coordinates = prior.anchor.coordinates
        d = coordinates.n_columns
        self.prior, self.warp, self.encoder = prior, warp, encoder
        self.heads = nn.ModuleList(heads)
        self.n_columns = d
        group = math.ceil(d / MAX_TOKENS)
        n_features = encoder.n_features + 3 if encoder is not None else 0
        self.denoiser = Denoiser(
            d,
            max(n_features, coordinates.used.shape[1] + 1),
            group,
            size,
            generator,
        )
        self.dropout = size.dropout
        self.mean_head = mean_head
        # Networks with anchors and coordinates of their own, whose outputs are averaged
        # with this one's.
        self.others = nn.ModuleList()
        self.levels = None
        if not coordinates.is_plain:
            n_levels = (coordinates.share > 0).sum(1).tolist()
            self.levels = LevelEmbedding(n_levels, size.width)
            token = torch.as_tensor(coordinates.categorical) // group
            self.register_buffer("level_tokens", token)
        self.register_buffer("numeric", coordinates.numeric.clone())
        self.register_buffer("categorical", coordinates.codes_of.clone())
        low, high = torch.zeros(2, d)
        for head in self.heads:
            low[head.columns], high[head.columns] = head.limits
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    @property
    def hidden_matrices(self):
        """Weights of wide layers that mix all tokens and predict nothing, a list."""
        layers, head = [self.denoiser.mix, self.denoiser.layers], self.mean_head
        if head is not None:
            layers += [head.first, head.second]
        return matrices_of(*layers)

    @property
    def all(self):
        """List this network and the others."""
        return [self, *self.others]

    @property
    def anchor(self):
        """The anchor fitted to all rows."""
        return self.prior.anchor

    def prior_of(self, anchor):
        """Make the prior of an anchor: the margins follow from it."""
        return Prior(anchor, [head.margin(anchor) for head in self.heads])

    def prior_for(self, rows, ridge, generator, deadline):
        """Prior of rows on the anchor's device, its anchor fitted from where it is."""
        anchor = fit_anchor(
            rows.values,
            rows.observed,
            self.anchor.coordinates,
            ridge,
            generator,
            start=self.anchor,
            weight=rows.weight,
            deadline=deadline,
        )
        return self.prior_of(anchor)

    @property
    def device(self):
        """Where the weights are."""
        return self.low.device

    @property
    def n_outcomes(self):
        """Outcomes of all columns' heads."""
        return sum(len(head.columns) * head.n_outcomes for head in self.heads)

    def row_batches(self, n_rows):
        """Slices of rows whose posteriors fit the working set."""
        per_row = max(self.n_outcomes, self.n_columns * self.denoiser.hidden // 4)
        elements = BATCH_ELEMENTS
        if self.device.type != "cpu":
            elements *= BATCHES_OF_GPU
        return slices(n_rows, per_row, elements, self.device, MAX_BATCH_ROWS)

    def index(self, values):
        """Outcome of every cell, (n, d) -> int64 (n, d); values are warped."""
        out = torch.zeros(values.shape, dtype=torch.long, device=values.device)
        for head in self.heads:
            out[:, head.columns] = head.index(values)
        return out

    def anchored(self, values, observed, prior=None, shared=True):
        """Moments of rows under the anchor, computed where its parameters are.

        MPS has no float64: there the anchor stays on the CPU. ``shared`` says that rows
        may miss the same cells.
        """
        anchor = (prior or self.prior).anchor
        own, device = anchor.device, values.device
        anchored = anchor.condition(values.to(own), observed.to(own), shared=shared)
        return anchored if own == device else anchored.to(device)

    def features(self, values, observed, anchored):
        """Features of every column's cell, (B, d, f)."""
        n = values.shape[0]
        out = values.new_zeros(n, self.n_columns, self.denoiser.n_features)
        flag = observed.to(values.dtype)
        if self.encoder is not None:
            cells = slice(None) if self.levels is None else self.numeric
            seen = observed[:, cells]
            # The anchor's mean, within the observed range.
            mean = anchored.mean[:, cells].clamp(self.low[cells], self.high[cells])
            value = torch.where(seen, values[:, cells], mean)
            parts = [value, flag[:, cells], anchored.sd[:, cells]]
            known = torch.cat([self.encoder(value), torch.stack(parts, -1)], -1)
            if self.levels is None:
                return known
            out[:, self.numeric, : known.shape[-1]] = known
        columns = self.categorical
        scores = anchored.score_mean.to(values.device, values.dtype)
        scores = scores.clamp(-MAX_SCORE, MAX_SCORE)
        known = torch.cat([flag[:, columns, None], scores], -1)
        out[:, columns, : known.shape[-1]] = known
        return out

    def _inputs(self, values, observed, anchored):
        """Features of cells, and what is added to some tokens."""
        features = self.features(values, observed, anchored)
        if self.levels is None:
            return features, None
        columns = self.categorical
        embedded = self.levels(values[:, columns], observed[:, columns])
        return features, (self.level_tokens, embedded)

    def attention(self, values, observed):
        """Attention of each token to all, (B, T, T), while these rows are completed."""
        anchored = self.anchored(values, observed)
        inputs = self._inputs(values, observed, anchored)
        return self.denoiser.attention_weights(*inputs)

    def coordinates(self, values):
        """Values in own units as coordinates, (B, d), near the training range.

        A strong power transform makes astronomic numbers of values far outside of it.
        """
        low, high = self.low - REACH, self.high + REACH
        return self.warp(values).nan_to_num().clamp(low, high)

    def forward(self, values, observed, targets, *, priors=None):
        """Posteriors of the target cells, one for every head that has any.

        Where there are other networks their log-probabilities are averaged.

        Parameters
        ----------
        values : float32 tensor of shape (B, d)
            Warped numbers, codes of levels.
        observed, targets : bool tensors of shape (B, d)
        priors : sequence of Prior or None, optional
            Of this network and the others, instead of their own; those with None take
            no part.

        Returns
        -------
        list of CellPosterior
        """
        priors = [network.prior for network in self.all] if priors is None else priors
        truth = self.warp.inverse(values) if len(self.others) else None
        found = []
        for network, prior in zip(self.all, priors, strict=True):
            if prior is not None:
                own = values if network is self else network.coordinates(truth)
                found.append(network._alone(own, observed, targets, prior))
        return [averaged(parts) for parts in zip(*found, strict=True)]

    def _alone(self, values, observed, targets, prior):
        """Posteriors of this network without the others."""
        anchored = self.anchored(values, observed, prior)
        summaries = self.summarise(values, observed, anchored)
        posteriors = self.by_likelihood(summaries, targets, anchored, prior)
        if self.mean_head is None or not bool(self.mean_head.weight.any()):
            return posteriors
        means = self.means(summaries, values, observed, anchored)
        return [
            self._moved(posterior, means) if posterior.kind == NUMBERS else posterior
            for posterior in posteriors
        ]

    def summarise(self, values, observed, anchored, factors=None):
        """Summaries of rows, (B, hidden); ``factors`` are those of dropout."""
        return self.denoiser(*self._inputs(values, observed, anchored), factors)

    def means(self, summaries, values, observed, anchored):
        """Means of the mean head for summaries of rows, (B, d), in own units."""
        mean = anchored.mean.to(values.dtype).clamp(self.low, self.high)
        completed = self.warp.inverse(torch.where(observed, values, mean))
        completed = completed.index_fill(1, self.categorical, 0.0)
        return self.mean_head(summaries, completed, observed)

    def _moved(self, posterior, means):
        cells = posterior.cells
        weight = self.mean_head.weight[cells.columns]
        shift = weight * (cells.gather(means) - posterior.mean())
        return with_mean_moved(posterior, shift)

    def by_likelihood(self, summaries, targets, anchored, prior):
        """Posteriors without the mean head, from summaries of rows."""
        posteriors = []
        for k, head in enumerate(self.heads):
            cells = PackedCells.from_mask(targets, head.columns)
            if len(self.heads) > 1 and not cells.filled.any():
                continue
            # index_select: its gradient is far cheaper than that of an index.
            own = summaries.index_select(0, cells.rows.flatten())
            own = own.view(*cells.rows.shape, -1)  # (g, T, hidden)
            found = head.posterior(cells, own, prior.anchor, prior.margin(k), anchored)
            posteriors.append(found.of_head(k))
        return posteriors


def build_network(
    rows,
    warp,
    anchor,
    size,
    generator,
    has_mean_head=True,
    ends=None,
    ordered=None,
    gaps=None,
):
    """Put together an untrained network: the anchor, in the mean and in the draws.

    Parameters
    ----------
    rows : Rows
        Arrays: standardised numbers and codes of levels.
    warp : PowerTransform
    anchor : ColumnAnchor
    size : NetworkSize
    generator : torch.Generator on the CPU
    has_mean_head : bool
        Numbers have one where it is wanted.
    ends : float array of shape (d, 2), optional
        How far columns reach, see `Atoms`.
    ordered : bool array of shape (d,), optional
        Columns whose levels have an order.
    gaps : float array of shape (d, 2), optional
        Intervals in which missing cells lie and no others, see `find_gaps`.
    """
    c, values, observed = anchor.coordinates, rows.values, rows.observed
    warp = warp.cpu()
    numeric = c.numeric.cpu().numpy()
    atoms = {}
    for j in numeric:
        seen = observed[:, j]
        own = some_weights(rows.weight, seen)
        atoms[j] = column_atoms(values[seen, j].astype(np.float64), weight=own)
        if gaps is not None and np.isfinite(gaps[j]).all():
            atoms[j] = with_gap(atoms[j], *gaps[j])
    heads = []
    for columns in _by_size({j: len(a["low"]) for j, a in atoms.items()}):
        own = None if ends is None else ends[columns]
        chosen = Atoms([atoms[j] for j in columns], warp.select(columns), own)
        heads.append(NumericHead(columns, chosen, size.hidden))
    share = c.share.cpu().numpy()
    slots = {j: k for k, j in enumerate(c.categorical)}
    for columns in _by_size({j: int((share[k] > 0).sum()) for j, k in slots.items()}):
        own = np.array([slots[j] for j in columns])
        width = int((share[own] > 0).sum(1).max())
        head = LevelHead(columns, own, share[own, :width], size.hidden)
        if ordered is not None and ordered[columns].any():
            head.ordered = torch.as_tensor(ordered[columns])
        heads.append(head)
    encoder = None
    if len(numeric):
        values = warp(torch.tensor(values)).numpy()[:, numeric]
        n_knots = N_KNOTS if values.shape[1] <= 256 else 9
        knots = quantile_knots(values, observed[:, numeric], n_knots)
        encoder = PiecewiseLinearEncoder(knots)
    prior = Prior(anchor, [head.margin(anchor.cpu()) for head in heads])
    mean_head = None
    if has_mean_head and encoder is not None:
        # Noise of its own: without the head all that follows is the same.
        own = torch.Generator().manual_seed(generator.initial_seed())
        mean_head = MeanHead(c.n_columns, size.hidden, own)
    return CompletionNetwork(prior, warp, encoder, heads, mean_head, size, generator)


def _by_size(n_outcomes):
    """Columns with like numbers of outcomes together: a list of int arrays."""
    groups = {}
    for column, count in n_outcomes.items():
        groups.setdefault(np.searchsorted(HEAD_SIZES, count), []).append(column)
    return [np.array(columns) for _, columns in sorted(groups.items())]
