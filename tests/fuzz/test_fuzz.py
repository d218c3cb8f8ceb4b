"""Fuzz tests with 500 mutated files per parser, and tests of the fuzzer."""

import os
import random
import zipfile
from io import BytesIO
from pathlib import Path

import fuzz
import numpy as np
import pytest

from keras_reid import evaluation
from keras_reid.errors import InputError

COUNT = int(os.environ.get("KERAS_REID_FUZZ_COUNT", "100"))


@pytest.mark.parametrize("name", fuzz.PARSERS)
def test_parsers_mutated_files_are_read_or_raise_input_error(name: str) -> None:
    found = fuzz.run(name, COUNT, seed=1)
    assert not found.faults, found.faults[0]
    assert found.counts["refused"]


def test_load_features_oversized_npy_header_raises(tmp_path: Path) -> None:
    """A header of 238 GiB is rejected before memory is allocated."""
    header = BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (10**6, 64_000)}
    np.lib.format.write_array_header_1_0(header, shape)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("embedding.npy", header.getvalue())
    with pytest.raises(InputError, match=r"must be an \.npz file"):
        evaluation.load_features(tmp_path / "x.npz")


def test_fuzz_uncaught_error_is_reported_as_fault() -> None:
    """Parser that does not convert an error of its library."""
    parser = fuzz.Parser(
        "x", lambda folder: (folder / "x").write_text("1"), lambda f: int(f.read_text())
    )
    fuzz.PARSERS["careless"] = parser
    try:
        found = fuzz.run("careless", COUNT)
    finally:
        del fuzz.PARSERS["careless"]
    assert {fault.partition(":")[0] for fault, _ in found.faults} >= {"ValueError"}


def test_fuzz_hanging_parser_reports_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz, "SECONDS", 1)

    def forever(file: Path) -> None:
        while True:
            pass

    assert fuzz.one(fuzz.Parser("x", Path.touch, forever), tmp_path / "x").startswith(
        "TimeoutError"
    )


def test_fuzz_mutated_files_are_diverse() -> None:
    chance = random.Random(0)
    broken = {fuzz.mutated(b"a,b\n1,2\n", chance) for _ in range(COUNT)}
    assert len(broken) > COUNT / 2
