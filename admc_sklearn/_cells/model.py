"""Completion of missing cells with a trained network: one call, or the diffusion.

Takes and gives NumPy arrays in standardised units; batches bound the memory.
"""

from __future__ import annotations

import functools

import numpy as np
import torch

from .._shared.devices import in_threads
from .._shared.noise import row_keys, row_uniforms
from .corrections.donors import N_COPIED
from .corrections.landmark_regression import recalled_posteriors
from .network.masked_diffusion import reveal_rounds, reverse

# How far beyond the training range, in its standard deviations, values are told apart.
REACH = 10.0
# Of the noise that decides what a draw copies; far from those of the cells.
RETRIEVAL_STREAM = 2**32


def _tensors(network, values, observed):
    """Values in the network's coordinates, and the mask, on its device."""
    device = network.device
    values = torch.tensor(values, dtype=torch.float32, device=device)
    low, high = network.low, network.high
    # A strong warp makes astronomic numbers of values far outside the training range.
    warped = network.warp(values).nan_to_num().clamp(low - REACH, high + REACH)
    return warped, torch.tensor(observed, device=device)


def _corrected(network, posteriors, values, observed):
    """Correct posteriors by rows that are retrieved, and by self-masking."""
    if network.retrieval is not None:
        network.retrieval.correct(posteriors, values, observed)
    return network.tilted(posteriors)


def complete(network, values, observed, statistics):
    """Posterior summaries of all missing cells, by one network call a batch.

    Parameters
    ----------
    network : CompletionNetwork
    values : float array of shape (n, d)
    observed : bool array of shape (n, d)
    statistics : sequence of "mean" or float
        The posterior mean, or the quantile of that level; categorical cells get the
        code of the most probable level.

    Returns
    -------
    float32 array of shape (n_statistics, n, d)
        Observed cells are their own summary.
    """
    out = np.repeat(values.astype(np.float32)[None], len(statistics), axis=0)
    rows = np.flatnonzero(~observed.all(axis=1))
    network.eval()

    def complete_rows(part):
        take = rows[part]
        x, o = _tensors(network, values[take], observed[take])
        posteriors = recalled_posteriors(network, x, o)
        posteriors = _corrected(network, posteriors, x, o)
        for k, statistic in enumerate(statistics):
            for posterior in posteriors:
                posterior.cells.scatter_into(x, posterior.point(statistic))
            out[k, take] = np.where(observed[take], out[k, take], x.cpu().numpy())

    with torch.inference_mode():
        in_threads(complete_rows, network.row_batches(len(rows)), network.device)
    return out


def probabilities(network, values, observed, column):
    """Probabilities of the levels of a categorical column, given the row's others.

    Parameters
    ----------
    network : CompletionNetwork
    values : float array of shape (n, d)
    observed : bool array of shape (n, d)
        What stands in ``column`` itself is taken for missing.
    column : int

    Returns
    -------
    float64 array of shape (n, n_levels)
    """
    slot = network.anchor.coordinates.categorical.index(column)
    n_levels = int((network.anchor.coordinates.share[slot] > 0).sum())
    out = np.empty((len(values), n_levels))
    network.eval()

    def ask_rows(part):
        x, o = _tensors(network, values[part], observed[part])
        targets = torch.zeros_like(o)
        targets[:, column] = True
        o = o & ~targets
        posteriors = network.plain_posteriors(x, o, targets)
        (posterior,) = _corrected(network, posteriors, x, o)
        own = (posterior.cells.columns[:, 0] == column).nonzero().item()
        share = posterior.probabilities()[own, :, :n_levels].double()
        out[part] = (share / share.sum(-1, keepdim=True)).cpu().numpy()

    with torch.inference_mode():
        in_threads(ask_rows, network.row_batches(len(values)), network.device)
    return out


def draw(network, values, observed, n_draws, n_steps, seed):
    """Joint draws of every row's missing cells, by the reverse diffusion.

    Parameters
    ----------
    network : CompletionNetwork
    values : float array of shape (n, d)
    observed : bool array of shape (n, d)
    n_draws, n_steps : int
    seed : int

    Returns
    -------
    float32 array of shape (n_draws, n, d)
        A row's draws depend on the row and the seed, not on its companions.
    """
    out = np.repeat(values.astype(np.float32)[None], n_draws, axis=0)
    rows = np.flatnonzero(~observed.all(axis=1))
    keys = row_keys(values, observed, seed)
    d = values.shape[1]
    network.eval()

    def draw_rows(part):
        take = rows[part]
        x, o = _tensors(network, values[take], observed[take])
        retrieved = None
        if network.retrieval is not None:
            retrieved = network.retrieval.relatives(x, o)
        for k in range(n_draws):
            noise = _noise(keys[take], d, k, x.device)
            drawn = _draw_once(network, x, o, k, n_steps, noise, retrieved)
            drawn = network.warp.inverse(drawn).cpu().numpy()
            out[k, take] = np.where(observed[take], out[k, take], drawn)

    with torch.inference_mode():
        in_threads(draw_rows, network.row_batches(len(rows)), network.device)
    return out


def _noise(keys, d, k, device):
    """Uniform noise of draw k: (B, d) twice, (B, 1 + N_COPIED)."""
    streams = (d, 2 * k), (d, 2 * k + 1), (1 + N_COPIED, RETRIEVAL_STREAM + k)
    return [
        torch.tensor(row_uniforms(keys, *s), dtype=torch.float32, device=device).clamp(
            1e-6, 1 - 1e-6
        )
        for s in streams
    ]


def _draw_once(network, values, observed, k, n_steps, noise, retrieved):
    """Draw the missing cells of a batch, (B, d), in the network's coordinates."""
    order, levels, choice = noise
    prior = network.prior
    if len(network.replicas):
        prior = network.replicas[k % len(network.replicas)]
    if retrieved is not None:
        values, observed = network.retrieval.draw(values, observed, *retrieved, choice)
    posterior = functools.partial(network, prior=prior)
    rounds = reveal_rounds(~observed, order, n_steps)
    return reverse(posterior, values, observed, rounds, levels)
