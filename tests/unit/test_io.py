"""Atomic writes of files and folders, locks, and cleanup after killed processes."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from scipy.io import savemat

from keras_reid import io
from keras_reid.errors import InputError
from keras_reid.io import arrays, check_writable, locked, new_file, new_folder, replaced_file


def test_new_file_appears_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "scores.json"
    with new_file(path) as partial:
        partial.write_text("all")
        assert partial.suffix == ".json"
        assert not path.exists()
    assert path.read_text() == "all"
    assert os.listdir(path.parent) == ["scores.json"]


class Stop(Exception):
    pass


def write(context, text: str, stop: Exception | None = None) -> None:
    """Part of a file, and then an error."""
    with context as partial:
        partial.write_text(text)
        if stop:
            raise stop


@pytest.mark.parametrize("kind", [new_file, replaced_file])
def test_new_and_replaced_file_failed_block_leaves_nothing(tmp_path: Path, kind) -> None:
    with pytest.raises(Stop):
        write(kind(tmp_path / "x"), "half", Stop())
    assert os.listdir(tmp_path) == []


def test_replaced_file_full_disk_raises_and_keeps_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(
        InputError, match=r"/x` must be writable, got 'No space left on device'\. C"
    ):
        write(replaced_file(path), "half", full)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x"]


def test_new_file_os_error_of_other_file_names_it(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"got 'No such file or directory' for .*nowhere"),
        new_file(tmp_path / "x"),
    ):
        (tmp_path / "nowhere").read_text()


@pytest.mark.parametrize("kind", [new_file, replaced_file, new_folder])
def test_writers_file_as_parent_folder_raises(tmp_path: Path, kind) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/x` must be writable, got '.+' for .*file\. C"):
        write(kind(tmp_path / "file" / "x"), "")


def test_new_file_existing_file_raises(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("another's")
    with pytest.raises(InputError, match=r"x` must be a new path, got a file"):
        write(new_file(path), "mine")
    assert path.read_text() == "another's"
    assert os.listdir(tmp_path) == ["x"]


def test_replaced_file_replaces_atomically(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    with replaced_file(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_new_folder_appears_only_when_complete(tmp_path: Path) -> None:
    with new_folder(tmp_path / "a" / "b") as partial:
        (partial / "file").write_text("1")
        assert not (tmp_path / "a" / "b").exists()
    assert os.listdir(tmp_path / "a") == ["b"]
    with pytest.raises(InputError, match=r"c` must be writable, got 'Is a directory'"):
        write(new_folder(tmp_path / "a" / "c"), "text")
    assert os.listdir(tmp_path / "a") == ["b"]


def test_new_folder_existing_files_raises(tmp_path: Path) -> None:
    file = tmp_path / "out" / "precious.jpg"
    file.parent.mkdir()
    file.touch()
    for path in (file.parent, file):
        with (
            pytest.raises(InputError, match=r"must be a new or empty folder, got other files"),
            new_folder(path),
        ):
            raise Stop
    assert os.listdir(tmp_path / "out") == ["precious.jpg"]
    (tmp_path / "empty").mkdir()
    with new_folder(tmp_path / "empty") as partial:
        (partial / "x").touch()
    assert os.listdir(tmp_path / "empty") == ["x"]


def test_new_file_overwrite_replaces_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    write(new_file(path, overwrite=True), "new")
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["x"]


def test_new_folder_replaceable_entries_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out"
    for name in ("person_1", "person_2"):
        (path / name).mkdir(parents=True)
    with pytest.raises(Stop), new_folder(path, ("person_*",)):
        raise Stop
    assert {*os.listdir(path)} == {"person_1", "person_2"}
    with new_folder(path, ("person_*",)) as partial:
        (partial / "person_3").mkdir()
    assert os.listdir(path) == ["person_3"]
    assert os.listdir(tmp_path) == ["out"]


def test_new_folder_other_entries_than_replaceable_raise(tmp_path: Path) -> None:
    for name in ("person_1", "holiday.jpg"):
        (tmp_path / "out" / name).mkdir(parents=True)
    rule = r"out` must be a new or empty folder, or have only person_\*, got holiday\.jpg\. Choose"
    with pytest.raises(InputError, match=rule), new_folder(tmp_path / "out", ("person_*",)):
        raise Stop
    assert {*os.listdir(tmp_path / "out")} == {"person_1", "holiday.jpg"}


def test_new_folder_failed_rename_keeps_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, staged = os.replace, []

    def fail(source: Path, target: Path) -> None:
        if source in staged:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    (tmp_path / "out/person_1").mkdir(parents=True)
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(InputError), new_folder(tmp_path / "out", ("person_*",)) as partial:
        staged.append(partial)
    assert os.listdir(tmp_path / "out") == ["person_1"]
    assert os.listdir(tmp_path) == ["out"]


def test_new_file_and_folder_respect_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with new_file(tmp_path / "x") as partial:
            partial.write_text("")
        with new_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


def test_new_file_longest_name_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".txt")
    with new_file(path) as partial:
        partial.write_text("1")
    assert path.read_text() == "1"


@pytest.mark.parametrize("kind", ["new_file", "replaced_file", "new_folder"])
def test_writers_remove_leftovers_of_killed_process(tmp_path: Path, kind: str) -> None:
    code = f"""
import os, signal
from keras_reid.io import {kind}
with {kind}("x") as partial:
    (partial / "part" if partial.is_dir() else partial).write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [name[0] for name in os.listdir(tmp_path)] == ["."]
    with new_file(tmp_path / "other") as partial:  # files of other processes stay
        partial.write_text("whole")
    assert len(os.listdir(tmp_path)) == 2
    with new_file(tmp_path / "x") as partial:
        assert len([name for name in os.listdir(tmp_path) if name[0] == "."]) == 1  # ours
        with replaced_file(tmp_path / "x") as second:  # at work in the same process
            second.write_text("")
        assert partial.exists()
        partial.unlink()
        (tmp_path / "x").unlink()
        partial.write_text("whole")
    assert sorted(os.listdir(tmp_path)) == ["other", "x"]


def test_locked_second_process_raises_or_waits(tmp_path: Path) -> None:
    with locked(tmp_path / "lock"):
        with (
            pytest.raises(InputError, match="must be used by one process at a time, got another"),
            locked(tmp_path / "lock"),
        ):
            pass
        code = """
from keras_reid.io import locked
print("waits", flush=True)
with locked("lock", wait=True):
    print("in", flush=True)
"""
        other = subprocess.Popen(
            [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        assert other.stdout is not None
        assert other.stdout.readline() == "waits\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.3)
    assert other.communicate(timeout=60)[0] == "in\n"
    assert os.listdir(tmp_path) == []


def test_check_writable_file_as_parent_folder_raises(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"x` must be writable, got no permission for .*file"):
        check_writable(tmp_path / "file/x")
    check_writable(tmp_path / "deep/er/x")
    assert os.listdir(tmp_path) == ["file"]


def test_io_import_loads_neither_keras_nor_tensorflow() -> None:
    code = "import sys, keras_reid.io; print({'keras', 'tensorflow', 'scipy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_read_matlab_crash_and_timeout_raise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    savemat(tmp_path / "x.mat", {"a": [1, 2]})
    assert io.read_matlab(tmp_path / "x.mat", ["a"])["a"].tolist() == [1, 2]
    monkeypatch.setattr(arrays, "MATLAB_SECONDS", 0.01)
    with pytest.raises(InputError, match=r"must be a MATLAB file .* 'no result in 0.01 s'"):
        io.read_matlab(tmp_path / "x.mat")
    monkeypatch.undo()
    crashed = subprocess.CompletedProcess([], -signal.SIGSEGV, b"", b"")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: crashed)
    with pytest.raises(InputError, match=r"must be a MATLAB file .* got 'crash'"):
        io.read_matlab(tmp_path / "x.mat")
