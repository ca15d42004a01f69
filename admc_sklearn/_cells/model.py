"""The model of cells: a network, and the corrections of what it says.

One posterior of a row's missing cells is read as means, quantiles, probabilities and
draws. It is made in this order: the network's own; numbers moved to where similar
training rows put them; values of donor rows mixed in; and all tilted where cells are
missing because of their own values. Draws ask for it again and again while the
diffusion reveals a row's cells; only donors come first there, so that the cells of one
draw are copied from one row.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from .._shared.contract import CompletionModel, Report, Rows
from .._shared.devices import in_threads, one_thread
from .._shared.noise import row_keys, row_uniforms
from .corrections.donors import N_CANDIDATES
from .network.masked_diffusion import reveal_rounds, reverse

# How far beyond the training range, in its standard deviations, values are told apart.
REACH = 10.0
# Of the noise that decides what a draw copies; far from those of the cells.
DONOR_STREAM = 2**32


class CellModel(CompletionModel):
    """Completes columns one cell at a time, each given all that is known of its row.

    Parameters
    ----------
    network : CompletionNetwork
    ridges : tuple of float
        Of its anchor, the best and the weakest that is as good; see
        `choose_coordinates`.

    Attributes
    ----------
    landmarks, donors, self_masking : Correction or None
    replicas : list of Prior
        Fitted to resampled rows; draws take turns with them.
    """

    def __init__(self, network, ridges):
        super().__init__()
        self.network, self.ridges = network, ridges
        self.landmarks = self.donors = self.self_masking = None
        self.replicas = nn.ModuleList()

    @property
    def corrections(self):
        """The corrections that there are, in the order in which they apply."""
        every = self.landmarks, self.donors, self.self_masking
        return [correction for correction in every if correction is not None]

    def posteriors(self, rows, targets=None):
        """Posteriors of cells, of all that are missing unless ``targets`` are given.

        Parameters
        ----------
        rows : Rows
            Tensors in the network's coordinates.
        targets : bool tensor of shape (B, d), optional

        Returns
        -------
        list of CellPosterior
        """
        targets = ~rows.observed if targets is None else targets
        found = self.network(rows.values, rows.observed, targets)
        return self._corrected(found, rows, self.corrections)

    def _corrected(self, posteriors, rows, corrections):
        for correction in corrections:
            posteriors = correction.apply(posteriors, rows, self.network)
        return posteriors

    def coordinates(self, rows):
        """Rows of arrays as tensors in the network's coordinates, on its device."""
        network, device = self.network, self.network.device
        values = torch.tensor(rows.values, dtype=torch.float32, device=device)
        low, high = network.low, network.high
        # A strong power transform makes astronomic numbers of values far outside the
        # training range.
        warped = network.warp(values).nan_to_num().clamp(low - REACH, high + REACH)
        return Rows(warped, torch.tensor(rows.observed, device=device))

    @one_thread()
    def summarise(self, rows, statistics):
        """Posterior summaries of all missing cells, by one network call a batch."""
        out = np.repeat(rows.values.astype(np.float32)[None], len(statistics), axis=0)
        incomplete = np.flatnonzero(~rows.observed.all(axis=1))
        self.eval()

        def complete(part):
            take = incomplete[part]
            batch = self.coordinates(rows[take])
            posteriors = self.posteriors(batch)
            for k, statistic in enumerate(statistics):
                for posterior in posteriors:
                    posterior.cells.scatter_into(
                        batch.values, posterior.point(statistic)
                    )
                found = batch.values.cpu().numpy()
                out[k, take] = np.where(rows.observed[take], out[k, take], found)

        self._in_batches(complete, len(incomplete))
        return out

    @one_thread()
    def probabilities(self, rows, column):
        """Probabilities of the levels of a categorical column."""
        coordinates = self.network.anchor.coordinates
        slot = coordinates.categorical.index(column)
        n_levels = int((coordinates.share[slot] > 0).sum())
        out = np.empty((len(rows), n_levels))
        self.eval()

        def ask(part):
            batch = self.coordinates(rows[part])
            targets = torch.zeros_like(batch.observed)
            targets[:, column] = True
            batch = Rows(batch.values, batch.observed & ~targets)
            (posterior,) = self.posteriors(batch, targets)
            own = (posterior.cells.columns[:, 0] == column).nonzero().item()
            share = posterior.probabilities()[own, :, :n_levels].double()
            out[part] = (share / share.sum(-1, keepdim=True)).cpu().numpy()

        self._in_batches(ask, len(rows))
        return out

    @one_thread()
    def draw(self, rows, n_draws, n_steps, seed):
        """Joint draws of every row's missing cells, by the reverse diffusion."""
        out = np.repeat(rows.values.astype(np.float32)[None], n_draws, axis=0)
        incomplete = np.flatnonzero(~rows.observed.all(axis=1))
        keys = row_keys(rows.values, rows.observed, seed)
        d = rows.values.shape[1]
        self.eval()

        def draw(part):
            take = incomplete[part]
            batch = self.coordinates(rows[take])
            found = None if self.donors is None else self.donors.find(batch)
            for k in range(n_draws):
                streams = [(d, 2 * k), (d, 2 * k + 1)]
                if found is not None:
                    streams.append((1 + N_CANDIDATES, DONOR_STREAM + k))
                noise = _noise(keys[take], streams, batch.values.device)
                drawn = self._draw_once(batch, found, k, n_steps, noise)
                drawn = self.network.warp.inverse(drawn).cpu().numpy()
                out[k, take] = np.where(rows.observed[take], out[k, take], drawn)

        self._in_batches(draw, len(incomplete))
        return out

    def _draw_once(self, rows, found, k, n_steps, noise):
        """Draw the missing cells of a batch, (B, d), in the network's coordinates."""
        order, levels, *clocks = noise
        prior = self.replicas[k % len(self.replicas)] if len(self.replicas) else None
        if found is not None:
            rows = self.donors.draw(rows, *found, *clocks)
        corrections = [c for c in self.corrections if c is not self.donors]

        def posteriors(values, observed, targets):
            # Similar rows are looked for by the whole row, completed as it is now.
            if self.landmarks is not None and bool(targets.any()):
                targets = ~observed
            found = self.network(values, observed, targets, prior=prior)
            return self._corrected(found, Rows(values, observed), corrections)

        rounds = reveal_rounds(~rows.observed, order, n_steps)
        return reverse(posteriors, rows.values, rows.observed, rounds, levels)

    def _in_batches(self, function, n_rows):
        with torch.inference_mode():
            in_threads(function, self.network.row_batches(n_rows), self.network.device)

    def report(self):
        """Say how much columns hide their own values."""
        if self.self_masking is None:
            return Report()
        return Report(self_masking=self.self_masking.slopes)

    @one_thread()
    def move_to(self, device):
        """Move to a device; the anchors' float64 stays on the CPU for MPS."""
        if torch.device(device).type != "mps":
            return self.to(device)
        priors = [self.network.prior, *self.replicas]
        anchors = [prior.anchor for prior in priors]
        for prior in priors:
            prior.anchor = None
        self.to(device)
        for prior, anchor in zip(priors, anchors, strict=True):
            prior.anchor = anchor.to("cpu")
        return self


def _noise(keys, streams, device):
    """Uniform noise of rows, for every stream (n_columns, number): (B, n_columns)."""
    return [
        torch.tensor(row_uniforms(keys, *s), dtype=torch.float32, device=device).clamp(
            1e-6, 1 - 1e-6
        )
        for s in streams
    ]
