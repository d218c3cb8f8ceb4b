"""Attribute tables, loss, scores, gallery prefilter and search by description."""

import math

import keras
import numpy as np
import oracle_enhance
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from keras_reid import data, evaluation, gallery, layers, losses, models
from keras_reid.data import synthetic
from keras_reid.errors import InputError
from keras_reid.models import heads

DOWN = ("black", "blue", "brown", "gray", "green", "pink", "purple", "white", "yellow")
UP = ("black", "blue", "green", "gray", "purple", "red", "white", "yellow")
MARKET = (
    *("age", "backpack", "bag", "handbag"),
    *(
        f"down{c}"
        for c in ["black", "blue", "brown", "gray", "green", "pink", "purple", "white", "yellow"]
    ),
    *(f"up{c}" for c in ["black", "blue", "green", "gray", "purple", "red", "white", "yellow"]),
    *("clothes", "down", "up", "hair", "hat", "gender"),
)


def table(path, rows, header=("identity", *MARKET)):
    lines = [",".join(header), *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def coded(identity, age, yes):
    """A row of the published coding: 1 no, 2 yes."""
    return [identity, age, *(2 if name in yes else 1 for name in MARKET[1:])]


# --- Tables


def test_read_attributes_market_27_columns_become_30(tmp_path):
    rows = [coded("0002", 2, {"upred", "downblue"}), coded("0010", 4, {"hat"})]
    found = data.read_attributes(table(tmp_path / "t.csv", rows))
    names = found.schema.names
    assert len(MARKET) == 27
    assert len(names) == 30
    assert names[:4] == ("age_child", "age_teenager", "age_adult", "age_old")
    sizes = {group: len(columns) for group, columns in found.schema.groups.items()}
    assert sizes == {"up": 8, "down": 9, "age": 4}  # and 9 binary ones: 12 classifiers
    assert found.identity.tolist() == ["0002", "0010"]
    on = [{names[i] for i in np.flatnonzero(row == 1)} for row in found.values]
    assert on == [{"age_teenager", "upred", "downblue"}, {"age_old", "hat"}]
    loss = losses.AttributeLoss([0.5] * 30, found.schema.exclusive)
    assert loss.classifiers == 12


def test_read_attributes_matlab_file_returns_table_values(tmp_path):
    values = {name: np.array([1.0, 2.0, 1.0]) for name in MARKET[1:]}
    values["age"] = np.array([1.0, 2.0, 3.0])
    parts = {}
    for part, ids in (("train", ("0002", "0007", "0010")), ("test", ("0001", "0003", "0004"))):
        names = np.empty(3, object)
        names[:] = ids
        parts[part] = {**values, "image_index": names}
    savemat(tmp_path / "market_attribute.mat", {"market_attribute": parts})
    found = data.read_attributes(tmp_path / "market_attribute.mat")
    assert found.identity.tolist() == ["0002", "0007", "0010", "0001", "0003", "0004"]
    assert found.values[:, found.schema.column("upred")].tolist() == [0, 1, 0, 0, 1, 0]
    assert found.values[2, found.schema.column("age_adult")] == 1
    savemat(tmp_path / "other.mat", {"a": np.zeros(3)})
    (tmp_path / "broken.mat").write_bytes(b"nothing")
    with pytest.raises(
        InputError, match=r"must have the structures train and test .* as market_attribute\.mat"
    ):
        data.read_attributes(tmp_path / "other.mat")
    with pytest.raises(InputError, match=r"broken\.mat` must be a MATLAB file"):
        data.read_attributes(tmp_path / "broken.mat")


def test_read_attributes_duke_23_columns_are_grouped(tmp_path):
    header = (
        *("identity", "backpack", "bag", "handbag", "boots", "gender", "hat", "shoes", "top"),
        *(f"up{c}" for c in ["black", "white", "red", "purple", "gray", "blue", "green", "brown"]),
        *(f"down{c}" for c in ["black", "white", "red", "gray", "blue", "green", "brown"]),
    )
    assert len(header) == 24
    rows = [["0001", *[1] * 22, 2], ["0005", 2, *[1] * 22]]
    schema = data.read_attributes(table(tmp_path / "t.csv", rows, header)).schema
    assert {g: len(c) for g, c in schema.groups.items()} == {"up": 8, "down": 7}


def test_read_attributes_zero_one_table_blanks_are_unknown(tmp_path):
    path = table(
        tmp_path / "t.csv", [("a", 1, 0, ""), ("b", 1, 1, -1)], ("identity", "x", "y", "z")
    )
    found = data.read_attributes(path)
    assert found.values.tolist() == [[1, 0, -1], [1, 1, -1]]
    images = data.PersonImages(np.array(["1", "2", "3"]), np.array(["b", "c", "a"]), None)
    labeled = found.label(images)
    assert labeled.columns["attributes"].tolist() == [[1, 1, -1], [-1, -1, -1], [1, 0, -1]]
    np.testing.assert_allclose(data.rates(labeled), [1, 0.5, 0])
    with pytest.raises(InputError, match="identities of the images"):
        found.label(images[1])


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([("1", 3)], ("identity", "x"), "all 0 and 1, got 3 in x"),
        ([("1", 2), ("2", 0)], ("identity", "x"), r"1 \(no\) and 2 \(yes\).*got 0 in x"),
        ([("1", "yes")], ("identity", "x"), "line 2` must have .*float: 'yes''"),
        ([("1", 5)], ("identity", "age"), "ages 1 to 4"),
        ([("1", 1)], ("person", "x"), "must have the columns identity"),
        ([], ("identity", "x"), "got 0 identities and 1 attributes"),
        ([("1",)], ("identity",), "got 1 identities and 0 attributes"),
    ],
)
def test_read_attributes_invalid_table_raises(tmp_path, rows, header, message):
    with pytest.raises(InputError, match=message):
        data.read_attributes(table(tmp_path / "t.csv", rows, header))


def test_read_attributes_missing_table_or_unknown_column_raises(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        data.read_attributes(tmp_path / "no.csv")
    with pytest.raises(InputError, match="`attribute` must be one of x, y, got 'z'"):
        data.AttributeSchema(("x", "y")).column("z")


def test_synthetic_attributes_table_labels_every_image(tmp_path):
    synthetic.generate(tmp_path / "d", train_identities=40, test_identities=2, size=(32, 16))
    found = data.read_attributes(tmp_path / "d/attributes.csv")
    assert found.schema.names == synthetic.ATTRIBUTES
    for columns in found.schema.groups.values():
        assert (found.values[:, list(columns)].sum(1) == 1).all()
    images = found.label(data.load("synthetic", str(tmp_path / "d")).train)
    assert (images.columns["attributes"] >= 0).all()


@pytest.mark.real
def test_read_attributes_market_table_labels_all_training_images(real_data):
    found = data.read_attributes(real_data / "data/market1501-attributes.csv")
    assert found.values.shape == (751, 30)
    images = data.load("market1501", str(real_data / "data/market1501-mini")).train
    assert (found.label(images).columns["attributes"] >= 0).all()


# --- The loss and the layers


def test_attribute_loss_matches_published_value():
    loss = losses.AttributeLoss([0.2, 0.2])
    value = loss(np.array([[1.0, 0.0]]), np.zeros((1, 2), "float32"))
    assert float(value) == pytest.approx(2.3892392979521793, rel=1e-6)


def test_attribute_loss_unknown_attributes_have_zero_loss():
    loss = losses.AttributeLoss([0.5] * 5, [(2, 3, 4)], reduction="none")
    logits = np.full((4, 5), 3.0, "float32")
    targets = np.array(
        [[-1, -1, 0, 0, 0], [-1, -1, 1, 1, 0], [-1, -1, -1, -1, -1], [-1, 1, 0, 1, 0]], float
    )
    cost = np.asarray(loss(targets, logits))
    assert cost[:3].tolist() == [0, 0, 0]
    expected = math.exp(0.5) * math.log1p(math.exp(-3)) + math.log(3)
    assert cost[3] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: losses.AttributeLoss([0.5, 1.5]), r"`rates` must be in \[0, 1\], got 1.5"),
        (lambda: losses.AttributeLoss([float("nan")]), r"`rates` must be in \[0, 1\], got nan"),
        (lambda: losses.AttributeLoss([0.5, 0.5], [(0, 2)]), "at least one column from 0 to 1"),
        (lambda: losses.AttributeLoss([0.5, 0.5], [(0,), (0, 1)]), "with no column twice"),
        (lambda: losses.AttributeLoss([0.5], [()]), "`exclusive` must be"),
        (lambda: layers.AttributeProbabilities([(0, 9)])(np.zeros((1, 3))), "column from 0 to 2"),
        (
            lambda: losses.AttributeLoss([0.5])(np.zeros((1, 2)), np.zeros((1, 2), "float32")),
            r"`y_pred` must be of shape \(b, 1\), got \(1, 2\). Pass one column",
        ),
    ],
)
def test_attribute_loss_invalid_rates_or_groups_raise(build, message):
    with pytest.raises(InputError, match=message):
        build()


@pytest.mark.nightly
def test_attribute_loss_training_predicts_attributes():
    """Features that hold the answer: the head of a model learns it in a few steps."""
    rng = np.random.default_rng(0)
    targets = (rng.uniform(size=(64, 5)) < 0.3).astype("float32")
    targets[:, 2:] = np.eye(3)[rng.integers(0, 3, 64)]
    features = targets @ rng.normal(size=(5, 8)) + 0.01 * rng.normal(size=(64, 8))
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(5)])
    loss = losses.AttributeLoss(targets.mean(0), [(2, 3, 4)])
    model.compile(keras.optimizers.Adam(0.1), loss=loss)
    model.fit(features.astype("float32"), targets, epochs=100, batch_size=64, verbose=0)
    logits = model.predict(features, verbose=0)
    known = np.asarray(layers.AttributeProbabilities([(2, 3, 4)])(logits))
    told = evaluation.predicted_attributes(known, [(2, 3, 4)])
    assert (told == targets).mean() > 0.98
    assert (told[:, 2:].sum(1) == 1).all()


# --- Scores


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_attribute_scores_match_oracle(seed):
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(2, 30)), int(rng.integers(2, 7))
    told = rng.uniform(size=(n, m)) < 0.4
    true = rng.integers(-1, 2, size=(n, m))
    true[:2, 0] = 0, 1
    told[0, 0] = true[1, 0] = 1
    names = [f"a{i}" for i in range(m)]
    scores = evaluation.attribute_scores(told, true, names)
    expected = oracle_enhance.mean_accuracies(told, true)
    kept = {name: value for name, value in zip(names, expected, strict=True) if value is not None}
    assert scores.mean_accuracies == pytest.approx(kept)
    assert scores.mA == pytest.approx(np.mean(list(kept.values())))
    assert set(scores.left_out) == set(names) - set(kept)
    accuracy, precision, recall = oracle_enhance.instances(told, true)
    assert (scores.accuracy, scores.precision, scores.recall) == pytest.approx(
        (accuracy, precision, recall)
    )
    if precision + recall:
        assert scores.f1 == pytest.approx(2 * precision * recall / (precision + recall))


def test_attribute_scores_constant_attributes_are_excluded():
    told = np.array([[1, 0, 1], [0, 0, 1]], bool)
    scores = evaluation.attribute_scores(told, np.array([[1, 0, 1], [0, 0, 1]]), ["x", "y", "z"])
    assert scores.mean_accuracies == {"x": 1.0}
    assert scores.left_out == ("y", "z")
    assert "left out, equal for all images: y, z" in str(scores)
    assert scores.left_out == ("y", "z")
    with pytest.raises(InputError, match="an attribute that only some images have"):
        evaluation.attribute_scores(told[:, 1:], np.array([[0, 1], [0, 1]]), ["y", "z"])
    with pytest.raises(InputError, match=r"\(n, 2\)"):
        evaluation.attribute_scores(told, np.zeros((2, 3)), ["y", "z"])


def test_attribute_scores_group_counts_as_one_classifier():
    """A group is one classifier: its image is told right if its one true class is."""
    names = ["hat", "upred", "upblue", "upblack"]
    true = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [-1, 0, 0, 1]])
    told = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 0, 0]], bool)
    scores = evaluation.attribute_scores(told, true, names, {"up": (1, 2, 3)})
    # The last hat is unlabeled; the third person has a color without a name.
    assert scores.classifier_accuracies == pytest.approx({"hat": 2 / 3, "up: one of 3": 2 / 3})
    assert scores.classifier_accuracy == pytest.approx(2 / 3)
    alone = evaluation.attribute_scores(told, true, names)
    assert set(alone.classifier_accuracies) == set(names)
    assert alone.classifier_accuracies["upred"] == pytest.approx(2 / 4)
    assert "right, by classifier" in str(scores)


def test_attribute_head_follows_normalization():
    """Features of any length give logits of the same size after some training steps."""
    head = heads.AttributeHead(3)
    model = models.build("tiny", 4, (32, 16), weights="none", heads=[head])
    norm = model.get_layer("attribute_norm")
    assert norm.input is model.get_layer("features").output
    assert model.get_layer("attributes").input is norm.output


# --- The pre-filter


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), confidence=st.sampled_from([0.6, 0.75, 1.0]))
def test_prefilter_drops_contradicting_pairs(seed, confidence):
    rng = np.random.default_rng(seed)
    q, g, m = (int(k) for k in rng.integers(2, 12, size=3))
    query, gallery_ = (rng.choice([0, 0.1, 0.5, 0.9, 1], size=(k, m)) for k in (q, g))
    ids = [rng.integers(0, 4, k) for k in (q, g)]
    cams = [rng.integers(0, 3, k) for k in (q, g)]
    sides = (evaluation.Labels(*side) for side in zip(ids, cams, strict=True))
    found = evaluation.prefilter((query, gallery_), *sides, confidence=confidence)
    kept_true = []
    for i in range(q):
        for j in range(g):
            contradicts = any(
                (query[i, a] >= confidence and gallery_[j, a] <= 1 - confidence)
                or (gallery_[j, a] >= confidence and query[i, a] <= 1 - confidence)
                for a in range(m)
            )
            assert found.kept[i, j] == (not contradicts)
            if ids[0][i] == ids[1][j] and cams[0][i] != cams[1][j]:
                kept_true.append(not contradicts)
    assert found.fraction == pytest.approx(found.kept.mean())
    assert found.recall == pytest.approx(np.mean(kept_true) if kept_true else 0)


def test_prefilter_invalid_confidence_or_columns_raise():
    sides = evaluation.Labels([1], [1]), evaluation.Labels([1], [2])
    for confidence in (0.5, 1.1, float("nan")):
        with pytest.raises(InputError, match=r"`confidence` must be in \(0\.5, 1\]"):
            evaluation.prefilter((np.ones((1, 2)), np.ones((1, 2))), *sides, confidence=confidence)
    with pytest.raises(ValueError, match="mismatch"):
        evaluation.prefilter((np.ones((1, 2)), np.ones((1, 3))), *sides)


# --- Searches by description


NAMES = ["upred", "hat"]
ROWS = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.7], [0.0, 1.0]])


@pytest.mark.first(1)
@pytest.mark.parametrize("uri", ["memory:", "faiss:{}/g.faiss", "{}/people.db"])
def test_gallery_describe_orders_hits_by_fit(tmp_path, uri):
    if "faiss" in uri:
        pytest.importorskip("faiss")
    if uri.endswith(".db"):
        pytest.importorskip("milvus_lite")
    uri = uri.format(tmp_path)
    x = np.eye(4, 8, dtype=np.float32)
    with gallery.open(uri) as people:
        with pytest.raises(InputError, match=r"attribute of the gallery \(none\)"):
            people.describe({"hat": True})
        people.enrol(
            x,
            ["a", "b", "c", "d"],
            [1, 1, 2, 2],
            images=["1", "2", "3", "4"],
            model_fingerprint="m",
            attributes=ROWS,
            attribute_names=NAMES,
        )
        people.enrol(x[:1] + 1, ["e"], [1], images=["5"], model_fingerprint="m")
        if uri != "memory:":
            people.close()
    with gallery.open(uri) if uri != "memory:" else people_of_memory(x) as people:
        hits = people.describe({"hat": True, "upred": False}, top_k=3)
        assert [hit.identity for hit in hits] == ["d", "b", "c"]
        expected = [
            -np.mean(np.log([1, 1])),
            -np.mean(np.log([0.8, 0.8])),
            -np.mean(np.log([0.3, 0.7])),
        ]
        assert [hit.distance for hit in hits] == pytest.approx(expected, abs=1e-4)
        assert [h.identity for h in people.describe({"upred": True}, 9, gallery.Filter([1]))] == [
            "a",
            "b",
        ]
        assert people.attribute_names == NAMES
        people.remove("d")
        assert "d" not in [hit.identity for hit in people.describe({"hat": True})]
        for wanted, message in (({}, "got none"), ({"shoes": True}, "got shoes")):
            with pytest.raises(InputError, match=message):
                people.describe(wanted)
        with pytest.raises(InputError, match="`top_k` must be at least 1"):
            people.describe({"hat": True}, 0)
        more = {"images": ["9"], "model_fingerprint": "m"}
        for given, message in (
            ({"attributes": [[0.5, 0.5]]}, r"in the shape \(1, 0\)"),
            ({"attributes": [[0.5, 1.5]], "attribute_names": NAMES}, "must be probabilities"),
            (
                {"attributes": [[0.5]], "attribute_names": ["hat"]},
                "`attribute_names` must be",
            ),
        ):
            with pytest.raises(InputError, match=message):
                people.enrol(x[:1], ["f"], **more, **given)
        assert people.count() == 4


def people_of_memory(x):
    people = gallery.open("memory:")
    people.enrol(
        x,
        ["a", "b", "c", "d"],
        [1, 1, 2, 2],
        images=["1", "2", "3", "4"],
        model_fingerprint="m",
        attributes=ROWS,
        attribute_names=NAMES,
    )
    people.enrol(x[:1] + 1, ["e"], [1], images=["5"], model_fingerprint="m")
    return people
