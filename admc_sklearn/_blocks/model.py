"""The model of modalities: encoders, anchor and denoiser put together."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.special import ndtri
from torch import nn

from .._shared.contract import without
from .._shared.devices import in_threads, slices
from .._shared.noise import row_uniforms
from .._shared.patterns import rows_by_pattern
from .cross_fit import Fitted, straightened
from .gaussian_diffusion import coefficients, reverse

# Rows are completed in batches of so many numbers, in order to bound the memory.
BATCH_ELEMENTS = 2_000_000


class BlockModel(nn.Module):
    """Completes missing modalities from available ones.

    Parameters
    ----------
    encoders : list of LinearEncoder
    columns : list of int array
        Columns of each modality.
    fitted : Fitted
        Features and anchor.
    denoiser : ModalityDenoiser or None
        None leaves the anchor alone.
    diffusion : DiffusionSettings
    """

    def __init__(self, encoders, columns, fitted, denoiser, diffusion):
        super().__init__()
        self.encoders, self.columns, self.diffusion = encoders, columns, diffusion
        self.features, self.anchor = fitted.features, fitted.anchor
        self.denoiser = denoiser
        self.dependence = np.full((len(encoders), len(encoders)), np.nan)
        self.lost_error = math.nan
        # Of the model and of it `without_rows`, as `lost_error` is.
        self.held_out_errors = math.nan, math.nan
        variance = self.anchor.moments.diagonal()[: self.anchor.n_latents]
        total = variance.new_zeros(len(encoders))
        total.index_add_(0, self.anchor.owner_z, variance)
        sizes = torch.bincount(self.anchor.owner_z)
        scale = (total / sizes).clamp_min(1e-12).sqrt()[self.anchor.owner_z]
        # All latents of a modality come into the network on one common scale.
        self.register_buffer("scale", scale)
        ends = torch.cumsum(sizes, 0).tolist()
        self.slices = [
            slice(end - size, end)
            for end, size in zip(ends, sizes.tolist(), strict=True)
        ]
        # It scales the denoiser's output; `BlockValidation.measure` sets it.
        self.register_buffer("gate", torch.ones(()))
        # One draw of a row takes so many random numbers.
        self.n_outputs = ends[-1] + sum(len(own) for own in columns)

    def without_rows(self):
        """Copy of the model without landmarks: its anchor is linear, and alone.

        The denoiser stays for what it attends to; its gate is closed.
        """
        if not len(self.features.maps):
            return self
        straight = straightened(Fitted(self.features, self.anchor))
        gate = torch.zeros_like(self.gate)
        return without(
            self, features=straight.features, anchor=straight.anchor, gate=gate
        )

    @property
    def n_landmarks(self):
        """Landmarks of the modality with the most of them."""
        sizes = [len(features.landmarks) for features in self.features.maps]
        return max(sizes, default=0)

    @property
    def device(self):
        """Device of the model."""
        return self.scale.device

    def encode(self, values, observed):
        """Latents, and which modalities are available.

        Parameters
        ----------
        values, observed : arrays of shape (n, d)

        Returns
        -------
        latents : float64 tensor of shape (n, D)
        available : bool tensor of shape (n, M)
        """
        parts = [
            encoder.encode(values[:, columns], observed[:, columns])
            for encoder, columns in zip(self.encoders, self.columns, strict=True)
        ]
        latents = np.concatenate([z for z, _ in parts], 1)
        available = np.stack([a for _, a in parts], 1)
        device = self.device
        return torch.tensor(latents, device=device), torch.tensor(available).to(device)

    def condition(self, latents, available, features=None):
        """Condition the anchor on the available modalities of every row.

        Returns
        -------
        mean : float64 tensor of shape (n, D)
            Conditional mean of missing latents; the observed latents themselves.
        groups : list of (Conditional, rows)
        """
        if features is None:
            features = self.features(latents, available)
        mean, groups = latents.clone(), []
        for pattern, rows in rows_by_pattern(available):
            conditional = self.anchor.conditional(pattern)
            index = conditional.latents.nonzero()[:, 0]
            mean[rows[:, None], index] = self.anchor.predict(
                features[rows], conditional
            )
            groups.append((conditional, rows))
        return mean, groups

    def spread(self, groups, n):
        """Lay out the standard deviations of latents, (n, D), 0 where observed."""
        sd = self.scale.new_zeros(n, self.anchor.n_latents)
        for conditional, rows in groups:
            index = conditional.latents.nonzero()[:, 0]
            sd[rows[:, None], index] = conditional.cov.diagonal().sqrt()
        return sd

    def denoise(self, mean, sd, available, deviation, sigma):
        """Mean of the deviation from the anchor's mean, given the noisy one.

        Parameters
        ----------
        mean, sd, deviation : tensors of shape (n, D)
        available : bool tensor of shape (n, M)
        sigma : tensor of shape () or (n, 1)
            Infinite where the deviation holds no information.
        """
        sigma = torch.as_tensor(sigma, dtype=torch.float32, device=mean.device)
        sigma = sigma.expand(len(mean), 1)
        c_skip, c_out, _ = coefficients(sigma)
        clean = torch.where(sigma.isinf(), 0.0, c_skip * deviation)
        if self.denoiser is None:
            return clean
        found = self.correction(mean, sd, available, deviation, sigma)
        return clean + self.gate * c_out * sd * found

    def correction(self, mean, sd, available, deviation, sigma, factors=None):
        """Output F of the network, (n, D) float32, with dropout by the factors."""
        inputs = self._inputs(mean, sd, available, deviation, sigma)
        return self.denoiser(*inputs, factors)

    def _inputs(self, mean, sd, available, deviation, sigma):
        _, _, c_in = coefficients(sigma)
        noisy = torch.where(sigma.isinf(), 0.0, c_in * deviation)
        noisy = noisy / sd.clamp_min(1e-9)
        noisy = torch.where(sd > 0, noisy, 0.0)
        limit = self.diffusion.max_log_sigma
        log_sigma = sigma.log().clamp(-limit, limit)
        center = self.anchor.mean[: self.anchor.n_latents]
        value = ((mean - center) / self.scale).float().clamp(-8.0, 8.0)
        return value, noisy.float(), available, log_sigma

    def complete(self, latents, available):
        """Mean of the missing latents by one call, and the groups of the anchor."""
        mean, groups = self.condition(latents, available)
        if self.denoiser is not None:
            sd = self.spread(groups, len(mean))
            zero = torch.zeros_like(mean)
            mean = mean + self.denoise(mean, sd, available, zero, torch.inf)
        return mean, groups

    def attention(self, latents, available):
        """Attention of every modality to every other while they are completed.

        Shape: (M, M), the mean over the rows; rows sum to one.
        """
        mean, groups = self.condition(latents, available)
        sd = self.spread(groups, len(mean))
        sigma = torch.full((len(mean), 1), torch.inf, device=mean.device)
        zero = torch.zeros_like(mean)
        inputs = self._inputs(mean, sd, available, zero, sigma)
        return self.denoiser.attention_weights(*inputs).mean(0)


def complete_blocks(model, rows, statistics):
    """Posterior summaries of the missing cells of modalities, by one network call.

    Parameters
    ----------
    model : BlockModel
    rows : Rows
    statistics : sequence of "mean" or float
        The posterior mean, or that quantile of a normal posterior.

    Returns
    -------
    float32 array of shape (n_statistics, n, d)
    """
    values, observed = rows.values, rows.observed
    out = np.repeat(values.astype(np.float32)[None], len(statistics), axis=0)
    deviates = [0.0 if s == "mean" else ndtri(s) for s in statistics]
    wants_spread = any(deviates)

    def complete_rows(rows):
        x, o = values[rows], observed[rows]
        for k, mean, variance in _posteriors(model, x, o, wants_spread):
            columns = model.columns[k]
            missing = ~o[:, columns]
            for target, deviate in zip(out, deviates, strict=True):
                found = mean
                if deviate:
                    found = mean + deviate * np.sqrt(variance)
                own = target[np.ix_(rows, columns)]
                target[np.ix_(rows, columns)] = np.where(missing, found, own)

    in_threads(complete_rows, _batches(model, observed), model.device)
    return out


def _batches(model, observed):
    """Rows with missing cells, in parts of bounded size."""
    own = np.concatenate(model.columns)
    rows = np.flatnonzero(~observed[:, own].all(axis=1))
    cost = max(len(own), model.n_outputs, model.n_landmarks)
    parts = slices(len(rows), cost, BATCH_ELEMENTS, model.device)
    return [rows[part] for part in parts]


def _posteriors(model, values, observed, wants_spread):
    """Mean and variance of the columns of every modality that lacks cells."""
    with torch.inference_mode():
        latents, available = model.encode(values, observed)
        mean, groups = model.complete(latents, available)
        covs = _covariances(groups, model)
    z = mean.cpu().numpy()
    for k, (encoder, columns) in enumerate(
        zip(model.encoders, model.columns, strict=True)
    ):
        seen = observed[:, columns]
        if seen.all():
            continue
        own = model.slices[k]
        center = z[:, own].copy()
        variance = np.zeros_like(center)
        for rows, cov in covs[k]:
            variance[rows] = np.diag(cov)
        partial = np.flatnonzero(seen.any(axis=1) & ~seen.all(axis=1))
        if len(partial):
            given_others = _without(model, latents, available, partial, k)
            center[partial], root = _updated(
                encoder, given_others, values[partial][:, columns], seen[partial]
            )
            variance[partial] = np.square(root).sum(axis=2)
        spread = encoder.variance_of(variance) if wants_spread else None
        yield k, encoder.decode(center), spread


def _covariances(groups, model):
    """For every modality, rows that lack it and the covariance of its latents."""
    found = [[] for _ in model.encoders]
    for conditional, rows in groups:
        missing = conditional.latents.cpu().numpy()
        position = np.cumsum(missing) - 1
        cov = conditional.cov.cpu().numpy()
        for k, own in enumerate(model.slices):
            if missing[own.start]:
                at = position[own]
                found[k].append((rows.cpu().numpy(), cov[np.ix_(at, at)]))
    return found


def _without(model, latents, available, rows, k):
    """Distribution of modality k given the others, in rows that hold a part of it.

    Returns
    -------
    mean : array of shape (r, l)
        Conditional mean of the modality's l latents.
    covs : list of (rows, covariance)
    """
    with torch.inference_mode():
        at = torch.as_tensor(rows, device=latents.device)
        others = available[at].clone()
        others[:, k] = False
        mean, groups = model.complete(latents[at], others)
    return mean.cpu().numpy()[:, model.slices[k]], _covariances(groups, model)[k]


def _updated(encoder, given_others, values, seen):
    """Latents given the block's own cells too, and roots of their covariance."""
    mean, covs = given_others
    out = np.empty_like(mean)
    roots = np.empty((*mean.shape, mean.shape[1]))
    for rows, cov in covs:
        out[rows], roots[rows] = encoder.update(
            mean[rows], cov, values[rows], seen[rows]
        )
    return out, roots


def draw_blocks(model, rows, n_steps, keys, stream):
    """One joint draw of every row's missing modalities, by the reverse diffusion.

    Parameters
    ----------
    model : BlockModel
    rows : Rows
    n_steps : int
    keys : uint64 array of shape (n,)
        Keys of the rows, by `row_keys`.
    stream : int
        Number of the draw.

    Returns
    -------
    float32 array of shape (n, d)
        A row's draw depends on the row and its key, not on its companions.
    """
    values, observed = rows.values, rows.observed
    out = values.astype(np.float32)

    def draw_rows(rows):
        x, o = values[rows], observed[rows]
        white = ndtri(row_uniforms(keys[rows], model.n_outputs, stream))
        latent_noise, cell_noise = np.split(white, [model.anchor.n_latents], axis=1)
        with torch.inference_mode():
            latents, available = model.encode(x, o)
            z = _draw_latents(model, latents, available, latent_noise, n_steps)
        lo = 0
        for k, (encoder, columns) in enumerate(
            zip(model.encoders, model.columns, strict=True)
        ):
            noise = cell_noise[:, lo : lo + len(columns)]
            lo += len(columns)
            seen = o[:, columns]
            if seen.all():
                continue
            own = z[:, model.slices[k]]
            partial = np.flatnonzero(seen.any(axis=1) & ~seen.all(axis=1))
            if len(partial):
                given_others = _without(model, latents, available, partial, k)
                center, root = _updated(
                    encoder, given_others, x[partial][:, columns], seen[partial]
                )
                e = latent_noise[partial][:, model.slices[k]]
                own[partial] = center + np.einsum("rij,rj->ri", root, e)
            found = encoder.decode(own) + noise * np.sqrt(encoder.noise_)
            kept = out[np.ix_(rows, columns)]
            out[np.ix_(rows, columns)] = np.where(seen, kept, found)

    in_threads(draw_rows, _batches(model, observed), model.device)
    return out


def _draw_latents(model, latents, available, white, n_steps):
    """Latents with the missing modalities drawn, (n, D) array."""
    mean, groups = model.condition(latents, available)
    sd = model.spread(groups, len(mean))
    white = torch.as_tensor(white, device=mean.device)
    noise = torch.zeros_like(mean)
    for conditional, rows in groups:
        index = conditional.latents.nonzero()[:, 0]
        shaped = white[rows][:, index] @ conditional.root.T
        noise[rows[:, None], index] = shaped

    def denoise(deviation, sigma):
        return model.denoise(mean, sd, available, deviation, sigma)

    drawn = reverse(denoise, noise, n_steps, model.diffusion)
    return (mean + drawn).cpu().numpy()
