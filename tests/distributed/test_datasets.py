"""Datasets of Ray: workers, what is killed, what is fitted."""

import copy
import os
import pickle
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from admc_sklearn import ADMCImputer, distributed
from admc_sklearn._shared.training import TrainingPlan
from admc_sklearn.distributed.__main__ import main
from admc_sklearn.distributed._arrow import Layout
from admc_sklearn.distributed._complete import Completer
from tests.conftest import hide, quick, rings

pytest.importorskip("ray.data", reason="Ray is not installed")
pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray's own
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


class DiesOnce(ADMCImputer):
    """Kills its process, at the third batch that any process of the cluster sees."""

    def _transform(self, X, *args, **kwargs):
        folder = Path(self.folder)
        if len(X) > 1:  # else the driver looks for dtypes
            if len(list(folder.glob("batch*"))) == 2 and not (folder / "died").exists():
                (folder / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            (folder / f"batch{os.getpid()}{len(os.listdir(folder))}").touch()
        return super()._transform(X, *args, **kwargs)


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


def test_fit_gives_an_ordinary_imputer(ray_data, frame, tmp_path):
    frame = frame.assign(a=np.where(np.arange(len(frame)) == 9, 50.0, frame.a))
    dataset = dataset_of(ray_data, frame, 150)
    imputer = quick(n_steps=2)
    assert distributed.fit(imputer, dataset, n_sample_rows=300, key="id") is imputer
    assert list(imputer.feature_names_in_) == list(frame)
    assert set(imputer.categories_[4]) == {"above", "below"}
    completed = imputer.set_output(transform="pandas").transform(frame)
    assert not completed.isna().any(axis=None)
    assert completed.dtypes.tolist() == frame.dtypes.tolist()
    path = tmp_path / "imputer.safetensors"
    imputer.save(path)
    for again in (ADMCImputer.load(path), pickle.loads(pickle.dumps(imputer))):
        same = again.set_output(transform="pandas").transform(frame.head(50))
        assert same.equals(completed.head(50))
    # The range of `a` is that of all rows, of which the sample has half.
    position = list(imputer._codec.scaling_.kept_).index(0)
    assert imputer._codec.scaling_.high_[position] == 50.0


def test_bad_arguments_have_a_sentence(ray_data, imputer, frame):
    dataset = dataset_of(ray_data, frame.head(20), 20)
    with pytest.raises(ValueError, match="n_sample_rows must be an int"):
        distributed.fit(imputer, dataset, n_sample_rows=0)
    with pytest.raises(ValueError, match="n_draws must be an int"):
        distributed.sample(imputer, dataset, 0)
    with pytest.raises(ValueError, match="key: the dataset has no column 'name'"):
        distributed.fit(imputer, dataset, key="name")
    with pytest.raises(ValueError, match="'id' of the dataset was not in fit"):
        distributed.transform(imputer, dataset)


def test_one_command_completes_a_directory_and_goes_on(
    ray_data, frame, tmp_path, capsys
):
    source, target = tmp_path / "in", tmp_path / "out"
    (source / "more").mkdir(parents=True)
    names = ["a.parquet", "more/b.parquet", "c.parquet"]
    for k, name in enumerate(names):
        frame.iloc[200 * k : 200 * (k + 1)].to_parquet(source / name, index=False)
    (source / "broken.parquet").write_bytes(b"PAR1 and nothing else")
    command = [str(source), str(target), "--epochs=0", "--sample-rows=400"]
    with pytest.raises(ValueError, match=r"broken\.parquet"):
        main(command)
    command += ["--on-error=skip", "--strategy=sample", "--workers=1"]
    report = main(command)
    printed = capsys.readouterr().out
    assert "completed 600 rows of 3 files" in printed
    assert "left out" in printed
    assert report.n_rows.tolist() == [200, 0, 200, 200]
    for k, name in enumerate(names):
        out, own = pd.read_parquet(target / name), frame.iloc[200 * k : 200 * (k + 1)]
        own = own.reset_index(drop=True)
        assert not out.isna().any(axis=None)
        assert out.dtypes.tolist() == own.dtypes.tolist()
        for column in own:
            seen = own[column].notna()
            assert (out[column][seen] == own[column][seen]).all()
    # Draws follow from the place of a row: a file that was lost comes out the same.
    before = pd.read_parquet(target / names[0])
    (target / names[0]).unlink()
    report = main(command)
    assert report.n_rows.sum() == 200
    pd.testing.assert_frame_equal(pd.read_parquet(target / names[0]), before)


@dataclass(frozen=True)
class DyingPlan(TrainingPlan):
    """Kills one worker, in its third epoch."""

    folder: str = ""
    driver: int = 0

    def __getattribute__(self, name):
        own = super().__getattribute__
        # This is read at the end of an epoch.
        if name == "n_iter_no_change" and os.getpid() != own("driver"):
            folder, pid = Path(own("folder")), os.getpid()
            ended = len(list(folder.glob(f"{pid}-*")))
            if ended == 2 and not (folder / "died").exists():
                (folder / "died").touch()
                os.kill(pid, signal.SIGKILL)
            (folder / f"{pid}-{ended}").touch()
        return own(name)


@pytest.mark.slow
@pytest.mark.skipif(
    (os.cpu_count() or 1) < 4,
    reason="Ray Train starts six processes twice: over a minute on fewer than 4 cores",
)
def test_training_on_shards_survives_a_worker(ray_data, tmp_path, monkeypatch):
    rows = pd.DataFrame(hide(rings(2000, 0), 0.25, 1), columns=["x", "y", "z"])
    table = pa.Table.from_pandas(rows, preserve_index=False)
    dataset = ray_data.from_arrow([table.slice(k, 250) for k in range(0, 2000, 250)])
    plan_of = TrainingPlan.of

    def dying(*arguments):
        plan = vars(plan_of(*arguments))
        return DyingPlan(**plan, folder=str(tmp_path), driver=os.getpid())

    monkeypatch.setattr(TrainingPlan, "of", dying)
    imputer = quick(max_epochs=4, tol=0.0)
    distributed.fit(
        imputer, dataset, n_sample_rows=1200, train_workers=2, anchor_passes=1
    )
    assert (tmp_path / "died").exists()
    assert imputer.history_.epoch.tolist() == [0, 1, 2, 3, 4]
    assert imputer.history_.valid_rmse.min() < imputer.history_.valid_rmse[0]
