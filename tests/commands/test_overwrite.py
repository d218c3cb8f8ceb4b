"""The flag --overwrite: existing outputs are refused without it and replaced with it."""

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import TINY, said

from keras_reid.data.synthetic import draw

FEATURES = "--features=query.npz,gallery.npz"
TRACK = ("track.py", "--source=frames", "--detections=det.txt", "--noappearance")
CLUSTER = ("cluster.py", "--run=run", "--images=people", "--method=agglomerative")


@pytest.fixture(scope="module")
def folder(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, features, frames with detections, images of persons, and a gallery of them."""
    root = tmp_path_factory.mktemp("overwrite")
    shutil.copytree(tiny_run / "run", root / "run")
    for name, camera in (("query", 1), ("gallery", 2)):
        columns = {"identity": np.arange(4), "camera": np.full(4, camera)}
        np.savez(root / f"{name}.npz", embedding=np.eye(4, dtype=np.float32), **columns)
    (root / "frames").mkdir()
    for frame in range(1, 7):
        Image.new("RGB", (64, 48)).save(root / f"frames/{frame}.png")
    lines = [f"{frame},-1,{10 + frame},10,8,16,1" for frame in range(1, 7)]
    (root / "det.txt").write_text("\n".join(lines))
    for person in range(4):
        (root / f"people/p{person}").mkdir(parents=True)
        for image in range(2):
            pixels = draw(person, 1, image, size=(64, 32))
            Image.fromarray(pixels).save(root / f"people/p{person}/{image}.png")
    said("search.py", "--run=run", "--gallery=file:g", "enrol", "people", cwd=root)
    return root


def files(path: Path) -> dict[str, bytes]:
    """Contents of a file, or of the files of a folder without those that begin with a dot."""
    found = [path] if path.is_file() else path.rglob("*")
    return {
        str(one.relative_to(path)): one.read_bytes()
        for one in found
        if one.is_file() and not one.name.startswith(".")
    }


def outputs() -> Iterator[object]:
    """Commands with their output flag; an entry that the command writes into its folder."""
    slow = [pytest.mark.slow]
    evaluate, query = ("evaluate.py", FEATURES), ("--run=run", "--gallery=file:g", "query")
    for command, output, entry, marks in (
        (evaluate, "--out=scores.json", "", []),
        (evaluate, "--save_features=saved", "query.npz", []),
        (evaluate, "--save_features=saved.mat", "", []),
        (evaluate, "--report=report.html", "", slow),
        (("cluster.py", "--features=query.npz"), "--csv=groups.csv", "", []),
        (CLUSTER, "--out=groups", "person_0001", slow),
        (CLUSTER, "--contact_sheet=sheet.png", "", slow),
        (TRACK, "--out=tracks.txt", "", []),
        ((*TRACK, "--out=t1.txt"), "--timeline=timeline.png", "", []),
        ((*TRACK, "--ground_truth=det.txt"), "--scores=tracks.json", "", []),
        ((*TRACK, "--out=t2.txt"), "--annotated=drawn", "000001.jpg", []),
        (("search.py", *query, "people/p0/0.png"), "--out=page.html", "", slow),
    ):
        yield pytest.param(command, output, entry, id=output, marks=marks)


@pytest.mark.parametrize(("command", "output", "entry"), [*outputs()])
def test_overwrite_replaces_output_and_error_without_it_names_it(
    command: tuple[str, ...], output: str, entry: str, folder: Path
) -> None:
    program, *flags = command
    name, _, place = output.partition("=")
    old = folder / place / entry
    old.parent.mkdir(parents=True, exist_ok=True)
    old.write_text("old")
    err = said(program, *flags, output, cwd=folder, code=1)
    assert err == (
        f"error: {name} must be a new path, got '{place}'. Choose another path, or set "
        "--overwrite.\n"
    )
    assert old.read_text() == "old"
    said(program, *flags, output, "--overwrite", cwd=folder)
    written = files(folder / place)
    assert written
    assert b"old" not in written.values()


@pytest.mark.parametrize(
    ("command", "output"),
    [
        (("evaluate.py", FEATURES), "--save_features=people"),
        (CLUSTER, "--out=people"),
        ((*TRACK, "--out=other.txt"), "--annotated=people"),
    ],
)
def test_overwrite_of_folder_with_other_files_exits_with_error(
    command: tuple[str, ...], output: str, folder: Path
) -> None:
    before = files(folder / "people")
    err = said(*command, output, "--overwrite", cwd=folder, code=1)
    assert "people` must be a new or empty folder, or have only " in err
    assert files(folder / "people") == before


def test_track_annotated_in_folder_of_video_exits_with_error(folder: Path) -> None:
    flags = ("--out=t3.txt", "--annotated=frames/", "--overwrite")
    assert "--annotated must differ from --source" in said(*TRACK, *flags, cwd=folder, code=1)


@pytest.mark.slow
def test_train_overwrite_replaces_finished_run(
    tiny_run: Path, pedestrians: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_run / "run", tmp_path / "run")
    data = ("--dataset=market1501", f"--data_dir={pedestrians}")
    train = partial(said, "train.py", *data, "--run=run", *TINY, "--epochs=1", cwd=tmp_path)
    assert "Give another folder, or set --overwrite." in train(code=1)
    (tmp_path / "run/notes.txt").touch()
    assert "got notes.txt. Choose another path." in train("--overwrite", code=1)
    (tmp_path / "run/notes.txt").unlink()
    train("--overwrite", "--init_from=run")  # the run is read before it is replaced
    assert json.loads((tmp_path / "run/flags.json").read_text())["epochs"] == 1
    assert len((tmp_path / "run/history.jsonl").read_text().splitlines()) == 1


@pytest.mark.slow
def test_export_overwrite_replaces_version(folder: Path, pedestrians: Path) -> None:
    data = ("--dataset=market1501", f"--data_dir={pedestrians}")
    export = partial(said, "export.py", "--run=run", *data, "--version=1", "--noranker", cwd=folder)
    export()
    before = (folder / "export/run/1/export.json").stat().st_mtime_ns
    assert "Omit it to write 2, or set --overwrite." in export(code=1)
    export("--overwrite")
    assert (folder / "export/run/1/export.json").stat().st_mtime_ns > before
    assert not (folder / "export/run/2").exists()


@pytest.mark.slow
def test_embed_overwrite_replaces_other_embeddings_and_continues_equal_ones(folder: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow, extra scale, is not installed")
    embed = partial(said, "embed.py", "--run=run", "--out=shards", cwd=folder)
    embed("--images=people")
    part = folder / "shards/part-000000.parquet"
    before = part.stat().st_mtime_ns
    embed("--images=people", "--overwrite")
    assert part.stat().st_mtime_ns == before
    assert "Choose another folder, or set --overwrite." in embed("--images=people/p0", code=1)
    assert "2 images in 1 file" in embed("--images=people/p0", "--overwrite")
    assert "2 images in 1 file" in embed("--images=people/p0")
