"""Tracklets: grouping, reading, clip sampling, temporal pooling and set distances."""

from pathlib import Path

import keras
import numpy as np
import oracle_enhance
import oracle_reranking
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from keras_reid import data, evaluation, inference, layers, losses, models, reranking
from keras_reid.data import synthetic
from keras_reid.errors import InputError
from keras_reid.training import build, recipes

SIZE = (32, 16)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("tracklets") / "drawn"
    options = {"train_identities": 5, "test_identities": 3, "cameras": 3, "images_per_camera": 4}
    synthetic.generate(root, **options, distractors=4, size=SIZE)
    return root


def picture(file: Path, shade: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*SIZE, 3), shade, np.uint8)).save(file)
    return file


def files(images):
    """The paths of each tracklet."""
    return [images.path[rows].tolist() for rows in images.tracklet_rows]


def of(frames, identity, camera):
    """Images of tracklets, as lists of their frames."""
    number = np.repeat(np.arange(len(frames)), [len(f) for f in frames])
    identity, camera = (np.asarray(v)[number] for v in (identity, camera))
    paths = [path for part in frames for path in part]
    return data.PersonImages(paths, identity, camera, {data.TRACKLET: number})


def load(*arguments, **options):
    return data.tracklet_dataset(data.load(*arguments, **options))


def people(*names, identity, camera):
    count = len(names)
    return data.PersonImages(np.array(names), np.full(count, identity), np.full(count, camera))


# --- Grouping


def test_tracklets_group_by_identity_camera_and_sequence():
    names = [
        "0002_c1s1_000451_03.jpg",
        "0002_c1s1_000076_01.jpg",
        "0002_c1s2_000100_01.jpg",
        "0002_c1s1_000151_01.jpg",
    ]
    found = data.tracklets(people(*names, identity=2, camera=1))
    assert files(found) == [[names[1], names[3], names[0]], [names[2]]]
    parts = data.tracklets(people(*names, identity=2, camera=1), gap=200)
    assert [len(f) for f in files(parts)] == [2, 1, 1]
    mars = ["0001C1T0002F010.jpg", "0001C1T0001F001.jpg", "0001C1T0002F009.jpg"]
    found = data.tracklets(people(*mars, identity=1, camera=1))
    assert files(found) == [[mars[1]], [mars[2], mars[0]]]
    free = data.tracklets(people("b.png", "a.png", identity=1, camera=1))
    assert files(free)[0] == ["a.png", "b.png"]


def test_tracklet_dataset_stores_tracklets_as_columns(drawn):
    found = load("synthetic", drawn).train
    assert repr(found) == "PersonImages(60 images, 15 tracklets, 5 identities, 3 cameras)"
    each = found.per_tracklet()
    some = found[np.isin(found.columns[data.TRACKLET], each.columns[data.TRACKLET][[2, 0]])]
    assert some.per_tracklet().identity.tolist() == each.identity[[0, 2]].tolist()
    assert some.owner.tolist() == [0] * 4 + [1] * 4
    columns = zip(files(found), each.identity, each.camera, strict=True)
    for frames, identity, camera in columns:
        assert all(f"{identity:04d}_c{camera}" in name for name in frames)


def test_person_images_without_tracklet_column_has_tracklet_per_image():
    images = people("b", "a", identity=1, camera=1)
    assert not images.has_tracklets
    assert images.owner.tolist() == [0, 1]
    assert images.per_tracklet().path.tolist() == ["b", "a"]


def test_person_images_interleaved_tracklets_are_grouped():
    numbers = {data.TRACKLET: [7, 3, 7, 3]}
    images = data.PersonImages(["a", "b", "c", "d"], [2, 1, 2, 1], [1, 2, 1, 2], numbers)
    assert files(images) == [["b", "d"], ["a", "c"]]
    assert images.per_tracklet().identity.tolist() == [1, 2]
    for identity, camera, what in (([1, 2], [1, 1], "identity"), ([1, 1], [1, 2], "camera")):
        with pytest.raises(
            InputError, match=f"`{what}` must be the same .* got several in tracklet 5"
        ):
            data.PersonImages(["a", "b"], identity, camera, {data.TRACKLET: [5, 5]})


def test_load_csv_tracklet_column_groups_images(tmp_path):
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    table = tmp_path / "people.csv"
    table.write_text("path,identity,camera,tracklet\na.png,1,1,x\nb.png,1,1,y\nc.png,1,1,x\n")
    found = data.load("csv", table).train
    assert [[Path(f).name for f in part] for part in files(found)] == [
        ["a.png", "c.png"],
        ["b.png"],
    ]
    table.write_text("path,identity,camera,tracklet\na.png,1,1,x\nb.png,1,1,\n")
    with pytest.raises(
        InputError, match=r"tracklet in all lines or in none, got no tracklet in line 3"
    ):
        data.load("csv", table)


def test_tracklet_dataset_queries_are_first_per_camera_and_in_gallery(drawn):
    dataset = load("synthetic", drawn)
    query, whole = dataset.query.per_tracklet(), dataset.gallery.per_tracklet()
    pairs = list(zip(query.identity.tolist(), query.camera.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs) == 9
    assert 0 not in query.identity
    assert 0 in whole.identity
    held = {tuple(f) for f in files(dataset.gallery)}
    assert all(tuple(f) in held for f in files(dataset.query))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: data.tracklets(data.PersonImages(np.array(["a"]), np.array([1]), None)), "camera"),
        (
            lambda: data.tracklets(people("a", identity=1, camera=1), gap=0),
            "`gap` must be at least 1",
        ),
        (
            lambda: data.tracklets(people(identity=1, camera=1)),
            "`images` must be at least 1",
        ),
        (
            lambda: data.pk_clips(people("a", identity=1, camera=1)),
            "images of tracklets, got P",
        ),
        (lambda: load("marsh", "."), "`dataset` must be one of"),
    ],
)
def test_tracklets_invalid_input_raises(build, message):
    with pytest.raises(InputError, match=message):
        build()


# --- Layouts


def test_load_mars_by_names_or_tables_returns_tracklets(tmp_path):
    root = tmp_path / "MARS"
    tracks = {
        "bbox_train": [(1, 1, 1, 3), (1, 2, 1, 2)],
        "bbox_test": [(0, 1, 1, 2), (3, 1, 1, 2), (3, 2, 1, 2), (3, 2, 2, 2)],
    }
    names, rows = {}, {}
    for part, found in tracks.items():
        names[part], rows[part] = [], []
        for identity, camera, track, count in found:
            first = len(names[part]) + 1
            for frame in range(1, count + 1):
                name = f"{identity:04d}C{camera}T{track:04d}F{frame:03d}.jpg"
                picture(root / part / f"{identity:04d}" / name)
                names[part].append(name)
            rows[part].append((first, len(names[part]), identity, camera))
    picture(root / "bbox_test/00-1/00-1C1T0001F001.jpg")
    by_name = load("mars", tmp_path)
    assert [len(f) for f in files(by_name.train)] == [3, 2]
    assert by_name.gallery.per_tracklet().identity.tolist() == [0, 3, 3, 3]  # without junk
    query = by_name.query.per_tracklet()
    assert list(zip(query.identity, query.camera, strict=True)) == [(3, 1), (3, 2)]
    info = root / "info"
    info.mkdir()
    for part, short in (("bbox_train", "train"), ("bbox_test", "test")):
        (info / f"{short}_name.txt").write_text("\n".join(names[part]))
        savemat(info / f"tracks_{short}_info.mat", {f"track_{short}_info": np.array(rows[part])})
    savemat(info / "query_IDX.mat", {"query_IDX": np.array([[2, 4]])})
    by_table = load("mars", root)
    assert by_table.gallery.per_tracklet().identity.tolist() == [0, 3, 3, 3]
    assert [f[0][-8:] for f in files(by_table.query)] == ["F001.jpg"] * 2
    assert "T0002" in files(by_table.query)[1][0]
    (root / "bbox_test/0003/0003C1T0001F001.jpg").unlink()
    with pytest.raises(InputError, match=r"must name existing files, got .*0003C1T0001F001\.jpg"):
        load("mars", root)


def test_load_video_layouts_return_tracklets(tmp_path):
    duke = tmp_path / "DukeMTMC-VideoReID"
    for part, identity in (("train", 1), ("query", 2), ("gallery", 2)):
        for track in (1, 2):
            for frame in (1, 2):
                name = f"{identity:04d}C{track}F{frame:04d}X{frame}.jpg"
                picture(duke / part / f"{identity:04d}" / f"{track:04d}" / name)
    found = load("dukemtmc-videoreid", tmp_path)
    assert [len(files(part)) for part in found.parts().values()] == [2, 2, 2]
    assert found.train.per_tracklet().camera.tolist() == [1, 2]
    ilids, prid = tmp_path / "i-LIDS-VID/sequences", tmp_path / "prid/multi_shot"
    for person in range(1, 7):
        for camera in (1, 2):
            for frame in range(person):
                name = f"cam{camera}_person{person:03d}_{frame:05d}.png"
                picture(ilids / f"cam{camera}/person{person:03d}" / name)
                side = prid / f"cam_{'ab'[camera - 1]}"
                picture(side / f"person_{person:04d}/{frame + 1:04d}.png")
    found = load("ilids-vid", tmp_path)
    assert [len(files(part)) for part in found.parts().values()] == [6, 3, 3]
    assert not set(found.train.identity) & set(found.query.identity)
    other = load("ilids-vid", tmp_path, seed=5)
    assert set(other.query.identity) != set(found.query.identity)
    found = load("prid2011-video", tmp_path / "prid", least=3)
    assert set(found.train.identity) | set(found.query.identity) == {3, 4, 5, 6}
    with pytest.raises(
        InputError, match="at least two persons with 21 frames in both cameras, got "
    ):
        load("prid2011-video", tmp_path / "prid")
    picture(duke / "train/0001/0001/what.jpg").rename(duke / "train/0001/0001/+what.jpg")
    with pytest.raises(InputError, match="names such as 0001C6"):
        load("dukemtmc-videoreid", tmp_path)


def test_cut_tracklets_from_frames_returns_crops(tmp_path):
    for number in range(1, 4):
        frame = np.zeros((40, 60, 3), np.uint8)
        frame[5:25, 10 * number : 10 * number + 8] = 200
        (tmp_path / "frames").mkdir(exist_ok=True)
        Image.fromarray(frame).save(tmp_path / f"frames/{number:03d}.png")
    lines = [f"{n},7,{10 * n + 1},6,8,20,1,-1,-1,-1" for n in range(1, 4)]
    (tmp_path / "gt.txt").write_text("\n".join([*lines, "2,9,1,1,5,5,0,-1,-1,-1"]))
    found = data.cut_tracklets(tmp_path / "frames", tmp_path / "gt.txt", tmp_path / "cut", camera=3)
    each = found.per_tracklet()
    assert (each.identity.tolist(), each.camera.tolist()) == ([7], [3])
    for file in found.path:
        pixels = np.asarray(Image.open(file))
        assert pixels.shape == (20, 8, 3)
        assert pixels.mean() > 190
    assert files(data.tracklets(found.without(data.TRACKLET))) == files(found)
    with pytest.raises(InputError, match="new or empty folder"):
        data.cut_tracklets(tmp_path / "frames", tmp_path / "gt.txt", tmp_path / "cut")
    (tmp_path / "det.txt").write_text("1,-1,1,1,5,5,1")
    with pytest.raises(InputError, match="Track the detections first"):
        data.cut_tracklets(tmp_path / "frames", tmp_path / "det.txt", tmp_path / "other")
    assert not (tmp_path / "other").exists()
    for name, message in (("nothing", "got neither"), ("det.txt", "OpenCV")):
        with pytest.raises(InputError, match=message):
            list(data.Video(tmp_path / name))


# --- Clips


@pytest.fixture(scope="module")
def shades(tmp_path_factory):
    """Tracklets of 1, 3, 4 and 9 frames; frame i of tracklet t is all of the shade 20 t + i."""
    root = tmp_path_factory.mktemp("shades")
    sizes = (1, 3, 4, 9)
    frames = [
        [str(picture(root / f"{t}_{i}.png", 20 * t + i)) for i in range(size)]
        for t, size in enumerate(sizes)
    ]
    return of(frames, [5, 5, 8, 8], [1, 2, 1, 2])


def test_clip_batches_epoch_contains_every_frame_once(shades):
    seen: dict[int, list[int]] = {t: [] for t in range(4)}
    masks = []
    for batch in data.clip_batches(shades, frames=4, batch_size=2, image_size=SIZE):
        assert batch["clips"].shape[1:] == (4, *SIZE, 3)
        for clip, mask in zip(batch["clips"].numpy(), batch["mask"].numpy(), strict=True):
            masks.append(mask.sum())
            for shade in clip[mask][:, 0, 0, 0].tolist():
                seen[shade // 20].append(shade % 20)
    assert seen == {0: [0], 1: [0, 1, 2], 2: [0, 1, 2, 3], 3: list(range(9))}
    assert masks == [1, 3, 4, 4, 4, 1]


@pytest.mark.parametrize("frames", [3, 5])
def test_pk_clips_sample_frame_per_segment(shades, frames):
    same = {
        "num_identities_per_batch": 2,
        "num_instances": 2,
        "image_size": SIZE,
        "augment": "none",
    }
    drawn: set[tuple[int, ...]] = set()
    for batch, labels in data.pk_clips(shades, frames=frames, **same).take(40):
        shade = batch["clips"].numpy()[:, :, 0, 0, 0].astype(int)
        assert batch["mask"].numpy().all()  # nothing is padded where it trains
        np.testing.assert_array_equal(
            labels["frame_identity"], np.repeat(labels["identity"], frames)
        )
        for clip, identity in zip(shade, labels["identity"].numpy(), strict=True):
            (t,) = set(clip // 20)
            place, size = clip % 20, len(files(shades)[t])
            assert shades.per_tracklet().classes()[1][t] == identity
            if size >= frames:
                for i, p in enumerate(place):
                    assert i * size / frames - 1 < p < (i + 1) * size / frames
                drawn.add((t, *place))
            else:
                assert (place == np.arange(frames) % size).all()  # round again
    assert len({d for d in drawn if d[0] == 3}) > 10


def test_pk_clips_same_seed_repeats_and_first_epoch_continues(shades):
    options = {"num_identities_per_batch": 2, "num_instances": 2, "frames": 2, "image_size": SIZE}
    steps = data.pk_steps(shades.per_tracklet(), 2, 2)
    first = list(data.pk_clips(shades, **options, seed=3).take(2 * steps))
    later = list(data.pk_clips(shades, **options, seed=3, first_epoch=1).take(steps))
    for (a, x), (b, y) in zip(first[steps:], later, strict=True):
        np.testing.assert_array_equal(a["clips"], b["clips"])
        np.testing.assert_array_equal(x["identity"], y["identity"])
    cached = data.pk_clips(shades, **options, seed=3, cache="memory").take(1)
    np.testing.assert_array_equal(next(iter(cached))[0]["clips"], first[0][0]["clips"])


def test_readable_tracklet_of_broken_frames_is_dropped(shades, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"")
    frames = [*(files(shades) * 8), [str(tmp_path / "broken.png")]]
    found = data.readable(of(frames, [1] * len(frames), [1] * len(frames)))
    assert len(found.per_tracklet()) == len(frames) - 1
    assert found.checked


def test_pk_clips_camera_balanced_without_cameras_raises(shades):
    without = data.PersonImages(shades.path, shades.identity, None, shades.columns)
    with pytest.raises(InputError, match=r"with cameras, got .*no cameras\)\. Leave"):
        data.pk_clips(
            without,
            num_identities_per_batch=2,
            num_instances=2,
            image_size=SIZE,
            camera_balanced=True,
        )
    (_, labels), *_ = data.pk_clips(
        without, num_identities_per_batch=2, num_instances=2, image_size=SIZE
    ).take(1)
    assert "camera" not in labels


@pytest.mark.parametrize("arguments", [{"frames": 0}, {"batch_size": 0}])
def test_clip_batches_invalid_arguments_raises(shades, arguments):
    with pytest.raises(InputError, match=r"`(frames|batch_size)` must be at least 1"):
        data.clip_batches(shades, **arguments)


# --- Pooling


def clip_model(temporal):
    keras.utils.set_random_seed(0)
    model = models.build_tracklet("tiny", 4, SIZE, temporal=temporal, weights="none")
    rng = np.random.default_rng(0)
    clips = rng.integers(0, 256, (4, 5, *SIZE, 3), dtype=np.uint8)
    for _ in range(3):
        model({"clips": clips, "mask": np.ones((4, 5), bool)}, training=True)
    return model, clips


@pytest.mark.first(2)
@pytest.mark.parametrize("temporal", layers.TEMPORAL)
def test_build_tracklet_padded_frames_do_not_change_outputs(temporal):
    model, clips = clip_model(temporal)
    mask = np.ones((4, 5), bool)
    mask[0, 2:], mask[1, 4:], mask[2, 1] = False, False, False
    other = np.where(mask[..., None, None, None], clips, 255 - clips)
    expected = model({"clips": clips, "mask": mask})
    got = model({"clips": other, "mask": mask})
    short = model({"clips": clips[:1, :2], "mask": mask[:1, :2]})
    of_frames = [name for name in expected if name.startswith("frame_")]
    for name in set(expected) - set(of_frames):
        np.testing.assert_array_equal(got[name], expected[name])
        np.testing.assert_allclose(short[name], expected[name][:1], rtol=1e-4, atol=1e-5)
    for name in of_frames:
        there = mask.ravel()
        np.testing.assert_array_equal(got[name][there], expected[name][there])


def test_build_tracklet_frames_have_features_and_logits():
    """Frames have the features of the images; a clip has their mean."""
    model, clips = clip_model("mean")
    given = {"clips": clips, "mask": np.ones((4, 5), bool)}
    outputs = model(given)
    assert outputs["frame_features"].shape == (20, 128)
    assert outputs["frame_logits"].shape == (20, 4)
    mean = np.asarray(outputs["frame_features"]).reshape(4, 5, -1).mean(1)
    np.testing.assert_allclose(mean, outputs["features"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_build_losses_frame_weight_adds_frame_losses(weight):
    recipe = recipes.get("tracklets").replace(backbone="tiny", weights="none", frame_weight=weight)
    arguments = build.build_losses(recipe)
    assert set(arguments["loss"]) == {"logits", "features"} | (
        {"frame_logits", "frame_features"} if weight else set()
    )
    if weight:
        assert arguments["loss_weights"]["frame_logits"] == [weight * recipe.identity_weight]
        model, clips = clip_model("mean")
        inputs = {"clips": clips, "mask": np.ones((4, 5), bool)}
        outputs = model(inputs)
        labels = {"identity": np.arange(4) // 2, "frame_identity": np.repeat(np.arange(4) // 2, 5)}
        model.compile("sgd", **arguments)
        values = model.test_on_batch(inputs, labels, return_dict=True)
        alone = losses.IdentityLoss(0.1)(labels["frame_identity"], outputs["frame_logits"])
        assert values["frame_logits_identity"] == pytest.approx(float(alone), rel=1e-5)


@pytest.mark.first(2)
@pytest.mark.parametrize("temporal", layers.TEMPORAL)
def test_build_tracklet_shuffled_frames_change_only_recurrent_features(temporal):
    model, clips = clip_model(temporal)
    mask = np.ones((4, 5), bool)
    mask[:, 4] = False
    order = np.array([3, 0, 4, 2, 1])
    expected = model({"clips": clips, "mask": mask})["features"].numpy()
    got = model({"clips": clips[:, order], "mask": mask[:, order]})["features"].numpy()
    same = np.allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert same == (temporal != "recurrent")


def test_temporal_attention_published_vector_is_reproduced():
    layer = layers.TemporalAttention(width=2)
    x = np.eye(2, dtype="float32")[None]
    layer([x, np.ones((1, 2))])
    layer.set_weights([np.eye(2), np.zeros(2), np.array([[[np.log(3.0)], [0.0]]]), np.zeros(1)])
    np.testing.assert_allclose(layer([x, np.ones((1, 2))]), [[0.75, 0.25]], rtol=1e-6)


def test_temporal_attention_context_depends_on_frame_order():
    keras.utils.set_random_seed(0)  # with other weights all frames may have the same score
    layer = layers.TemporalAttention(width=3, context=3)
    x = np.random.default_rng(0).normal(size=(1, 4, 3)).astype("float32")
    mask = np.ones((1, 4))
    before = np.asarray(layer([x, mask]))
    assert not np.allclose(before, layer([x[:, [1, 0, 3, 2]], mask]), atol=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: layers.TemporalAttention(context=2), "`context` must be odd"),
        (
            lambda: models.build_tracklet("tiny", 2, SIZE, temporal="median"),
            "must be one of mean",
        ),
        (lambda: models.build_tracklet("tiny", 0, SIZE), "`num_identities` must be at least 1"),
    ],
)
def test_temporal_layers_invalid_arguments_raises(build, message):
    with pytest.raises(InputError, match=message):
        build()


def test_embedder_tracklet_is_mean_of_its_clips(shades):
    model, _ = clip_model("mean")
    embed = inference.load(model)
    got = embed.embed(shades, batch_size=8, frames=4)
    for t in range(4):
        own = [embed([b]) for b in data.clip_batches(shades[shades.owner == t], 4, 1, SIZE)]
        mean = np.concatenate(own).mean(axis=0)
        np.testing.assert_allclose(got[t], mean / np.linalg.norm(mean), atol=1e-5)
    keras.utils.set_random_seed(1)
    image_model = inference.load(models.build("tiny", 4, SIZE, weights="none"))
    frames = image_model(data.image_batches(shades, 8, SIZE))
    pooled = image_model.embed(shades)
    mean = frames[shades.owner == 3].mean(axis=0)
    np.testing.assert_allclose(pooled[3], mean / np.linalg.norm(mean), atol=1e-5)
    with pytest.raises(InputError, match="with the columns tracklet for"):
        embed.embed(shades.without(data.TRACKLET))


# --- Set distances


def test_set_distances_published_vectors_are_reproduced():
    a, b = np.array([[0.0], [2.0]]), np.array([[3.0], [7.0]])
    got = {
        kind: evaluation.set_distances([a], [b], kind).item() for kind in evaluation.SET_DISTANCES
    }
    assert got == pytest.approx({"min": 1, "mean": 4, "hausdorff": 5, "mean_min": 2.5})


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), kind=st.sampled_from(sorted(evaluation.SET_DISTANCES)))
def test_set_distances_match_loops(seed, kind):
    rng = np.random.default_rng(seed)
    query, gallery = (
        [rng.normal(size=(int(rng.integers(1, 5)), 3)) for _ in range(int(rng.integers(1, 5)))]
        for _ in range(2)
    )
    got = evaluation.set_distances(query, gallery, kind)
    expected = [[oracle_enhance.set_distance(a, b, kind) for b in gallery] for a in query]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(evaluation.set_distances(gallery, query, kind), got.T, atol=1e-5)
    own = evaluation.set_distances(query, None, kind)
    np.testing.assert_allclose(own, evaluation.set_distances(query, query, kind), atol=1e-6)


def test_set_distances_invalid_sets_raises():
    one = [np.zeros((1, 2))]
    for query, gallery, kind, message in (
        (one, one, "median", "`kind` must be one of"),
        ([], one, "min", "`query` must be sets .* got 0 sets"),
        (one, [np.zeros((0, 2))], "min", "1 of them empty"),
        (one, [np.zeros((1, 3))], "min", "mismatch|broadcast"),
        ([np.full((1, 2), np.nan)], one, "min", "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluation.set_distances(query, gallery, kind)


def test_set_distances_ranked_and_reranked_match_oracle():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(6, 8))
    sets = [centers[i] + 0.3 * rng.normal(size=(4, 8)) for i in range(6) for _ in range(4)]
    ids, cams = np.repeat(np.arange(1, 7), 4), np.tile([1, 1, 2, 2], 6)
    rows = np.flatnonzero(np.arange(24) % 2 == 0)
    query = [sets[i] for i in rows]
    distances = evaluation.set_distances(query, sets, "mean_min")
    labels = evaluation.Labels(ids[rows], cams[rows]), evaluation.Labels(ids, cams)
    result = evaluation.rank(distances, *labels, "mars")
    # A query's own tracklet is in its camera, and so left out.
    assert result.protocol.valid_queries == 12
    assert result.mAP > 0.9
    qq, gg = (evaluation.set_distances(s, None, "mean_min") for s in (query, sets))
    again = reranking.k_reciprocal_from_distances(qq, distances, gg, k1=4, k2=2).numpy()
    by_name = evaluation.compare(query, sets, "mean_min", "k_reciprocal", k1=4, k2=2)
    np.testing.assert_array_equal(by_name.matrix(), again)
    whole = np.block([[qq, distances], [distances.T, gg]]).astype(np.float64) ** 2
    np.fill_diagonal(whole, 0)
    expected = oracle_reranking.k_reciprocal_of(whole, len(query), 4, 2)
    np.testing.assert_allclose(again, expected, atol=1e-5)
    reranked = evaluation.rank(again, *labels, "mars")
    assert reranked.mAP >= result.mAP
