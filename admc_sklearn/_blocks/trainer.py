"""Training steps of the denoiser of modalities, and its error in held-out rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from .._shared.held_out import MAX_LOST_ROWS
from .._shared.patterns import rows_by_pattern
from .._shared.training import Trainer
from .._shared.weights import rooted, some_weights, weighted, weighted_mean
from .gaussian_diffusion import coefficients

# Limits of the memory: elements of the anchors' means of all rows under all patterns,
# elements of the roots of the covariances of all distinct sets of kept modalities, and
# such sets.
MAX_MEANS, MAX_ROOTS, MAX_KEPT_SETS = 60_000_000, 60_000_000, 500


@dataclass(frozen=True)
class BlockTrainingSettings:
    """How the denoiser is trained. "NOTES" is benchmarks/NOTES.md.

    Parameters
    ----------
    dropout : float
        Dropout rate. (NOTES, "Weight of the denoiser by rows left out": 0.05 to 0.5
        make no difference.)
    weight_decay, average_decay : float
        Decay of the weights in AdamW, and of their moving average. (Not measured.)
    mean_share : float
        Share of the rows of a step at infinite noise, where the mean is learnt. (Not
        measured.)
    """

    dropout: float = 0.3
    weight_decay: float = 0.1
    average_decay: float = 0.99
    mean_share: float = 0.6


DEFAULT = BlockTrainingSettings()


class HiddenRows:
    """Rows with modalities hidden by every pattern, and the anchors' posteriors.

    A row's posterior is that of an anchor that was not fitted to the row.

    Parameters
    ----------
    model : BlockModel
    latents : tensor of shape (n, D)
    available : bool tensor of shape (n, M)
    patterns : bool tensor of shape (P, M)
    parts : list of Fitted
        Part k was not fitted to the rows of fold k.
    fold : int array of shape (n,)
    weight : float tensor of shape (n,), optional
        Weights of the rows, with a mean near 1.

    Attributes
    ----------
    kept : bool tensor of shape (n, P, M)
        Modalities that are available and not hidden.
    mean : float32 tensor of shape (n, P, D)
        Latents, with the anchor's means where they are hidden or missing.
    kept_set : int tensor of shape (n, P)
        Number of the set of kept modalities, among the S distinct sets.
    sd : tensor of shape (S, D)
        Standard deviations of the latents that are not kept, 0 for others.
    roots : list of S tensors
        Roots of the covariance of these latents.
    """

    def __init__(self, model, latents, available, patterns, parts, fold, weight=None):
        self.weight = weight
        n, size = latents.shape
        self.latents, self.available = latents.float(), available
        self.owner = model.anchor.owner_z
        self.kept = available[:, None] & patterns
        self.mean = self.latents[:, None].repeat(1, len(patterns), 1)
        kept_sets, inverse = torch.unique(
            self.kept.flatten(0, 1), dim=0, return_inverse=True
        )
        self.kept_set = inverse.view(n, len(patterns))
        self.sd = self.mean.new_zeros(len(kept_sets), size)
        self.roots = []
        for sd, kept in zip(self.sd, kept_sets, strict=True):
            own = model.anchor.conditional(kept)
            sd[own.latents] = own.cov.diagonal().sqrt().float()
            self.roots.append(own.root.float())
        for k, part in enumerate(parts):
            rows = torch.as_tensor(np.flatnonzero(fold == k), device=latents.device)
            features = part.features(latents[rows], available[rows])
            for number, kept in enumerate(kept_sets):
                some, pattern = (self.kept_set[rows] == number).nonzero(as_tuple=True)
                if not len(some):
                    continue
                conditional = part.anchor.conditional(kept)
                index = conditional.latents.nonzero()[:, 0]
                found = part.anchor.predict(features[some], conditional)
                at = rows[some][:, None], pattern[:, None], index
                self.mean[at] = found.float()

    def batch(self, rows, pattern):
        """Latents, means, kept modalities, spreads and hidden latents of rows."""
        kept = self.kept[rows, pattern]
        hidden = (self.available[rows] & ~kept)[:, self.owner]
        sd = self.sd[self.kept_set[rows, pattern]]
        return self.latents[rows], self.mean[rows, pattern], kept, sd, hidden

    def noise(self, kept_set, generator):
        """Noise with the covariance of the anchor's posterior, (B, D)."""
        out = torch.zeros(len(kept_set), len(self.owner), device=kept_set.device)
        for number in torch.unique(kept_set).tolist():
            rows = (kept_set == number).nonzero()[:, 0]
            root = self.roots[number]
            index = (self.sd[number] > 0).nonzero()[:, 0]
            white = torch.randn(
                len(rows), len(root), generator=generator, device=kept_set.device
            )
            out[rows[:, None], index] = white @ root.T
        return out


def affordable(available, patterns, n_latents, rng, limit=MAX_KEPT_SETS):
    """Rows, as an int array, and patterns that `HiddenRows` can hold.

    Where rows lack modalities in many ways, each row gets fewer patterns; then the
    rarest ways are left out. Very many rows are replaced by a random part of them.
    """
    limit = max(1, min(limit, MAX_KEPT_SETS, MAX_ROOTS // n_latents**2))
    groups = rows_by_pattern(available)
    groups.sort(key=lambda group: -len(group[1]))
    n_patterns = max(1, min(len(patterns), max(2, limit // len(groups))))
    chosen = rng.permutation(len(patterns))[:n_patterns]
    parts = [rows for _, rows in groups[: max(1, limit // n_patterns)]]
    rows = np.sort(torch.cat(parts).cpu().numpy())
    n_rows = max(1, MAX_MEANS // (n_patterns * n_latents))
    if len(rows) > n_rows:
        rows = rng.choice(rows, n_rows, replace=False)
    return rows, patterns[torch.as_tensor(np.sort(chosen), device=patterns.device)]


class BlockTrainer(Trainer):
    """State of one training run of the denoiser of a model.

    Parameters
    ----------
    model : BlockModel
    hidden : HiddenRows
    rows : int tensor
        Rows to train on.
    plan : TrainingPlan
    seed : int
    settings : BlockTrainingSettings
    """

    def __init__(self, model, hidden, rows, plan, seed, settings=DEFAULT):
        super().__init__(
            model.denoiser,
            len(rows),
            plan,
            seed,
            rows.device,
            weight_decay=settings.weight_decay,
            average_decay=settings.average_decay,
        )
        self.settings = settings
        self.model, self.hidden, self.rows = model, hidden, rows

    def loss(self, batch):
        """Mean loss of rows, each under one pattern and one amount of noise."""
        rows = self.rows[batch]
        n_patterns = self.hidden.kept_set.shape[1]
        options = {"generator": self.generator, "device": rows.device}
        pattern = torch.randint(n_patterns, (len(rows),), **options)
        kept_set = self.hidden.kept_set[rows, pattern]
        latents, mean, kept, sd, hidden = self.hidden.batch(rows, pattern)
        deviation = torch.where(hidden, latents - mean, 0.0)
        white = torch.randn(len(rows), 1, **options)
        diffusion, settings = self.model.diffusion, self.settings
        log_sigma = diffusion.log_sigma_mean + diffusion.log_sigma_sd * white
        top = torch.rand(len(rows), 1, **options) < settings.mean_share
        sigma = torch.where(top, torch.inf, log_sigma.exp())
        noise = self.hidden.noise(kept_set, self.generator)
        noisy = torch.where(top, 0.0, deviation + sigma.clamp(max=1e6) * noise)
        c_skip, c_out, _ = coefficients(sigma)
        target = (deviation - torch.where(top, 0.0, c_skip * noisy)) / c_out
        factors = self.model.denoiser.factors(
            settings.dropout, len(rows), self.generator
        )
        found = self.model.correction(mean, sd, kept, noisy, sigma, factors) * sd
        # The error is relative to the anchor's variance, so that patterns count alike.
        error = torch.where(hidden, found - target, 0.0).square().sum(1)
        total = torch.where(hidden, sd.square(), 0.0).sum(1)
        own = some_weights(self.hidden.weight, rows)
        return weighted(error / total.clamp_min(1e-9), own).mean()


class BlockValidation:
    """Error of the completed columns in held-out rows, under every pattern."""

    def __init__(self, model, hidden, rows, n_columns):
        rows = rows[:MAX_LOST_ROWS]
        self.model = model
        n_columns = torch.as_tensor(n_columns, device=rows.device)
        self.weight = some_weights(hidden.weight, rows)
        self.batches, self.n_cells = [], 0.0
        for k in range(hidden.kept_set.shape[1]):
            batch = hidden.batch(rows, torch.full_like(rows, k))
            lost = hidden.available[rows] & ~batch[2]
            self.n_cells += float(weighted(lost * n_columns, self.weight).sum())
            self.batches.append(batch)

    @torch.no_grad()
    def error_of(self, fitted):
        """Root mean squared error of an anchor by itself; see `measure`."""
        total = 0.0
        for latents, _, kept, _, hidden in self.batches:
            exact = latents.to(fitted.anchor.mean)
            features = fitted.features(exact, kept)
            for pattern, rows in rows_by_pattern(kept):
                conditional = fitted.anchor.conditional(pattern)
                found = fitted.anchor.predict(features[rows], conditional)
                error = exact[rows][:, conditional.latents] - found
                own = hidden[rows][:, conditional.latents]
                square = torch.where(own, error, 0.0).square()
                total += float(weighted(square, some_weights(self.weight, rows)).sum())
        return math.sqrt(total / max(1.0, self.n_cells))

    @torch.no_grad()
    def measure(self):
        """Root mean squared error in standardised units, and nats a latent.

        The model's gate is set to the weight that makes this error least.
        """
        model = self.model
        model.gate.fill_(1.0)
        residuals, shifts, spreads, weights = [], [], [], []
        for latents, mean, kept, sd, hidden in self.batches:
            zero = torch.zeros_like(mean)
            shift = model.denoise(mean, sd, kept, zero, torch.inf)
            residuals.append((latents - mean)[hidden])
            shifts.append(shift[hidden])
            spreads.append(sd[hidden])
            if self.weight is not None:
                weights.append(self.weight[:, None].expand_as(hidden)[hidden])
        residual, shift, sd = map(torch.cat, (residuals, shifts, spreads))
        weight = torch.cat(weights) if weights else None
        along = rooted(residual, weight) @ rooted(shift, weight)
        gate = along / rooted(shift, weight).square().sum().clamp_min(1e-12)
        model.gate.copy_(gate.clamp(0.0, 1.0))
        error = residual - model.gate * shift
        nats = 0.5 * (error / sd).square() + sd.log() + 0.5 * math.log(2 * math.pi)
        squared = float(rooted(error, weight).square().sum())
        rmse = math.sqrt(squared / max(1.0, self.n_cells))
        return rmse, float(weighted_mean(nats, weight))
