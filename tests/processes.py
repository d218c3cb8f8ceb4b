"""Helpers that run a command in a separate process or within the test process.

A server that has imported TensorFlow once forks these processes, which saves each some seconds.
"""

import atexit
import contextlib
import importlib
import io
import multiprocessing
import os
import runpy
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import absl.flags
import absl.logging

from keras_reid.cli import options

ROOT = Path(__file__).parent.parent

# Flags of a training that takes seconds.
TINY = (
    "--recipe=tiny",
    "--height=32",
    "--width=16",
    "--num_identities_per_batch=4",
    "--num_instances=2",
    "--epochs=3",
)

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
_PROCESSES = multiprocessing.get_context("forkserver")
# Imports of all commands. They run no operation of TensorFlow, which does not survive a fork.
_PROCESSES.set_forkserver_preload(
    [
        "tensorflow",
        "keras",
        "scipy.io",
        "absl.app",
        "keras_reid.data.pipeline",
        "keras_reid.reranking.functions",
        "keras_reid.training.fitting",
        "keras_reid.serving.parity_check",
        "keras_reid.serving.ranker",
    ]
)


def _run(program: str, flags: list[str], folder: str, files: tuple[str, str]) -> None:
    for number, file in zip((1, 2), files, strict=True):
        descriptor = os.open(file, os.O_WRONLY)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout, sys.stderr = (
        open(number, "w", buffering=1, closefd=False)  # noqa: SIM115 (it lives as long as we do)
        for number in (1, 2)
    )
    os.chdir(folder)
    sys.argv = [program, *flags]
    sys.path.insert(0, str(Path(program).parent))
    atexit._clear()  # functions of the server's imports
    try:
        runpy.run_path(program, run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # which such a process leaves out


class Command:
    """A command that has been started, as `subprocess.Popen` has it."""

    def __init__(self, program: str | Path, *flags: object, cwd: Path) -> None:
        self._folder = Path(tempfile.mkdtemp())
        self._texts = [self._folder / name for name in ("out", "err")]
        for file in self._texts:
            file.touch()
        files = tuple(map(str, self._texts))
        arguments = (str(ROOT / program), [str(flag) for flag in flags], str(cwd), files)
        self._process: Any = _PROCESSES.Process(target=_run, args=arguments, daemon=True)
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """Exit code, a negative signal number after a kill, or None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return `returncode`."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Sends a signal."""
        os.kill(self._process.pid, number)

    def communicate(self, timeout: float = 600) -> tuple[str, str]:
        """Wait for the end, and return stdout and stderr."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            raise TimeoutError(f"still running after {timeout} s: {self._texts[1].read_text()}")
        out, err = (file.read_text() for file in self._texts)
        shutil.rmtree(self._folder)
        return out, err


def call(program: str | Path, *flags: object, cwd: Path) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of a command."""
    command = Command(program, *flags, cwd=cwd)
    out, err = command.communicate()
    return command.returncode or 0, out, err


def within(program: str | Path, *flags: object, cwd: Path) -> tuple[int, str, str]:
    """Call a command in this process; do not train, because that changes the process."""
    command = importlib.import_module(f"keras_reid.cli.{Path(program).stem}").run
    values = absl.flags.FlagValues()
    options.define(command.fields, values)
    out, err = io.StringIO(), io.StringIO()
    code = 0
    # absl closes a stream of its handler that is not the present stderr, so it goes along.
    handler = absl.logging.get_absl_handler().python_handler
    before, handler.stream = handler.stream, err
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            command.main(options.parsed([str(program), *map(str, flags)], values), values)
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            handler.stream = before
    return code, out.getvalue(), err.getvalue()


def said(program: str | Path, *flags: object, cwd: Path, code: int = 0) -> str:
    """Return the stdout of a command, or the stderr if it must fail with that code.

    In this process, unless it trains.
    """
    trains = program == "train.py" and code == 0
    returned, out, err = (call if trains else within)(program, *flags, cwd=cwd)
    assert returned == code, err
    assert "Traceback" not in err
    return err if code else out
