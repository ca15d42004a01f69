"""The model of cells: a network, and the corrections of its posteriors.

Means, quantiles, probabilities and draws are all read from one posterior of a row's
missing cells. It is made in this order: the network computes it; landmarks move the
means of numbers; values of donor rows are mixed in; it is pooled with what the leaves
of forests hold; in rows of common patterns regressions move means again; and all are
tilted where cells are missing because of their own values. Draws compute that of the
network anew whenever the diffusion has revealed some of a row's cells, and tilt it.
There donors are copied once, before the network, so that copied cells of one draw
mostly come from one training row. Landmarks, forests and patterns correct one cell at a
time: once a draw is complete, each number is moved to the same quantile of its
distribution with them, and each level stays as often as that one allows.
"""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import nn

from .._shared.contract import CompletionModel, Report, Rows, n_bytes, without
from .._shared.devices import in_threads, one_thread
from .._shared.noise import row_keys, row_uniforms
from .._shared.patterns import choose_patterns
from .._shared.weights import weighted
from . import first_cells
from .corrections.self_masking import gaps_of
from .first_cells import N_FILLS, N_SWEEPS
from .network.masked_diffusion import reveal_rounds, reverse

# First streams of the noise by which draws copy donors, by which values of their own
# weight are carried over, and by which cells that come first are drawn; they are far
# from those of cells.
DONOR_STREAM, CARRY_STREAM, FIRST_STREAM = 2**32, 2**33, 2**34


class CellModel(CompletionModel):
    """Completes columns one cell at a time, each given the observed cells of its row.

    Parameters
    ----------
    network : CompletionNetwork
    ridges : list of tuple of float
        Ridges of the anchors of all its networks, the best and the weakest that is as
        good; see `choose_coordinates`.
    wholes : dict
        Columns of modalities that are lost as a whole, by name.

    Attributes
    ----------
    dependence : float array of shape (M, M) or None
        See `judge_wholes`.
    landmarks, donors, forests, patterns, self_masking : Correction or None
    replicas : list of lists of one Prior
        Priors of the networks in turn, fitted to resampled rows; draws take turns with
        them. (Files of earlier versions have one for every network each.)
    """

    def __init__(self, network, ridges, wholes):
        super().__init__()
        self.network, self.ridges, self.wholes = network, ridges, wholes
        self.dependence = None
        self.landmarks = self.donors = self.forests = None
        self.patterns = self.self_masking = None
        self.replicas = nn.ModuleList()

    @property
    def corrections(self):
        """The corrections that were learnt, in the order in which they apply."""
        every = self.landmarks, self.donors, self.forests, self.patterns
        every = *every, self.self_masking
        return [correction for correction in every if correction is not None]

    def without_rows(self):
        """Copy of the model without the corrections that hold training rows."""
        return without(self, landmarks=None, donors=None, patterns=None)

    def memory(self):
        """Bytes of each part and training rows in it: a dict of pairs, by name."""
        found = {"network": (n_bytes(self.network), 0)}
        if len(self.replicas):
            found["bootstraps"] = n_bytes(self.replicas), 0
        rows = {
            "landmarks": lambda part: part.points.shape[1],
            "donors": lambda part: len(part.values),
            "forests": lambda part: 0,
            "patterns": lambda part: part.n_rows,
            "self_masking": lambda part: 0,
        }
        for name, count in rows.items():
            part = getattr(self, name)
            if part is not None:
                found[name] = n_bytes(part), count(part)
        return found

    def posteriors(self, rows, targets=None, priors=None):
        """Posteriors of the missing cells, or of the ``targets`` if they are given.

        Parameters
        ----------
        rows : Rows
            Tensors in the network's coordinates. Where they have limits, every target
            is cut to its own.
        targets : bool tensor of shape (B, d), optional
        priors : sequence of Prior, optional
            Instead of the networks' own.

        Returns
        -------
        list of CellPosterior
        """
        targets = ~rows.observed if targets is None else targets
        posteriors = self.network(rows.values, rows.observed, targets, priors=priors)
        posteriors = self._corrected(posteriors, rows, self.corrections)
        if rows.limits is None:
            return posteriors
        return [posterior.limited(rows.limits) for posterior in posteriors]

    def _corrected(self, posteriors, rows, corrections):
        for correction in corrections:
            posteriors = correction.apply(posteriors, rows, self.network)
        return posteriors

    def coordinates(self, rows):
        """Rows of arrays as tensors in the network's coordinates, on its device."""
        device = self.network.device
        values = torch.tensor(rows.values, dtype=torch.float32, device=device)
        observed = torch.tensor(rows.observed, device=device)
        limits = None
        if rows.limits is not None:
            limits = torch.tensor(rows.limits, dtype=torch.float32, device=device)
            ends = [self.network.coordinates(end) for end in limits.unbind(-1)]
            ends = torch.stack(ends, -1)
            limits = torch.where(limits.isfinite(), ends, limits)
        return Rows(self.network.coordinates(values), observed, limits=limits)

    @one_thread()
    def summarise(self, rows, statistics):
        """Posterior summaries of all missing cells, by one network call a batch."""
        out = np.repeat(rows.values.astype(np.float32)[None], len(statistics), axis=0)
        keys = None
        if rows.limits is not None:
            keys = row_keys(rows.values, rows.observed, 0)

        def complete(part, limited=False):
            take = incomplete[part]
            batch = self.coordinates(rows[take])
            if limited:
                fills = [self._fill(batch, keys[take], k)[0] for k in range(N_FILLS)]
                posteriors = first_cells.posteriors(self, batch, fills)
            else:
                posteriors = self.posteriors(Rows(batch.values, batch.observed))
            for k, statistic in enumerate(statistics):
                for posterior in posteriors:
                    posterior.cells.scatter_into(
                        batch.values, posterior.point(statistic)
                    )
                completed = batch.values.cpu().numpy()
                out[k, take] = np.where(rows.observed[take], out[k, take], completed)

        for incomplete, limited in _by_first_cells(rows):
            self._in_batches(partial(complete, limited=limited), len(incomplete))
        return out

    @one_thread()
    def probabilities(self, rows, column):
        """Probabilities of the levels of a categorical column."""
        coordinates = self.network.anchor.coordinates
        slot = coordinates.categorical.index(column)
        n_levels = int((coordinates.share[slot] > 0).sum())
        out = np.empty((len(rows), n_levels))

        def complete(part):
            batch = self.coordinates(rows[part])
            targets = torch.zeros_like(batch.observed)
            targets[:, column] = True
            batch = Rows(batch.values, batch.observed & ~targets)
            (posterior,) = self.posteriors(batch, targets)
            own = (posterior.cells.columns[:, 0] == column).nonzero().item()
            share = posterior.probabilities()[own, :, :n_levels].double()
            out[part] = (share / share.sum(-1, keepdim=True)).cpu().numpy()

        self._in_batches(complete, len(rows))
        return out

    @one_thread()
    def draw(self, rows, n_draws, n_steps, seed, delta=None):
        """Joint draws of every row's missing cells, by the reverse diffusion."""
        out = np.repeat(rows.values.astype(np.float32)[None], n_draws, axis=0)
        keys = row_keys(rows.values, rows.observed, seed)

        def draw(part, first=False):
            take = incomplete[part]
            batch, own = self.coordinates(rows[take]), keys[take]
            if first:
                some = {j: _tensor(a[take], batch) for j, a in (delta or {}).items()}
                every = self._draw_first(batch, own, n_draws, n_steps, some)
            else:
                batch = Rows(batch.values, batch.observed)
                drawn = self._draw_batch(batch, own, range(n_draws), n_steps)
                every = map(self.network.warp.inverse, drawn)
            for k, drawn in enumerate(every):
                drawn = drawn.cpu().numpy()
                out[k, take] = np.where(rows.observed[take], out[k, take], drawn)

        for incomplete, first in _by_first_cells(rows, delta):
            self._in_batches(partial(draw, first=first), len(incomplete))
        return out

    def _fill(self, batch, keys, k, delta=None):
        """Draw the first cells of a batch, the k-th time; see `fill`."""
        streams = [
            (batch.values.shape[1], FIRST_STREAM + N_SWEEPS * k + sweep)
            for sweep in range(N_SWEEPS)
        ]
        priors = None if delta is None else self._priors(k)
        noise = _noise(keys, streams, batch.values.device)
        return first_cells.fill(self, batch, noise, priors, delta)

    def _draw_first(self, batch, keys, n_draws, n_steps, delta):
        """Yield draws of a batch with cells that come first, (B, d), in own units."""
        for k in range(n_draws):
            filled, moved = self._fill(batch, keys, k, delta)
            (drawn,) = self._draw_batch(filled, keys, [k], n_steps)
            yield torch.where(moved.isnan(), self.network.warp.inverse(drawn), moved)

    def _priors(self, k):
        """Priors of the k-th draw, None for networks without a part in it.

        None instead of the list stands for the networks' own.
        """
        if not len(self.replicas):
            return None
        k, n = k % len(self.replicas), len(self.network.all)
        replica, turn = self.replicas[k], self.turn_of(k)
        prior = replica[turn if len(replica) == n else 0]
        return [prior if j == turn else None for j in range(n)]

    def turn_of(self, k):
        """Index of the network that the k-th replica belongs to."""
        return k % len(self.network.all)

    def _draw_batch(self, batch, keys, draws, n_steps):
        """Yield draws of a batch, (B, d), of the given numbers."""
        d = batch.values.shape[1]
        donors = self._find_donors(batch)
        carry = self._prepare_carrying(batch)
        for k in draws:
            streams = [(d, 2 * k), (d, 2 * k + 1)]
            if donors is not None:
                n_candidates = self.donors.settings.n_candidates
                streams.append((1 + n_candidates, DONOR_STREAM + k))
            noise = _noise(keys, streams, batch.values.device)
            drawn, is_copy = self._draw_once(batch, donors, k, n_steps, noise)
            if carry is not None:
                streams = [(d, CARRY_STREAM + k)]
                carry(drawn, is_copy, *_noise(keys, streams, drawn.device))
            yield drawn

    def _find_donors(self, rows):
        """Candidates of rows, their log-weights, and the tilts of these; or None."""
        if self.donors is None:
            return None
        candidates, z = self.donors.find(rows)
        candidates, order = candidates.sort(1)  # a search returns them in any order
        z = z.gather(2, order.expand(z.shape))
        if self.self_masking is None:
            return candidates, z, None
        # Means tilt the mixture, so a donor's weight is tilted by its value, and the
        # network's by the values that it expects.
        network = self.network
        posteriors = network(rows.values, rows.observed, ~rows.observed)
        outcome = self.donors.outcome[candidates].long()
        tilts = self.self_masking.factors(posteriors, outcome, network)
        return candidates, z, tilts

    def _draw_once(self, rows, donors, k, n_steps, noise):
        """Draw the missing cells of a batch, (B, d), in the network's coordinates.

        ``donors`` are those of `_find_donors`. Also says which cells are their copies,
        (B, d).
        """
        order, quantiles, *clocks = noise
        priors = self._priors(k)
        missing = ~rows.observed
        if donors is not None:
            candidates, z, tilts = donors
            rows = self.donors.draw(rows, candidates, z, *clocks, tilts)

        def posteriors(values, observed, targets):
            plain = self.network(values, observed, targets, priors=priors)
            tilts = [] if self.self_masking is None else [self.self_masking]
            return self._corrected(plain, Rows(values, observed), tilts)

        rounds = reveal_rounds(~rows.observed, order, n_steps)
        drawn = reverse(posteriors, rows.values, rows.observed, rounds, quantiles)
        return drawn, missing & rows.observed

    def _prepare_carrying(self, rows):
        """Make what moves draws to the distributions of the whole model, or None.

        Draws know nothing of landmarks, forests and patterns: a row has its pattern
        until cells are revealed, and the others cost as much as the network. So a
        number at some quantile of its distribution without them becomes that quantile
        of the one with them; see `carried_from`.
        """
        carried = {self.landmarks, self.forests, self.patterns} - {None}
        take = torch.arange(len(rows), device=rows.values.device)
        if carried == {self.patterns}:
            take = take[self.patterns.rows_of(rows.observed)]
        if not carried or not len(take):
            return None
        some = rows[take]
        plain = self.network(some.values, some.observed, ~some.observed)
        others = [c for c in self.corrections if c not in carried]
        sources = self._corrected(plain, some, others)
        goals = self._corrected(plain, some, self.corrections)

        def carry(drawn, is_copy, noise):
            own, clock, copies = drawn[take], noise[take], is_copy[take]
            for source, goal in zip(sources, goals, strict=True):
                cells = source.cells
                part = cells.gather(own), cells.gather(clock), cells.gather(copies)
                cells.scatter_into(own, goal.carried_from(source, *part))
            drawn[take] = own

        return carry

    def _groups(self):
        """Columns by modality; those outside of all are one more: a dict."""
        groups, d = dict(self.wholes), self.network.n_columns
        others = np.setdiff1d(np.arange(d), np.concatenate([*groups.values()]))
        return groups | {"other columns": others} if len(others) else groups

    def judge_wholes(self, rows, seed):
        """Measure how well modalities that are lost as a whole are completed.

        Sets ``lost_error`` and ``dependence``: the share of each modality's variance
        that each other one alone explains, beside the other columns, which are always
        there; NaN where no pattern has a modality alone.

        Parameters
        ----------
        rows : Rows
            Arrays, of rows that were held out.
        seed : int
            Of the patterns, where not all are tried.
        """
        groups = list(self._groups().values())
        available = np.stack([rows.observed[:, own].any(1) for own in groups], 1)
        fixed = np.arange(len(groups)) >= len(self.wholes)
        rng = np.random.default_rng(seed)
        patterns = choose_patterns(torch.tensor(available), fixed, rng).numpy()
        self.dependence = np.full((len(groups), len(groups)), np.nan)
        np.fill_diagonal(self.dependence, 1.0)
        total, count = 0.0, 0
        for pattern in patterns:
            lost = np.zeros(rows.observed.shape[1], dtype=bool)
            lost[np.concatenate([*itertools.compress(groups, ~pattern)])] = True
            hidden = rows.observed & lost
            kept = Rows(rows.values, rows.observed & ~lost)
            squared = np.square(self.summarise(kept, ["mean"])[0] - rows.values)
            total += weighted(squared, rows.weight)[hidden].sum(dtype=float)
            count += float(weighted(hidden, rows.weight).sum())
            for source in np.flatnonzero(pattern):
                if pattern[~fixed].sum() != int(not fixed[source]):
                    continue
                for target in np.flatnonzero(~pattern):
                    own = groups[target]
                    parts = rows.values, squared, hidden
                    parts = (part[:, own] for part in parts)
                    self.dependence[target, source] = _explained(*parts, rows.weight)
        self.lost_error = math.sqrt(total / count) if count else math.nan

    @one_thread()
    def attention(self, rows):
        """Mean attention of modalities to each other in these rows: a DataFrame.

        None where none is lost as a whole. A modality's is the mean of its columns'.
        Of several networks it is the first one's.
        """
        if not self.wholes:
            return None
        names, groups = zip(*self._groups().items(), strict=True)
        member = np.zeros((self.network.n_columns, len(groups)))
        for k, own in enumerate(groups):
            member[own, k] = 1.0
        member = self.network.denoiser.share_of_tokens(member)  # (n_tokens, M)
        total = np.zeros((len(member), len(member)))
        parts = self.network.row_batches(len(rows))
        with torch.inference_mode():
            for part in parts:
                batch = self.coordinates(rows[part])
                weights = self.network.attention(batch.values, batch.observed)
                total += weights.sum(0).double().cpu().numpy()
        found = (member / member.sum(0)).T @ (total / len(rows)) @ member
        return pd.DataFrame(found, index=names, columns=names)

    def _in_batches(self, function, n_rows):
        with torch.inference_mode():
            in_threads(function, self.network.row_batches(n_rows), self.network.device)

    def report(self):
        """Return the `Report`: self-masking, dependence of modalities."""
        slopes, gaps = 0.0, math.nan
        if self.self_masking is not None:
            slopes, gaps = self.self_masking.slopes, gaps_of(self.network)
        found = None
        if self.dependence is not None:
            names = list(self._groups())
            found = pd.DataFrame(self.dependence, index=names, columns=names)
        return Report(dependence=found, self_masking=slopes, gaps=gaps)

    @one_thread()
    def move_to(self, device):
        """Move to a device; what is float64 stays on the CPU for MPS."""
        if torch.device(device).type != "mps":
            return self.to(device)
        patterns, self.patterns = self.patterns, None
        priors = [network.prior for network in self.network.all]
        priors += [prior for replica in self.replicas for prior in replica]
        anchors = [prior.anchor for prior in priors]
        for prior in priors:
            prior.anchor = None
        self.to(device)
        for prior, anchor in zip(priors, anchors, strict=True):
            prior.anchor = anchor.to("cpu")
        self.patterns = None if patterns is None else patterns.to("cpu")
        return self


def _explained(truth, squared, hidden, weight):
    """Share of the variance of hidden cells that is explained, at least 0.

    Shape of the first three: (n, k); of the weights of the rows, if any: (n,).
    """
    count = weighted(hidden, weight).sum(0)
    count = np.where(count > 0, count, 1)
    own = weighted(np.where(hidden, truth, 0.0), weight)
    center = own.sum(0, dtype=float) / count
    whole = weighted(np.where(hidden, np.square(truth - center), 0.0), weight).sum()
    left = weighted(np.where(hidden, squared, 0.0), weight).sum(dtype=float)
    return max(0.0, 1 - left / whole) if whole > 0 else np.nan


def _by_first_cells(rows, delta=None):
    """Incomplete rows without and with cells that come first: pairs of index and bool.

    These have limits, or are of columns that ``delta`` moves.
    """
    incomplete = ~rows.observed.all(axis=1)
    first = np.zeros(len(rows), dtype=bool)
    if rows.limits is not None:
        first |= rows.limited.any(axis=1)
    if delta:
        first |= ~rows.observed[:, list(delta)].all(axis=1)
    return [
        (np.flatnonzero(incomplete & ~first), False),
        (np.flatnonzero(first), True),
    ]


def _tensor(array, like):
    """Make a float32 tensor of an array, where the values of rows are."""
    return torch.tensor(array, dtype=torch.float32, device=like.values.device)


def _noise(keys, streams, device):
    """Uniform noise of rows, for every stream (n_columns, number): (B, n_columns)."""
    return [
        torch.tensor(row_uniforms(keys, *s), dtype=torch.float32, device=device).clamp(
            1e-6, 1 - 1e-6
        )
        for s in streams
    ]
