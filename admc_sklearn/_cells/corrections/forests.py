"""Forests: values of training rows that fall into the same leaves of trees.

What holds only in a corner of the table, beyond a threshold or for two columns
together, a network learns from thousands of rows, and a tree from a few hundred. So
each column has a forest of extremely randomised trees (Geurts et al., 2006), fitted
once to training rows some of whose cells are hidden. It reads a row as the anchor
completes it, and which of its cells are observed: it serves every pattern. The training
values in the leaves that a row reaches, weighed as in quantile regression forests
(Meinshausen, 2006), are a distribution of the missing cell. It is pooled with the other
geometrically,

    q  proportional to  p^(1 - w) f^w,

so that whichever of the two is sure outweighs the other. Held-out rows choose w.

Draws are made without this correction and carried over to the corrected distribution
afterwards; see `CellModel`.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

from ..._shared.contract import Correction, Rows
from ..._shared.devices import in_threads, slices
from ..._shared.held_out import is_gain
from ..network.posterior import LEVELS, NUMBERS

# Entries of leaves that are gathered at once.
KEPT_ENTRIES = 2_000_000
TINY = 1e-30


@dataclass(frozen=True)
class ForestSettings:
    """How forests are fitted and pooled. "NOTES" is benchmarks/NOTES.md.

    Parameters
    ----------
    n_trees : int
        Trees of a column, fewer where the table is wide. (NOTES, "Forests".)
    max_trees : int
        Trees of all columns together. (NOTES, "Forests".)
    min_leaf : float
        Training rows in a leaf, at least. (NOTES, "Forests".)
    max_features : float
        Share of the inputs among which a tree looks for its next split. (NOTES,
        "Forests".)
    n_samples, max_copies : int
        Training rows are repeated up to about so many rows and so many times, with
        other cells hidden in every copy. (Not measured.)
    hide_rates : tuple of float
        Least and greatest share of a row's cells that is hidden. (Not measured.)
    min_samples : int
        Hidden cells that a column must have. (Not measured.)
    max_rows, max_columns : int
        Larger tables have no forests: there the network knows more, and forests cost
        more. (NOTES, "Forests".)
    weights : tuple of float
        Candidates for w. (NOTES, "Forests".)
    weight : float
        The one that is taken unless held-out rows say otherwise. (NOTES, "Forests".)
    min_errors : float
        Standard errors by which another weight has to be better. (NOTES, "Forests".)
    own_share : float
        Share of the other distribution that is mixed into that of the leaves, which
        does not know all values. (Not measured.)
    """

    n_trees: int = 40
    max_trees: int = 800
    min_leaf: float = 1.0
    max_features: float = 0.8
    n_samples: int = 4000
    max_copies: int = 20
    hide_rates: tuple[float, float] = (0.02, 0.5)
    min_samples: int = 20
    max_rows: int = 3000
    max_columns: int = 64
    weights: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6)
    weight: float = 0.4
    min_errors: float = 1.5
    own_share: float = 0.1


DEFAULT = ForestSettings()


class Forests(Correction):
    """Pools posteriors with the distributions of forests.

    Parameters
    ----------
    network : CompletionNetwork
    settings : ForestSettings

    Attributes
    ----------
    feature, threshold, child : tensors of shape (n_nodes,), (n_nodes,), (2 n_nodes,)
        Of all trees: where input ``feature`` of a row is above the threshold it goes on
        to the second child. A leaf is its own child.
    root : int tensor of shape (d, T)
        Root of every tree, -1 in columns that have no forest.
    depth : int
    start, size : int tensors of shape (n_nodes,)
        Where the outcomes of a leaf stand in ``outcome``, and how many.
    outcome, mass : tensors of shape (n_entries,)
        Outcomes of training cells in the leaves, and their shares of the leaf's cells.
    weight : float tensor of shape (2,)
        w of numbers and of levels.
    """

    def __init__(self, network, settings=DEFAULT):
        super().__init__()
        self.settings = settings
        self.register_buffer("weight", network.low.new_zeros(2))

    def learn(self, network, rows, seed):
        """Fit the forests to rows, tensors in the network's coordinates."""
        samples = _Samples(network, rows, seed, self.settings)
        d = network.n_columns
        n_trees = max(1, min(self.settings.n_trees, self.settings.max_trees // d))

        def fit(column):
            return samples.grow(column, n_trees, seed)

        trees = in_threads(fit, range(d), torch.device("cpu"))
        self._store(trees, d, n_trees, network.device)

    def _store(self, trees, d, n_trees, device):
        """Put the trees of all columns below each other."""
        root = np.full((d, n_trees), -1)
        parts = {name: [] for name in _Tree.__annotations__ if name != "depth"}
        n_nodes = n_entries = depth = 0
        for column, own in enumerate(trees):
            for k, tree in enumerate(own):
                root[column, k] = n_nodes
                depth = max(depth, tree.depth)
                parts["feature"].append(tree.feature)
                parts["threshold"].append(tree.threshold)
                parts["child"].append(tree.child + n_nodes)
                parts["start"].append(tree.start + n_entries)
                for name in ("size", "outcome", "mass"):
                    parts[name].append(getattr(tree, name))
                n_nodes += len(tree.feature)
                n_entries += len(tree.outcome)
        self.depth = depth
        self.register_buffer("root", torch.as_tensor(root, device=device))
        for name, arrays in parts.items():
            array = np.concatenate(arrays) if arrays else np.zeros(0, np.float32)
            self.register_buffer(name, torch.as_tensor(array, device=device))

    def apply(self, posteriors, rows, network):
        """Pool posteriors with what the leaves say."""
        if not bool(self.weight.any()):
            return posteriors
        points = inputs(network, rows)
        # Where nothing is observed the columns' own frequencies are all there is.
        usable = rows.observed.any(1)
        return [
            self.pooled(posterior, self.mass_of(posterior, points, usable))
            if bool(self.weight[posterior.kind])
            else posterior
            for posterior in posteriors
        ]

    def pooled(self, posterior, mass, weight=None):
        """Pool a posterior with masses of outcomes, (g, T, K), by their weight."""
        weight = self.weight[posterior.kind] if weight is None else weight
        own = torch.log_softmax(posterior.logits, -1)
        share = self.settings.own_share
        other = ((1 - share) * mass + share * own.exp()).clamp_min(TINY).log()
        has_mass = mass.sum(-1, keepdim=True) > 0
        both = (1 - weight) * own + weight * other
        return posterior.with_logits(torch.where(has_mass, both, own))

    def mass_of(self, posterior, points, usable):
        """Masses of outcomes of the cells of a posterior, (g, T, K).

        0 everywhere where there is no forest. ``points`` are `inputs` of the rows,
        (B, f), and ``usable`` says for which of them, (B,).
        """
        cells, n_outcomes = posterior.cells, posterior.logits.shape[-1]
        mass = posterior.logits.new_zeros(posterior.logits.shape)
        root = self.root[cells.columns.expand_as(cells.rows)]  # (g, T, trees)
        filled = cells.filled & usable[cells.rows] & (root[..., 0] >= 0)
        flat = mass.view(-1, n_outcomes)
        place = filled.flatten().nonzero()[:, 0]
        root, row = root.flatten(0, 1)[place], cells.rows.flatten()[place]
        n_trees = self.root.shape[1]
        for part in slices(len(place), 16 * n_trees, KEPT_ENTRIES, mass.device):
            leaves = self._leaves(points[row[part]], root[part]).flatten()
            size = self.size[leaves]
            owner = place[part].repeat_interleave(n_trees).repeat_interleave(size)
            first = (size.cumsum(0) - size).repeat_interleave(size)
            inside = torch.arange(len(owner), device=owner.device) - first
            entry = self.start[leaves].repeat_interleave(size) + inside
            at = owner * n_outcomes + self.outcome[entry].long()
            flat.view(-1).index_add_(0, at, self.mass[entry] / n_trees)
        return mass

    def _leaves(self, points, node):
        """Leaves that rows (N, f) reach from nodes (N, T), (N, T)."""
        for _ in range(self.depth):
            value = points.gather(1, self.feature[node].long())
            right = value > self.threshold[node]
            node = self.child[2 * node + right]
        return node


@dataclass(frozen=True)
class _Tree:
    """The arrays of one tree; see `Forests`."""

    feature: np.ndarray
    threshold: np.ndarray
    child: np.ndarray
    start: np.ndarray
    size: np.ndarray
    outcome: np.ndarray
    mass: np.ndarray
    depth: int


class _Samples:
    """Training rows with hidden cells, as inputs and outcomes of forests."""

    def __init__(self, network, rows, seed, settings):
        self.network, self.settings = network, settings
        n = len(rows)
        self.copies = int(np.clip(settings.n_samples // n, 2, settings.max_copies))
        rng = np.random.default_rng(seed)
        values = rows.values.repeat(self.copies, 1)
        observed = rows.observed.repeat(self.copies, 1)
        rate = rng.uniform(*settings.hide_rates, (len(values), 1))
        noise = torch.tensor(rng.random(observed.shape) < rate, device=values.device)
        self.hidden = (observed & noise).cpu().numpy()
        kept = Rows(values, observed & ~noise)
        parts = network.row_batches(len(values))
        points = in_threads(
            lambda part: inputs(network, kept[part]), parts, network.device
        )
        self.points = torch.cat(points).cpu().numpy()
        self.outcome = network.index(values).cpu().numpy()
        self.truth = network.warp.inverse(values).cpu().numpy()
        self.is_level = np.isin(
            np.arange(network.n_columns), network.categorical.cpu().numpy()
        )

    def grow(self, column, n_trees, seed):
        """Trees of a column: a list of _Tree, empty where it has too few cells."""
        settings = self.settings
        own = np.flatnonzero(self.hidden[:, column])
        outcome = self.outcome[own, column]
        if len(own) < settings.min_samples or len(np.unique(outcome)) < 2:
            return []
        # Copies of a row beside each other do not make a leaf of several rows.
        n_rows = len(np.unique(own % (len(self.hidden) // self.copies)))
        min_leaf = max(2, round(settings.min_leaf * len(own) / n_rows))
        is_level = self.is_level[column]
        forest = (ExtraTreesClassifier if is_level else ExtraTreesRegressor)(
            n_trees,
            min_samples_leaf=min_leaf,
            max_features=settings.max_features,
            random_state=(seed + column) % 2**32,
            n_jobs=1,
        )
        target = outcome if is_level else self.truth[own, column]
        forest.fit(self.points[own], target)
        leaves = forest.apply(self.points[own])
        trees = [estimator.tree_ for estimator in forest.estimators_]
        parts = zip(trees, leaves.T, strict=True)
        return [_compact(tree, leaf, outcome) for tree, leaf in parts]


def _compact(tree, leaf, outcome):
    """Arrays of a tree of scikit-learn, and the outcomes of cells in its leaves."""
    n_nodes = tree.node_count
    every = np.arange(n_nodes)
    is_leaf = tree.children_left < 0
    child = np.stack([tree.children_left, tree.children_right], 1)
    child = np.where(is_leaf[:, None], every[:, None], child)
    # Inputs are float32: the largest one that is not above the threshold does as well.
    threshold = tree.threshold.astype(np.float32)
    above = threshold.astype(np.float64) > tree.threshold
    threshold[above] = np.nextafter(threshold[above], np.float32(-np.inf))
    n_outcomes = int(outcome.max()) + 1
    pair, count = np.unique(leaf * n_outcomes + outcome, return_counts=True)
    size = np.bincount(pair // n_outcomes, minlength=n_nodes)
    total = np.bincount(leaf, minlength=n_nodes)
    return _Tree(
        feature=np.where(is_leaf, 0, tree.feature).astype(np.int16),
        threshold=np.where(is_leaf, np.float32(np.inf), threshold),
        child=child.flatten(),
        start=np.cumsum(size) - size,
        size=size,
        outcome=(pair % n_outcomes).astype(np.int16),
        mass=(count / total[pair // n_outcomes]).astype(np.float32),
        depth=int(tree.max_depth),
    )


def inputs(network, rows):
    """Rows as the anchor completes them, and where they are observed, (B, f)."""
    values, observed = rows.values, rows.observed
    anchored = network.anchored(values, observed)
    coordinates = network.anchor.coordinates
    device = coordinates.column.device
    mean = anchored.mean.to(values.dtype).clamp(network.low, network.high)
    filled = torch.where(observed, values, mean).to(device)
    points, known = coordinates.base(filled, observed.to(device))
    if not coordinates.is_plain:
        scores = anchored.score_mean[:, coordinates.used].to(points)
        own = points[:, coordinates.n_numeric :]
        seen = known[:, coordinates.n_numeric :]
        points[:, coordinates.n_numeric :] = torch.where(seen, own, scores)
    points = points.to(values.device, torch.float32)
    return torch.cat([points, observed.to(points.dtype)], 1)


@torch.no_grad()
def fit_forests(
    model, rows, validation, generator, deadline=math.inf, settings=DEFAULT
):
    """Fit forests, and choose by how much they count.

    Parameters
    ----------
    model : CellModel
        With the corrections before this one.
    rows : Rows
        Tensors in the network's coordinates.
    validation : Validation
        Held-out rows.
    generator : torch.Generator on the CPU
    deadline : float
        Time of `time.monotonic` after which nothing is begun.
    settings : ForestSettings

    Returns
    -------
    Forests or None
    """
    network = model.network
    too_large = len(rows) > settings.max_rows
    too_large = too_large or network.n_columns > settings.max_columns
    if too_large or time.monotonic() > deadline:
        return None
    forests = Forests(network, settings)
    seed = int(torch.randint(2**31, (), generator=generator))
    forests.learn(network, rows, seed)
    if not bool((forests.root >= 0).any()):
        return None
    scores = _scores(model, forests, validation)
    for kind in (NUMBERS, LEVELS):
        forests.weight[kind] = _choose(scores[kind], settings)
    return forests if bool(forests.weight.any()) else None


def _scores(model, forests, validation):
    """Scores of held-out rows for every weight, (n_weights, n_rows), by kind."""
    network, settings = model.network, forests.settings

    def judge(part):
        rows = Rows(validation.values[part], validation.kept[part])
        points, usable = inputs(network, rows), rows.observed.any(1)
        found = rows.values.new_zeros(2, len(settings.weights), len(points))
        for posterior in model.posteriors(rows, validation.hidden[part]):
            cells = posterior.cells
            outcome = cells.gather(validation.outcome[part])
            mass = forests.mass_of(posterior, points, usable)
            for k, weight in enumerate(settings.weights):
                score = forests.pooled(posterior, mass, weight).score(outcome)
                own = cells.rows[cells.filled]
                found[posterior.kind, k].index_add_(0, own, score[cells.filled])
        return found

    found = torch.cat(in_threads(judge, validation.parts, network.device), -1)
    n_rows = len(validation.rows)
    return found.view(2, len(settings.weights), -1, n_rows).sum(2)


def _choose(scores, settings):
    """Weight for scores of held-out rows, (n_weights, n_rows).

    A few rows say little: the usual weight is left for another one's sake only where
    that gains more than the noise.
    """
    total = scores.sum(1)
    if not bool(total.any()):
        return 0.0
    usual = settings.weights.index(settings.weight)
    best = int(total.argmin())
    gain = scores[usual] - scores[best]
    is_better = best != usual and bool(is_gain(gain, settings.min_errors))
    return settings.weights[best] if is_better else settings.weight
