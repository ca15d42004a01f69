"""Columns by every way of naming them, modalities, and their errors."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import make_column_selector

from admc_sklearn._table.column_selection import find_columns, resolve_modalities

NAMES = ["a", "b", "c", "d"]


def table(kind, names):
    """A table with the given names, or generated ones, and these names."""
    cells = np.arange(2.0 * len(names)).reshape(2, -1)
    if kind == "pandas":
        return pd.DataFrame(cells, columns=names), names
    if kind == "polars":
        return pl.DataFrame(cells, names), names
    return cells, [f"x{j}" for j in range(len(names))]


def ways(chosen, names, negative):
    """Ways to name columns, of which any one must serve."""
    d = len(names)
    mask = np.isin(np.arange(d), chosen)
    indices = [j - d * back for j, back in zip(chosen, negative, strict=True)]
    labels = [names[j] for j in chosen]
    found = [indices, tuple(indices), np.array(indices, dtype=np.int8), set(indices)]
    found += [labels, tuple(labels), np.array(labels, dtype=str), pd.Index(labels)]
    found += [pd.Series(labels, dtype=object), pl.Series(labels, dtype=pl.String)]
    found += [mask, mask.tolist(), pl.Series(mask), pd.Series(mask)]
    found += [pd.array(mask, dtype="boolean"), pd.Series(mask, names)[::-1]]
    found += [iter(labels), [names[j] if j % 2 else j for j in chosen]]
    found += [lambda X, one=one: one for one in (indices, labels, mask)]
    if len(chosen) == 1:
        found += [indices[0], np.int64(indices[0]), labels[0], np.str_(labels[0])]
    run = sorted(set(chosen))
    if run and run == list(range(run[0], run[-1] + 1)):
        first, last = run[0], run[-1]
        found += [slice(first, last + 1), slice(first - d, last + 1)]
        found += [slice(names[first], names[last]), slice(last, first - d - 1, -1)]
        found += [slice(names[last], names[first], -1)]
    return found


@given(data=st.data(), kind=st.sampled_from(["array", "pandas", "polars"]))
@settings(deadline=None)
def test_all_ways_to_name_columns_agree(data, kind):
    d = data.draw(st.integers(1, 6))
    X, names = table(kind, [f"column {j}" for j in range(d)])
    chosen = data.draw(st.lists(st.integers(0, d - 1), max_size=2 * d))
    negative = data.draw(
        st.lists(st.booleans(), min_size=len(chosen), max_size=len(chosen))
    )
    for columns in ways(chosen, names, negative):
        found = find_columns(columns, X, np.array(names, dtype=object), "columns")
        assert found.dtype.kind == "i"
        assert found.tolist() == sorted(set(chosen)), columns


@given(
    ends=st.tuples(*[st.none() | st.integers(-9, 9)] * 2),
    step=st.none() | st.sampled_from([-3, -1, 1, 2]),
)
def test_slices_of_indices_are_pythons(ends, step):
    chosen = slice(*ends, step)
    found = find_columns(chosen, *table("array", NAMES), "columns")
    assert found.tolist() == sorted(range(4)[chosen])


@given(
    ends=st.tuples(*[st.none() | st.sampled_from(NAMES)] * 2),
    step=st.none() | st.sampled_from([-2, -1, 1, 3]),
)
def test_slices_of_names_are_pandas(ends, step):
    X, names = table("pandas", NAMES)
    expected = sorted(X.loc[:, slice(*ends, step)])
    found = find_columns(slice(*ends, step), X, names, "columns")
    assert [names[j] for j in found] == expected


def test_selectors_of_columns():
    X = pd.DataFrame({"u": [1.0], "v": ["text"], "w": [2.0]})
    chosen = make_column_selector(dtype_include=float)
    assert find_columns(chosen, X, list(X), "columns").tolist() == [0, 2]
    mask = X.dtypes == "float64"
    assert find_columns(mask, X, list(X), "columns").tolist() == [0, 2]
    X = pl.from_pandas(X)
    chosen = lambda X: X.select(pl.selectors.numeric()).columns  # noqa: E731
    assert find_columns(chosen, X, X.columns, "columns").tolist() == [0, 2]


def test_integers_are_positions_whatever_the_names():
    X = pd.DataFrame(np.zeros((1, 3)), columns=[2, 0, 1])
    for names in ([2, 0, 1], ["x0", "x1", "x2"]):
        assert find_columns([2], X, names, "columns").tolist() == [2]
        assert find_columns(slice(0, 1), X, names, "columns").tolist() == [0]


def test_names_need_not_be_text():
    names = [("a", 1), ("a", 2), 0.5, pd.Timestamp("2020")]
    X = pd.DataFrame(np.zeros((1, 4)))
    assert find_columns(("a", 2), X, names, "columns").tolist() == [1]
    assert find_columns([("a", 2), 0.5], X, names, "columns").tolist() == [1, 2]
    assert find_columns(pd.Timestamp("2020"), X, names, "columns").tolist() == [3]


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ("z", ValueError, r"there is no column 'z'; there are 'a', 'b', 'c', 'd'\."),
        (np.array(["y", "a", "z"]), ValueError, "there is no column 'y', 'z'; there"),
        (4, ValueError, "there is no column 4: X has 4 columns, and integers are pos"),
        (np.array([0, -5, 7]), ValueError, "there is no column -5, 7: X has 4"),
        (slice("a", "z"), ValueError, "there is no column 'z'"),
        (slice("a", 2), TypeError, r"a slice must be of indices or of names, got sl"),
        ([True, False], ValueError, "a mask of columns must have 4 entries, got 2"),
        ([True, False, 1, "b"], TypeError, "nothing but truth values, got 1, 'b'"),
        ([True, pd.NA, True, True], TypeError, "truth values, got <NA>"),
        (pl.Series([True, None, True, True]), TypeError, "truth values, got None"),
        (None, ValueError, "there is no column None"),
        (1.0, ValueError, r"there is no column 1\.0"),
        ([["a"], ["b"]], TypeError, r"must be names or indices, got \[\['a'\]"),
        (lambda X: ["z"], ValueError, "there is no column 'z'"),
    ],
)
def test_errors_of_columns(columns, error, message):
    X, names = table("pandas", NAMES)
    with pytest.raises(error, match=f"^argument: .*{message}"):
        find_columns(columns, X, names, "argument")


def test_errors_where_there_are_no_names():
    X = np.zeros((2, 3))
    with pytest.raises(ValueError, match=r"no column 'a': X has no column names\.$"):
        find_columns("a", X, range(3), "argument")
    with pytest.raises(ValueError, match=r"no column names, but for x0, \.\.\., x2\.$"):
        find_columns(["x1", "a"], X, ["x0", "x1", "x2"], "argument")
    # A name learnt in fit, or of a frame, is one.
    for table_, names in ((X, ["a", "b", "c"]), (pd.DataFrame(X), ["x0", "x1", "x2"])):
        with pytest.raises(ValueError, match="no column 'z'; there are"):
            find_columns("z", table_, names, "argument")


def test_errors_of_many_and_of_recurring_names():
    names = [f"column {j}" for j in range(5000)]
    with pytest.raises(ValueError, match=r"'column 19', \.\.\.\.$"):
        find_columns("z", None, names, "argument")
    X = pd.DataFrame(np.zeros((1, 3)), columns=["a", "b", "a"])
    assert find_columns([0, "b"], X, list(X), "argument").tolist() == [0, 1]
    with pytest.raises(ValueError, match="several columns are named 'a'; give indices"):
        find_columns("a", X, list(X), "argument")


# ---- modalities


@given(data=st.data(), kind=st.sampled_from(["array", "pandas", "polars"]))
@settings(deadline=None)
def test_modalities_split_the_columns(data, kind):
    X, names = table(kind, [f"column {j}" for j in range(6)])
    owner = data.draw(st.lists(st.sampled_from("uvw-"), min_size=6, max_size=6))
    expected, given_ = {}, {}
    for name in dict.fromkeys(one for one in owner if one != "-"):
        expected[name] = [j for j in range(6) if owner[j] == name]
        given_[name] = data.draw(
            st.sampled_from(ways(expected[name], names, [False] * owner.count(name)))
        )
    expected |= {names[j]: [j] for j in range(6) if owner[j] == "-"}
    found = resolve_modalities(given_, X, names)
    assert list(found) == list(expected)
    assert {name: columns.tolist() for name, columns in found.items()} == expected


def test_without_modalities_every_column_is_its_own():
    for modalities in (None, {}):
        found = resolve_modalities(modalities, *table("polars", NAMES))
        assert {n: c.tolist() for n, c in found.items()} == {
            name: [j] for j, name in enumerate(NAMES)
        }


def test_a_modality_may_be_named_like_its_own_column():
    found = resolve_modalities({"a": ["a", "b"]}, *table("pandas", NAMES))
    assert {n: c.tolist() for n, c in found.items()} == {
        "a": [0, 1],
        "c": [2],
        "d": [3],
    }


@pytest.mark.parametrize(
    ("modalities", "error", "message"),
    [
        ([["a"], ["b"]], TypeError, "modalities must be a dict or None, got list"),
        ({"m": ["a", "z"]}, ValueError, r"^modalities\['m'\]: there is no column 'z'"),
        ({"m": [["a"]]}, TypeError, r"^modalities\['m'\]: columns must be names or"),
        ({"m": []}, ValueError, r"^modalities\['m'\]: .* must have columns, got none"),
        ({"m": slice(9, None)}, ValueError, r"\['m'\]: .* must have columns, got none"),
        ({"m": [False] * 4}, ValueError, r"\['m'\]: .* must have columns, got none"),
        (
            {"m": ["a", "b"], "n": [1, 2], "o": slice(0, 2)},
            ValueError,
            r"'a' belongs to 'm', 'o'; 'b' belongs to 'm', 'n', 'o'\.$",
        ),
        ({"a": ["b"]}, ValueError, "'a', which is left out .* named like a modality"),
    ],
)
def test_errors_of_modalities(modalities, error, message):
    with pytest.raises(error, match=message):
        resolve_modalities(modalities, *table("pandas", NAMES))


def test_columns_of_one_name_cannot_be_modalities_of_that_name():
    X = pd.DataFrame(np.zeros((1, 3)), columns=["a", "b", "a"])
    with pytest.raises(ValueError, match=r"'a', .* is named like another column"):
        resolve_modalities(None, X, list(X))
    assert list(resolve_modalities({"m": [0, 2]}, X, list(X))) == ["m", "b"]
