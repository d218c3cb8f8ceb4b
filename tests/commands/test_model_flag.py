"""Commands with a model of each kind: run, .keras file, export, and networks of other programs."""

import shutil
from pathlib import Path

import pytest
from networks import write_rows
from PIL import Image
from processes import said

from keras_reid import data, serving
from keras_reid.training.runs import Run

SIZE = (32, 16)
OTHER = ("--channel_order=bgr", "--mean=10,20,30", "--scale=50")
MODELS = {
    "run": ("--model=run",),
    "alias": ("--run=run",),
    "keras": ("--model=run/model.keras",),
    "export": ("--model=export/1",),
    "onnx": ("--model=rows.onnx", *OTHER),
    "openvino": ("--model=rows.onnx", "--runtime=openvino", *OTHER),
    "pretrained": ("--model=pretrained",),
}


@pytest.fixture(scope="module")
def folder(tiny_run: Path, pedestrians: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny_run / "run", root / "run")
    run = Run(root / "run")
    serving.export(run.load_model(), root / "export", flip=run.settings["flip"])
    write_rows(root / "rows.onnx", [1, 3, *SIZE])
    images = data.load("market1501", str(pedestrians)).gallery[:12]
    (root / "frames").mkdir()
    for number, (path, name) in enumerate(zip(images.path, images.identity, strict=True), start=1):
        crop = root / f"people/person {name}/{number}.png"
        crop.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(crop)
        Image.open(path).resize((60, 120)).save(root / f"frames/{number:02d}.png")
    lines = [f"{number},-1,0,0,60,120,1" for number in range(1, 13)]
    (root / "det.txt").write_text("\n".join(lines))
    return root


@pytest.mark.parametrize("kind", MODELS)
def test_evaluate_model_of_each_kind_prints_scores(
    folder: Path, pedestrians: Path, kind: str
) -> None:
    where = ("--dataset=market1501", f"--data_dir={pedestrians}")
    out = said("evaluate.py", *MODELS[kind], *where, cwd=folder)
    assert "rank-1" in out
    if kind in ("alias", "export"):
        assert said("evaluate.py", *MODELS["run"], *where, cwd=folder) == out


def test_search_refuses_gallery_of_another_model(folder: Path) -> None:
    where = "--gallery=faiss:onnx.db"
    said("search.py", *MODELS["onnx"], where, "enrol", "people", cwd=folder)
    image = next(folder.glob("people/person */1.png"))
    out = said("search.py", *MODELS["openvino"], where, "query", image, cwd=folder)
    assert image.parent.name in out.splitlines()[2]
    for kind in ("run", "export"):
        err = said("search.py", *MODELS[kind], where, "query", image, cwd=folder, code=1)
        assert "error: " in err
    other = ("--model=rows.onnx", "--channel_order=rgb", *OTHER[1:])
    assert said("search.py", *other, where, "query", image, cwd=folder, code=1)


def test_search_gallery_of_run_is_searched_with_its_export(folder: Path) -> None:
    where = "--gallery=faiss:run.db"
    said("search.py", *MODELS["run"], where, "enrol", "people", cwd=folder)
    image = next(folder.glob("people/person */1.png"))
    out = said("search.py", *MODELS["export"], where, "query", image, cwd=folder)
    assert image.parent.name in out


def test_commands_network_of_another_program_is_accepted(folder: Path) -> None:
    onnx = MODELS["onnx"]
    out = said("cluster.py", *onnx, "--images=people", "--csv=groups.csv", cwd=folder)
    assert "12 images" in out
    out = said("embed.py", *onnx, "--images=people", "--out=shards", cwd=folder)
    assert "12 images in 1 file" in out
    flags = ("--source=frames", "--detections=det.txt", "--out=tracks.txt")
    assert "of 12 detections" in said("track.py", *onnx, *flags, cwd=folder)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--model=rows.onnx"],
            "rows.onnx does not state channel_order, scale, mean",
        ),
        (["--model=rows.onnx", "--mean=a"], "--mean must be numbers, got a"),
        (["--model=rows.onnx", *OTHER, "--input_size=8"], "--input_size must be 32×16"),
        (["--model=run", "--layout=nchw"], "--layout does not apply to Keras models"),
        (["--model=run", "--run=run"], "Only one of --model, --run, --saved_model"),
        (["--model=people"], "--model must be a folder with flags.json (a run) or export.json"),
        (["--model=det.txt"], "--model must be a run folder"),
    ],
)
def test_evaluate_incompatible_model_flags_exit_with_1(
    folder: Path, pedestrians: Path, flags: list[str], message: str
) -> None:
    where = ("--dataset=market1501", f"--data_dir={pedestrians}")
    assert message in said("evaluate.py", *flags, *where, cwd=folder, code=1)


def test_export_network_raises(folder: Path) -> None:
    err = said("export.py", "--model=rows.onnx", cwd=folder, code=1)
    assert "--model must be a run folder, a .keras file or a pretrained model in this place" in err
