"""Completion of modalities by a trained model: one call, or the reverse diffusion.

Takes and gives NumPy arrays in standardised units; batches bound the memory.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import ndtri

from .._runtime import in_threads, row_uniforms, slices
from ._diffusion import reverse

BATCH_ELEMENTS = 2_000_000


def complete_blocks(model, values, observed, statistics):
    """Posterior summaries of the missing cells of modalities, by one network call.

    Parameters
    ----------
    model : BlockModel
    values : float array of shape (n, d)
    observed : bool array of shape (n, d)
    statistics : sequence of "mean" or float
        The posterior mean, or the quantile of that level, of a normal posterior.

    Returns
    -------
    float32 array of shape (n_statistics, n, d)
    """
    out = np.repeat(values.astype(np.float32)[None], len(statistics), axis=0)
    scores = [0.0 if s == "mean" else ndtri(s) for s in statistics]
    wants_spread = any(scores)

    def complete_rows(rows):
        x, o = values[rows], observed[rows]
        for k, mean, variance in _posteriors(model, x, o, wants_spread):
            columns = model.columns[k]
            missing = ~o[:, columns]
            for target, score in zip(out, scores, strict=True):
                found = mean
                if score:
                    found = mean + score * np.sqrt(variance)
                own = target[np.ix_(rows, columns)]
                target[np.ix_(rows, columns)] = np.where(missing, found, own)

    in_threads(complete_rows, _batches(model, observed), model.device)
    return out


def _batches(model, observed):
    """Rows that lack anything, in parts of bounded size."""
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
            prior = _without(model, latents, available, partial, k)
            center[partial], root = _updated(
                encoder, prior, values[partial][:, columns], seen[partial]
            )
            variance[partial] = np.square(root).sum(axis=2)
        spread = encoder.variance_of(variance) if wants_spread else None
        yield k, encoder.decode(center), spread


def _covariances(groups, model):
    """For every modality, rows that lack it and the covariance of its latents."""
    found = [[] for _ in model.encoders]
    for conditional, rows in groups:
        place = conditional.latents.cpu().numpy()
        position = np.cumsum(place) - 1
        cov = conditional.cov.cpu().numpy()
        for k, own in enumerate(model.slices):
            if place[own.start]:
                at = position[own]
                found[k].append((rows.cpu().numpy(), cov[np.ix_(at, at)]))
    return found


def _without(model, latents, available, rows, k):
    """Ask the other modalities about modality k, in rows that hold a part of it.

    Returns
    -------
    mean : array of shape (r, k)
    covs : list of (rows, covariance)
    """
    with torch.inference_mode():
        at = torch.as_tensor(rows, device=latents.device)
        there = available[at].clone()
        there[:, k] = False
        mean, groups = model.complete(latents[at], there)
    return mean.cpu().numpy()[:, model.slices[k]], _covariances(groups, model)[k]


def _updated(encoder, prior, values, seen):
    """Latents given the block's own cells too, and roots of their covariance."""
    mean, covs = prior
    out = np.empty_like(mean)
    roots = np.empty((*mean.shape, mean.shape[1]))
    for rows, cov in covs:
        out[rows], roots[rows] = encoder.update(
            mean[rows], cov, values[rows], seen[rows]
        )
    return out, roots


def draw_blocks(model, values, observed, n_steps, keys, stream):
    """One joint draw of every row's missing modalities, by the reverse diffusion.

    Parameters
    ----------
    model : BlockModel
    values : float array of shape (n, d)
    observed : bool array of shape (n, d)
    n_steps : int
    keys : uint64 array of shape (n,)
        Of the rows, by `row_keys`.
    stream : int
        Number of the draw.

    Returns
    -------
    float32 array of shape (n, d)
        A row's draw depends on the row and its key, not on its companions.
    """
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
                prior = _without(model, latents, available, partial, k)
                center, root = _updated(
                    encoder, prior, x[partial][:, columns], seen[partial]
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
        place = conditional.latents.nonzero()[:, 0]
        shaped = white[rows][:, place] @ conditional.root.T
        noise[rows[:, None], place] = shaped

    def denoise(deviation, sigma):
        return model.denoise(mean, sd, available, deviation, sigma)

    return (mean + reverse(denoise, noise, n_steps)).cpu().numpy()
