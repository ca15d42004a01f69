"""Gaussian diffusion about the anchor: noise, preconditioning, sampler.

EDM (Karras et al., 2022, arXiv:2206.00364) with the anchor instead of the data's global
scale. Noise has the shape of the anchor's posterior: with conditional mean mu and
covariance S = L L' of the missing latents, x_sigma = x + sigma L eps, so that in
multiples of L everything has variance one and

    c_skip = 1 / (1 + sigma^2),  c_out = sigma / sqrt(1 + sigma^2)
    D(x; sigma) = mu + c_skip (x - mu) + c_out s F(x, sigma)

with s the standard deviations of S. F = 0 gives the anchor's own posterior; at infinite
noise D is the conditional mean, and one call gives it. The functions take any
``denoise``, and noise as an argument.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class DiffusionSettings:
    """Noise of training and of the sampler, as multiples sigma of the anchor's spread.

    "EDM" marks values of Karras et al. (2022, arXiv:2206.00364).

    Parameters
    ----------
    sigma_min, sigma_max : float
        Least and greatest finite sigma of the sampler. (Not measured.)
    rho : float
        Exponent by which the sampler's sigmas are spaced. (EDM.)
    log_sigma_mean, log_sigma_sd : float
        Mean and standard deviation of log sigma in training. (The standard deviation:
        EDM. The mean: not measured.)
    max_log_sigma : float
        Limit of log sigma as an input of the network. (Not measured.)
    """

    sigma_min: float = 0.02
    sigma_max: float = 20.0
    rho: float = 7.0
    log_sigma_mean: float = 0.0
    log_sigma_sd: float = 1.2
    max_log_sigma: float = 5.0


DEFAULT = DiffusionSettings()


def coefficients(sigma):
    """Weights c_skip, c_out and c_in of the preconditioning; infinite sigma too."""
    variance = sigma.square()
    c_skip = 1 / (1 + variance)
    c_out = torch.where(sigma.isinf(), 1.0, sigma / (1 + variance).sqrt())
    return c_skip, c_out, 1 / (1 + variance).sqrt()


def sampler_sigmas(n_steps, settings=DEFAULT):
    """Sigmas of the sampler after the first call, which is at infinite noise, to 0.

    Shape: (n_steps,), at least 2; the last one is 0.
    """
    k = torch.arange(n_steps - 1) / max(1, n_steps - 2)
    rho = settings.rho
    low, high = settings.sigma_min ** (1 / rho), settings.sigma_max ** (1 / rho)
    return torch.cat([(high + k * (low - high)) ** rho, torch.zeros(1)])


def reverse(denoise, noise, n_steps, settings=DEFAULT):
    """Draw by the probability flow, in ``n_steps`` calls, from noise to data.

    Parameters
    ----------
    denoise : callable
        ``denoise(deviation, sigma)``: the mean of the deviation from mu, given the
        noisy one, both of shape (n, D).
    noise : tensor of shape (n, D)
        L times standard normal noise.
    n_steps : int
        One step ends at the conditional mean with the anchor's noise about it.
    settings : DiffusionSettings

    Returns
    -------
    tensor of shape (n, D)
        Deviations from mu.
    """
    sigmas = sampler_sigmas(n_steps, settings)
    start = denoise(torch.zeros_like(noise), torch.tensor(torch.inf))
    if n_steps == 1:
        return start + noise
    x = start + (1 + sigmas[0] ** 2).sqrt() * noise
    time = sigmas.clamp_min(settings.sigma_min / 10).log()
    previous = None
    for k, (sigma, following) in enumerate(itertools.pairwise(sigmas)):
        # In multiples of L this step is exact for a Gaussian of variance one about D's
        # mean.
        mean = denoise(x, sigma)
        ratio = ((1 + following**2) / (1 + sigma**2)).sqrt()
        current = center = (mean * (1 + sigma**2) - x) / sigma**2
        if previous is not None:
            # The center is extrapolated by half a step with the call before: this makes
            # the solver one of second order, as multistep solvers are.
            pace = (time[k + 1] - time[k]) / (time[k] - time[k - 1])
            center = current + pace / 2 * (current - previous)
        previous = current
        x = center + ratio * (x - center)
    return x
