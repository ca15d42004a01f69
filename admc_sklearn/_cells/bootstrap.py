"""Proper multiple imputation: priors that differ as those of other samples would.

Draws from one fitted model are too narrow where few rows leave it uncertain (Rubin,
1987, chapter 4). So each draw may start from a prior of its own; the network's
correction of the prior, which was chosen on held-out cells, is shared.
"""

from __future__ import annotations

import copy
import math

import torch

from .._shared.noise import numpy_generator
from .anchor.column_anchor import fit_anchor
from .network.network import Prior


def bootstrap_prior(network, rows, ridge, generator, deadline=math.inf):
    """Fit a prior to resampled rows, as another sample might have given it.

    The anchor is fitted to a bootstrap sample; frequencies are drawn by the Bayesian
    bootstrap (Rubin, 1981), which loses no level and no atom.

    ``rows`` are tensors in the network's coordinates, on the anchor's device, and
    ``deadline`` is the deadline of the anchor's fit.
    """
    n, values, observed = len(rows), rows.values, rows.observed
    chosen = torch.randint(n, (n,), generator=generator).to(values.device)
    anchor = network.anchor
    rng = numpy_generator(generator)
    coordinates = copy.deepcopy(anchor.coordinates)
    if not coordinates.is_plain:
        counts = observed[:, coordinates.codes_of].sum(0)[:, None]
        coordinates.share = _other_frequencies(coordinates.share, counts, rng)
    replica = fit_anchor(
        values[chosen],
        observed[chosen],
        coordinates,
        ridge,
        generator,
        start=anchor,
        deadline=deadline,
    )
    margins = []
    for head in network.heads:
        share = None
        if head.has_margin:
            counts = observed.to(head.columns.device)[:, head.columns].sum(0)[:, None]
            share = _other_frequencies(head.share, counts, rng)
        margins.append(head.margin(replica, share))
    return Prior(replica, margins)


def _other_frequencies(share, counts, rng):
    """Frequencies drawn from their posterior, a Dirichlet distribution.

    Shapes: (g, K), and (g, 1) numbers of rows.
    """
    counts = (share * counts).double().clamp_min(1e-9)
    weight = torch.from_numpy(rng.standard_gamma(counts.cpu().numpy()))
    weight = weight.to(share.device)
    weight = torch.where(share > 0, weight.clamp_min(1e-12), 0.0)
    return (weight / weight.sum(-1, keepdim=True)).to(share.dtype)
