"""Fitting the anchor of modalities, and finding its ridges on rows left out.

Rows left out by folds decide how curved the features are, how far each latent is
shrunken and how wide its posterior is; the anchors of the folds also tell the network
what an anchor says of a row that it was not fitted to.
"""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from .._shared.devices import in_threads
from .._shared.noise import numpy_generator
from .._shared.patterns import rows_by_pattern
from .anchor import RIDGES, completed, fit_moments
from .kernel_features import MAX_LANDMARKS, KernelFeatures

MIN_FOLD_ROWS = 40
MAX_CROSS_ROWS = 3000
MAX_FIT_ROWS = 10_000
# Features of all modalities together.
MAX_FEATURES = 512
MAX_BLOCK_FEATURES = 80
# Distinct patterns of the rows times features cubed: what the factorisations cost.
MAX_EM_WORK = 30_000_000_000
# Seconds in which steps of EM begin even where there is no time: without them latents
# seem to be related less than they are.
LEAST_SECONDS = 0.5
# Seconds of an anchor with curved features, in those of one without.
CURVED_COST = 5.0
# Weights of the linear kernel to choose from.
LINEARS = (0.02, 1.0, math.inf)
N_PATTERNS = 16
# Distinct patterns of what is kept that a fold is measured on.
MAX_SHAPES = 32


class FeatureMap(nn.Module):
    """Features of all modalities.

    Parameters
    ----------
    latents : float64 tensor of shape (n, D)
        Complete: missing modalities filled in.
    available : bool tensor of shape (n, M)
    owner : int tensor of shape (D,)
    linear, n_landmarks, generator
        See `KernelFeatures`.
    """

    def __init__(self, latents, available, owner, linear, n_landmarks, generator):
        super().__init__()
        m = available.shape[1]
        n_patterns = max(1, len(torch.unique(available, dim=0)))
        limit = min(MAX_FEATURES, int((MAX_EM_WORK / n_patterns) ** (1 / 3)))
        size = max(4, min(MAX_BLOCK_FEATURES, limit // m))
        self.maps = nn.ModuleList()
        for k in range(m):
            own, rows = owner == k, available[:, k]
            inputs, targets = latents[rows][:, own], latents[rows][:, ~own]
            if not len(inputs):  # a fold may lack a modality: it tells nothing
                inputs, targets = (
                    torch.zeros_like(latents[:1, own]),
                    targets.new_zeros(1, targets.shape[1]),
                )
            targets = targets - targets.mean(0)
            self.maps.append(
                KernelFeatures(inputs, targets, size, linear, n_landmarks, generator)
            )
        self.register_buffer("owner_z", owner.clone())
        sizes = torch.tensor([f.root.shape[1] for f in self.maps])
        owner_f = torch.repeat_interleave(torch.arange(m), sizes)
        self.register_buffer("owner", owner_f.to(owner.device))

    def forward(self, latents, available):
        """Features (n, P) of latents (n, D); 0 for modalities that are missing."""
        out = latents.new_zeros(len(latents), len(self.owner))
        for k, features in enumerate(self.maps):
            rows = available[:, k].nonzero()[:, 0]
            if len(rows):
                place = (self.owner == k).nonzero()[:, 0]
                found = features(latents[rows][:, self.owner_z == k])
                out[rows[:, None], place] = found
        return out


@dataclass
class Fitted:
    """Features and the anchor over them."""

    features: FeatureMap
    anchor: object


def fit_fitted(
    latents, available, owner, linear, n_landmarks, generator, deadline=math.inf
):
    """Fit features and anchor to rows that may lack modalities."""
    complete = latents
    if not bool(available.all()):
        complete = _fill(latents, available, owner, deadline)
    arguments = (linear, n_landmarks, generator)
    features = FeatureMap(complete, available, owner, *arguments)
    found = features(latents, available)
    anchor = fit_moments(latents, found, available, owner, features.owner, deadline)
    return Fitted(features, anchor)


class ScaledLatents(nn.Module):
    """The latents themselves as features, each modality's of total variance one."""

    maps = ()  # no landmarks

    def __init__(self, latents, available, owner):
        super().__init__()
        seen = available[:, owner]
        spread = torch.where(seen, latents, 0.0).square().sum(0)
        spread = spread / seen.sum(0).clamp_min(1)
        total = latents.new_zeros(available.shape[1]).index_add_(0, owner, spread)
        self.register_buffer("owner", owner.clone())
        self.register_buffer("scale", total.clamp_min(1e-12).rsqrt()[owner])

    def forward(self, latents, available):
        """Features (n, D) of latents (n, D); 0 for modalities that are missing."""
        return torch.where(available[:, self.owner], latents * self.scale, 0.0)


def fit_linear(latents, available, owner, deadline=math.inf):
    """Fit an anchor without curved features: far faster than `fit_fitted`."""
    features = ScaledLatents(latents, available, owner)
    found = features(latents, available)
    anchor = fit_moments(latents, found, available, owner, owner, deadline)
    return Fitted(features, anchor)


def _fill(latents, available, owner, deadline):
    """Latents with missing modalities by linear regression on the others."""
    fitted = fit_linear(latents, available, owner, deadline)
    anchor = fitted.anchor
    y = torch.cat([latents, fitted.features(latents, available)], 1)
    both = torch.cat([owner, owner])
    deviation, _ = completed(anchor, y, rows_by_pattern(available), both)
    filled = (anchor.mean + deviation)[:, : len(owner)]
    return torch.where(available[:, owner], latents, filled)


def choose_patterns(available, fixed, generator):
    """Patterns to train and to measure on, (P, M) bool: all of them where few.

    Parameters
    ----------
    available : bool tensor of shape (n, M)
    fixed : bool array of shape (M,)
        Modalities that are always there.
    generator : numpy.random.Generator
    """
    m = available.shape[1]
    free = np.flatnonzero(~fixed)
    if len(free) <= 4:
        keep = [
            set(c) for k in range(len(free)) for c in itertools.combinations(free, k)
        ]
    else:
        keep = [set(free) - {j} for j in generator.permutation(free)[: N_PATTERNS // 2]]
        while len(keep) < N_PATTERNS:
            rate = generator.uniform(0.2, 0.8)
            keep.append(set(free[generator.random(len(free)) < rate]))
    chosen = np.zeros((len(keep), m), dtype=bool)
    for row, kept in zip(chosen, keep, strict=True):
        row[list(kept)] = True
    chosen |= fixed
    chosen = chosen[chosen.any(axis=1) & ~chosen.all(axis=1)]
    return torch.tensor(np.unique(chosen, axis=0), device=available.device)


class CrossFit:
    """The anchor, fitted to all rows, with what rows left out say of it.

    Parameters
    ----------
    latents : float64 tensor of shape (n, D)
    available : bool tensor of shape (n, M)
    owner : int tensor of shape (D,)
    patterns : bool tensor of shape (P, M)
    fold : int array of shape (n,)
    generator : torch.Generator on the CPU
    deadline : float
        Of `time.monotonic`. Where what is left until then seems too short, no rows are
        left out, and where it is very short, the features are not curved.

    Attributes
    ----------
    fitted : Fitted
    parts : list of Fitted
        Part k was not fitted to the rows of fold k, and none to those of fold 0, on
        which the network is judged: what the network learns from residuals is else
        the noise of those rows, with its sign turned. Empty where there are too few.
    """

    def __init__(
        self, latents, available, owner, patterns, fold, generator, deadline=math.inf
    ):
        self.latents, self.available, self.owner = latents, available, owner
        self.patterns, self.generator = patterns, generator
        self.fold = torch.as_tensor(fold, device=latents.device)
        self.parts, self.linear, self.deadline = [], LINEARS[0], deadline
        n = len(latents)
        every = torch.ones(n, dtype=torch.bool, device=latents.device)
        if deadline < math.inf:
            started = time.monotonic()
            least = max(deadline, started + LEAST_SECONDS)
            self.fitted = fit_linear(latents, available, owner, least)
            # Curved features take several times as long.
            if self._is_late(CURVED_COST * (time.monotonic() - started)):
                return
        enough = n >= MIN_FOLD_ROWS and len(patterns) and len(np.unique(fold)) > 2
        n_folds = int(self.fold.max()) + 1
        if enough and deadline < math.inf:
            started = time.monotonic()
            whole = every, self.linear, MAX_LANDMARKS // 2
            self.fitted = self._fit(*whole, generator=generator)
            n_fits = len(LINEARS) + 2 * (n_folds + 1)
            if self._is_late(n_fits * (time.monotonic() - started)):
                return
        if enough:
            self.linear = self._choose_linear()
            self.parts = self._fit_all(
                [
                    ((self.fold != k) & (self.fold != 0), self.linear, MAX_LANDMARKS)
                    for k in range(n_folds)
                ]
            )
        whole = every, self.linear, MAX_LANDMARKS, MAX_FIT_ROWS
        self.fitted = self._fit(*whole, generator=self.generator)
        if enough:
            self._tune()

    def _is_late(self, seconds):
        """Whether there is no time for what takes so long."""
        return time.monotonic() + seconds > self.deadline

    def _fit_all(self, choices):
        """Fit by several choices of `_fit`'s arguments, each with its own noise."""
        rng = numpy_generator(self.generator)
        seeds = rng.integers(2**62, size=len(choices)).tolist()

        def fit(k):
            own = torch.Generator().manual_seed(seeds[k])
            return self._fit(*choices[k], generator=own)

        return in_threads(fit, range(len(choices)), self.latents.device)

    def _fit(self, rows, linear, n_landmarks, limit=MAX_CROSS_ROWS, *, generator):
        rows = rows.nonzero()[:, 0]
        if len(rows) > limit:
            order = torch.randperm(len(rows), generator=generator)
            rows = rows[order[:limit].to(rows.device)]
        n_landmarks = min(n_landmarks, max(8, len(rows)))
        return fit_fitted(
            self.latents[rows],
            self.available[rows],
            self.owner,
            linear,
            n_landmarks,
            generator,
            self.deadline,
        )

    def _left_out(self, k):
        """Rows of fold k by what is kept of them, every pattern laid on every row.

        Of many the most frequent.
        """
        rows = (self.fold == k).nonzero()[:, 0][:MAX_CROSS_ROWS]
        there = self.available[rows]
        kept = there[:, None] & self.patterns
        row, pattern = (kept != there[:, None]).any(2).nonzero(as_tuple=True)
        groups = rows_by_pattern(kept[row, pattern])
        groups.sort(key=lambda group: -len(group[1]))
        for shape, some in groups[:MAX_SHAPES]:
            chosen = rows[row[some]]
            yield shape, chosen, (self.available[chosen] & ~shape)[:, self.owner]

    def errors(self, k, fitted):
        """Squared errors of hidden latents in fold k, (R, D), and how many, (D,)."""
        total = self.latents.new_zeros(len(RIDGES), len(self.owner))
        count = self.latents.new_zeros(len(self.owner))
        anchor = fitted.anchor
        for kept, rows, hidden in self._left_out(k):
            missing = ~kept[self.owner]
            slopes = anchor.slopes(kept, RIDGES)
            found = fitted.features(self.latents[rows], kept.expand(len(rows), -1))
            shift = anchor.mean[anchor.n_latents :]
            there = kept[fitted.features.owner]
            x = (found - shift)[:, there]
            truth = (self.latents[rows] - anchor.mean[: anchor.n_latents])[:, missing]
            for number, slope in enumerate(slopes):
                error = torch.where(hidden[:, missing], x @ slope - truth, 0.0)
                total[number, missing] += error.square().sum(0)
            count += hidden.sum(0)
        return total, count

    def _choose_linear(self):
        rows = self.fold != 0
        choices = [(rows, linear, MAX_LANDMARKS // 2) for linear in LINEARS]
        best = (math.inf, LINEARS[0])
        for linear, fitted in zip(LINEARS, self._fit_all(choices), strict=True):
            total, _ = self.errors(0, fitted)
            best = min(best, (float(total.sum(1).min()), linear))
        return best[1]

    def _tune(self):
        """Ridge and spread of every latent, by the rows left out."""
        found = in_threads(
            lambda k: self.errors(k, self.parts[k]),
            range(len(self.parts)),
            self.latents.device,
        )
        total = sum(t for t, _ in found)
        count = sum(c for _, c in found)
        ridges = torch.tensor(RIDGES, dtype=total.dtype, device=total.device)
        ridge = ridges[total.argmin(0)]
        for fitted in [self.fitted, *self.parts]:
            fitted.anchor.ridge.copy_(ridge)
            fitted.anchor._known.clear()
        variance = total.min(0).values / count.clamp_min(1)
        expected = torch.zeros_like(variance)
        for pattern in self.patterns:
            conditional = self.fitted.anchor.conditional(pattern)
            n_hidden = (self.available & ~pattern).sum(0)[self.owner]
            spread = conditional.cov.diagonal()
            missing = conditional.latents
            expected[missing] += n_hidden[missing] * spread
        expected = expected / count_of(self.available, self.patterns, self.owner)
        scale = (variance / expected.clamp_min(1e-12)).sqrt().clamp(0.5, 2.0)
        scale = torch.where(count > 0, scale, 1.0)
        for fitted in [self.fitted, *self.parts]:
            fitted.anchor.scale.copy_(scale)
            fitted.anchor._known.clear()


def count_of(available, patterns, owner):
    """Count how often each latent is hidden, every pattern laid on every row."""
    hidden = sum((available & ~pattern).sum(0) for pattern in patterns)
    return hidden[owner].clamp_min(1)
