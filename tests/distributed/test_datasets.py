"""Datasets of Ray: workers, what is killed, what is fitted."""

import copy
import os
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from admc_sklearn import ADMCImputer, distributed
from admc_sklearn.distributed._arrow import Layout
from admc_sklearn.distributed._complete import Completer

pytest.importorskip("ray.data", reason="Ray is not installed")
pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray's own
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


class DiesOnce(ADMCImputer):
    """Kills its process, at the third batch that any process of the cluster sees."""

    def _transform(self, X, container="native", where=None, seed=None):
        folder = Path(self.folder)
        if len(X) > 1:  # else the driver looks for dtypes
            if len(list(folder.glob("batch*"))) == 2 and not (folder / "died").exists():
                (folder / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            (folder / f"batch{os.getpid()}{len(os.listdir(folder))}").touch()
        return super()._transform(X, container, where, seed)


def dataset_of(ray_data, frame, size):
    named = frame.assign(id=np.arange(len(frame)))
    table = pa.Table.from_pandas(named, preserve_index=False)
    parts = [table.slice(k, size) for k in range(0, len(table), size)]
    return ray_data.from_arrow(parts)


def test_a_killed_worker_changes_nothing(ray_data, imputer, frame, tmp_path):
    dataset = dataset_of(ray_data, frame, 75)
    dying = object.__new__(DiesOnce)
    dying.__dict__.update(copy.copy(imputer).__dict__, folder=str(tmp_path))
    out = distributed.transform(
        dying, dataset, key="id", batch_size=60, n_workers=1
    ).to_pandas()
    assert (tmp_path / "died").exists()
    assert out.id.tolist() == list(range(len(frame)))
    expected = copy.copy(imputer).set_output(transform="pandas").transform(frame)
    for name in expected:
        one, other = out[name].tolist(), expected[name].tolist()
        if name in ("a", "b", "sum"):
            np.testing.assert_allclose(one, other, atol=1e-4)
        else:
            assert one == other, name


def test_draws_do_not_depend_on_batches_or_workers(ray_data, imputer, frame):
    dataset = dataset_of(ray_data, frame.head(200), 50)
    options = {"random_state": 0, "key": "id", "batch_size": 33, "n_workers": 2}
    out = distributed.sample(imputer, dataset, 2, **options).to_pandas()
    out = out.sort_values([".imp", "id"])
    table = pa.Table.from_pandas(frame.head(200).assign(id=range(200)))
    layout = Layout.of(imputer, table.schema, ["id"])
    once = Completer(imputer, layout, 2, imputer._seed_of(0))(table).to_pandas()
    for name in ("id", "side", "text", "is_large", "day"):
        assert out[name].tolist() == once[name].tolist()
    np.testing.assert_allclose(out.a, once.a, atol=1e-4)
