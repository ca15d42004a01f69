"""Gaussian diffusion about the anchor: noise levels, preconditioning, sampler.

EDM (Karras et al., 2022, arXiv:2206.00364) with the anchor in the place of the data's
global scale. Noise has the shape of what the anchor does not know: with conditional
mean mu and covariance S = L L' of the missing latents, x_sigma = x + sigma L eps, so
that in units of L everything has variance one and

    c_skip = 1 / (1 + sigma^2),  c_out = sigma / sqrt(1 + sigma^2)
    D(x; sigma) = mu + c_skip (x - mu) + c_out s F(x, sigma)

with s the standard deviations of S. F = 0 makes the anchor's own posterior; at infinite
noise D is the conditional mean, and one call gives it. Functions of any ``denoise``;
noise is an argument.
"""

from __future__ import annotations

import itertools

import torch

SIGMA_MIN, SIGMA_MAX, RHO = 0.02, 20.0, 7.0
# Of the logarithm of the noise level in training: mean and standard deviation.
LOG_SIGMA = (0.0, 1.2)


def coefficients(sigma):
    """Weights c_skip, c_out and c_in of the preconditioning; infinite sigma too."""
    variance = sigma.square()
    c_skip = 1 / (1 + variance)
    c_out = torch.where(sigma.isinf(), 1.0, sigma / (1 + variance).sqrt())
    return c_skip, c_out, 1 / (1 + variance).sqrt()


def noise_levels(n_steps):
    """Levels of the sampler after the first call, which is at infinite noise, to 0.

    Shape: (n_steps,), at least 2; the last one is 0.
    """
    k = torch.arange(n_steps - 1) / max(1, n_steps - 2)
    low, high = SIGMA_MIN ** (1 / RHO), SIGMA_MAX ** (1 / RHO)
    return torch.cat([(high + k * (low - high)) ** RHO, torch.zeros(1)])


def reverse(denoise, noise, n_steps):
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

    Returns
    -------
    tensor of shape (n, D)
        Deviations from mu.
    """
    levels = noise_levels(n_steps)
    start = denoise(torch.zeros_like(noise), torch.tensor(torch.inf))
    if n_steps == 1:
        return start + noise
    x = start + (1 + levels[0] ** 2).sqrt() * noise
    time = levels.clamp_min(SIGMA_MIN / 10).log()
    previous = None
    for k, (sigma, following) in enumerate(itertools.pairwise(levels)):
        # In units of L, exactly solved for a Gaussian of variance one about D's mean.
        mean = denoise(x, sigma)
        ratio = ((1 + following**2) / (1 + sigma**2)).sqrt()
        here = center = (mean * (1 + sigma**2) - x) / sigma**2
        if previous is not None:
            # Where the center is on its way to, half a step ahead: second order by the
            # call before, as in multistep solvers.
            pace = (time[k + 1] - time[k]) / (time[k] - time[k - 1])
            center = here + pace / 2 * (here - previous)
        previous = here
        x = center + ratio * (x - center)
    return x
