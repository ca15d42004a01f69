"""Cross-fitting of the anchor of modalities: its ridges are chosen on left-out folds.

Errors in the rows of left-out folds choose how curved the features are, how far each
latent is shrunken and how wide its posterior is. The network is trained on the anchors
of the folds, so that it sees their predictions for rows they were not fitted to.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

from .._shared.devices import in_threads
from .._shared.noise import numpy_generator
from .._shared.patterns import rows_by_pattern
from .._shared.weights import some_weights, weighted, weighted_mean
from .anchor import AnchorSettings, BlockAnchor, completed, fit_moments
from .kernel_features import KernelFeatures, KernelSettings

# The anchors of the folds and the final one are fitted to so many rows at most, in
# order to bound their time.
MAX_CROSS_ROWS, MAX_FIT_ROWS = 3000, 10_000
# All modalities together have at most so many features, in order to bound the time.
MAX_FEATURES = 512
# The factorisations cost the distinct patterns of the rows times features cubed.
MAX_EM_WORK = 30_000_000_000
# Steps of EM begin within so many seconds even where no time is left: without them the
# latents seem to be related less than they are.
LEAST_SECONDS = 0.5
# An anchor with curved features takes so many times as long as one without.
CURVED_COST = 5.0
# A fold is measured on so many distinct sets of kept modalities at most.
MAX_MEASURED_SETS = 32


@dataclass(frozen=True)
class CrossFitSettings:
    """How the anchor is cross-fitted. "NOTES" is benchmarks/NOTES.md.

    Parameters
    ----------
    min_rows : int
        Smaller tables are not cross-fitted. (Not measured.)
    linear_weights : tuple of float
        Weights of the linear kernel among which one is chosen by a fold. (Not
        measured.)
    scale_limits : tuple of two floats
        Limits of the factor by which errors in left-out rows correct a latent's spread.
        (Not measured.)
    kernel : KernelSettings
        Its weight of the linear kernel is that of tables that are not cross-fitted.
    anchor : AnchorSettings
    """

    min_rows: int = 40
    linear_weights: tuple[float, ...] = (0.02, 1.0, math.inf)
    scale_limits: tuple[float, float] = (0.5, 2.0)
    kernel: KernelSettings = field(default_factory=KernelSettings)
    anchor: AnchorSettings = field(default_factory=AnchorSettings)


DEFAULT = CrossFitSettings()


@dataclass(frozen=True)
class LatentRows:
    """Rows of latents that may lack modalities.

    Parameters
    ----------
    latents : float64 tensor of shape (n, D)
        Its values at missing modalities are ignored.
    available : bool tensor of shape (n, M)
    owner : int tensor of shape (D,)
        Modality of every latent.
    weight : float64 tensor of shape (n,), optional
        Weights of the rows, with a mean near 1.
    """

    latents: torch.Tensor
    available: torch.Tensor
    owner: torch.Tensor
    weight: torch.Tensor | None = None

    def __len__(self):
        return len(self.latents)

    def __getitem__(self, rows):
        """Take some rows."""
        weight = some_weights(self.weight, rows)
        return LatentRows(self.latents[rows], self.available[rows], self.owner, weight)


class FeatureMap(nn.Module):
    """Features of all modalities.

    Parameters
    ----------
    rows : LatentRows
        Latents of missing modalities are filled in.
    generator : torch.Generator on the CPU
    settings : KernelSettings
    """

    def __init__(self, rows, generator, settings):
        super().__init__()
        latents, available, owner = rows.latents, rows.available, rows.owner
        m = available.shape[1]
        n_patterns = max(1, len(torch.unique(available, dim=0)))
        limit = min(MAX_FEATURES, int((MAX_EM_WORK / n_patterns) ** (1 / 3)))
        size = max(4, min(settings.n_features, limit // m))
        settings = replace(settings, n_features=size)
        self.maps = nn.ModuleList()
        for k in range(m):
            own, some = owner == k, available[:, k]
            inputs, targets = latents[some][:, own], latents[some][:, ~own]
            weight = some_weights(rows.weight, some)
            if not len(inputs):  # a fold may lack a modality: its features are 0
                inputs, targets, weight = (
                    torch.zeros_like(latents[:1, own]),
                    targets.new_zeros(1, targets.shape[1]),
                    None,
                )
            targets = targets - weighted_mean(targets, weight)
            self.maps.append(
                KernelFeatures(inputs, targets, generator, settings, weight)
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
                index = (self.owner == k).nonzero()[:, 0]
                found = features(latents[rows][:, self.owner_z == k])
                out[rows[:, None], index] = found
        return out


@dataclass
class Fitted:
    """Features and the anchor over them."""

    features: FeatureMap
    anchor: object


def fit_curved(rows, generator, deadline, settings):
    """Fit curved features, and the anchor over them, to `LatentRows`.

    Parameters
    ----------
    rows : LatentRows
    generator : torch.Generator on the CPU
    deadline : float
        By `time.monotonic`.
    settings : CrossFitSettings

    Returns
    -------
    Fitted
    """
    complete = rows
    if not bool(rows.available.all()):
        complete = _fill(rows, deadline, settings)
    features = FeatureMap(complete, generator, settings.kernel)
    return Fitted(features, _fit_anchor(rows, features, deadline, settings))


def _fit_anchor(rows, features, deadline, settings):
    """Fit the anchor over given features to `LatentRows`."""
    return fit_moments(
        rows.latents,
        features(rows.latents, rows.available),
        rows.available,
        rows.owner,
        features.owner,
        deadline,
        settings.anchor,
        rows.weight,
    )


class ScaledLatents(nn.Module):
    """The latents themselves as features, each modality's of total variance one.

    Parameters
    ----------
    owner : int tensor of shape (D,)
        Modality of every latent.
    variance : float64 tensor of shape (D,)
    """

    maps = ()  # no landmarks

    def __init__(self, owner, variance):
        super().__init__()
        total = variance.new_zeros(int(owner.max()) + 1)
        total.index_add_(0, owner, variance)
        self.register_buffer("owner", owner.clone())
        self.register_buffer("scale", total.clamp_min(1e-12).rsqrt()[owner])

    def forward(self, latents, available):
        """Features (n, D) of latents (n, D); 0 for modalities that are missing."""
        return torch.where(available[:, self.owner], latents * self.scale, 0.0)


def fit_linear(rows, deadline, settings):
    """Fit an anchor without curved features: far faster than `fit_curved`."""
    seen = rows.available[:, rows.owner]
    square = torch.where(seen, rows.latents, 0.0).square()
    square, count = (weighted(part, rows.weight).sum(0) for part in (square, seen))
    count = torch.where(count > 0, count, 1)
    features = ScaledLatents(rows.owner, square / count)
    return Fitted(features, _fit_anchor(rows, features, deadline, settings))


def straightened(fitted):
    """`Fitted` whose features are the latents themselves, and no landmarks.

    Its anchor is the part of the other one that is over the latents.
    """
    anchor = fitted.anchor
    d, owner = anchor.n_latents, anchor.owner_z
    mean, moments = anchor.mean[:d], anchor.moments[:d, :d]
    features = ScaledLatents(owner, moments.diagonal().clamp_min(0))
    scale = features.scale
    across = moments * scale
    moments = torch.cat(
        [
            torch.cat([moments, across], 1),
            torch.cat([across.T, across * scale[:, None]], 1),
        ]
    )
    mean = torch.cat([mean, mean * scale])
    settings = anchor.settings
    anchor = BlockAnchor(owner, owner, mean, moments, anchor.n_rows, settings)
    return Fitted(features, anchor)


def _fill(rows, deadline, settings):
    """`LatentRows` with missing modalities filled in by linear regression."""
    latents, available, owner = rows.latents, rows.available, rows.owner
    fitted = fit_linear(rows, deadline, settings)
    anchor = fitted.anchor
    y = torch.cat([latents, fitted.features(latents, available)], 1)
    both = torch.cat([owner, owner])
    deviation, _ = completed(anchor, y, rows_by_pattern(available), both)
    filled = (anchor.mean + deviation)[:, : len(owner)]
    return replace(rows, latents=torch.where(available[:, owner], latents, filled))


class CrossFit:
    """The anchor, fitted to all rows and tuned by the errors in left-out folds.

    Parameters
    ----------
    rows : LatentRows
    patterns : bool tensor of shape (P, M)
    fold : int array of shape (n,)
    generator : torch.Generator on the CPU
    deadline : float
        By `time.monotonic`. Where the time until then seems too short, no rows are
        left out, and where it is very short, the features are not curved.
    settings : CrossFitSettings
    is_hopeless : callable, optional
        Called with the sum of squared errors in fold 0, and how often each latent is
        hidden there, (D,), of coarse features; where it is True no more is fitted.

    Attributes
    ----------
    fitted : Fitted or None
        None where it was hopeless.
    parts : list of Fitted
        Part k was not fitted to the rows of fold k, and none to the rows of fold 0, on
        which the network is validated. Otherwise the residuals that the network learns
        would hold the noise of those rows, with its sign turned. Empty where the rows
        are too few.
    """

    def __init__(
        self,
        rows,
        patterns,
        fold,
        generator,
        deadline=math.inf,
        settings=DEFAULT,
        is_hopeless=None,
    ):
        self.rows, self.patterns, self.generator = rows, patterns, generator
        self.deadline, self.settings = deadline, settings
        device = rows.latents.device
        self.fold = torch.as_tensor(fold, device=device)
        self.parts = []
        kernel = settings.kernel
        coarse = replace(kernel, n_landmarks=kernel.n_landmarks // 2)
        every = torch.ones(len(rows), dtype=torch.bool, device=device)
        if deadline < math.inf:
            started = time.monotonic()
            least = max(deadline, started + LEAST_SECONDS)
            self.fitted = fit_linear(rows, least, settings)
            if self._is_late(CURVED_COST * (time.monotonic() - started)):
                return
        is_enough = len(rows) >= settings.min_rows and len(np.unique(fold)) > 2
        is_enough = is_enough and len(patterns) > 0
        n_folds = int(self.fold.max()) + 1
        if is_enough and deadline < math.inf:
            started = time.monotonic()
            self.fitted = self._fit(every, coarse, generator=generator)
            n_fits = len(settings.linear_weights) + 2 * (n_folds + 1)
            if self._is_late(n_fits * (time.monotonic() - started)):
                return
        if is_enough:
            linear, error, count = self._choose_linear(coarse)
            if is_hopeless is not None and is_hopeless(error, count):
                self.fitted = None
                return
            kernel = replace(kernel, linear=linear)
            self.parts = self._fit_all(
                [((self.fold != k) & (self.fold != 0), kernel) for k in range(n_folds)]
            )
        self.fitted = self._fit(every, kernel, MAX_FIT_ROWS, generator=generator)
        if is_enough:
            self._tune()

    def _is_late(self, seconds):
        """Whether the deadline comes before so many seconds have passed."""
        return time.monotonic() + seconds > self.deadline

    def _fit_all(self, choices):
        """Fit by several choices of `_fit`'s arguments, each with its own generator."""
        rng = numpy_generator(self.generator)
        seeds = rng.integers(2**62, size=len(choices)).tolist()

        def fit(k):
            own = torch.Generator().manual_seed(seeds[k])
            return self._fit(*choices[k], generator=own)

        return in_threads(fit, range(len(choices)), self.rows.latents.device)

    def _fit(self, some, kernel, limit=MAX_CROSS_ROWS, *, generator):
        """Fit to some rows, a bool tensor (n,), of which ``limit`` are drawn."""
        rows = some.nonzero()[:, 0]
        if len(rows) > limit:
            order = torch.randperm(len(rows), generator=generator)
            rows = rows[order[:limit].to(rows.device)]
        settings = replace(self.settings, kernel=kernel)
        return fit_curved(self.rows[rows], generator, self.deadline, settings)

    def _left_out(self, k):
        """Rows of fold k under every pattern, grouped by the modalities they keep.

        Yields the kept modalities (M,), rows, and their hidden latents (r, D). The most
        frequent groups are taken where there are many.
        """
        available, owner = self.rows.available, self.rows.owner
        rows = (self.fold == k).nonzero()[:, 0][:MAX_CROSS_ROWS]
        own = available[rows]
        kept = own[:, None] & self.patterns
        row, pattern = (kept != own[:, None]).any(2).nonzero(as_tuple=True)
        groups = rows_by_pattern(kept[row, pattern])
        groups.sort(key=lambda group: -len(group[1]))
        for kept_set, some in groups[:MAX_MEASURED_SETS]:
            chosen = rows[row[some]]
            yield kept_set, chosen, (available[chosen] & ~kept_set)[:, owner]

    def errors(self, k, fitted):
        """Squared errors of hidden latents in fold k, (R, D), and counts, (D,)."""
        latents, owner = self.rows.latents, self.rows.owner
        ridges = self.settings.anchor.ridges
        total = latents.new_zeros(len(ridges), len(owner))
        count = latents.new_zeros(len(owner))
        anchor = fitted.anchor
        for kept, rows, hidden in self._left_out(k):
            missing, own = ~kept[owner], some_weights(self.rows.weight, rows)
            slopes = anchor.slopes(kept, ridges)
            found = fitted.features(latents[rows], kept.expand(len(rows), -1))
            shift = anchor.mean[anchor.n_latents :]
            x = (found - shift)[:, kept[fitted.features.owner]]
            truth = (latents[rows] - anchor.mean[: anchor.n_latents])[:, missing]
            for number, slope in enumerate(slopes):
                error = torch.where(hidden[:, missing], x @ slope - truth, 0.0)
                total[number, missing] += weighted(error.square(), own).sum(0)
            count += weighted(hidden, own).sum(0)
        return total, count

    def _choose_linear(self, kernel):
        """Weight of the linear kernel that predicts fold 0 best.

        Also returns the sum of its squared errors there, each latent with its best
        ridge, and how often each latent is hidden, (D,).
        """
        rows, weights = self.fold != 0, self.settings.linear_weights
        choices = [(rows, replace(kernel, linear=linear)) for linear in weights]
        best = (math.inf, weights[0], math.inf)
        for linear, fitted in zip(weights, self._fit_all(choices), strict=True):
            total, count = self.errors(0, fitted)
            own = float(total.min(0).values.sum())
            best = min(best, (float(total.sum(1).min()), linear, own))
        return *best[1:], count

    def _tune(self):
        """Set the ridge and the spread of all latents by errors of left-out rows."""
        available, owner = self.rows.available, self.rows.owner
        weight = self.rows.weight
        found = in_threads(
            lambda k: self.errors(k, self.parts[k]),
            range(len(self.parts)),
            self.rows.latents.device,
        )
        total = sum(t for t, _ in found)
        count = sum(c for _, c in found)
        options = {"dtype": total.dtype, "device": total.device}
        ridges = torch.tensor(self.settings.anchor.ridges, **options)
        ridge = ridges[total.argmin(0)]
        for fitted in [self.fitted, *self.parts]:
            fitted.anchor.set_tuning(ridge=ridge)
        variance = total.min(0).values / torch.where(count > 0, count, 1)
        expected = torch.zeros_like(variance)
        for pattern in self.patterns:
            conditional = self.fitted.anchor.conditional(pattern)
            n_hidden = weighted(available & ~pattern, weight).sum(0)[owner]
            spread = conditional.cov.diagonal()
            missing = conditional.latents
            expected[missing] += n_hidden[missing] * spread
        expected = expected / count_of(available, self.patterns, owner, weight)
        scale = (variance / expected.clamp_min(1e-12)).sqrt()
        scale = scale.clamp(*self.settings.scale_limits)
        scale = torch.where(count > 0, scale, 1.0)
        for fitted in [self.fitted, *self.parts]:
            fitted.anchor.set_tuning(scale=scale)


def count_of(available, patterns, owner, weight=None):
    """Count how often each latent is hidden when every row gets every pattern."""
    hidden = sum(weighted(available & ~p, weight).sum(0) for p in patterns)[owner]
    return torch.where(hidden > 0, hidden, 1)
