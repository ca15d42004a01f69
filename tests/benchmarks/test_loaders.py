"""Features of one's own: files made up here, read back."""

import numpy as np
import pytest

from benchmarks._loaders import load_modalities, pooled

N = 12


def arrays():
    rng = np.random.default_rng(0)
    return {
        "text": rng.normal(size=(N, 5)),
        "audio": rng.normal(size=(N, 7, 3)).astype(np.float32),
        "label": np.arange(N) % 3,
        "split": np.array(["train"] * 7 + ["dev"] + ["test"] * 4),
        "group": np.arange(N) // 2,
    }


@pytest.fixture(params=["file", "folder"])
def save(request, tmp_path):
    """Write arrays as an .npz, or as a folder of .npy; gives the path."""

    def write(**given):
        if request.param == "file":
            np.savez(tmp_path / "own.npz", **given)
            return tmp_path / "own.npz"
        (tmp_path / "own").mkdir(exist_ok=True)
        for name, array in given.items():
            np.save(tmp_path / "own" / f"{name}.npy", array)
        return tmp_path / "own"

    return write


def test_file_and_folder_are_read_alike(save):
    given = arrays()
    data = load_modalities(save(**given))
    assert sorted(data.modalities) == ["audio", "text"]
    np.testing.assert_array_equal(data.modalities["text"], given["text"])
    np.testing.assert_allclose(
        data.modalities["audio"], given["audio"].mean(axis=1), rtol=1e-5
    )
    assert data.modalities["audio"].dtype == np.float64
    for name in ("label", "split", "group"):
        np.testing.assert_array_equal(getattr(data, name), given[name])


def test_modalities_and_groups_by_name(save):
    given = arrays()
    given["speaker"] = given.pop("group")
    data = load_modalities(save(**given), ["text"], group="speaker")
    assert list(data.modalities) == ["text"]
    np.testing.assert_array_equal(data.group, given["speaker"])


def test_groups_are_optional_and_bytes_are_words(save):
    given = arrays()
    del given["group"]
    given["split"] = given["split"].astype("S")
    data = load_modalities(save(**given))
    assert data.group is None
    assert set(data.split) == {"train", "dev", "test"}


def test_pooling_leaves_out_what_is_not_there():
    frames = np.array([[[1.0, np.nan], [3.0, np.nan]], [[np.nan, 2.0], [5.0, 4.0]]])
    np.testing.assert_array_equal(pooled(frames), [[2.0, np.nan], [5.0, 3.0]])


def test_trimming_leaves_zeros_within_a_sequence():
    frames = np.array([0.0, 0.0, 4.0, 0.0, 2.0, 0.0])[None, :, None]
    assert pooled(frames)[0, 0] == pytest.approx(1.0)
    assert pooled(frames, trim=True)[0, 0] == pytest.approx(2.0)
    # A sequence of nothing but zeros has no features.
    assert np.isnan(pooled(np.zeros((1, 3, 2)), trim=True)).all()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"text": np.zeros((N - 1, 5))}, r"equally many rows.*'text': 11"),
        ({"label": np.zeros((N, 2))}, r"'label' must have one dimension"),
        ({"text": np.zeros(N)}, r"'text' has \(12,\)"),
        ({"text": np.full((N, 2), "a")}, r"'text' must hold numbers"),
        ({"text": np.full((N, 2), np.inf)}, r"'text' holds infinite values"),
        ({"split": np.array(["train"] * N)}, r"must have 'train' and 'test' rows"),
        ({"split": None}, r"holds no array 'split'"),
        ({"text": np.array([None] * N)}, r"'text' of .* cannot be read"),
        ({"text": None, "audio": None}, r"holds no modality"),
    ],
)
def test_errors_name_what_is_wrong(save, change, match):
    given = {n: a for n, a in {**arrays(), **change}.items() if a is not None}
    with pytest.raises(ValueError, match=match):
        load_modalities(save(**given))


def test_absent_files_and_names(save, tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        load_modalities(tmp_path / "absent.npz")
    with pytest.raises(ValueError, match="holds no array 'video'"):
        load_modalities(save(**arrays()), ["text", "video"])


def test_a_single_array_is_no_set_of_modalities(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros((3, 2)))
    with pytest.raises(ValueError, match="single array"):
        load_modalities(tmp_path / "one.npy")
