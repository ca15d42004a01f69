"""Tables of modalities joined: cells, names, blocks, absent ones, errors."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from admc_sklearn import join_modalities
from admc_sklearn._table.column_selection import resolve_modalities
from admc_sklearn._table.containers import is_frame
from admc_sklearn.missingness import ampute


def contents(X):
    return X.to_numpy() if is_frame(X) else X


@given(
    n=st.integers(1, 4),
    widths=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    kinds=st.lists(st.sampled_from(["array", "list", "frame"]), min_size=4, max_size=4),
    frame=st.sampled_from([pd.DataFrame, pl.DataFrame]),
    is_list=st.booleans(),
)
@settings(deadline=None)
def test_cells_stay_and_blocks_lead_back_to_them(n, widths, kinds, frame, is_list):
    rng = np.random.default_rng(0)
    blocks = [rng.normal(size=(n, width)) for width in widths]
    makers = {"array": np.copy, "list": np.ndarray.tolist, "frame": frame}
    tables = [makers[kind](block) for kind, block in zip(kinds, blocks, strict=False)]
    names = [f"modality_{k}" for k in range(len(tables))]
    given_ = tables if is_list else dict(zip(names, tables, strict=True))
    X, modalities = join_modalities(given_)
    np.testing.assert_array_equal(contents(X), np.hstack(blocks))
    assert list(modalities) == names
    assert isinstance(X, frame if "frame" in kinds[: len(widths)] else np.ndarray)
    columns = list(X.columns) if is_frame(X) else [f"x{j}" for j in range(X.shape[1])]
    found = resolve_modalities(modalities, X, columns)
    assert list(found) == names
    for positions, block in zip(found.values(), blocks, strict=True):
        np.testing.assert_array_equal(contents(X)[:, positions], block)
    # Later calls have all of it, or some.
    again, same = join_modalities(given_, like=modalities)
    np.testing.assert_array_equal(contents(again), contents(X))
    assert same == modalities
    if len(names) > 1:
        absent, _ = join_modalities({names[-1]: tables[-1]}, like=modalities)
        expected = np.hstack([np.full_like(np.hstack(blocks[:-1]), np.nan), blocks[-1]])
        np.testing.assert_array_equal(contents(absent), expected)


def test_the_result_is_a_copy_of_floats_as_wide_as_they_came():
    narrow = np.ones((2, 2), dtype=np.float32)
    X, _ = join_modalities([narrow, [np.float32([1, 2]), None]])
    assert X.dtype == np.float32
    X[:] = 0
    assert (narrow == 1).all()
    assert join_modalities([narrow])[0].base is not narrow
    for other in (np.ones((2, 1)), np.ones((2, 1), dtype=int), [[True], [None]]):
        assert join_modalities([narrow, other])[0].dtype == np.float64
    modalities = {"a": slice(0, 1), "b": slice(1, 3)}
    X, _ = join_modalities({"b": narrow}, like=modalities)
    assert X.dtype == np.float32


@pytest.mark.parametrize("as_rows", [list, tuple, lambda rows: np.array(rows, object)])
def test_rows_without_the_modality(as_rows):
    rows = as_rows([np.array([1.0, 2.0]), None, np.array([3.0, np.nan])])
    X, modalities = join_modalities({"m": rows, "n": np.zeros((3, 1))})
    np.testing.assert_array_equal(
        X, [[1.0, 2.0, 0.0], [np.nan, np.nan, 0.0], [3.0, np.nan, 0.0]]
    )
    X, _ = join_modalities({"m": [None], "n": [[0.0]]}, like=modalities)
    np.testing.assert_array_equal(X, [[np.nan, np.nan, 0.0]])


def test_absent_modalities_among_frames():
    lab = pd.DataFrame({"sex": ["f", "m"], "age": [1, 2]}, index=["p", "q"])
    image = pd.DataFrame(np.ones((2, 2)), index=lab.index)
    _, modalities = join_modalities({"lab": lab, "image": image})
    assert modalities == {"lab": ["sex", "age"], "image": ["image_0", "image_1"]}
    X, _ = join_modalities({"image": None, "lab": lab}, like=modalities)
    assert list(X) == ["sex", "age", "image_0", "image_1"]
    assert X.index.equals(lab.index)
    assert X.filter(like="image").isna().all(axis=None)
    X, _ = join_modalities({"image": image.to_numpy()}, like=modalities)
    assert isinstance(X, np.ndarray)
    assert np.isnan(X[:, :2]).all()


@pytest.mark.parametrize("library", [pd, pl])
def test_names_of_columns(library):
    frame = library.DataFrame
    left = frame({"id": [1, 2], "text": ["u", "v"]})
    right = frame({"id": [3.0, 4.0], "dose": [0.5, 0.6]})
    plain, modalities = join_modalities({"left": left[["text"]], "right": right})
    assert list(plain.columns) == ["text", "id", "dose"]
    assert modalities == {"left": ["text"], "right": ["id", "dose"]}
    X, modalities = join_modalities({"left": left, "right": right, "z": np.eye(2)})
    assert modalities == {
        "left": ["left_id", "text"],
        "right": ["right_id", "dose"],
        "z": ["z_0", "z_1"],
    }
    assert list(X.columns) == ["left_id", "text", "right_id", "dose", "z_0", "z_1"]
    assert X["left_id"].dtype == left["id"].dtype
    assert X["text"].dtype == left["text"].dtype
    assert list(left.columns) == ["id", "text"]
    again, same = join_modalities({"right": right, "left": left}, like=modalities)
    assert same == modalities
    assert list(again.columns) == list(X.columns)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_a_series_is_a_table_of_one_column(frame):
    X, modalities = join_modalities({"m": frame({"s": [1, 2]})["s"]})
    assert isinstance(X, frame)
    assert modalities == {"m": ["s"]}


def test_joined_modalities_are_lost_together():
    X, modalities = join_modalities({"m": np.ones((50, 3)), "n": np.ones((50, 2))})
    Y = ampute(X, mechanism="modality", modalities=modalities, random_state=0)
    lost = np.isnan(Y)
    assert lost.any()
    assert (lost[:, :3].all(axis=1) == lost[:, :3].any(axis=1)).all()


ONE, TWO = np.zeros((2, 1)), np.zeros((2, 2))
A = pd.DataFrame({"a": [1.0, 2.0]})


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        (TWO, TypeError, "must be a dict or a list of tables, got ndarray"),
        (A, TypeError, "must be a dict or a list of tables, got DataFrame"),
        ({}, ValueError, "no table to join"),
        ({"m": None}, ValueError, "no table to join"),
        ({"m": TWO, "n": None}, ValueError, "'n' is None: .* said by like"),
        ({"m": TWO, "n": [None, None]}, ValueError, "'n' .* every row is None"),
        (
            [TWO, TWO[:1], TWO, np.zeros((5, 1))],
            ValueError,
            "'modality_0' has 2, but 'modality_1' has 1, 'modality_3' has 5",
        ),
        ({"m": TWO, "n": TWO[0]}, ValueError, r"'n' is not a table .* is \(2,\)"),
        ({"m": np.zeros((2, 2, 2))}, ValueError, r"'m' is not .* is \(2, 2, 2\)"),
        ({"m": [[1.0], [1.0, 2.0]]}, ValueError, "'m' is not a table of numbers"),
        ({"m": [["u"], ["v"]]}, ValueError, "'m' .* values of dtype <U1"),
        ({"m": np.array([["u"]], dtype=object)}, ValueError, "'m' .* could not conv"),
        ({"m": TWO * 1j}, ValueError, "'m' .* values of dtype complex128"),
        ({"m": TWO, "n": TWO[:, :0]}, ValueError, "'n' must have some columns, got 0"),
        ({"m": A[[]]}, ValueError, "'m' must have some columns, got 0"),
        ({"m": A, "n": pl.DataFrame(A)}, TypeError, "pandas and polars"),
        (
            {"m": TWO, "n": A, "o": A.set_axis(["p", "q"])},
            ValueError,
            "'o' has another index than 'n'",
        ),
        (
            {"m": A, "n": pd.DataFrame({"a": [1, 2], "m_a": [1, 2]})},
            ValueError,
            "several columns are named 'm_a'",
        ),
        (
            {"m": pd.concat([A, A], axis=1)},
            ValueError,
            "several columns are named 'm_a'",
        ),
    ],
)
def test_errors(arrays, error, message):
    with pytest.raises(error, match=message):
        join_modalities(arrays)


@pytest.mark.parametrize(
    ("arrays", "like", "message"),
    [
        ({"m": TWO, "z": TWO}, {"m": slice(0, 2)}, "no modality 'z' in like: 'm'"),
        ({"m": TWO}, {"m": slice(0, 3)}, "'m' must have 3 columns, got 2"),
        ({"m": A}, {"m": ["a", "b"]}, "'m' must have 2 columns, got 1"),
        ({"m": A}, {"m": ["b"]}, r"'m' must have the columns \['b'\], got \['a'\]"),
    ],
)
def test_errors_of_later_calls(arrays, like, message):
    with pytest.raises(ValueError, match=message):
        join_modalities(arrays, like=like)
