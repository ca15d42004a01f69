"""Curved features of a modality's latents, for the anchor to be linear in.

A sum of three radial kernels and a linear one, by the Nystroem method on landmarks
(Williams and Seeger, 2001), then compressed to the functions that tell most of the
other modalities. Distances are measured in a metric that is learnt: the average outer
product of the gradients of a first regression of the other modalities, as in recursive
feature machines (Radhakrishnan et al., 2024, doi:10.1126/science.adi5639), so that
latents that tell nothing do not count.
"""

from __future__ import annotations

import torch
from torch import nn

from .._shared.linalg import cholesky

MAX_LANDMARKS = 1500
# Of squared distances in units of their median.
GAMMAS = (3.0, 1.0, 0.3)
# Rows' worth of the ridge by which directions are sought.
RIDGE = 0.5
# Rows, and rows at which gradients are taken, for the metric; directions of targets.
METRIC_ROWS, METRIC_POINTS, METRIC_TARGETS = 1000, 300, 32


class KernelFeatures(nn.Module):
    """Features of one modality.

    Shape in: (n, k) latents; out: (n, p).

    Parameters
    ----------
    latents : float64 tensor of shape (n, k), of rows in which the modality is there
    targets : float64 tensor of shape (n, t), centered latents of the other modalities
    size : int
        Features at most.
    linear : float
        Weight of the linear kernel beside the radial ones; inf for it alone.
    n_landmarks : int
    generator : torch.Generator on the CPU
    """

    def __init__(self, latents, targets, size, linear, n_landmarks, generator):
        super().__init__()
        self.register_buffer("metric", _learn_metric(latents, targets, generator))
        latents = latents @ self.metric
        landmarks = latents
        if len(latents) > n_landmarks:
            order = torch.randperm(len(latents), generator=generator)
            landmarks = latents[order[:n_landmarks].to(latents.device)]
        squared = _squared_distances(landmarks, landmarks)
        unit = _unit(squared)
        spread = landmarks.var(0, unbiased=False).sum().clamp_min(1e-12)
        self.curved = 0.0 if linear == float("inf") else 1.0
        self.linear = 1.0 if linear == float("inf") else linear
        for name, tensor in {
            "landmarks": landmarks,
            "unit": unit,
            "spread": spread,
            "center": landmarks.mean(0),
        }.items():
            self.register_buffer(name, tensor.clone())
        known = self._kernel(latents)  # (n, m)
        root = _telling_directions(known, self._kernel(landmarks), targets, size)
        self.register_buffer("root", root)
        self.register_buffer("mean", (known @ root).mean(0))

    def _kernel(self, latents):
        squared = _squared_distances(latents, self.landmarks) / self.unit
        radial = sum(torch.exp(-gamma * squared) for gamma in GAMMAS)
        a, b = latents - self.center, self.landmarks - self.center
        return self.curved * radial + self.linear * (a @ b.T) / self.spread

    def forward(self, latents):
        return self._kernel(latents @ self.metric) @ self.root - self.mean


def _learn_metric(latents, targets, generator):
    """Map of latents, (k, k), after which distances count by what they tell.

    The root of M, the average outer product of the gradients of kernel regression: the
    squared distance is (a - b)' M (a - b).
    """
    k = latents.shape[1]
    order = torch.randperm(len(latents), generator=generator)[:METRIC_ROWS]
    order = order.to(latents.device)
    x, y = latents[order], targets[order]
    if k == 1 or not targets.shape[1] or len(x) < 20:
        return torch.eye(k, dtype=latents.dtype, device=latents.device)
    squared = _squared_distances(x, x)
    unit = _unit(squared)
    radial = [torch.exp(-gamma * squared / unit) for gamma in GAMMAS]
    gram = sum(radial)
    gram.diagonal().add_(RIDGE)
    inverse = torch.cholesky_inverse(cholesky(gram))
    weights = inverse @ y
    # Without itself: a row's residual over the diagonal of the inverse.
    residual = weights / inverse.diagonal()[:, None]
    gain = 1 - residual.square().mean(0) / y.square().mean(0).clamp_min(1e-12)
    weights = weights * gain.clamp_min(0.0)
    if weights.shape[1] > METRIC_TARGETS:
        _, _, vectors = torch.linalg.svd(y * gain.clamp_min(0.0), full_matrices=False)
        weights = weights @ vectors[:METRIC_TARGETS].T
    slope = sum(g * r[:METRIC_POINTS] for g, r in zip(GAMMAS, radial, strict=True))
    points = x[:METRIC_POINTS]
    level = slope @ weights  # (s, t)
    # In single precision: the bulk of the work, and only a metric.
    pairs = (x[:, :, None] * weights[:, None]).flatten(1).float()  # (n, k t)
    moved = (slope.float() @ pairs).view(len(points), k, -1).to(x.dtype)
    gradient = points[:, :, None] * level[:, None] - moved  # (s, k, t)
    gradient = gradient.transpose(0, 1).flatten(1)
    metric = gradient @ gradient.T
    if not bool(metric.diagonal().sum() > 0):
        return torch.eye(k, dtype=latents.dtype, device=latents.device)
    strength, vectors = torch.linalg.eigh(metric / metric.diagonal().mean())
    return (vectors * strength.clamp_min(0.0).sqrt()) @ vectors.T


def _unit(squared):
    """Median of squared distances; their mean where most rows are the same."""
    unit = squared.median()
    return torch.where(unit > 0, unit, squared.mean()).clamp_min(1e-12)


def _squared_distances(a, b):
    square = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return square.clamp_min(0.0)


def _telling_directions(known, own, targets, size):
    """Functions in the span of the landmarks that tell of the targets, (m, p).

    They are orthonormal in the norm of the kernel, so that a ridge on what is linear in
    them is the ridge of kernel regression.

    Shapes: kernel of rows and landmarks (n, m), of landmarks (m, m); targets (n, t).
    """
    wanted = targets if targets.shape[1] else known[:, :size]
    if len(known) == len(own):  # every row is a landmark
        gram = own.clone()
        gram.diagonal().add_(RIDGE)
        inverse = torch.cholesky_inverse(cholesky(gram))
        slopes = inverse @ wanted  # (m, t)
        residual = slopes / inverse.diagonal()[:, None]
    else:
        gram = known.T @ known + RIDGE * own
        # Of a constant modality all is 0.
        gram.diagonal().add_((1e-10 * gram.diagonal().max()).clamp_min(1e-12))
        inverse = torch.cholesky_inverse(cholesky(gram))
        slopes = inverse @ (known.T @ wanted)
        leverage = ((known @ inverse) * known).sum(1, keepdim=True)
        residual = (wanted - known @ slopes) / (1 - leverage).clamp_min(1e-3)
    # Targets count by how well rows left out are predicted: noise attracts nothing.
    gain = 1 - residual.square().mean(0) / wanted.square().mean(0).clamp_min(1e-12)
    slopes = slopes * gain.clamp_min(0.01).sqrt()
    strength, vectors = torch.linalg.eigh(slopes.T @ own @ slopes)
    kept = torch.argsort(strength, descending=True)[:size]
    kept = kept[strength[kept] > 1e-9 * strength.max()]
    return slopes @ vectors[:, kept] / strength[kept].sqrt()
