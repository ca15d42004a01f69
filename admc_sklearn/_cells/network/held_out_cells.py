"""Held-out rows with hidden cells, by which the best epoch is chosen."""

from __future__ import annotations

import math

import numpy as np
import torch

from ..._shared.contract import Rows
from ..._shared.devices import in_threads
from ..._shared.held_out import weigh_steps
from ..._shared.weights import some_weights, weighted
from .masked_diffusion import absorb
from .posterior import NUMBERS

# Share of a row's observed cells that is hidden.
VALIDATION_RATE = 0.3
# Masks laid over each row, so that a few rows still give a steady figure.
VALIDATION_CELLS = 4000


class Validation:
    """Fixed hidden cells of held-out rows.

    The anchor does not change during training, so it is computed once. Columns of one
    ``unit``, an int tensor of shape (d,), are hidden together; ``weight``, of shape
    (n,), holds the weights of the rows, if there are any.
    """

    def __init__(self, network, values, observed, generator, unit, weight=None):
        self.unit = unit
        n_cells = max(1, int(observed.sum()) * VALIDATION_RATE)
        repeats = int(np.clip(math.ceil(VALIDATION_CELLS / n_cells), 1, 8))
        self.truth = values.repeat(repeats, 1)
        self.weight = None if weight is None else weight.repeat(repeats)
        self.values = network.warp(self.truth)
        self.rows, self.known = self.values[: len(values)], observed
        observed = observed.repeat(repeats, 1)
        rates = torch.full((len(self.values), 1), VALIDATION_RATE)
        noise = torch.rand(self.values.shape, generator=generator)[:, unit]
        self.kept, self.hidden = absorb(
            observed, rates.to(values.device), noise.to(values.device)
        )
        self.network = network
        self.outcome = network.index(self.values)
        self.parts = network.row_batches(len(self.values))
        with torch.no_grad():
            self.anchored = in_threads(
                lambda part: network.anchored(self.values[part], self.kept[part]),
                self.parts,
                network.device,
            )

    @property
    def n_hidden(self):
        """Number of hidden cells, by the weights of their rows."""
        return max(1, float(weighted(self.hidden, self.weight).sum()))

    def _complete(self, index):
        """Posteriors of a part's hidden cells, and the mean head's means or None."""
        network, part, anchored = self.network, self.parts[index], self.anchored[index]
        rows = self.values[part], self.kept[part], anchored
        summaries = network.summarise(*rows)
        posteriors = network.by_likelihood(
            summaries, self.hidden[part], anchored, network.prior
        )
        has_means = network.mean_head is not None
        return posteriors, network.means(summaries, *rows) if has_means else None

    @torch.no_grad()
    def measure(self):
        """Root mean squared error of the cells, and nats per cell.

        Numbers count by their posterior mean in standardised units, moved towards that
        of the mean head by the share that makes this error least, and levels by the
        Brier score in units of that of their frequencies.
        """
        network = self.network

        def errors(index):
            part = self.parts[index]
            posteriors, means = self._complete(index)
            weight = some_weights(self.weight, part)
            squared, nats, along, square = 0.0, 0.0, 0.0, 0.0
            for posterior in posteriors:
                cells, truth = posterior.cells, posterior.cells.gather(self.truth[part])
                nll = posterior.nll(cells.gather(self.outcome[part]))
                squared += float(cells.total(posterior.error(truth), weight))
                nats += float(cells.total(nll, weight))
                if means is not None and posterior.kind == NUMBERS:
                    own = posterior.mean()
                    step = cells.gather(means) - own
                    along += float(cells.total(step * (truth - own), weight))
                    square += float(cells.total(step.square(), weight))
            return squared, nats, along, square

        found = in_threads(errors, range(len(self.parts)), network.device)
        squared, nats, along, square = map(sum, zip(*found, strict=True))
        share = min(1.0, max(0.0, along / max(square, 1e-12)))
        squared = max(0.0, squared - share * (2 * along - share * square))
        return math.sqrt(squared / self.n_hidden), nats / self.n_hidden

    @torch.no_grad()
    def error_of(self, model):
        """Root mean squared error of the cells as a `CellModel` completes them."""

        def squared(part):
            truth, rows = self.truth[part], Rows(self.values[part], self.kept[part])
            weight = some_weights(self.weight, part)
            return sum(
                float(p.cells.total(p.error(p.cells.gather(truth)), weight))
                for p in model.posteriors(rows, self.hidden[part])
            )

        found = in_threads(squared, self.parts, self.network.device)
        return math.sqrt(sum(found) / self.n_hidden)

    @torch.no_grad()
    def weigh_means(self):
        """Choose by how much the mean head's means count, not at all without a gain."""
        network = self.network

        def complete(index):
            posteriors, means = self._complete(index)
            own = torch.zeros_like(means)
            for posterior in posteriors:
                if posterior.kind == NUMBERS:
                    posterior.cells.scatter_into(own, posterior.mean())
            return own, means

        found = in_threads(complete, range(len(self.parts)), network.device)
        own, means = (torch.cat(parts) for parts in zip(*found, strict=True))
        hidden = self.hidden.index_fill(1, network.categorical, False)
        step = torch.where(hidden, means - own, 0.0)
        error = torch.where(hidden, self.truth - own, 0.0)
        n_rows = len(self.rows)
        network.mean_head.weight = weigh_steps(
            step, error, hidden.any(0), n_rows, self.weight
        )
