"""Features in `pytorch_result.mat` of layumi's Person_reID_baseline_pytorch."""

import json

import numpy as np
import pytest
from processes import within
from scipy.io import loadmat, savemat

from keras_reid import evaluation
from keras_reid.errors import InputError


def side(count, seed):
    """Embeddings of 12 persons, of one who is a distractor (0), and of junk (-1)."""
    random = np.random.default_rng(seed)
    identity = random.integers(1, 13, count) if seed else random.integers(-1, 13, count)
    places = np.random.default_rng(9).normal(size=(14, 8))[identity + 1]
    features = (places + 0.9 * random.normal(size=(count, 8))).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return evaluation.StoredFeatures(
        {"embedding": features}, identity, random.integers(1, 7, count)
    )


QUERY, GALLERY = side(15, 1), side(90, 0)


def as_layumi(query=QUERY, gallery=GALLERY, **more):
    """Arrays of test.py in that project: features, and lists of labels and cameras."""
    arrays = {}
    for name, one in (("gallery", gallery), ("query", query)):
        arrays[f"{name}_f"] = one.features["embedding"]
        arrays[f"{name}_label"] = one.identity.tolist()
        arrays[f"{name}_cam"] = one.camera.tolist()
    return arrays | more


@pytest.fixture
def files(tmp_path):
    savemat(tmp_path / "pytorch_result.mat", as_layumi())
    for name, one in (("query", QUERY), ("gallery", GALLERY)):
        evaluation.save_features(tmp_path / f"{name}.npz", one.features, *one[1:3])
    return tmp_path


def scores(folder, features, *flags):
    code, _, err = within(
        "evaluate.py", f"--features={features}", "--out=s.json", *flags, cwd=folder
    )
    assert code == 0, err
    values = json.loads((folder / "s.json").read_text())
    (folder / "s.json").unlink()
    return values


def test_evaluate_matlab_file_reranked_scores_equal_npz_scores(files):
    saved = ("--rerank=k_reciprocal", "--save_features=mine.MAT")
    expected = scores(files, "query.npz,gallery.npz", *saved)
    assert 0.1 < expected["mAP"] < 0.95
    assert scores(files, "pytorch_result.mat", "--rerank=k_reciprocal") == expected
    assert scores(files, "query.npz,mine.MAT", "--rerank=k_reciprocal") == expected
    mine, other = (loadmat(files / name) for name in ("mine.MAT", "pytorch_result.mat"))
    names = sorted(name for name in other if not name.startswith("__"))
    assert sorted(name for name in mine if not name.startswith("__")) == names
    for name in names:
        np.testing.assert_array_equal(mine[name], other[name])
        assert mine[name].shape == other[name].shape


def test_load_features_matlab_sides_and_all_rows(files):
    query, gallery, both = (
        evaluation.load_features(files / "pytorch_result.mat", one)
        for one in ("query", "gallery", None)
    )
    for got, expected in ((query, QUERY), (gallery, GALLERY)):
        np.testing.assert_array_equal(got.features["embedding"], expected.features["embedding"])
        assert got.features["embedding"].dtype == np.float32
        assert got.identity.tolist() == expected.identity.tolist()
        assert got.camera.tolist() == expected.camera.tolist()
    assert both.identity.tolist() == [*QUERY.identity, *GALLERY.identity]
    assert both.features["embedding"].shape == (105, 8)


def test_load_features_matlab_labels_of_other_number_types(tmp_path):
    arrays = as_layumi()
    arrays["query_label"] = np.array(arrays["query_label"], np.float64)[:, None]  # a column
    arrays["query_cam"] = np.array(arrays["query_cam"], np.uint8)
    savemat(tmp_path / "x.mat", arrays)
    stored = evaluation.load_features(tmp_path / "x.mat", "query")
    assert stored.identity.tolist() == QUERY.identity.tolist()
    assert stored.identity.dtype == np.int64
    assert stored.camera.tolist() == QUERY.camera.tolist()


@pytest.mark.parametrize("count", [1, 3])
def test_save_matlab_text_labels_and_single_image_are_read_again(tmp_path, count):
    names = np.array(["Ümit", "李雷", "a b"])[:count]
    one = evaluation.StoredFeatures({"embedding": np.eye(3, 4)[:count]}, names, None)
    evaluation.save_matlab(tmp_path / "x.mat", one, one)
    again = evaluation.load_features(tmp_path / "x.mat", "gallery")
    assert again.identity.tolist() == names.tolist()
    assert again.camera is None
    np.testing.assert_array_equal(again.features["embedding"], np.eye(3, 4)[:count])
    with pytest.raises(InputError, match="must be a new path"):
        evaluation.save_matlab(tmp_path / "x.mat", one, one)


def test_load_features_matlab_own_names_are_read(tmp_path):
    savemat(tmp_path / "x.mat", {"embedding": np.eye(4), "identity": [1, 1, 2, 2]})
    stored = evaluation.load_features(tmp_path / "x.mat")
    assert stored.identity.tolist() == [1, 1, 2, 2]
    assert stored.features["embedding"].shape == (4, 4)


@pytest.mark.parametrize(
    ("arrays", "asked", "message"),
    [
        ({"gallery_f": np.eye(3)}, "query", "got gallery_f"),
        (
            as_layumi(query_f=np.eye(15, 7)),
            None,
            r"one embedding size, got \(15, 7\) and \(90, 8\)",
        ),
        (
            as_layumi(query_label=[np.inf] * 15),
            "query",
            r"identity` must be integers .*\(15,\), got float64",
        ),
    ],
)
def test_load_features_matlab_invalid_arrays_raise(tmp_path, arrays, asked, message):
    savemat(tmp_path / "x.mat", arrays)
    with pytest.raises(InputError, match=message):
        evaluation.load_features(tmp_path / "x.mat", asked)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--features=query.npz",), "must be QUERY,GALLERY or one .mat file"),
        (("--features=missing.mat",), "No such file or directory: 'missing.mat'"),
        (("--features=query.npz,broken.mat",), "must be a MATLAB file"),
        (
            ("--features=query.npz,gallery.npz", "--distance=local", "--save_features=x.mat"),
            "excludes --distance. Name a folder",
        ),
    ],
)
def test_evaluate_matlab_invalid_flags_print_error(files, flags, message):
    (files / "broken.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    code, _, err = within("evaluate.py", *flags, cwd=files)
    assert code == 1
    assert message in err
    assert not (files / "x.mat").exists()
