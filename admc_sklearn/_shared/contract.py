"""What the parts of the package expect of each other.

Shape letters, here and elsewhere: n rows of a table, B of a batch, d columns, C of them
categorical; g columns of one head of the network, T target cells of each, K outcomes
of a cell; M modalities; D coordinates or latents.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from .weights import some_weights


@dataclass(frozen=True)
class Rows:
    """Rows of a table, as arrays or as tensors.

    Parameters
    ----------
    values : float array or tensor of shape (n, d)
        Numbers, and codes of levels; of no meaning where nothing is observed.
    observed : bool array or tensor of shape (n, d)
    weight : float array or tensor of shape (n,), optional
        By how many rows each counts in `fit`; see `weights`. None is 1 for all.
    limits : float array or tensor of shape (n, d, 2), optional
        Between which values missing cells lie, infinite where nothing is known.
    """

    values: Any
    observed: Any
    weight: Any = None
    limits: Any = None

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        """Take some rows, or with two indices some columns of them."""
        rows = index[0] if isinstance(index, tuple) else index
        weight = some_weights(self.weight, rows)
        limits = None if self.limits is None else self.limits[index]
        return Rows(self.values[index], self.observed[index], weight, limits)

    @property
    def limited(self):
        """Missing cells of which limits are known, bool (n, d)."""
        return ~self.observed & (abs(self.limits) < math.inf).any(-1)

    def to(self, device):
        """Move tensors to a device."""
        weight = None if self.weight is None else self.weight.to(device)
        return Rows(self.values.to(device), self.observed.to(device), weight)

    @classmethod
    def tensors(cls, rows, device):
        """Make tensors of rows of arrays."""
        parts = rows.values, rows.observed, rows.weight
        return cls(*(p if p is None else torch.tensor(p, device=device) for p in parts))


@dataclass(frozen=True)
class FitContext:
    """What all parts of one fit share.

    Parameters
    ----------
    plan : TrainingPlan
        How long and how to train, and until when.
    device : torch.device
    seed : int
    settings : object
        With ``cells``, ``blocks`` and ``partition``: how the models are fitted.
    size : str
        Name of the networks' size.
    groups : array of shape (n,), optional
        Rows of one group are held out together.
    n_bootstraps : int
        Priors fitted to resampled rows, so that draws vary with the estimate too.
    self_masking : bool or "auto"
        Whether a cell's value is allowed to change its chance of being missing.
    ends : float array of shape (d, 2), optional
        How far completions of each column may go, in standardised units, where that is
        beyond its observed range; NaN elsewhere.
    ordered : bool array of shape (d,), optional
        Categorical columns whose levels have an order.
    shards : object, optional
        What trains a network, ``train(trainer, validation, held)``, and refits a prior,
        ``refit(network, ridge)``, on more rows than these are.
    """

    plan: Any
    device: torch.device
    seed: int
    settings: Any
    size: str = "auto"
    groups: Any = None
    n_bootstraps: int = 0
    self_masking: bool | str = False
    ends: Any = None
    ordered: Any = None
    shards: Any = None

    def until(self, deadline):
        """Return the same with another deadline, of `time.monotonic`."""
        return replace(self, plan=replace(self.plan, deadline=deadline))


@dataclass(frozen=True)
class Report:
    """What a model says of the table that it was fitted to.

    Parameters
    ----------
    dependence : DataFrame of shape (M, M), or None
        Share of each modality's variance that each other one explains.
    self_masking : float array of shape (d,), or 0.0
        What a standard deviation of a column adds to its log-odds of being missing.
    gaps : float array of shape (d, 2), or NaN
        Intervals in which the missing cells of a column lie, in standardised units.
    """

    dependence: Any = None
    self_masking: Any = 0.0
    gaps: Any = math.nan


class CompletionModel(nn.Module):
    """A fitted model that completes rows with any pattern of missing cells.

    Every way to read it, summaries, probabilities and draws, reads one distribution:
    that of a row's missing cells given its observed ones. Rows come and go as arrays
    in standardised units.

    ``partition`` says which columns are cells and which are blocks; None where all are
    cells. ``lost_error`` is the root mean squared error, in standardised units, of
    modalities that held-out rows lose as a whole; NaN where it was not measured.
    ``held_out_errors`` are those of hidden cells of held-out rows, by the model and by
    it `without_rows`; NaN where they were not measured.
    """

    partition = None
    lost_error = math.nan
    held_out_errors = math.nan, math.nan

    def summarise(self, rows, statistics):
        """Posterior means and quantiles of the missing cells.

        Parameters
        ----------
        rows : Rows
        statistics : sequence of "mean" or float
            The posterior mean, or the quantile of that level; categorical cells get
            the code of the most probable level.

        Returns
        -------
        float32 array of shape (n_statistics, n, d)
            Observed cells are their own summary.
        """
        raise NotImplementedError

    def draw(self, rows, n_draws, n_steps, seed, delta=None):
        """Joint draws of every row's missing cells, by the reverse diffusion.

        Parameters
        ----------
        rows : Rows
        n_draws, n_steps, seed : int
        delta : dict, optional
            By column, how draws depart from missing at random: what is added to its
            missing cells, (n,), or to the log-odds of their levels, (n, K). The rest of
            the row follows.

        Returns
        -------
        float32 array of shape (n_draws, n, d)
            A row's draws depend on the row and the seed, not on its companions.
        """
        raise NotImplementedError

    def probabilities(self, rows, column):
        """Probabilities of the levels of a categorical column, given the row's others.

        Parameters
        ----------
        rows : Rows
            What stands in ``column`` itself is taken for missing.
        column : int

        Returns
        -------
        float64 array of shape (n, n_levels)
        """
        raise NotImplementedError

    def attention(self, rows):
        """Mean attention of modalities to each other in these rows: a DataFrame.

        None where no modality is completed as a block.
        """
        return None

    def report(self):
        """Return the `Report` of the fit."""
        return Report()

    def without_rows(self):
        """Copy of the model that holds no training row; parts are shared."""
        raise NotImplementedError

    def memory(self):
        """Bytes of each part and training rows in it: a dict of pairs, by name."""
        raise NotImplementedError

    def move_to(self, device):
        """Move to a device and return itself; what needs float64 avoids MPS."""
        raise NotImplementedError


def n_bytes(module):
    """Bytes of the tensors of a module, each counted once."""
    every = {id(t): t for t in (*module.parameters(), *module.buffers())}
    return sum(t.numel() * t.element_size() for t in every.values())


def without(module, **parts):
    """Shallow copy of a module with other parts in the place of its own."""
    copied = copy.copy(module)
    copied._modules = {k: v for k, v in module._modules.items() if k not in parts}
    copied._buffers = dict(module._buffers)
    for name, part in parts.items():
        setattr(copied, name, part)
    return copied


class Correction(nn.Module):
    """Changes the network's posteriors of cells.

    It is kept only where it lowers the error of cells hidden in held-out rows, unless
    the user asks for it (``self_masking=True``). It takes posteriors and returns new
    ones, for summaries and for draws alike.
    """

    def apply(self, posteriors, rows, network):
        """Correct posteriors.

        Parameters
        ----------
        posteriors : list of CellPosterior
            Of missing cells of these rows; they are left as they are.
        rows : Rows
            Tensors in the network's coordinates.
        network : CompletionNetwork
            Whose posteriors these are.

        Returns
        -------
        list of CellPosterior
            One for each, of the same cells.
        """
        raise NotImplementedError
