"""Curved features of a modality's latents, for the anchor to be linear in.

A sum of three radial kernels and a linear one, by the Nystroem method on landmarks
(Williams and Seeger, 2001), then compressed to the functions that predict the other
modalities best. Distances are measured in a metric that is learnt: the average outer
product of the gradients of a first regression of the other modalities, as in recursive
feature machines (Radhakrishnan et al., 2024, doi:10.1126/science.adi5639), so that
latents without predictive value do not count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from .._shared.linalg import cholesky
from .._shared.weights import rooted, some_weights, weighted, weighted_mean

# The metric's cost is limited: it is learnt from so many rows, by gradients at so many
# of them, for so many directions of the targets.
METRIC_ROWS, METRIC_POINTS, METRIC_TARGETS = 1000, 300, 32


@dataclass(frozen=True)
class KernelSettings:
    """How curved features are made. "NOTES" is benchmarks/NOTES.md.

    Parameters
    ----------
    gammas : tuple of float
        Factors of squared distances, relative to their median, in the radial kernels.
        (A sum of kernels: NOTES, "Kernels instead of a line". Their values: not
        measured.)
    linear : float
        Weight of the linear kernel beside the radial ones; inf leaves it alone.
        (Chosen by rows left out, see `CrossFitSettings`.)
    ridge : float
        Ridge, in rows, of the regression by which directions are sought. (Not
        measured.)
    n_landmarks : int
        Landmarks at most. (NOTES, "All rows as landmarks".)
    n_features : int
        Features of a modality at most. (NOTES, "Compressed features".)
    """

    gammas: tuple[float, ...] = (3.0, 1.0, 0.3)
    linear: float = 0.02
    ridge: float = 0.5
    n_landmarks: int = 1500
    n_features: int = 80


DEFAULT = KernelSettings()


class KernelFeatures(nn.Module):
    """Features of one modality.

    Shape in: (n, k) latents; out: (n, p).

    Parameters
    ----------
    latents : float64 tensor of shape (n, k)
        Latents in the rows in which the modality is available.
    targets : float64 tensor of shape (n, t)
        Centered latents of the other modalities.
    generator : torch.Generator on the CPU
    settings : KernelSettings
    weight : float tensor of shape (n,), optional
        Weights of the rows, with a mean near 1.
    """

    def __init__(self, latents, targets, generator, settings=DEFAULT, weight=None):
        super().__init__()
        self.settings = settings
        metric = _learn_metric(latents, targets, generator, settings, weight)
        self.register_buffer("metric", metric)
        latents = latents @ self.metric
        landmarks = latents
        if len(latents) > settings.n_landmarks:
            order = torch.randperm(len(latents), generator=generator)
            landmarks = latents[order[: settings.n_landmarks].to(latents.device)]
        squared = _squared_distances(landmarks, landmarks)
        spread = landmarks.var(0, unbiased=False).sum().clamp_min(1e-12)
        is_linear = settings.linear == math.inf
        self.curved = 0.0 if is_linear else 1.0
        self.linear = 1.0 if is_linear else settings.linear
        for name, tensor in {
            "landmarks": landmarks,
            "distance": _typical(squared),
            "spread": spread,
            "center": landmarks.mean(0),
        }.items():
            self.register_buffer(name, tensor.clone())
        kernel = self._kernel(latents)  # (n, m)
        root = _predictive_directions(
            kernel, self._kernel(landmarks), targets, settings, weight
        )
        self.register_buffer("root", root)
        self.register_buffer("mean", weighted_mean(kernel @ root, weight))

    def _kernel(self, latents):
        squared = _squared_distances(latents, self.landmarks) / self.distance
        radial = sum(torch.exp(-gamma * squared) for gamma in self.settings.gammas)
        a, b = latents - self.center, self.landmarks - self.center
        return self.curved * radial + self.linear * (a @ b.T) / self.spread

    def forward(self, latents):
        return self._kernel(latents @ self.metric) @ self.root - self.mean


def _learn_metric(latents, targets, generator, settings=DEFAULT, weight=None):
    """Map of latents, (k, k), after which distances count by their predictive value.

    The root of M, the average outer product of the gradients of kernel regression: the
    squared distance is (a - b)' M (a - b).
    """
    k = latents.shape[1]
    order = torch.randperm(len(latents), generator=generator)[:METRIC_ROWS]
    order = order.to(latents.device)
    x, y, weight = latents[order], targets[order], some_weights(weight, order)
    if k == 1 or not targets.shape[1] or len(x) < 20:
        return torch.eye(k, dtype=latents.dtype, device=latents.device)
    squared = _squared_distances(x, x)
    typical = _typical(squared)
    radial = [torch.exp(-gamma * squared / typical) for gamma in settings.gammas]
    gram = sum(radial)
    gram.diagonal().add_(_ridges(settings.ridge, weight))
    inverse = torch.cholesky_inverse(cholesky(gram))
    weights = inverse @ y
    # A row's residual over the diagonal of the inverse is its leave-one-out error.
    residual = weights / inverse.diagonal()[:, None]
    left, whole = (weighted_mean(part.square(), weight) for part in (residual, y))
    gain = 1 - left / whole.clamp_min(1e-12)
    weights = weights * gain.clamp_min(0.0)
    if weights.shape[1] > METRIC_TARGETS:
        _, _, vectors = torch.linalg.svd(y * gain.clamp_min(0.0), full_matrices=False)
        weights = weights @ vectors[:METRIC_TARGETS].T
    slope = sum(
        gamma * kernel[:METRIC_POINTS]
        for gamma, kernel in zip(settings.gammas, radial, strict=True)
    )
    points = x[:METRIC_POINTS]
    total = slope @ weights  # (s, t)
    # This product is most of the work, and a metric needs no double precision.
    pairs = (x[:, :, None] * weights[:, None]).flatten(1).float()  # (n, k t)
    moved = (slope.float() @ pairs).view(len(points), k, -1).to(x.dtype)
    gradient = points[:, :, None] * total[:, None] - moved  # (s, k, t)
    gradient = rooted(gradient, some_weights(weight, slice(METRIC_POINTS)))
    gradient = gradient.transpose(0, 1).flatten(1)
    metric = gradient @ gradient.T
    if not bool(metric.diagonal().sum() > 0):
        return torch.eye(k, dtype=latents.dtype, device=latents.device)
    strength, vectors = torch.linalg.eigh(metric / metric.diagonal().mean())
    return (vectors * strength.clamp_min(0.0).sqrt()) @ vectors.T


def _ridges(ridge, weight):
    """Ridge of every row: one of weight 2 stands for two, whose mean varies less."""
    return ridge if weight is None else ridge / weight


def _typical(squared):
    """Median of squared distances; their mean where most rows are the same."""
    median = squared.median()
    return torch.where(median > 0, median, squared.mean()).clamp_min(1e-12)


def _squared_distances(a, b):
    """Squared distances (n, m) of rows (n, k) to rows (m, k)."""
    square = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return square.clamp_min(0.0)


def _predictive_directions(kernel, own, targets, settings, weight=None):
    """Functions in the span of the landmarks that predict the targets, (m, p).

    They are orthonormal in the norm of the kernel, so that a ridge on linear functions
    of them is the ridge of kernel regression.

    Parameters
    ----------
    kernel, own : tensors of shape (n, m) and (m, m)
        Kernel between rows and landmarks, and between landmarks.
    targets : tensor of shape (n, t)
    settings : KernelSettings
    weight : tensor of shape (n,), optional
        Weights of the rows.
    """
    wanted = targets if targets.shape[1] else kernel[:, : settings.n_features]
    if len(kernel) == len(own):  # every row is a landmark
        gram = own.clone()
        gram.diagonal().add_(_ridges(settings.ridge, weight))
        inverse = torch.cholesky_inverse(cholesky(gram))
        slopes = inverse @ wanted  # (m, t)
        residual = slopes / inverse.diagonal()[:, None]
    else:
        counted = weighted(kernel, weight)
        gram = kernel.T @ counted + settings.ridge * own
        # The kernel of a constant modality is 0 throughout.
        gram.diagonal().add_((1e-10 * gram.diagonal().max()).clamp_min(1e-12))
        inverse = torch.cholesky_inverse(cholesky(gram))
        slopes = inverse @ (counted.T @ wanted)
        leverage = ((kernel @ inverse) * counted).sum(1, keepdim=True)
        residual = (wanted - kernel @ slopes) / (1 - leverage).clamp_min(1e-3)
    # Targets count by how well rows left out are predicted: noise attracts nothing.
    left, whole = (weighted_mean(p.square(), weight) for p in (residual, wanted))
    gain = 1 - left / whole.clamp_min(1e-12)
    slopes = slopes * gain.clamp_min(0.01).sqrt()
    strength, vectors = torch.linalg.eigh(slopes.T @ own @ slopes)
    kept = torch.argsort(strength, descending=True)[: settings.n_features]
    kept = kept[strength[kept] > 1e-9 * strength.max()]
    return slopes @ vectors[:, kept] / strength[kept].sqrt()
