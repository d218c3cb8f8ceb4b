"""Keypoints: tables, estimators, augmentation, pose pooling and the visible distance."""

import csv

import keras
import numpy as np
import oracle_enhance
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_reid import data, distances, evaluation, inference, layers, models, skeletons
from keras_reid.data import augment, keypoints, synthetic
from keras_reid.errors import InputError
from keras_reid.models import heads

SIZE = (32, 16)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("pose") / "drawn"
    synthetic.generate(root, train_identities=6, test_identities=3, size=(64, 32))
    return root


def annotated(root, part="train"):
    images = getattr(data.load("synthetic", str(root)), part)
    return data.read_keypoints(images, root / "keypoints.csv")


# --- Skeletons


def test_skeletons_share_thirteen_parts():
    for skeleton in skeletons.SKELETONS.values():
        groups = skeleton.groups
        assert len(groups) == 13
        assert sorted(i for group in groups for i in group) == list(range(len(skeleton.names)))
        mirror = skeleton.mirror
        assert [mirror[i] for i in mirror] == list(range(len(mirror)))
        assert mirror[skeleton.names.index("left_knee")] == skeleton.names.index("right_knee")
    head = {skeletons.COCO.names[i] for i in skeletons.COCO.groups[0]}
    assert head == {"nose", "left_eye", "right_eye", "left_ear", "right_ear"}
    with pytest.raises(InputError, match=r"15 or 17 points.* got shape \(2, 4, 3\)"):
        skeletons.skeleton_of(np.zeros((2, 4, 3)))


# --- Tables


def test_read_keypoints_synthetic_matches_drawing(drawn):
    images = annotated(drawn)
    points = images.columns["keypoints"]
    assert points.shape == (len(images), 17, 3)
    _, expected = synthetic.render(1, 1, 0, size=(64, 32))
    row = [path.endswith("0001_c1s1_000000_00.jpg") for path in images.path.tolist()].index(True)
    np.testing.assert_allclose(points[row], expected, atol=2e-3)
    # Ankles hang below knees, knees below hips.
    down = {name: points[:, i, 1] for i, name in enumerate(skeletons.COCO.names)}
    assert (down["left_ankle"] > down["left_hip"]).all()
    assert (down["right_hip"] > down["nose"]).all()


def test_read_keypoints_row_matches_path_suffix(drawn, tmp_path):
    images = data.load("synthetic", str(drawn)).train[:2]
    names = [path.rsplit("/", 1)[-1] for path in images.path.tolist()]
    header = ["file", *(f"{name}_{axis}" for name in skeletons.MARKET.names for axis in "xy")]
    table = tmp_path / "points.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerow([names[0], *[3.5, 31.5] * 15])
    found = data.read_keypoints(images, table).columns["keypoints"]
    # The center of a pixel is half a pixel from its edge: 3.5 + 0.5 of 32, 31.5 + 0.5 of 64.
    np.testing.assert_allclose(found[0], [[4 / 32, 0.5, 1]] * 15)
    assert (found[1] == 0).all()
    with pytest.raises(InputError, match="got no row for"):
        data.read_keypoints(images[1:], table)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got none. 'file' is missing"),
        ("file,nose_x\n", "NAME_x and NAME_y"),
        (None, "No such file"),
    ],
)
def test_read_keypoints_invalid_table_raises(drawn, tmp_path, text, message):
    table = tmp_path / "t.csv"
    if text is not None:
        table.write_text(text)
    with pytest.raises(InputError, match=message):
        data.read_keypoints(data.load("synthetic", str(drawn)).train, table)


@pytest.mark.parametrize("cell", ["a", "nan", "inf"])
def test_read_keypoints_invalid_number_raises_with_line(drawn, tmp_path, cell):
    lines = (drawn / "keypoints.csv").read_text().splitlines()
    words = lines[2].split(",")
    words[1] = cell
    (tmp_path / "t.csv").write_text("\n".join([*lines[:2], ",".join(words)]))
    with pytest.raises(InputError, match="line 3` must have numbers"):
        data.read_keypoints(data.load("synthetic", str(drawn)).train, tmp_path / "t.csv")


class Middle:
    """Finds all points in the middle, and counts how often it is asked."""

    skeleton = skeletons.COCO

    def __init__(self, stop_at=None):
        self.calls, self.stop_at = 0, stop_at

    def __call__(self, images):
        self.calls += len(images)
        if self.stop_at is not None and self.calls > self.stop_at:
            raise KeyboardInterrupt
        return np.full((len(images), 17, 3), [0.5, 0.25, 0.75], np.float32)


def test_estimate_keypoints_interrupted_run_resumes(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(keypoints, "SAVED_EVERY", 5)
    images = data.load("synthetic", str(drawn)).train
    table = tmp_path / "points.csv"
    with pytest.raises(KeyboardInterrupt):
        data.estimate_keypoints(images, Middle(stop_at=12), table)
    assert len(table.read_text().splitlines()) == 11
    told = []
    again = Middle()
    found = data.estimate_keypoints(images, again, table, lambda *at: told.append(at))
    assert again.calls == len(images) - 10
    assert told[-1] == (len(images) - 10, len(images) - 10)
    np.testing.assert_allclose(found.columns["keypoints"][..., 2], 0.75)
    np.testing.assert_allclose(found.columns["keypoints"][..., 0], 0.5, atol=1e-3)
    third = Middle()
    same = data.estimate_keypoints(images, third, table)
    assert third.calls == 0
    np.testing.assert_array_equal(same.columns["keypoints"], found.columns["keypoints"])
    assert [p.name for p in tmp_path.iterdir()] == ["points.csv"]
    read = data.read_keypoints(images, table)
    np.testing.assert_array_equal(read.columns["keypoints"], found.columns["keypoints"])


def test_annotated_accepts_table_and_rejects_invalid_source(drawn, tmp_path):
    images = data.load("synthetic", str(drawn)).train
    assert "keypoints" in data.annotated(images, str(drawn / "keypoints.csv")).columns
    for source, message in (
        ("openpose", "`keypoints` must be movenet:FILE.tflite, got"),
        ("movenet:", "`keypoints` must be movenet:FILE.tflite, got"),
        (f"movenet:{tmp_path}/none.tflite", "must be MoveNet for LiteRT, got 'Could not open"),
    ):
        with pytest.raises(InputError, match=message):
            data.annotated(images, source, tmp_path / "c.csv")
    pytest.importorskip("ai_edge_litert")
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"no model")
    with pytest.raises(InputError, match="must be MoveNet for LiteRT"):
        data.annotated(images, f"movenet:{broken}", tmp_path / "c.csv")


@pytest.mark.real
def test_movenet_real_images_is_near_marked_joints(real_data, tmp_path):
    """Half of the joints within a tenth of the height of the image, of 64 real images."""
    pytest.importorskip("ai_edge_litert")
    root = real_data / "data/market1501-mini"
    images = data.load("market1501", str(root)).train[::150]
    marked = data.read_keypoints(images, real_data / "data/market1501-keypoints.csv")
    source = f"movenet:{real_data}/weights/movenet_single_pose_lightning_ptq.tflite"
    found = data.annotated(images, source, tmp_path / "movenet.csv")
    names = [n for n in skeletons.PARTS if n != "head"]
    a, b = (
        images.columns["keypoints"][:, [skeleton.names.index(n) for n in names], :2]
        for images, skeleton in ((marked, skeletons.MARKET), (found, skeletons.COCO))
    )
    apart = np.linalg.norm((a - b) * (0.5, 1), axis=-1)  # in heights
    assert np.median(apart) < 0.1


# --- Augmentation


@pytest.mark.parametrize("name", ["none", "flip", "default"])
def test_with_keypoints_augmentation_moves_points_with_pixels(name):
    """A painted pixel is found where its point went, or is gone, and with it the confidence."""
    rng = np.random.default_rng(0)
    count, (h, w) = 300, SIZE
    images = np.zeros((count, h, w, 3), np.uint8)
    points = np.zeros((count, 17, 3), np.float32)
    rows, columns = rng.integers(0, h, count), rng.integers(0, w, count)
    images[np.arange(count), rows, columns] = (7, 255, 7)  # of no erased box
    left = skeletons.COCO.names.index("left_hip")
    points[:, left] = np.stack([(columns + 0.5) / w, (rows + 0.5) / h, np.ones(count)], axis=1)
    change = augment.with_keypoints(name, skeletons.COCO.mirror)
    seed = tf.constant([3, 4], tf.int64)
    changed, moved = (x.numpy() for x in change(tf.constant(images), tf.constant(points), seed))
    np.testing.assert_array_equal(changed, augment.augmentation(name)(tf.constant(images), seed))
    at_left, at_right = moved[:, left], moved[:, skeletons.COCO.names.index("right_hip")]
    mirrored = 0
    for i in range(count):
        where = np.argwhere((changed[i] == (7, 255, 7)).all(-1))
        seen = [p for p in (at_left[i], at_right[i]) if p[2] > 0]
        assert len(seen) == len(where)
        if seen:
            y, x = where[0]
            np.testing.assert_allclose(seen[0][:2], [(x + 0.5) / w, (y + 0.5) / h], atol=1e-5)
            mirrored += at_right[i][2] > 0
    assert (mirrored > 50) == (name != "none")


def test_pk_batches_keypoints_with_unsupported_augment_raises(drawn):
    images = annotated(drawn)
    with pytest.raises(InputError, match=r"none, flip, crop, default.*'randaugment'"):
        data.pk_batches(images, 2, 2, SIZE, augment="randaugment")
    with pytest.raises(InputError, match="none, flip, crop, default"):
        data.pk_batches(images, 2, 2, SIZE, augment=lambda images, seed: images)


def test_batches_with_keypoints_carry_matching_points(drawn):
    images = annotated(drawn)
    for inputs, labels in data.pk_batches(images, 3, 2, SIZE, augment="none").take(2):
        assert inputs["images"].shape == (6, *SIZE, 3)
        assert set(labels) == {"identity", "camera"}
        of = {round(float(p.sum()), 3): i for i, p in enumerate(images.columns["keypoints"])}
        for points, identity in zip(inputs["keypoints"].numpy(), labels["identity"], strict=True):
            row = of[round(float(points.sum()), 3)]
            assert images.classes()[1][row] == identity
    batches = list(data.image_batches(images, 16, SIZE))
    joined = np.concatenate([batch["keypoints"] for batch in batches])
    np.testing.assert_array_equal(joined, images.columns["keypoints"])
    assert "keypoints" in images[3:5].columns
    assert images[[7]].columns["keypoints"].shape == (1, 17, 3)


@pytest.mark.parametrize("column", [{"camera": [1]}, {"keypoints": np.zeros((2, 17, 3))}])
def test_with_columns_length_mismatch_raises(drawn, column):
    images = data.load("synthetic", str(drawn)).train
    with pytest.raises(InputError, match=r"one entry per image|other columns than path"):
        images.with_columns(**column)


# --- Pooling, embedding, comparing


def test_mirrored_twice_restores_inputs():
    rng = np.random.default_rng(1)
    for count in (15, 17):
        inputs = {
            "images": rng.integers(0, 256, (2, *SIZE, 3), dtype=np.uint8),
            "keypoints": rng.uniform(size=(2, count, 3)).astype("float32"),
        }
        once = models.mirrored(inputs)
        twice = models.mirrored(once)
        np.testing.assert_array_equal(twice["images"], inputs["images"])
        np.testing.assert_allclose(twice["keypoints"], inputs["keypoints"], atol=1e-6)
        left, right = (
            skeletons.SKELETONS[count].names.index(f"{side}_wrist") for side in ("left", "right")
        )
        np.testing.assert_allclose(
            once["keypoints"][:, left, 0], 1 - inputs["keypoints"][:, right, 0], atol=1e-6
        )


def test_embedder_flip_mirrored_inputs_gives_same_embedding(drawn):
    keras.utils.set_random_seed(0)
    model = models.build("tiny", 4, SIZE, weights="none", heads=[heads.PoseHead(17, 8)])
    (inputs,) = data.image_batches(annotated(drawn), 100, SIZE)
    for _ in range(5):
        model(inputs, training=True)
    names = ("embedding", "parts", "visibility", "global")
    embed = inference.load(model, flip=True, outputs=names)
    one, other = embed([inputs]), embed([models.mirrored(inputs)])
    for name in names:
        np.testing.assert_allclose(one[name], other[name], atol=1e-5)
    alone = inference.load(model, outputs=names)([inputs])
    np.testing.assert_allclose(alone["visibility"].sum(1), 1, atol=1e-5)
    assert not np.allclose(alone["embedding"], one["embedding"], atol=1e-3)


@pytest.mark.nightly
def test_ensemble_of_pose_models_concatenates_embeddings(drawn):
    keras.utils.set_random_seed(0)
    members = [
        models.build("tiny", 4, SIZE, weights="none", heads=[heads.PoseHead(17, 8)])
        for _ in range(2)
    ]
    (inputs,) = data.image_batches(annotated(drawn)[:6], 6, SIZE)
    joint = inference.load(models.ensemble(members))([inputs])
    parts = [inference.load(member)([inputs]) for member in members]
    np.testing.assert_allclose(joint, np.concatenate(parts, axis=1) / np.sqrt(2), atol=1e-5)
    other = models.build("tiny", 4, SIZE, weights="none", heads=[heads.PoseHead(15, 8)])
    with pytest.raises(InputError, match="must be models for one image size"):
        models.ensemble([*members, other])


def test_visible_parts_inner_product_weights_shared_visibility():
    rng = np.random.default_rng(2)
    whole, parts = rng.normal(size=(4, 6)), rng.normal(size=(4, 3, 5))
    seen = rng.uniform(size=(4, 3)) * [[1, 1, 0], [1, 1, 1], [0, 0, 0], [0, 0, 1]]
    vectors = np.asarray(layers.VisibleParts()([x.astype("float32") for x in (whole, parts, seen)]))
    for i in range(4):
        for j in range(4):
            expected = oracle_enhance.unit(whole[i]) @ oracle_enhance.unit(whole[j])
            for p in range(3):
                cosine = oracle_enhance.unit(parts[i, p]) @ oracle_enhance.unit(parts[j, p])
                expected += np.sqrt(seen[i, p] * seen[j, p]) * cosine
            assert vectors[i] @ vectors[j] == pytest.approx(expected, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([0.01, 1.0, 100.0]))
def test_visible_distance_matches_oracle(seed, scale):
    rng = np.random.default_rng(seed)
    n, m = rng.integers(1, 6, size=2)
    parts, others = (scale * rng.normal(size=(k, 4, 3)).astype("float32") for k in (n, m))
    seen, also = ((rng.uniform(size=(k, 4)) * rng.integers(0, 2, (k, 4))) for k in (n, m))
    whole = rng.uniform(size=(n, m)).astype("float32")
    expected = oracle_enhance.visible(parts, seen, others, also, whole)
    seen, also = seen.astype("float32"), also.astype("float32")
    got = distances.visible(parts, seen, others, also, whole)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * scale)


def test_evaluation_visible_distance_matches_distance_function():
    rng = np.random.default_rng(3)

    def side(n):
        seen = rng.uniform(size=(n, 13)) * rng.integers(0, 2, (n, 13))
        seen[0] = 0
        return {
            "global": rng.normal(size=(n, 8)).astype("float32"),
            "parts": rng.normal(size=(n, 13, 4)).astype("float32"),
            "visibility": seen.astype("float32"),
        }

    query, gallery = side(5), side(30)
    got = evaluation.matrix(query, gallery, "visible")
    unit = [
        {k: distances.unit(v) for k, v in s.items() if k != "visibility"} for s in (query, gallery)
    ]
    whole = distances.euclidean(unit[0]["global"], unit[1]["global"])
    expected = distances.visible(
        unit[0]["parts"], query["visibility"], unit[1]["parts"], gallery["visibility"], whole
    )
    np.testing.assert_allclose(got, expected, atol=1e-5)
    np.testing.assert_allclose(got[0], np.asarray(whole)[0], atol=1e-5)  # nothing is seen
    ids = np.arange(30) % 5
    labels = evaluation.Labels(np.arange(5)), evaluation.Labels(ids)
    result = evaluation.rank(evaluation.compare(query, gallery, "visible"), *labels, "no-camera")
    assert result.protocol.distance == "visible"
    with pytest.raises(InputError, match="`query features` must be a 2-D array"):
        evaluation.compare(query["parts"], gallery["parts"], "visible")


def test_pose_components_invalid_arguments_raises():
    a, v, w = np.zeros((2, 3, 4)), np.zeros((2, 3)), np.zeros((2, 2))
    for arguments, name in (
        ((a, v, a, v[:, :2], w), "other_visibility"),
        ((a, v, a[..., :2], v, w), "other_parts"),
        ((a[0], v, a, v, w), "parts"),
    ):
        with pytest.raises(InputError, match=f"`{name}` must be of shape"):
            distances.visible(*arguments)
    for build, message in (
        (lambda: heads.PoseHead(16), "`keypoints` must be one of 15, 17, got 16"),
        (lambda: heads.PoseHead(17, 0), "`width` must be at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            build()
