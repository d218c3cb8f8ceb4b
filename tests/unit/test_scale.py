"""Sharded embedding: complete after kills, and equal to embedding in memory."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keras_reid import data, evaluation, inference, models, scale, serving
from keras_reid.errors import InputError
from keras_reid.nearest import arrays
from keras_reid.scale import embedding, shards
from keras_reid.scale.listing import ImageEntry, listed

pytest.importorskip("pyarrow", reason="pyarrow, extra scale, is not installed")
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def crops(tmp_path):
    """Thirty images in three folders; one cannot be decoded."""
    random = np.random.default_rng(0)
    folder = tmp_path / "crops"
    for i in range(30):
        file = folder / f"{i % 3}" / f"{i:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(256, size=(40, 20, 3), dtype=np.uint8)).save(file)
    (folder / "1" / "07.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image either")
    return folder


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return models.build("tiny", None, (32, 16), weights="none")


def everything(embedded):
    """Paths and embeddings of all shards."""
    parts = list(embedded)
    return np.concatenate([p.path for p in parts]), np.concatenate([p.embedding for p in parts])


def test_embed_shards_match_in_memory_embeddings(crops, model, tmp_path):
    told = []
    embedded = scale.embed(
        crops,
        model,
        tmp_path / "out",
        shard_size=8,
        batch_size=4,
        progress=lambda *at: told.append(at),
    )
    path, found = everything(embedded)
    assert len(embedded) == 30
    assert embedded.count == 4
    assert sorted(path) == sorted(str(file) for file in crops.rglob("*.png"))
    assert told[0] == (0, 30)
    assert told[-1] == (30, 30)
    broken = np.array([file.endswith("07.png") for file in path])
    assert np.isnan(found[broken]).all()
    assert embedded.unreadable(5) == path[broken].tolist()
    images = data.PersonImages(path[~broken], np.zeros(29, int), None)
    expected = inference.load(model).embed(images)
    np.testing.assert_allclose(found[~broken], expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found[~broken], axis=1), 1, atol=1e-5)


def test_shards_read_with_pyarrow_have_expected_columns(crops, model, tmp_path):
    import pyarrow.dataset as arrow

    embedded = scale.embed(crops, model, tmp_path / "out", shard_size=8)
    files = [str(embedded.file(number)) for number in range(embedded.count)]
    table = arrow.dataset(files).to_table()
    assert table.column_names == ["path", "identity", "camera", "embedding", "digest"]
    assert table["embedding"].null_count == 1
    assert table["identity"].null_count == 30


def test_embed_csv_table_keeps_identity_and_camera(crops, model, tmp_path):
    with (crops / "list.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "identity", "camera"])
        rows.writerows([[f"0/{i:02}.png", f"p{i}", "north"] for i in (0, 3, 6)])
    (shard,) = scale.embed(crops / "list.csv", model, tmp_path / "out")
    assert shard.identity.tolist() == ["p0", "p3", "p6"]
    assert shard.camera.tolist() == ["north"] * 3
    assert shard.path.tolist() == [str(crops / f"0/{i:02}.png") for i in (0, 3, 6)]


def test_listed_folder_glob_and_list_returns_paths(crops):
    everywhere = {ImageEntry(str(file)) for file in crops.rglob("*.png")}
    assert set(listed(crops)) == everywhere
    assert set(listed(str(crops / "**" / "*"))) == everywhere
    assert set(listed(str(crops / "1" / "*.png"))) == {
        ImageEntry(str(file)) for file in (crops / "1").iterdir()
    }
    assert list(listed(["a.jpg"])) == [ImageEntry(os.path.abspath("a.jpg"))]


def test_embed_repeated_call_writes_missing_parts_only(crops, model, tmp_path):
    embedded = scale.embed(crops, model, tmp_path / "out", shard_size=8)
    path, before = everything(embedded)
    embedded.file(2).unlink()
    (tmp_path / "out" / ".part-000002.lock").touch()  # of a process that was killed
    written = {number: embedded.file(number).stat().st_mtime_ns for number in (0, 1, 3)}
    assert embedded.missing == [2]
    with pytest.raises(InputError, match=r"must have all shards, got 3 of 4"):
        iter(embedded)
    again = scale.embed(crops, model, tmp_path / "out", shard_size=8)
    assert {number: again.file(number).stat().st_mtime_ns for number in written} == written
    assert everything(again)[0].tolist() == path.tolist()
    np.testing.assert_array_equal(everything(again)[1], before)


def test_worker_claimed_shard_is_skipped(crops, model, tmp_path):
    embedded = scale.embed(crops, model, tmp_path / "out", shard_size=8)
    embedded.file(0).unlink()
    worker = embedding.Worker(model, 8)
    with embedded.claimed(0) as mine:
        assert mine
        assert not worker(embedded, 0)
    assert worker(embedded, 0)
    assert embedded.missing == []


def test_embed_with_export_matches_model(crops, model, tmp_path):
    version = serving.export(model, tmp_path / "export")
    of_export = everything(scale.embed(crops, version, tmp_path / "a"))[1]
    of_model = everything(scale.embed(crops, model, tmp_path / "b"))[1]
    np.testing.assert_allclose(of_export, of_model, atol=1e-5)


def test_embed_undecodable_images_returns_nan(tmp_path, model):
    (tmp_path / "a.jpg").write_bytes(b"")
    (shard,) = scale.embed([str(tmp_path / "a.jpg"), "missing.jpg"], model, tmp_path / "out")
    assert shard.embedding.shape == (2, model.output["embedding"].shape[-1])
    assert np.isnan(shard.embedding).all()


def test_shards_mapped_embeddings_rank_as_in_memory(crops, model, tmp_path, monkeypatch):
    rows = [(str(file), f"p{i % 5}", f"c{i % 3}") for i, file in enumerate(crops.rglob("*.png"))]
    with (tmp_path / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "identity", "camera"), *rows])
    embedded = scale.embed(tmp_path / "list.csv", model, tmp_path / "out", shard_size=8)
    stored = embedded.mapped()
    assert isinstance(stored.features["embedding"], np.memmap)
    assert len(stored.path) == 29
    inside = np.concatenate([shard.embedding for shard in embedded])
    inside = inside[~np.isnan(inside[:, 0])]
    monkeypatch.setattr(arrays, "READ_ELEMENTS", 7 * inside.shape[1])
    monkeypatch.setattr(arrays, "MAPPED_ELEMENTS", 3 * 29)
    labels = evaluation.Labels(stored.identity, stored.camera)
    for distance in ("euclidean", "cosine"):
        mapped, held = (
            evaluation.compare(inside, gallery, distance)
            for gallery in (embedded.mapped().features["embedding"], inside)
        )
        np.testing.assert_allclose(mapped.rows(3, 9), held.rows(3, 9), atol=1e-6)
        ranked = [evaluation.rank(source, labels, labels) for source in (mapped, held)]
        assert ranked[0].to_dict() == ranked[1].to_dict()


def test_embed_invalid_input_raises(crops, model, tmp_path):
    def embed(images=crops, model=model, out=tmp_path / "out", **options):
        return scale.embed(images, model, out, **options)

    with pytest.raises(InputError, match="`images` must be at least one image"):
        embed(tmp_path / "*.jpg")
    embed(tmp_path / "crops")  # the folder that holds nothing is free still
    with pytest.raises(InputError, match=r"`shard_size` must be one of 8192, got 8\. .*out has"):
        embed(shard_size=8)
    scale.embed([crops / "0/00.png"], model, tmp_path / "list")
    with pytest.raises(InputError, match="`images` must be one of 1 paths"):
        scale.embed([crops / "0/03.png"], model, tmp_path / "list")
    with pytest.raises(InputError, match="fingerprint"):
        embed(model=models.build("tiny", None, (32, 16), weights="none"))
    with pytest.raises(InputError, match="or empty folder"):
        embed(out=crops)
    with pytest.raises(InputError, match="engine"):
        embed(engine="magic")
    with pytest.raises(InputError, match="`workers` must be omitted without the engine ray"):
        embed(out=tmp_path / "other", workers=2)
    with pytest.raises(InputError, match="a model with single images as its only input, got clips"):
        scale.embed(crops, models.build_tracklet("tiny", None, (32, 16), weights="none"), tmp_path)
    with pytest.raises(InputError, match="must be names in UTF-8"):
        scale.embed(["caf\udce9.jpg"], model, tmp_path / "named")
    assert not (tmp_path / "named").exists()
    with pytest.raises(InputError, match=r"_embed\.json` must be .* Embed the images"):
        scale.Shards(crops)
    (tmp_path / "out" / "part-000000.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="must be a Parquet file"):
        list(scale.Shards(tmp_path / "out"))


@pytest.mark.nightly
def test_embed_command_killed_process_is_completed_by_second(crops, tmp_path):
    command = [sys.executable, str(ROOT / "embed.py"), f"--images={crops}"]
    command += [f"--out={tmp_path / 'out'}", "--shard_size=1"]
    first, second = (subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2))
    while not list(tmp_path.glob("out/part-*.parquet")):
        assert first.poll() is None or second.poll() is None
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert second.wait() == 1  # one of the 30 images fails
    path, found = everything(scale.Shards(tmp_path / "out"))
    assert sorted(path) == sorted(map(str, crops.rglob("*.png")))
    assert np.isnan(found).any(axis=1).sum() == 1
    assert not list(tmp_path.glob("out/.*")), "of the one that was killed nothing stays"


@pytest.mark.nightly  # Ray waits 30 s for its processes, too short next to other tests
@pytest.mark.parametrize("kills", [0, 1])
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
def test_embed_ray_killed_worker_completes_shards(crops, model, tmp_path, monkeypatch, kills):
    ray = pytest.importorskip("ray", reason="Ray, extra scale, is not installed")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_gcs_server_port_wait_time_s", "300")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        cluster.add_node(num_cpus=2)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        killed = []

        def kill_one(done: int, total: int) -> None:
            if done and len(killed) < kills:
                commands = (
                    (int(file.parent.name), file.read_bytes())
                    for file in Path("/proc").glob("[0-9]*/cmdline")
                )
                actors = [number for number, name in commands if b"_Actor" in name]
                killed.append(actors[0])
                os.kill(actors[0], signal.SIGKILL)

        embedded = scale.embed(
            crops, model, tmp_path / "out", shard_size=1, engine="ray", progress=kill_one
        )
        assert len(killed) == kills
        path, found = everything(embedded)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert sorted(path) == sorted(map(str, crops.rglob("*.png")))
    expected = everything(scale.embed(crops, model, tmp_path / "local", shard_size=7))
    order, other = np.argsort(path), np.argsort(expected[0])
    np.testing.assert_allclose(found[order], expected[1][other], atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
def test_embed_ray_without_cluster_raises(crops, model, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="Ray, extra scale, is not installed")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(InputError, match="ray start"):
        scale.embed(crops, model, tmp_path / "out", engine="ray")


def test_embed_without_pyarrow_raises(crops, model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match="pip install"):
        scale.embed(crops, model, tmp_path / "out")
    assert shards.LISTING not in os.listdir(tmp_path)
