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
from .._shared.weights import some_weights, weighted
from .anchor.column_anchor import fit_anchor
from .network.network import Prior


def bootstrap_prior(network, rows, ridge, generator, deadline=math.inf):
    """Fit a prior to resampled rows, as another sample might have given it.

    The anchor is fitted to a bootstrap sample of the rows, each with its weight;
    frequencies are drawn by the Bayesian bootstrap (Rubin, 1981), which loses no level
    and no atom.

    ``rows`` are tensors in the network's coordinates, on the anchor's device, and
    ``deadline`` is the deadline of the anchor's fit.
    """
    n, values, observed = len(rows), rows.values, rows.observed
    chosen = torch.randint(n, (n,), generator=generator).to(values.device)
    anchor = network.anchor
    rng = numpy_generator(generator)
    coordinates = copy.deepcopy(anchor.coordinates)
    if not coordinates.is_plain:
        counts = _effective(observed[:, coordinates.codes_of], rows.weight)
        coordinates.share = _other_frequencies(coordinates.share, counts, rng)
    replica = fit_anchor(
        values[chosen],
        observed[chosen],
        coordinates,
        ridge,
        generator,
        start=anchor,
        weight=some_weights(rows.weight, chosen),
        deadline=deadline,
    )
    margins = []
    for head in network.heads:
        share = None
        if head.has_margin:
            own = observed[:, head.columns.to(observed.device)]
            counts = _effective(own, rows.weight).to(head.columns.device)
            share = _other_frequencies(head.share, counts, rng)
        margins.append(head.margin(replica, share))
    return Prior(replica, margins)


def _effective(observed, weight):
    """Rows' worth of knowledge in the observed cells of columns, (n, g) -> (g, 1).

    With weights it is Kish's effective sample size (1965): the square of their sum over
    the sum of their squares.
    """
    if weight is None:
        return observed.sum(0)[:, None]
    total, square = (weighted(observed, w).sum(0) for w in (weight, weight.square()))
    return (total.square() / square.clamp_min(1e-12))[:, None]


def _other_frequencies(share, counts, rng):
    """Frequencies drawn from their posterior, a Dirichlet distribution.

    Shapes: (g, K), and (g, 1) numbers of rows.
    """
    counts = (share * counts).double().clamp_min(1e-9)
    weight = torch.from_numpy(rng.standard_gamma(counts.cpu().numpy()))
    weight = weight.to(share.device)
    weight = torch.where(share > 0, weight.clamp_min(1e-12), 0.0)
    return (weight / weight.sum(-1, keepdim=True)).to(share.dtype)
