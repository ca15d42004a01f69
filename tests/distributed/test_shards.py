"""Sums over shards, and training that goes on where it was broken off."""

import copy

import numpy as np
import pyarrow as pa
import pytest
import torch

from admc_sklearn._cells.anchor.gaussian import fit_gaussian
from admc_sklearn._cells.network.trainer import CellTrainer
from admc_sklearn._shared.contract import Rows
from admc_sklearn._shared.training import Course, TrainingPlan
from admc_sklearn.distributed._shards import (
    Encoded,
    MomentFinder,
    restore,
    state_of,
)


@pytest.fixture(scope="module")
def table(frame):
    return pa.Table.from_pandas(frame, preserve_index=False)


@pytest.fixture(scope="module")
def encoded(imputer, table):
    return Encoded(imputer._codec, table.schema)


def test_sums_of_shards_are_a_step_over_all_rows(imputer, table, encoded):
    network = imputer.model_.network
    finder = MomentFinder(network, encoded)
    parts = [finder.find(table.slice(k, 130)) for k in range(0, 700, 130)]
    n, first, second = (sum(part[k] for part in parts) for k in range(3))
    assert n == len(table)
    anchor, ridge = network.prior.anchor, 3.0
    found = anchor.gaussian.maximised(n, first, second, ridge)
    rows, _ = encoded.rows(table)
    x, o = anchor.coordinates.expand(network.warp(rows.values), rows.observed)
    once = fit_gaussian(x, o, ridge, start=anchor.gaussian, max_iter=1)
    torch.testing.assert_close(found.cov, once.cov)
    torch.testing.assert_close(found.mean, once.mean)


class Still:
    """A validation whose error falls by itself."""

    def __init__(self):
        self.error = 1.0

    def measure(self):
        self.error *= 0.9
        return self.error, self.error


def course_of(imputer, table, encoded):
    network = copy.deepcopy(imputer.model_.network)
    rows, _ = encoded.rows(table)
    plan = TrainingPlan(5, 64, 2e-3, 0.1, 15, 0.0, np.inf, False)
    trainer = CellTrainer(network, Rows(rows.values, rows.observed), plan, 0)
    return Course(trainer, Still())


def test_a_course_goes_on_where_its_state_was_taken(imputer, table, encoded, tmp_path):
    whole = course_of(imputer, table, encoded)
    whole.run_epoch()
    torch.save(state_of(whole), tmp_path / "course.pt")
    again = course_of(imputer, table, encoded)
    restore(again, torch.load(tmp_path / "course.pt", weights_only=True))
    assert [record["epoch"] for record in again.history] == [0, 1]
    for course in (whole, again):  # the same masks from here on
        course.trainer.generator.manual_seed(5)
        course.validation.error = 0.5
        course.run_epoch()
    pairs = zip(whole.trainer.parameters, again.trainer.parameters, strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert again.history[2]["train_loss"] == whole.history[2]["train_loss"]
    assert again.trainer.n_steps == whole.trainer.n_steps
