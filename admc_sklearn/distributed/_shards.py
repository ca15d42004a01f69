"""What is learnt from all rows: the network by several workers, and the anchor.

Workers of Ray Train each stream a shard of the dataset, hide cells by masks of their
own and average their gradients before every step, so that they remain equal. An epoch
is as many rows as the sample has, but new ones as long as there are any. The first
worker judges the epoch on held-out rows of the sample and the others hear of it: all
stop at the same time. It also writes a checkpoint, from which training goes on if a
worker dies.

The anchor's expectation-maximisation needs sums over rows alone: tasks of Ray Data add
up those of their batches.
"""

from __future__ import annotations

import io
import math
import pickle
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from .._cells.anchor.column_anchor import ColumnAnchor
from .._cells.anchor.gaussian import GaussianAnchor, IncompleteRows
from .._cells.network.trainer import CellTrainer
from .._shared.contract import Rows
from .._shared.devices import one_thread
from .._shared.training import USUAL_BATCH, Course, run_epochs
from ._arrow import cast, frame_of, hashes_of

# Rows of a worker's step, at least: smaller ones take hardly less time.
MIN_BATCH = 64
# Steps whose rows are read, and shuffled, at once.
CHUNK_STEPS = 32
# How often training is begun again from its checkpoint after a worker has died.
MAX_FAILURES = 3


@dataclass(frozen=True)
class Encoded:
    """Turns batches of Arrow into the model's rows.

    Parameters
    ----------
    codec : TableCodec
    schema : pyarrow.Schema
    """

    codec: Any
    schema: pa.Schema

    def rows(self, table):
        """Rows of tensors, and the hashes of their cells, uint64 (n,)."""
        table = cast(table, self.schema)
        cells = self.codec.read(frame_of(table))
        values = torch.tensor(cells.values, dtype=torch.float32)
        return Rows(values, torch.tensor(cells.observed)), hashes_of(table)


class Shards:
    """Trains and refits on all rows of a dataset; see `FitContext`.

    Parameters
    ----------
    dataset : ray.data.Dataset
    encoded : Encoded
    hashes : uint64 array of shape (n_sample_rows,)
        Of the rows of the sample: those held out are not trained on.
    effort : Effort
        Without workers the network is trained on the sample, in this process.
    """

    def __init__(self, dataset, encoded, hashes, effort):
        self.dataset, self.encoded, self.hashes = dataset, encoded, hashes
        self.effort = effort

    def train(self, trainer, validation, held):
        """Train a network as `run_epochs` does, but on shards; the history."""
        if not self.effort.train_workers or not trainer.plan.max_epochs:
            return run_epochs(trainer, validation)
        course = _Training(trainer, validation, self.hashes[held], self)
        history, weights = course.run()
        with torch.no_grad():
            for parameter, weight in zip(trainer.parameters, weights, strict=True):
                parameter.copy_(weight)
        return history

    def refit(self, network, ridge):
        """Prior of a network whose anchor has seen all rows."""
        for _ in range(self.effort.anchor_passes):
            anchor = network.prior.anchor
            if not isinstance(anchor.gaussian, GaussianAnchor):
                break  # of a wide table
            finder = MomentFinder(network, self.encoded)
            parts = self.dataset.map_batches(
                finder.__call__, batch_size=65_536, batch_format="pyarrow"
            )
            network.prior = network.prior_of(_refitted(anchor, parts, ridge))
        return network.prior


class MomentFinder:
    """Adds up a batch's expected moments under a network's anchor; a task."""

    def __init__(self, network, encoded):
        self.network, self.encoded = network, encoded

    def __call__(self, table):
        """Pack rows and sums of a batch: one row of one column, bytes."""
        return pa.table({"part": [pickle.dumps(self.find(table))]})

    @one_thread()
    def find(self, table):
        """Count the rows of a batch and sum E[x] and E[x x']: int, (D,), (D, D)."""
        anchor = self.network.prior.anchor
        d = len(anchor.gaussian.mean)
        if not len(table):
            return 0, torch.zeros(d).double(), torch.zeros(d, d).double()
        rows, _ = self.encoded.rows(table)
        with torch.inference_mode():
            x = self.network.warp(rows.values)
            x, observed = anchor.coordinates.expand(x, rows.observed)
            x = x.double()
            parts = anchor.gaussian._batches(observed, True)
            batches = [IncompleteRows(x, *part) for part in parts]
            first, second = anchor.gaussian.expected_moments(batches)
        return len(x), first.clone(), second.clone()


def _refitted(anchor, parts, ridge):
    """Anchor after an M-step with the sums of all parts."""
    n, first, second = 0, 0.0, 0.0
    for batch in parts.iter_batches(batch_size=None, batch_format="pyarrow"):
        for part in batch.column("part"):
            own = pickle.loads(part.as_py())
            n, first, second = n + own[0], first + own[1], second + own[2]
    device = anchor.gaussian.mean.device
    moments = first.to(device), second.to(device)
    gaussian = anchor.gaussian.maximised(n, *moments, ridge)
    if anchor.coordinates.is_relieved:
        gaussian.excess = ridge / (n + ridge)
    return ColumnAnchor(anchor.coordinates, gaussian)


@dataclass
class Setup:
    """What a worker needs to begin."""

    network: Any
    validation: Any
    rows: Rows
    plan: Any
    seed: int
    joint_columns: list
    settings: Any
    borrows: bool
    encoded: Encoded
    held_hashes: np.ndarray
    steps_per_epoch: int


class _Training:
    """One training by Ray Train: from a trainer of the sample to weights."""

    def __init__(self, trainer, validation, held_hashes, shards):
        self.shards = shards
        n_workers, plan = shards.effort.train_workers, trainer.plan
        batch = max(MIN_BATCH, math.ceil(plan.batch_size / n_workers))
        rate = plan.learning_rate / math.sqrt(max(1.0, plan.batch_size / USUAL_BATCH))
        rate *= math.sqrt(max(1.0, batch * n_workers / USUAL_BATCH))
        # Time is not the same for all workers: epochs alone end the training.
        plan = replace(plan, batch_size=batch, learning_rate=rate, deadline=math.inf)
        self.setup = Setup(
            trainer.network,
            validation,
            Rows(*(part[:2].clone() for part in _rows_of(trainer))),
            plan,
            trainer.generator.initial_seed(),
            [np.flatnonzero(group.numpy()) for group in trainer.joint],
            trainer.settings,
            trainer.borrows,
            shards.encoded,
            held_hashes,
            max(1, math.ceil(trainer.n_rows / (batch * n_workers))),
        )

    def run(self):
        """Train; the history and the best weights."""
        import ray
        from ray import train
        from ray.train.torch import TorchConfig, TorchTrainer

        n_workers = self.shards.effort.train_workers
        # A CPU is left for what reads the dataset, or training would wait for ever.
        total = ray.cluster_resources().get("CPU", 1)
        share = min(1.0, max(0.0, (total - 1) / n_workers))
        resources = {"CPU": share} if share else {"CPU": 0, "memory": 1}
        with tempfile.TemporaryDirectory() as own:
            found = TorchTrainer(
                train_worker,
                train_loop_config={"setup": ray.put(self.setup)},
                datasets={"train": self.shards.dataset},
                torch_config=TorchConfig(backend="gloo"),
                scaling_config=train.ScalingConfig(
                    num_workers=n_workers, resources_per_worker=resources
                ),
                run_config=train.RunConfig(
                    storage_path=str(self.shards.effort.storage_path or own),
                    failure_config=train.FailureConfig(max_failures=MAX_FAILURES),
                    checkpoint_config=train.CheckpointConfig(num_to_keep=1),
                ),
            ).fit()
            state = _load(found.checkpoint)
        return state["history"], state["best_weights"]


def _rows_of(trainer):
    """Standardised values and observed cells of a trainer's rows."""
    return trainer.network.warp.inverse(trainer.values), trainer.observed


class ShardTrainer(CellTrainer):
    """Trains on a stream of rows, its gradients being those of all workers.

    Parameters
    ----------
    setup : Setup
    stream : callable
        Yields tables of a shard, once through.
    rank, n_workers : int
    """

    def __init__(self, setup, stream, rank, n_workers):
        # Masks differ between workers.
        seed = setup.seed + 7919 * rank
        super().__init__(
            setup.network,
            setup.rows,
            setup.plan,
            seed,
            setup.joint_columns,
            setup.settings,
        )
        self.borrows, self.setup, self.n_workers = setup.borrows, setup, n_workers
        self.total_steps = setup.plan.max_epochs * setup.steps_per_epoch
        self.stream = self._steps(stream)

    def epoch(self):
        """As many steps as rows of the sample are worth; the mean loss."""
        n_steps = self.setup.steps_per_epoch
        losses = [self.step(next(self.stream)) for _ in range(n_steps)]
        return float(torch.stack(losses).mean())

    def _steps(self, stream):
        """Yield batches for ever: of the shard, and of the shard again."""
        while True:
            for table in stream():
                rows, hashes = self.setup.encoded.rows(table)
                left = torch.tensor(~np.isin(hashes, self.setup.held_hashes))
                # As many steps for each worker, however many rows are left out.
                n_steps = math.ceil(len(rows) / self.plan.batch_size)
                if left.any():
                    self.take(rows[left])
                n = len(self.values)
                self.size = min(n, self.plan.batch_size)
                last = max(1, n_steps - 1)
                self.starts = [k * (n - self.size) // last for k in range(n_steps)]
                yield from self.batches(torch.randperm(n, generator=self.generator))

    def backward(self, batch):
        """Set the gradients, averaged over the workers."""
        loss = super().backward(batch)
        gradients = [
            torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters
        ]
        flat = torch.cat([g.flatten() for g in gradients]) / self.n_workers
        torch.distributed.all_reduce(flat)
        parts = flat.split([g.numel() for g in gradients])
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter).clone()
        return loss


class AgreedValidation:
    """Validation by the first worker, which the others hear of.

    Parameters
    ----------
    validation : Validation, or None on the other workers
    """

    def __init__(self, validation):
        self.validation = validation

    def measure(self):
        """Error and nats, the same in all workers."""
        found = torch.zeros(2, dtype=torch.float64)
        if self.validation is not None:
            found[:] = torch.tensor(self.validation.measure(), dtype=torch.float64)
        torch.distributed.broadcast(found, 0)
        return tuple(found.tolist())


@one_thread()
def train_worker(config):
    """Train in one worker of Ray Train, and report a checkpoint every epoch."""
    import ray
    from ray import train

    context = train.get_context()
    rank, n_workers = context.get_world_rank(), context.get_world_size()
    setup = ray.get(config["setup"])
    shard = train.get_dataset_shard("train")
    size = CHUNK_STEPS * setup.plan.batch_size
    trainer = ShardTrainer(
        setup,
        lambda: shard.iter_batches(batch_size=size, batch_format="pyarrow"),
        rank,
        n_workers,
    )
    validation = AgreedValidation(setup.validation if rank == 0 else None)
    course = Course(trainer, validation)
    if (before := train.get_checkpoint()) is not None:
        restore(course, _load(before))
    while not course.is_over:
        course.run_epoch()
        _report(course, rank)


def _report(course, rank):
    from ray import train

    record = course.history[-1]
    if rank:
        train.report(record)
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.save(state_of(course), Path(folder) / "course.pt")
        train.report(record, checkpoint=train.Checkpoint.from_directory(folder))


def _load(checkpoint):
    with checkpoint.as_directory() as folder:
        return torch.load(
            io.BytesIO((Path(folder) / "course.pt").read_bytes()), weights_only=True
        )


_COURSE = ("history", "best", "best_epoch", "best_weights", "is_over")


def state_of(course):
    """State of a course of epochs, by which it can go on: a dict for `torch.save`."""
    trainer = course.trainer
    average = trainer.average
    state = {name: getattr(course, name) for name in _COURSE}
    return state | {
        "parameters": [p.detach() for p in trainer.parameters],
        "optimizer": trainer.optimizer.state,
        "average": average.average,
        "n_updates": average.n_updates,
        "steps": [trainer.n_steps, trainer.total_steps],
    }


def restore(course, state):
    """Put a course where another one was, but for its place in the stream of rows."""
    trainer = course.trainer
    average = trainer.average
    for name in _COURSE:
        setattr(course, name, state[name])
    own = [trainer.parameters, average.average, trainer.optimizer.state]
    saved = [state["parameters"], state["average"], state["optimizer"]]
    with torch.no_grad():
        for mine, theirs in zip(own, saved, strict=True):
            for tensor, value in zip(mine, theirs, strict=True):
                tensor.copy_(value)
    average.n_updates = state["n_updates"]
    trainer.n_steps, trainer.total_steps = state["steps"]
    # Masks that are new, not those of the first epochs again.
    seed = trainer.generator.initial_seed() + 104_729 * len(course.history)
    trainer.generator.manual_seed(seed)
