"""Training from several data sets: names, left-out data sets and folders, scores of each."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from processes import TINY, call, within

from keras_reid.cli.sources import Sources, check_training, named, parsed, scored_after
from keras_reid.errors import InputError
from keras_reid.training import fitting


@pytest.fixture(scope="module")
def folder(pedestrians: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the tables town.csv and test.csv.

    The town has a shop with 4 persons to train on, a hall with a query and a gallery image of each
    of 3 persons, and a street with images without identity.
    """
    root = tmp_path_factory.mktemp("sources")
    files = sorted((pedestrians / "bounding_box_train").glob("*.jpg"))
    persons = sorted({file.name[:4] for file in files})

    def rows(place: str, chosen: list[str], splits: tuple[str, ...], named: bool = True) -> str:
        lines = ""
        for number, person in enumerate(chosen):
            own = [file for file in files if file.name.startswith(person)]
            for camera, (file, split) in enumerate(zip(own[::2], splits, strict=False)):
                path = root / place / file.name
                path.parent.mkdir(exist_ok=True)
                shutil.copy(file, path)
                label = f"{place}-{number}" if named else ""
                lines += f"{place}/{file.name},{label},{camera},{split}\n"
        return lines

    header, test = "path,identity,camera,split\n", ("query", "gallery")
    town = rows("shop", persons[:4], ("train",) * 3) + rows("hall", persons[4:7], test)
    street = rows("street", persons[7:9], ("train",) * 2, named=False)
    (root / "town.csv").write_text(header + town + street)
    (root / "test.csv").write_text(header + rows("port", persons[9:], test))
    return root


def flags(pedestrians: Path, folder: Path, *more: str) -> tuple[str, ...]:
    paths = f"--data_dir=market={pedestrians},{folder}/town.csv"
    return ("train.py", "--dataset=market1501,csv", paths, *TINY, *more)


@pytest.mark.slow
def test_train_two_sources_writes_scores_of_each(pedestrians: Path, folder: Path) -> None:
    more = (f"--test_tables={folder}/test.csv", "--leave_out=town/street", "--eval_every=3")
    sampled = "--source_sampling=balanced"
    code, out, err = call(*flags(pedestrians, folder, *more, sampled, "--run=a"), cwd=folder)
    assert code == 0, err
    settings = json.loads((folder / "a/flags.json").read_text())
    assert settings["sources"] == ["market", "town"]
    assert settings["leave_out"] == ["town/street"]
    assert settings["source_sampling"] == "balanced"
    metrics = json.loads((folder / "a/metrics.json").read_text())
    assert metrics["after"]["protocol"]["dataset"] == "market+town"
    assert {*metrics["sources"]} == {"market", "town"}
    assert metrics["sources"]["town"]["protocol"]["valid_queries"] == 3
    assert metrics["sources"]["town"]["protocol"]["gallery_size"] == 3
    assert {*metrics["tests"]} == {"test"}
    last = json.loads((folder / "a/history.jsonl").read_text().splitlines()[-1])
    for name in ("market", "town"):
        assert last[f"val_{name}_mAP"] == pytest.approx(metrics["sources"][name]["mAP"])
    assert re.search(r"data set  trained on +mAP +rank-1\nmarket    yes .*\ntown      yes ", out)
    assert re.search(r"\ntest      no +[0-9.]+ % ", out)
    code, _, err = within("evaluate.py", "--model=a", "--out=again.json", cwd=folder)
    assert code == 0, err
    again = json.loads((folder / "again.json").read_text())
    assert again["mAP"] == pytest.approx(metrics["after"]["mAP"], abs=1e-6)


def interrupt(callback: object, epoch: int, logs: object = None) -> None:
    """Interrupt the second epoch before its backup."""
    if epoch == 1:
        raise KeyboardInterrupt


@pytest.mark.slow
def test_train_left_out_source_is_only_scored_and_run_resumes(
    pedestrians: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("--leave_out=market,town/street", "--source_batches=single", "--eval_every=1")
    for name in ("whole", "resumed"):
        command = flags(pedestrians, folder, *more, f"--run={name}")
        if name == "resumed":
            with monkeypatch.context() as patch:
                patch.setattr(fitting.CollapseMonitor, "on_epoch_end", interrupt)
                assert within(*command, cwd=folder)[0] == 130
        code, _, err = within(*command, cwd=folder)
        assert code == 0, err
    metrics = json.loads((folder / "whole/metrics.json").read_text())
    assert metrics["after"]["protocol"]["dataset"] == "town"
    assert {*metrics["tests"]} == {"market"}
    whole, resumed = (
        [json.loads(line) for line in (folder / name / "history.jsonl").read_text().splitlines()]
        for name in ("whole", "resumed")
    )
    assert [row["loss"] for row in whole] == [row["loss"] for row in resumed]


def test_sources_load_left_out_folder_keeps_other_images(pedestrians: Path, folder: Path) -> None:
    paths = f"{pedestrians},{folder}/town.csv"
    sources = Sources.load("market1501,csv", paths, ["town/hall", "town/street"])
    town = sources.trained["town"]
    assert (len(town.train), town.query, town.gallery) == (12, None, None)
    assert len(sources.left_out["town/hall"].query) == 3
    assert sources.left_out["town/street"].train.unlabeled.all()
    assert [*scored_after(sources, [])] == ["town/hall"]
    assert sources.dataset().name == f"{pedestrians.name}+town"
    alone = Sources.load("csv", f"{folder}/town.csv", ["town/street"])
    assert alone.dataset().train.identity[0] == "shop-0"
    assert not alone.several


def test_sources_holdout_applies_to_sources_without_queries(
    pedestrians: Path, folder: Path
) -> None:
    sources = Sources.load("market1501,csv", f"a={pedestrians},{folder}/town.csv", ["town/hall"])
    whole = sources.dataset(holdout=0.5)
    assert {*whole.query.columns["source"].tolist()} == {"a", "town"}
    queries = whole.query.identity[whole.query.columns["source"] == "town"]
    assert len(np.unique(queries)) == 2
    assert whole.train.unlabeled.sum() == 4


def test_named_path_is_split_only_at_a_name() -> None:
    assert named("a=x/b.csv") == ("a", "x/b.csv")
    assert named("x/lr=3/b.CSV") == ("b", "x/lr=3/b.CSV")
    assert named("x/Market-1501-v15.09.15/") == (
        "Market-1501-v15.09.15",
        "x/Market-1501-v15.09.15/",
    )


def test_parsed_single_existing_path_with_comma_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a,b").mkdir()
    (source,) = parsed("folder", f"{tmp_path}/a,b")
    assert source.path == f"{tmp_path}/a,b"


@pytest.mark.parametrize(
    ("formats", "paths", "message"),
    [
        ("csv,csv", "a.csv", "`data_dir` must be one path for .*, got 1 path for 2 data sets"),
        ("csv", "a.csv,b.csv", "`data_dir` must be one path .*, got 2 paths for 1 data set"),
        ("csv,csv", "a.csv,", "got 1 path for 2 data sets"),
        ("csv,csv", "x/a.csv,y/a.csv", "`data_dir` must be different names, got 'a' 2 times"),
        ("csv,csv", "my town=a,b", "`data_dir` must be names of letters, .*, got 'my town'"),
    ],
)
def test_parsed_invalid_sources_raise(formats: str, paths: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parsed(formats, paths)


@pytest.mark.parametrize(
    ("left_out", "message"),
    [
        (["shop"], "`leave_out` must be one of market, town, got 'shop'"),
        (["town/port"], "`leave_out` must be names of data sets, or .*, got 'town/port'"),
        (["town", "town/hall"], "`leave_out` must be town or folders of it, got both"),
        (["market", "town"], "`leave_out` must leave a data set to train on"),
    ],
)
def test_sources_invalid_left_out_names_raise(
    pedestrians: Path, folder: Path, left_out: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Sources.load(
            "market1501,csv", f"market={pedestrians},{folder}/town.csv", left_out
        ).dataset()


def test_scored_after_invalid_tables_raise(pedestrians: Path, folder: Path) -> None:
    sources = Sources.load("market1501", str(pedestrians))
    test = f"{folder}/test.csv"
    with pytest.raises(InputError, match="must be different names, got 'test' 2 times"):
        scored_after(sources, [test, test])
    with pytest.raises(InputError, match="must be tables with other names than the data sets"):
        scored_after(sources, [f"{pedestrians.name}={test}"])
    train = folder / "train.csv"
    train.write_text("path,identity\nshop/" + next((folder / "shop").iterdir()).name + ",1\n")
    with pytest.raises(InputError, match="must be tables with query and gallery images, got"):
        scored_after(sources, [str(train)])


def test_check_training_shared_or_unlabeled_images_raise(folder: Path) -> None:
    sources = Sources.load("csv", f"{folder}/town.csv", ["town/hall"])
    dataset, tests = sources.dataset(), scored_after(sources, [])
    check_training(dataset, tests, unlabeled=True)
    with pytest.raises(InputError, match=r"4 training images of csv have none.*street/"):
        check_training(dataset, tests, unlabeled=False)
    whole = Sources.load("csv", f"{folder}/town.csv").dataset().all_to_train()
    with pytest.raises(InputError, match="town/hall must not contain training images, got 6"):
        check_training(whole, tests, unlabeled=True)


def test_train_invalid_sources_exit_with_one_error(pedestrians: Path, folder: Path) -> None:
    code, _, err = within(*flags(pedestrians, folder, "--leave_out=shop"), cwd=folder)
    assert code == 1
    assert err == "error: --leave_out must be one of market, town, got 'shop'.\n"
    code, _, err = within(*flags(pedestrians, folder), cwd=folder)
    assert code == 1
    assert "Leave out their folders by --leave_out=town/FOLDER." in err
    code, _, err = within("train.py", "--dataset=csv,nosuch", cwd=folder)
    assert code == 1
    assert err.startswith("error: --dataset must be one of market1501, ")
    code, _, err = within("train.py", "--dataset=csv,csv", cwd=folder)
    assert (code, "--data_dir are required" in err) == (1, True)


@pytest.mark.real
@pytest.mark.slow
def test_train_real_sources_with_left_out_source(real_data: Path, tmp_path: Path) -> None:
    cuhk, peta = real_data / "data/cuhk-multi", real_data / "data/peta-sources/peta.csv"
    paths = f"--data_dir={cuhk}/cuhk03.csv,{cuhk}/cuhk01-train.csv,{peta}"
    out_of_training = "--leave_out=cuhk01-train,peta/cuhk,peta/mit,peta/towncentre"
    table = f"--test_tables=cuhk01={cuhk}/cuhk01-test.csv"
    large = ("--num_identities_per_batch=64", "--num_instances=8", "--epochs=1")
    command = ("train.py", "--dataset=csv,csv,csv", paths, out_of_training, table, *TINY, *large)
    code, out, err = call(*command, "--noscore_before", "--run=run", cwd=tmp_path)
    assert code == 0, err
    assert "data set:        cuhk03+peta, 9,671 images of 1,058 identities" in out
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert {*metrics["sources"]} == {"cuhk03"}
    assert metrics["tests"]["cuhk01"]["protocol"]["valid_queries"] == 971
