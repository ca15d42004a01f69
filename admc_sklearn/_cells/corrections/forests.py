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

so that whichever of the two is sure outweighs the other.

An anchor completes the rows that it was fitted to better than others. So training rows
are completed by anchors fitted to the other folds of rows (cross-fitting), as well as
unseen rows will be.

Draws are made without this correction and carried over to the corrected distribution
afterwards; see `CellModel`.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.tree import ExtraTreeClassifier, ExtraTreeRegressor

from ..._shared.contract import Correction, Rows
from ..._shared.devices import exact_device, in_threads, slices
from ..._shared.weights import some_weights, weighted_counts

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
    weight : float
        w. (NOTES, "Forests".)
    n_folds : int
        Folds of rows, each completed by an anchor fitted to the others. (NOTES,
        "Forests".)
    own_share : float
        Share of the other distribution that is mixed into that of the leaves, which
        does not know all values. (NOTES, "Forests".)
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
    max_columns: int = 48
    weight: float = 0.4
    n_folds: int = 5
    own_share: float = 0.2

    def serves(self, n_rows, n_columns):
        """Whether a table of this shape has forests."""
        return n_rows <= self.max_rows and n_columns <= self.max_columns


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
    weight : float tensor of shape (d,)
        w of every column, 0 in those that have no forest.
    """

    def __init__(self, network, settings=DEFAULT):
        super().__init__()
        self.settings = settings
        self.register_buffer("weight", torch.zeros_like(network.low))

    def learn(self, samples):
        """Fit the forests to samples of training rows."""
        network, settings = samples.network, self.settings
        d = network.n_columns
        n_trees = max(2, min(settings.n_trees, settings.max_trees // d))

        def fit(column):
            return samples.grow(column, n_trees)

        trees = in_threads(fit, range(d), torch.device("cpu"))
        self._store(trees, d, n_trees, network.device)
        self.weight = torch.where(self.root[:, 0] >= 0, settings.weight, self.weight)

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
        return [self._pooled(posterior, points, usable) for posterior in posteriors]

    def _pooled(self, posterior, points, usable):
        weight = self.weight[posterior.cells.columns]  # (g, 1)
        if not bool(weight.any()):
            return posterior
        mass = self._mass(posterior, points, usable)
        return pooled(posterior, mass, weight, self.settings.own_share)

    def _mass(self, posterior, points, usable):
        """Masses of outcomes of the cells of a posterior, (g, T, K).

        0 everywhere where there is no forest. ``points`` are `inputs` of the rows,
        (B, f), and ``usable`` says in which of them, (B,).
        """
        cells, n_outcomes = posterior.cells, posterior.logits.shape[-1]
        mass = posterior.logits.new_zeros(posterior.logits.shape)
        known = self.root[cells.columns, 0] >= 0  # (g, 1)
        served = usable[cells.rows] & cells.filled & known
        place = served.flatten().nonzero()[:, 0]  # (W,)
        column = cells.columns.expand_as(served).flatten()[place]
        n_trees = self.root.shape[1]
        root = self.root[column].flatten()  # (W trees,)
        place = place.repeat_interleave(n_trees)
        row = cells.rows.flatten()[place]
        for part in slices(len(place), 16, KEPT_ENTRIES, mass.device):
            leaves = self._leaves(points, row[part], root[part])
            size = self.size[leaves]
            owner = place[part].repeat_interleave(size)
            first = (size.cumsum(0) - size).repeat_interleave(size)
            inside = torch.arange(len(owner), device=owner.device) - first
            entry = self.start[leaves].repeat_interleave(size) + inside
            at = owner * n_outcomes + self.outcome[entry].long()
            mass.view(-1).index_add_(0, at, self.mass[entry] / n_trees)
        return mass

    def _leaves(self, points, row, node):
        """Leaves that rows (W,) of points (B, f) reach from nodes (W,), (W,)."""
        for _ in range(self.depth):
            right = points[row, self.feature[node].long()] > self.threshold[node]
            node = self.child[2 * node + right]
        return node


def pooled(posterior, mass, weight, own_share=DEFAULT.own_share):
    """Pool a posterior geometrically with masses of its outcomes.

    Shape of ``mass``: (g, T, K), 0 everywhere where it is not known; of ``weight``:
    (g, 1).
    """
    own = torch.log_softmax(posterior.logits, -1)
    other = ((1 - own_share) * mass + own_share * own.exp()).clamp_min(TINY).log()
    weight = torch.where(mass.sum(-1) > 0, weight, 0.0)[..., None]
    return posterior.with_logits((1 - weight) * own + weight * other)


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


class Samples:
    """Training rows with hidden cells, as inputs and outcomes of forests.

    Parameters
    ----------
    network : CompletionNetwork
    rows : Rows
        Tensors in the network's coordinates.
    ridge : float
        Of the network's anchor.
    seed : int
    settings : ForestSettings
    deadline : float
        Of the anchors' fits.
    """

    def __init__(self, network, rows, ridge, seed, settings, deadline=math.inf):
        self.network, self.seed, self.settings = network, seed, settings
        self.weight = None if rows.weight is None else rows.weight.cpu().numpy()
        n = len(rows)
        copies = int(np.clip(settings.n_samples // n, 2, settings.max_copies))
        rng = np.random.default_rng(seed)
        order = torch.from_numpy(rng.permutation(n))
        row = order.repeat_interleave(copies)
        values, observed = rows.values[row], rows.observed[row]
        rate = rng.uniform(*settings.hide_rates, (len(values), 1))
        noise = torch.tensor(rng.random(observed.shape) < rate, device=values.device)
        samples = Rows(values, observed & ~noise)
        self._hidden = (observed & noise).cpu().numpy()
        self._row = row.numpy()
        self._outcome = network.index(values).cpu().numpy()
        self._truth = network.warp.inverse(values).cpu().numpy()
        exact = rows.to(exact_device(network.device))
        start, points = 0, []
        for fold in order.tensor_split(min(settings.n_folds, n)):
            own = samples[start : start + len(fold) * copies]
            prior = _prior_without(fold, network, exact, ridge, seed, deadline)
            points += in_threads(
                lambda part, own=own, prior=prior: inputs(network, own[part], prior),
                network.row_batches(len(own)),
                network.device,
            )
            start += len(own)
        self._points = torch.cat(points).cpu().numpy()

    def grow(self, column, n_trees):
        """Trees of a column: a list of _Tree, empty where it has too few cells."""
        settings = self.settings
        own = self._hidden[:, column].nonzero()[0]
        outcome, row = self._outcome[own, column], self._row[own]
        if len(own) < settings.min_samples or len(np.unique(outcome)) < 2:
            return []
        # Copies of a row beside each other do not make a leaf of several rows.
        per_row = len(own) / len(np.unique(row))
        is_level = bool((self.network.categorical == column).any())
        target = outcome if is_level else self._truth[own, column]
        points, weight = self._points[own], some_weights(self.weight, row)
        least = _least_leaf(settings.min_leaf * per_row, weight)
        grown = []
        for k in range(n_trees):
            tree = (ExtraTreeClassifier if is_level else ExtraTreeRegressor)(
                **least,
                max_features=settings.max_features,
                random_state=(self.seed + column * n_trees + k) % 2**32,
            )
            tree = tree.fit(points, target, sample_weight=weight).tree_
            grown.append(_compact(tree, tree.apply(points), outcome, weight))
        return grown


def _prior_without(fold, network, rows, ridge, seed, deadline):
    """Prior of the rows outside of a fold, in the network's coordinates."""
    known = torch.ones(len(rows), dtype=torch.bool)
    known[fold] = False
    generator = torch.Generator().manual_seed(seed)
    return network.prior_for(rows[known], ridge, generator, deadline)


def _least_leaf(n_cells, weight):
    """Options of a tree whose leaves hold so many cells, by weight if there are any.

    Weights undo that rows of some kind are too many only in leaves that hold rows of
    other kinds, too. So weighted leaves hold so many cells of Kish's effective sample
    size: of n cells with mean weight 1 it is n over the mean of the squared weights.
    """
    if weight is None:
        return {"min_samples_leaf": max(2, round(n_cells))}
    share = n_cells * np.square(weight).sum() / weight.sum() ** 2
    return {"min_samples_leaf": 2, "min_weight_fraction_leaf": min(0.5, share)}


def _compact(tree, leaf, outcome, weight=None):
    """Arrays of a tree of scikit-learn, and the outcomes of cells in its leaves.

    Cells count by their weights, if there are any.
    """
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
    pair, count = weighted_counts(leaf * n_outcomes + outcome, weight)
    size = np.bincount(pair // n_outcomes, minlength=n_nodes)
    total = np.bincount(leaf, weight, minlength=n_nodes)
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


def inputs(network, rows, prior=None):
    """Rows as the anchor completes them, and where they are observed, (B, f).

    The anchor is the network's or that of a prior.
    """
    values, observed = rows.values, rows.observed
    anchored = network.anchored(values, observed, prior)
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
def fit_forests(network, rows, ridge, generator, deadline=math.inf, settings=DEFAULT):
    """Fit forests; None where a table is too large for them, or has too few cells.

    Parameters
    ----------
    network : CompletionNetwork
    rows : Rows
        Tensors in the network's coordinates.
    ridge : float
        Of the network's anchor.
    generator : torch.Generator on the CPU
    deadline : float
        Time of `time.monotonic` after which nothing is begun.
    settings : ForestSettings

    Returns
    -------
    Forests or None
    """
    is_served = settings.serves(len(rows), network.n_columns)
    if not is_served or time.monotonic() > deadline:
        return None
    forests = Forests(network, settings)
    seed = int(torch.randint(2**31, (), generator=generator))
    forests.learn(Samples(network, rows, ridge, seed, settings, deadline))
    return forests if bool(forests.weight.any()) else None
