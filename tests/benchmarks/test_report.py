"""The report's command runs, goes on where it was, and makes its page from the CSV."""

import math
import os
import sys
import types

import numpy as np
import pandas as pd
import pytest

from benchmarks import _peers, _sources, report, run
from benchmarks._child import call_within
from benchmarks._setting import _caps
from benchmarks._summary import against_peers, load, ranks

BASE = dict.fromkeys(run.COLUMNS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two small tables, one of them mixed, as the command reads them."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    k = rng.integers(0, 3, 200)
    numbers = pd.DataFrame(rng.normal(size=(200, 4)), columns=list("abcd"))
    numbers["a"] += numbers["b"]
    level = pd.Categorical(np.array(["x", "y", "z"])[k])
    mixed = numbers.assign(b=numbers["b"] + k, k=level)
    (folder / "tabular").mkdir()
    for name, frame in (("numbers", numbers), ("mixed", mixed)):
        path = folder / "tabular" / f"{name}.parquet"
        frame.assign(target=k).to_parquet(path)
    return folder


def command(folder, out, *arguments):
    """Run the command on the small tables."""
    head = ["--data", str(folder), "--out", str(out), "--rows", "150"]
    run.main([*head, *arguments])


def rows_of(cells):
    """Results of one run for ``{(table, part, imputer): error}``."""
    rows = [
        BASE
        | {"table": table, "part": part, "imputer": imputer, "mechanism": "mar"}
        | {"seed": 0, "rmse": value, "mae": value, "fit_s": 1.0, "transform_s": 0.1}
        | {"rate": 0.3, "row_cap": "none", "max_time": "none", "n_threads": 1}
        | {"source": "files", "n_rows": 10, "n_table": 10, "numpy": "2.0"}
        for (table, part, imputer), value in cells.items()
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def written(tmp_path):
    """A folder with the CSV of a small run, one of whose cells failed."""
    cells = {}
    for part in run.PARTS:
        cells |= {("bean", part, "admc"): 0.4, ("bean", part, "trees"): 0.5}
        cells |= {("bean", part, "knn"): 0.8, ("magic", part, "admc"): 0.6}
        cells |= {("magic", part, "trees"): 0.5, ("magic", part, "knn"): np.nan}
    frame = rows_of(cells)
    failed = frame["rmse"].isna()
    frame.loc[failed, "error"] = "MemoryError: too large"
    frame.to_csv(tmp_path / "results.csv", index=False)
    return tmp_path


def test_the_command_measures_both_parts_and_the_page_shows_them(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setitem(run.IMPUTERS, "admc", run.IMPUTERS["anchor"])  # no epochs
    tables = ["--tables", "numbers", "mixed", "--mechanisms", "mar"]
    command(folder, tmp_path, *tables, "--imputers", "admc", "iterative", "simple")
    results = run.read_results(tmp_path / "results.csv")
    assert results["error"].isna().all()
    assert len(results) == 2 * 3 * 2
    assert set(results["part"]) == {"unseen", "training"}
    assert (results["n_rows"][results["part"] == "unseen"] == 45).all()
    assert (results["n_table"] == 200).all()
    # A column of the numbers is a noisy copy of another.
    rmse = results[results["table"] == "numbers"].groupby("imputer")["rmse"].mean()
    assert rmse["iterative"] < rmse["simple"]
    assert results["accuracy"].notna().eq(results["table"] == "mixed").all()
    for column in ("processor", "python", *run.PACKAGES):
        assert results[column].notna().all()
    page = report.write_report(tmp_path).read_text()
    assert "at most 150 of each table" in page
    assert "| mixed, mar |" in page


def test_a_second_run_measures_only_what_is_not_there(folder, tmp_path, capsys):
    arguments = ["--tables", "numbers", "--mechanisms", "mcar", "--imputers", "simple"]
    command(folder, tmp_path, *arguments)
    path = tmp_path / "results.csv"
    before = path.read_text()
    path.write_text(before + "numbers,mcar,0,knn,uns")  # a crash cut it short
    command(folder, tmp_path, *arguments, "knn")
    after = path.read_text()
    assert after.startswith(before)
    assert list(run.read_results(path)["imputer"]) == ["simple"] * 2 + ["knn"] * 2


def test_another_cap_does_not_mix_with_what_is_there(folder, tmp_path):
    arguments = ["--tables", "numbers", "--mechanisms", "mcar", "--imputers", "simple"]
    command(folder, tmp_path, *arguments)
    with pytest.raises(ValueError, match="row_cap"):
        command(folder, tmp_path, *arguments, "--rows", "100")


def test_a_time_limit_is_that_of_our_own_imputer(folder, tmp_path):
    """Peers have none: their results stand beside those of any."""
    arguments = ["--tables", "numbers", "--mechanisms", "mcar", "--imputers"]
    command(folder, tmp_path, *arguments, "simple")
    command(folder, tmp_path, *arguments, "admc", "--max-time", "5")
    rows = run.read_results(tmp_path / "results.csv").groupby("imputer")["max_time"]
    assert rows.unique().map(list).to_dict() == {"admc": ["5.0"], "simple": ["none"]}
    page = report.write_report(tmp_path).read_text()
    assert "`max_time=5.0` seconds for admc's fit" in page
    with pytest.raises(ValueError, match="max_time"):
        command(folder, tmp_path, *arguments, "admc")


def test_failures_are_recorded_and_tried_again(folder, tmp_path, monkeypatch):
    arguments = ["--tables", "numbers", "absent", "--mechanisms", "mcar"]
    arguments += ["--imputers", "knn", "simple"]
    with monkeypatch.context() as patch:
        patch.setitem(run.IMPUTERS, "knn", lambda *_: 1 / 0)
        command(folder, tmp_path, *arguments)
    path = tmp_path / "results.csv"
    errors = run.read_results(path).set_index(["table", "imputer"])["error"]
    assert errors["numbers", "knn"].str.startswith("ZeroDivisionError").all()
    assert errors["numbers", "simple"].isna().all()
    assert errors["absent"].str.startswith("FileNotFoundError").all()
    assert "failed: knn on numbers, mcar" in report.write_report(tmp_path).read_text()
    command(folder, tmp_path, *arguments)
    table = load(path)
    assert table[table["table"] == "numbers"]["error"].isna().all()


def test_a_cell_that_takes_too_long_is_given_up(folder, tmp_path, capsys):
    """No process starts, and imports what it needs, in a millisecond."""
    arguments = ["--tables", "numbers", "--mechanisms", "mcar", "--imputers", "simple"]
    command(folder, tmp_path, *arguments, "--cell-time", "0.001")
    path = tmp_path / "results.csv"
    assert set(run.read_results(path)["error"]) == {"TimeLimit: more than 0.001 s"}
    assert "given up after 0.001 s" in " ".join(_caps(load(path)))
    alone = tmp_path / "alone"
    command(folder, alone, *arguments, "--cell-time", "100")
    command(folder, tmp_path, *arguments)
    figures = ["part", "rmse", "mae", "error"]
    expected = load(alone / "results.csv")[figures]
    pd.testing.assert_frame_equal(load(path)[figures], expected)


def test_what_a_process_of_its_own_raises_or_dies_of_comes_back():
    with pytest.raises(ValueError, match="math domain"):
        call_within(60, math.sqrt, -1.0)
    with pytest.raises(RuntimeError, match="ended with code 3"):
        call_within(60, os._exit, 3)


def test_cells_left_missing_are_a_failure():
    frame = pd.DataFrame({"a": [1.0, np.nan]})
    with pytest.raises(ValueError, match="1 cells are still missing"):
        run._checked_errors(frame, frame, frame)


def test_a_cell_is_won_against_every_peer(written):
    table = against_peers(load(written / "results.csv"), "rmse")
    by_table = table.xs("unseen", level="part").droplevel("mechanism")
    assert by_table["won"].to_dict() == {"magic": False, "bean": True}
    assert by_table["gain"].to_dict() == pytest.approx({"magic": -0.2, "bean": 0.2})
    assert set(by_table["peer"]) == {"trees"}


def test_an_optional_peer_counts_only_where_it_was_measured(written):
    """It neither drops the cells that it has not come to, nor wins or loses them."""
    path = written / "results.csv"
    before = load(path)
    cells = {("bean", part, "miceforest"): 0.3 for part in run.PARTS}
    failed = {("magic", "unseen", "hyperimpute"): np.nan}
    optional = rows_of(cells | failed)
    optional["error"] = optional["error"].mask(optional["rmse"].isna(), "failed")
    pd.concat([pd.read_csv(path), optional]).to_csv(path, index=False)
    table = against_peers(load(path), "rmse")
    assert len(table) == len(against_peers(before, "rmse")) == 4
    peers = table.xs("unseen", level="part").droplevel("mechanism")["peer"]
    assert peers.to_dict() == {"bean": "miceforest", "magic": "trees"}
    assert set(ranks(load(path), "rmse", "unseen").index) == {"admc", "trees", "knn"}
    page = report.write_report(written).read_text()
    assert "4 in all" in page
    assert "hyperimpute in 0 (1 more failed), miceforest in 2;" in page
    assert "lack them: hyperimpute, miceforest." in page
    assert "| miceforest | 0 of 2 | -33.3 % |" in page
    assert "not measured: miceforest, mnar: all tables" in page
    assert "not measured: adult, mnar: all\n" in page


def test_an_optional_peer_with_all_runs_is_ranked(written):
    frame = load(written / "results.csv")
    trees = frame[frame["imputer"] == "trees"]
    frame = pd.concat([frame, trees.assign(imputer="miceforest")], ignore_index=True)
    assert "miceforest" in ranks(frame, "rmse", "unseen").index


def test_the_page_says_what_failed_and_what_is_not_there(written):
    page = report.write_report(written).read_text()
    assert "- failed: knn on magic, mar, seed 0: MemoryError: too large" in page
    assert "- not measured: adult, mnar: all" in page
    assert "| all | 2 of 4 | +0.0 % |" in page
    assert "| magic | 0.297 / 0.673 | 0.769 / 1.017 | 0.600 / 0.600 |" in page
    assert "| magic, mar | 0.6000 | **0.5000** | failed |" in page
    assert "all of each table" in page
    assert "take admc 1.00 times the wall time (2 cells) that trees take" in page
    for picture in written.glob("*.png"):
        assert f"]({picture.name})" in page
        assert picture.stat().st_size < 100_000
    assert len(list(written.glob("*.png"))) == 4


def test_a_page_needs_figures(written):
    frame = pd.read_csv(written / "results.csv").assign(error="all failed")
    frame.to_csv(written / "results.csv", index=False)
    with pytest.raises(ValueError, match="no figures"):
        report.write_report(written)


def test_tables_are_downloaded_without_a_folder(monkeypatch):
    asked = []

    def fetch(**where):
        asked.append(where)
        text = {"a": ["u", "v"] * 2, "b": [1, 2, 3, 4]}
        frame = pd.DataFrame(text | {f"c{j}": np.arange(4.0) for j in range(6)})
        return types.SimpleNamespace(data=frame)

    monkeypatch.setattr(_sources.datasets, "fetch_openml", fetch)
    monkeypatch.setattr(_sources.datasets, "fetch_california_housing", fetch)
    frame = _sources.load_table("concrete")
    assert list(frame.dtypes.astype(str))[:2] == ["category", "float64"]
    assert frame.shape == _sources.load_table("california").shape
    assert asked == [{"data_id": 44959, "as_frame": True}, {"as_frame": True}]
    with pytest.raises(ValueError, match="8 columns besides the target, not 16"):
        _sources.load_table("letter")
    with pytest.raises(ValueError, match="none of"):
        _sources.load_table("unknown")
    for folder in (None, "nowhere"):  # scikit-learn has it itself
        assert _sources.load_table("iris", folder).shape == (150, 4)
    assert len(asked) == 3


def test_draws_are_completed_by_their_center():
    draws = np.array([[[1.0, 0]], [[2.0, 1]], [[6.0, 1]]])
    asked = []

    def draw(X, n):
        asked.append(n)
        return draws

    sampler = types.SimpleNamespace(draw=draw, fit=lambda X: None)
    X = pd.DataFrame({"x": [np.nan], "k": pd.Categorical([None], ["a", "b"])})
    imputer = _peers.Drawn(sampler).fit(X)
    assert imputer.transform(X).iloc[0].to_list() == [3.0, "b"]
    assert imputer.set_params(strategy="median").transform(X)["x"].item() == 2.0
    assert len(asked) == 1  # the median is that of the same draws
    imputer.transform(X.copy())
    assert len(asked) == 2


def test_hyperimpute_completes_beside_the_training_rows(monkeypatch):
    seen = []

    class Plugin:
        def fit_transform(self, X):
            seen.append(len(X))
            return X.fillna(7.0)

    package = types.ModuleType("hyperimpute.plugins.imputers")
    package.Imputers = lambda: types.SimpleNamespace(get=lambda *_, **__: Plugin())
    for name in ("hyperimpute", "hyperimpute.plugins"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setattr(_peers, "_chained_assignment_works", lambda: True)
    train, test = np.ones((5, 2)), np.array([[np.nan, 2.0]])
    imputer = _peers.HyperImpute(0).fit(train)
    np.testing.assert_array_equal(imputer.transform(test), [[7.0, 2.0]])
    imputer.transform(train)
    assert seen == [6, 5]


@pytest.mark.skipif(pd.__version__ < "3", reason="there it does what it should")
def test_hyperimpute_is_not_measured_where_it_would_return_means():
    """Under pandas 3 it changes copies of its columns, and nothing else."""
    with pytest.raises(ImportError, match="pandas below 3"):
        _peers.HyperImpute(0).fit(np.ones((5, 2)))
