"""Bad values for every flag of every command: accepted or rejected with one error line."""

import dataclasses
import importlib
import itertools
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from processes import within

from keras_reid.training import fitting

COMMANDS = ("train", "evaluate", "export", "cluster", "search", "track", "embed")
NUMBERS = ("", "x", "nan", "-inf", "-1", "0", "9" * 25)
TEXTS = (
    "",
    "nowhere/x",
    "/proc/nowhere/x",
    "/dev/null/x",
    "a" * 300,
    "caf\udce9",
    "\x1b[31mx",
    ".",
)
LISTS = ("", ",", "x", "=,=", "k1=nan", "k1=9" + "9" * 30, "-1")
SECONDS = 120


class Begun(Exception):
    """The training would begin now: its flags are accepted."""


def values(one: dataclasses.Field[Any]) -> tuple[str, ...]:
    if one.type in (bool, bool | None):
        return ("maybe", "")
    if one.type in (int, float, int | None, float | None):
        return NUMBERS
    return TEXTS if one.type in (str, str | None) else LISTS


@pytest.fixture(scope="module")
def there(pedestrians: Path, tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run, a gallery, a video and its detections."""
    folder = tmp_path_factory.mktemp("flags")
    shutil.copytree(tiny_run / "run", folder / "run")
    people = folder / "people"
    for i, image in enumerate(sorted((pedestrians / "query").glob("*.jpg"))[:6]):
        (people / f"p{i}").mkdir(parents=True)
        shutil.copy(image, people / f"p{i}")
    enrol = ("--run=run", "--gallery=faiss:people.db", "enrol", "people")
    assert within("search.py", *enrol, cwd=folder)[0] == 0
    (folder / "video").mkdir()
    for n in range(4):
        Image.new("RGB", (64, 96), (n, 0, 0)).save(folder / f"video/{n}.jpg")
    lines = (f"{n},-1,{5 + n},5,20,40,1\n" for n in range(1, 5))
    (folder / "det.txt").write_text("".join(lines))
    return folder


def base(name: str, number: int) -> list[str]:
    """Return valid flags of a command, with new outputs."""
    small = [
        "--recipe=tiny",
        "--height=32",
        "--width=16",
        "--num_identities_per_batch=4",
        "--epochs=1",
    ]
    return {
        "train": [*small, f"--run=new-{number}"],
        "evaluate": ["--run=run"],
        "export": ["--run=run", f"--export_dir=out-{number}", "--noranker", "--check_images=2"],
        "cluster": ["--run=run", "--images=people", f"--csv=c-{number}.csv"],
        "search": ["--run=run", "--gallery=faiss:people.db", "query", "people/p0"],
        "track": ["--run=run", "--source=video", "--detections=det.txt", f"--out=t-{number}.txt"],
        "embed": ["--run=run", "--images=people", f"--out=e-{number}"],
    }[name]


def cases() -> Iterator[Any]:
    for name in COMMANDS:
        command = importlib.import_module(f"keras_reid.cli.{name}").run
        for one in command.fields:
            yield pytest.param(name, one, id=f"{name} --{one.name}")


@pytest.mark.parametrize("name", COMMANDS)
def test_flag_bad_value_is_recorded_or_rejected(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The action is replaced by a recorder, so that only flags and options are checked."""
    command = importlib.import_module(f"keras_reid.cli.{name}").run
    recorded: list[Any] = []
    monkeypatch.setattr(command, "act", recorded.append)
    for one in command.fields:
        for value in values(one):
            recorded.clear()
            code, _, err = within(f"{name}.py", f"--{one.name}={value}", cwd=tmp_path)
            if code:
                assert not recorded
                assert_one_error(err)
            else:
                (options,) = recorded
                assert hasattr(options, one.name) or one.name in options.settings
    assert not list(tmp_path.iterdir())


def assert_one_error(err: str) -> None:
    assert "Traceback" not in err
    assert len(re.findall(r"^error: .+$", err, re.MULTILINE)) == 1, err


def too_long(*_: Any) -> None:
    raise TimeoutError(f"longer than {SECONDS} s")


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "one"), [*cases()])
def test_every_flag_with_odd_value_is_accepted_or_prints_one_error(
    name: str,
    one: dataclasses.Field[Any],
    there: Path,
    pedestrians: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def begin(*_: Any, **__: Any) -> None:
        raise Begun

    monkeypatch.setattr(fitting, "fit", begin)
    signal.signal(signal.SIGALRM, too_long)
    for number, value in zip(itertools.count(), values(one), strict=False):
        flags = base(name, number)
        if name == "train":
            flags += ["--dataset=market1501", f"--data_dir={pedestrians}"]
        if name == "search":
            flags[-1] = str(next((there / "people/p0").iterdir()))
        signal.alarm(SECONDS)
        try:
            code, out, err = within(f"{name}.py", *flags, f"--{one.name}={value}", cwd=there)
        except Begun:
            continue
        finally:
            signal.alarm(0)
        assert code in (0, 1, 2)
        assert "Traceback" not in err
        assert "\x1b" not in out + err
        if code:
            assert_one_error(err)
        written = ("c-*.csv", "t-*.txt", "out-*", "e-*")
        for left in itertools.chain.from_iterable(map(there.glob, written)):
            shutil.rmtree(left) if left.is_dir() else left.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_base_flags_succeed(
    name: str, there: Path, pedestrians: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base flags are valid, so that the tests above reject one flag only."""

    def begin(*_: Any, **__: Any) -> None:
        raise Begun

    monkeypatch.setattr(fitting, "fit", begin)
    flags = base(name, 99)
    if name == "train":
        with pytest.raises(Begun):
            within(
                "train.py", *flags, "--dataset=market1501", f"--data_dir={pedestrians}", cwd=there
            )
        return
    if name == "search":
        flags[-1] = str(next((there / "people/p0").iterdir()))
    code, _, err = within(f"{name}.py", *flags, cwd=there)
    assert code == 0, err
