"""The model of modalities: encoders, anchor and denoiser put together."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ._anchor import patterns_of
from ._diffusion import coefficients

# Noise at which the network is told that there is nothing but noise.
NO_SIGNAL = 5.0


class BlockModel(nn.Module):
    """Completes missing modalities from those that are there.

    Parameters
    ----------
    encoders : list of LinearEncoder
    columns : list of int array
        Of each modality.
    fitted : Fitted
        Features and anchor.
    denoiser : ModalityDenoiser or None
        None leaves the anchor alone.
    """

    def __init__(self, encoders, columns, fitted, denoiser):
        super().__init__()
        self.encoders, self.columns = encoders, columns
        self.features, self.anchor = fitted.features, fitted.anchor
        self.denoiser = denoiser
        self.dependence = np.full((len(encoders), len(encoders)), np.nan)
        variance = self.anchor.moments.diagonal()[: self.anchor.n_latents]
        total = variance.new_zeros(len(encoders))
        total.index_add_(0, self.anchor.owner_z, variance)
        sizes = torch.bincount(self.anchor.owner_z)
        unit = (total / sizes).clamp_min(1e-12).sqrt()[self.anchor.owner_z]
        # Latents of a modality come into the network in one common unit.
        self.register_buffer("unit", unit)
        ends = torch.cumsum(sizes, 0).tolist()
        self.slices = [
            slice(end - size, end)
            for end, size in zip(ends, sizes.tolist(), strict=True)
        ]
        # How far the denoiser is followed: rows left out decide.
        self.register_buffer("gate", torch.ones(()))
        # Noise that one draw of a row takes.
        self.n_outputs = ends[-1] + sum(len(own) for own in columns)

    @property
    def n_landmarks(self):
        """Landmarks of the modality with the most of them."""
        sizes = [len(features.landmarks) for features in self.features.maps]
        return max(sizes, default=0)

    @property
    def device(self):
        """Where the model is."""
        return self.unit.device

    def encode(self, values, observed):
        """Latents and which modalities are there.

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
        """Ask the anchor: its mean (n, D) and the conditionals of the patterns.

        Returns
        -------
        mean : float64 tensor of shape (n, D)
            Observed latents are their own.
        groups : list of (Conditional, rows)
        """
        if features is None:
            features = self.features(latents, available)
        mean, groups = latents.clone(), []
        for pattern, rows in patterns_of(available):
            conditional = self.anchor.conditional(pattern)
            place = conditional.latents.nonzero()[:, 0]
            mean[rows[:, None], place] = self.anchor.predict(
                features[rows], conditional
            )
            groups.append((conditional, rows))
        return mean, groups

    def spread(self, groups, n):
        """Spread standard deviations to missing latents, (n, D), 0 where observed."""
        sd = self.unit.new_zeros(n, self.anchor.n_latents)
        for conditional, rows in groups:
            place = conditional.latents.nonzero()[:, 0]
            sd[rows[:, None], place] = conditional.cov.diagonal().sqrt()
        return sd

    def denoise(self, mean, sd, available, deviation, sigma):
        """Mean of the deviation from the anchor's mean, given the noisy one.

        Parameters
        ----------
        mean, sd, deviation : tensors of shape (n, D)
        available : bool tensor of shape (n, M)
        sigma : tensor of shape () or (n, 1)
            Infinite where the deviation says nothing.
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
        """F, the output of the network, (n, D) float32; with dropout by factors."""
        inputs = self._inputs(mean, sd, available, deviation, sigma)
        return self.denoiser(*inputs, factors)

    def _inputs(self, mean, sd, available, deviation, sigma):
        _, _, c_in = coefficients(sigma)
        noisy = torch.where(sigma.isinf(), 0.0, c_in * deviation)
        noisy = noisy / sd.clamp_min(1e-9)
        noisy = torch.where(sd > 0, noisy, 0.0)
        log_sigma = sigma.log().clamp(-NO_SIGNAL, NO_SIGNAL)
        center = self.anchor.mean[: self.anchor.n_latents]
        value = ((mean - center) / self.unit).float().clamp(-8.0, 8.0)
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
