"""The benchmarks run, and their protocol does what it says."""

import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch

from admc_sklearn import ADMCImputer
from benchmarks import draws, gpu, mcar, mixed, published, speed
from benchmarks._protocol import errors, load_numeric, split_mcar
from tests.conftest import ROOT

DATA = ROOT.parent / "shared" / "data"


def test_split_standardises_by_the_observed_training_cells():
    X = np.random.default_rng(0).normal(5, 3, size=(2000, 4))
    split = split_mcar(X, 0)
    assert len(split.train) == 1400
    assert np.isnan(split.train_incomplete).mean() == pytest.approx(0.3, abs=0.02)
    np.testing.assert_allclose(np.nanmean(split.train_incomplete, 0), 0, atol=1e-9)
    np.testing.assert_allclose(np.nanstd(split.train_incomplete, 0), 1, atol=1e-9)
    seen = ~np.isnan(split.test_incomplete)
    np.testing.assert_array_equal(split.test_incomplete[seen], split.test[seen])


def test_errors_are_taken_over_hidden_cells_only():
    truth = np.array([[1.0, 2.0], [3.0, np.nan]])
    incomplete = np.array([[np.nan, 2.0], [np.nan, np.nan]])
    completed = np.array([[2.0, 99.0], [0.0, 99.0]])
    rmse, mae = errors(truth, incomplete, completed)
    assert rmse == pytest.approx(np.sqrt(5))
    assert mae == pytest.approx(2)


def test_the_command_prints_a_table_and_writes_its_records(
    monkeypatch, capsys, tmp_path
):
    csv = tmp_path / "records.csv"
    arguments = "--tables wine absent --seeds 0 1 --imputers anchor mean --csv".split()
    monkeypatch.setattr(sys, "argv", ["mcar", *arguments, str(csv)])
    mcar.main()
    assert "absent: not found" in capsys.readouterr().out
    records = pd.read_csv(csv).set_index(["imputer", "seed"])
    assert len(records) == 4
    assert (records.loc["anchor", "rmse"] < records.loc["mean", "rmse"]).all()


def test_published_masks_depend_on_the_columns_that_stay_complete():
    rng = np.random.default_rng(0)
    # In units of their own: the third column, the target, outweighs all others.
    numbers, codes = rng.normal(size=(3000, 9)), 1e3 * rng.normal(size=(3000, 1))
    # The code that was published draws these for a table of this shape.
    complete = published.complete_columns(3000, 10, 4)
    state = np.random.RandomState(1234)
    order = np.arange(3000)
    state.shuffle(order)
    for _ in range(80):
        state.rand(2100, 10)
        state.rand(900, 10)
    chosen = [state.choice(10, 3, replace=False) for _ in range(2 * 24 + 1)]
    np.testing.assert_array_equal(complete, chosen[-1])

    mask = published.missing_at_random(np.hstack([numbers, codes]), [0, 1, 9], rng)
    assert not mask[:, [0, 1, 9]].any()
    np.testing.assert_allclose(mask[:, 2:9].mean(0), 3 / 7, atol=0.04)
    for column in mask[:, 2:9].T:
        with_target = np.corrcoef(column, codes[:, 0])[0, 1]
        assert abs(with_target) > 0.3
        assert abs(np.corrcoef(column, numbers[:, 0])[0, 1]) < 0.1

    split = published.split_training((numbers, codes), 4)
    assert split.train.shape == (2100, 9)
    lost = np.isnan(split.train_incomplete)
    assert not lost[:, [j for j in complete if j < 9]].any()
    np.testing.assert_allclose(split.train.std(0), 1)
    np.testing.assert_array_equal(split.train_incomplete[~lost], split.train[~lost])


@pytest.fixture
def mixed_folder(tmp_path):
    """A folder with one small mixed table, as benchmarks read them."""
    rng = np.random.default_rng(0)
    k = rng.integers(0, 3, 240)
    frame = pd.DataFrame(
        {
            "x": k + 0.3 * rng.normal(size=240),
            "y": rng.normal(size=240) - k,
            "k": pd.Categorical(np.array(["a", "b", "c"])[k]),
            "target": pd.Categorical(k > 1),
        }
    )
    (tmp_path / "tabular").mkdir()
    frame.to_parquet(tmp_path / "tabular" / "small.parquet")
    return tmp_path


def test_mixed_tables_beside_trees(monkeypatch, capsys, mixed_folder):
    csv = mixed_folder / "records.csv"
    arguments = "--tables small --seeds 0 --imputers anchor simple knn --data".split()
    arguments += [str(mixed_folder), "--csv", str(csv)]
    monkeypatch.setattr(sys, "argv", ["mixed", *arguments])
    mixed.main()
    assert "small" in capsys.readouterr().out
    records = pd.read_csv(csv).set_index("imputer")
    assert records.loc["anchor", "accuracy"] > records.loc["simple", "accuracy"]
    assert (records["rmse"] < 1.3).all()


def test_draws_beside_chained_equations(monkeypatch, mixed_folder):
    csv = mixed_folder / "records.csv"
    arguments = "--tables small --mechanisms mcar mar --max-time 20 --steps 1 4 --data"
    arguments = [*arguments.split(), str(mixed_folder), "--csv", str(csv)]
    monkeypatch.setattr(sys, "argv", ["draws", *arguments])
    monkeypatch.setattr(draws, "N_DRAWS", 10)
    draws.main()
    records = pd.read_csv(csv)
    assert set(records["imputer"]) == {"admc 1", "admc 4", "iterative"}
    assert records["auc"].between(0.3, 1).all()
    # No categorical column may be left to go missing under MAR.
    part = records[records["mechanism"] == "mcar"].set_index("imputer")
    assert part.loc["admc 4", "log_loss"] < part.loc["iterative", "log_loss"]


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason=f"needs the data sets in {DATA.name}/")
def test_a_few_seconds_beat_the_anchor_on_a_real_table(monkeypatch):
    # The time of this process, of all its threads: on a busy machine, which is slower,
    # it was over before the first epochs.
    monkeypatch.setattr(time, "monotonic", time.process_time)
    split = split_mcar(load_numeric("letter", DATA), 100)
    imputer = ADMCImputer(max_time=10, random_state=0).fit(split.train_incomplete)
    rmse, _ = errors(
        split.test, split.test_incomplete, imputer.transform(split.test_incomplete)
    )
    assert rmse < 0.65  # the anchor has 0.75, nearest neighbours 0.82


def test_the_speed_page_is_made_from_its_records(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "N_NEW", 10)
    grid = {"rows": [(60, 3, 0.2)], "largest": [(80, 0, 0.2)]}
    scale = pd.DataFrame(speed.measure_scale(20, grid))
    # One that cannot be measured is told, and the others are there.
    assert scale["error"].notna().tolist() == [False, True]
    assert (scale["peak_gib"][:1] >= scale["before_gib"][:1]).all()
    assert (scale["rmse"][:1] < 2).all()
    scale.to_csv(tmp_path / "scale.csv", index=False)
    peers = [
        {"table": "letter", "n_train": 7, "n_test": 3, "imputer": name, "rmse": 0.5,
         "mae": 0.3, "fit_s": fit, "transform_s": 0.5}
        for name, fit in {"admc": 1.5, "trees": 3.5, "knn": 0.0}.items()
    ]  # fmt: skip
    pd.DataFrame(peers).to_csv(tmp_path / "peers.csv", index=False)
    speed.write_page(tmp_path)
    page = (tmp_path / "speed.md").read_text()
    assert "0.50 times that of the trees" in page
    assert "| letter (7 + 3) | 0.5000 / 0.3000 | 1.5 s, 0.50 s |" in page
    assert "Failed: 80 x 0" in page
    assert (tmp_path / "scale.png").stat().st_size > 0


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(
                    not torch.cuda.is_available(), reason="needs a CUDA device"
                ),
            ],
        ),
    ],
)
def test_a_fit_on_a_device_can_be_measured(device):
    device = torch.device(device)
    reached = gpu.peak(device, size=64)
    record = gpu.measure("small", 600, 4, device, reached, n_new=50)
    assert 0 < record["step_ms"] < 1e4
    assert 0 < record["share"] < 2
    assert 0 < record["rmse"] < 1.2
