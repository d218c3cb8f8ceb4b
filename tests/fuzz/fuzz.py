"""Fuzzer for every file parser: each mutated file is read or rejected with `InputError`.

    python tests/fuzz/fuzz.py --count=100000 [--parser=NAME] [--seed=0]

mutates good files, prints for each parser how many were read and refused, and ends with exit code 1
if anything else came out of one; the input is kept in `fuzz-NAME-NUMBER`. An input that takes more
than ten seconds is such a fault too, and so is one that takes four GiB.
"""

import argparse
import json
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from keras_reid import data, evaluation, gallery, tracking
from keras_reid.data.keypoints import read_points
from keras_reid.data.mot import read_mot
from keras_reid.errors import InputError
from keras_reid.inference import Metadata
from keras_reid.io import read_model
from keras_reid.skeletons import COCO
from keras_reid.training.runs import Run

SECONDS, MEMORY = 10, 2**32
TOKENS = [
    *(b"", b"0", b"-1", b"1", b"1e999", b"nan", b"-inf", b"9" * 30, b"9" * 5000, b"1e7", b"0001"),
    *(b",", b",,", b"\n", b"\r\n", b"\r", b'"', b"'", b"\\", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf"),
    *(b"{", b"}", b"[", b"]", b"[" * 3000, b"null", b"true", b'{"a": 1}', b"\xe2\x80\xae", b"/"),
    *(b"../..", b"a" * 300, b" ", b"\t", b"\x1b[31m", b"PK\x03\x04", b"\x80\x04."),
]


@dataclass(frozen=True)
class Parser:
    """Parser of a file.

    Attributes:
        name: of the file that is broken, in a folder made by `fill`.
        fill: puts a good file, and what it needs, into an empty folder.
        read: reads it.
        slow: how many times fewer inputs it gets.
    """

    name: str
    fill: Callable[[Path], Any]
    read: Callable[[Path], Any]
    slow: int = 1


@dataclass
class Found:
    """Counts of outcomes."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[str, bytes]] = field(default_factory=list)


def text(name: str, content: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(content)


MOT = "".join(
    f"{f},{p},{10 * p + f}.5,{20},30,60,1,-1,-1,-1\n" for f in range(1, 9) for p in (1, 2)
)
POINTS = "".join(f",{name}_x,{name}_y,{name}_c" for name in COCO.names)
FLAGS = {
    "dataset": "market1501",
    "data_dir": "x",
    "protocol": "market1501",
    "recipe": "bot",
    "seed": 0,
    "keypoints": None,
    "flip": True,
    "frames": 4,
    "attribute_names": ["hat"],
}
METADATA = {
    "format": "onnx",
    "precision": "float32",
    "image_size": [64, 32],
    "embedding_dim": 16,
    "flip": True,
    "local": [4, 16],
    "fingerprint": "0123456789abcdef",
    "about": {"run": "x"},
    "pixels": "uint8",
    "distance": "|x − y|",
    "files": {"model.onnx": "ab" * 32},
}


def images(folder: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (16, 32)).save(folder / name)
    rows = "a.jpg,1,1,query,5\nb.jpg,1,2,gallery,6\na.jpg,2,3,train,7\n"
    (folder / "x.csv").write_text("path,identity,camera,split,tracklet\n" + rows)


def matlab(folder: Path) -> None:
    ids = np.empty(2, object)
    ids[:] = ["0002", "0007"]
    part = {"hat": np.array([1.0, 2.0]), "age": np.array([1.0, 3.0]), "image_index": ids}
    savemat(folder / "x.mat", {"market_attribute": {"train": part}})


def mars(folder: Path) -> None:
    for part in ("train", "test"):
        person = folder / f"bbox_{part}/0001"
        person.mkdir(parents=True)
        Image.new("RGB", (8, 16)).save(person / "0001C1T0001F001.jpg")
    info = folder / "info"
    info.mkdir()
    for part in ("train", "test"):
        (info / f"{part}_name.txt").write_text("0001C1T0001F001.jpg\n")
        savemat(info / f"tracks_{part}_info.mat", {f"track_{part}_info": np.array([[1, 1, 1, 1]])})
    savemat(info / "query_IDX.mat", {"query_IDX": np.array([[1]])})


def arrays() -> dict[str, Any]:
    chance = np.random.default_rng(0)
    return {
        "embedding": chance.standard_normal((6, 8)).astype(np.float32),
        "identity": np.array([1, 1, 2, 2, 3, 3]),
        "camera": np.array([1, 2, 1, 2, 1, 2]),
    }


def result(folder: Path) -> None:
    evaluation.save_matlab(folder / "x.mat", StoredGood, StoredGood)


def ranked(file: Path) -> None:
    """Score features like `evaluate.py --features`."""
    sides = [evaluation.load_features(file), StoredGood]
    if sides[0].identity is None:
        raise InputError("no identities")
    values = [side.features.get("embedding", side.features) for side in sides]
    evaluation.rank(evaluation.compare(*values), *sides, evaluation.Protocol("market1501"))


StoredGood = evaluation.StoredFeatures(
    {"embedding": arrays()["embedding"]}, arrays()["identity"], arrays()["camera"]
)


def tracked(file: Path) -> None:
    boxes = read_mot(file)
    if len(boxes):
        tracking.track(boxes)


def people(folder: Path) -> None:
    with gallery.open(f"faiss:{folder}/x") as some:
        some.enrol(np.eye(4, dtype=np.float32), list("abcd"), model_fingerprint="m")


def asked(file: Path) -> None:
    with gallery.open(f"faiss:{file.with_suffix('')}") as some:
        some.stats()
        if some.count():
            some.search(np.eye(4, dtype=np.float32)[:1], 1)


def model(folder: Path) -> None:
    import keras

    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(folder / "x.keras")


RUN = {"flags.json": FLAGS, "metrics.json": {"members": {"1": {"mAP": 0.5}, "2": {"mAP": 0.6}}}}
HISTORY = "".join(json.dumps({"epoch": n, "seconds": 1.5, "loss": 0.5}) + "\n" for n in range(4))
LISTED = "0000/0000_000_01_0303morning_0015_0.jpg 0\n0000/0000_001_02_0303morning_0015_0.jpg 0\n"


def of_list(file: Path) -> None:
    from keras_reid.data.readers.msmt17 import _msmt17_rows

    _msmt17_rows(file, file.parent, 0)


def listed(folder: Path) -> None:
    (folder / "0000").mkdir()
    for line in LISTED.splitlines():
        (folder / line.split()[0]).touch()
    (folder / "list.txt").write_text(LISTED)


PARSERS = {
    "attributes, CSV": Parser(
        "x.csv",
        text("x.csv", "identity,age,hat,upred,upblue\n0002,2,1,2,1\n0007,1,2,1,2\n"),
        lambda f: data.read_attributes(f).schema.groups,
    ),
    "attributes, MATLAB": Parser("x.mat", matlab, data.read_attributes, slow=100),
    "body points": Parser(
        "x.csv",
        text("x.csv", f"file{POINTS}\na.jpg{',1,2,0.5' * 17}\nb.jpg{',,,' * 17}\n"),
        read_points,
    ),
    "MOT": Parser("x.txt", text("x.txt", MOT), tracked),
    "MARS": Parser(
        "info/query_IDX.mat", mars, lambda f: data.load("mars", f.parent.parent), slow=100
    ),
    "MARS, tracks": Parser(
        "info/tracks_test_info.mat", mars, lambda f: data.load("mars", f.parent.parent), slow=100
    ),
    "MSMT17": Parser("list.txt", listed, of_list),
    "image CSV": Parser("x.csv", images, lambda f: data.load("csv", f)),
    "export.json": Parser(
        "export.json", text("export.json", json.dumps(METADATA)), lambda f: Metadata.read(f.parent)
    ),
    **{
        name: Parser(name, text(name, json.dumps(value)), read)
        for (name, value), read in zip(
            RUN.items(),
            (lambda f: Run(f.parent).settings, lambda f: Run(f.parent).metrics),
            strict=True,
        )
    },
    "history.jsonl": Parser(
        "history.jsonl", text("history.jsonl", HISTORY), lambda f: Run(f.parent).minutes
    ),
    "features": Parser("x.npz", lambda folder: np.savez(folder / "x.npz", **arrays()), ranked),
    "features, MATLAB": Parser("x.mat", result, ranked, slow=100),
    "gallery": Parser("x.rows", people, asked, slow=20),
    "model": Parser("x.keras", model, read_model, slow=20),
}


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Return the bytes with one to eight changes of bits, bytes and lengths, and with tokens."""
    values = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 8))):
        where = chance.randrange(len(values) + 1)
        end = min(len(values), where + chance.choice((1, 2, 8, 64)))
        kind = chance.randrange(6)
        if kind == 0 and where < len(values):
            values[where] ^= 1 << chance.randrange(8)
        elif kind == 1:
            values[where:end] = b""
        elif kind == 2:
            values[where:end] = chance.choice(TOKENS)
        elif kind == 3:
            values[where:where] = chance.choice(TOKENS)
        elif kind == 4:
            values[where:where] = values[where:end] * chance.choice((1, 2, 50))
        elif chance.random() < 0.2:
            del values[where:]
    return bytes(values)


def changed_arrays(chance: random.Random) -> bytes:
    """Arrays of other shapes, types and values, well written."""
    values = arrays()
    name = chance.choice([*values])
    x = values[name]
    kind = chance.randrange(8)
    if kind == 0:
        del values[name]
    elif kind == 1:
        values[name] = x.astype(
            chance.choice(["f8", "f2", "c8", "i1", "u8", "U3", "S3", "?", "M8[s]"])
        )
    elif kind == 2:
        values[name] = x[: chance.randrange(7)]
    elif kind == 3:
        values[name] = chance.choice(
            [x[None], x[..., None], x.ravel(), x.ravel()[0], x.T, x[:, :0] if x.ndim > 1 else x]
        )
    elif kind == 4:
        x = x.astype(np.float32)
        x.flat[chance.randrange(x.size)] = chance.choice(
            [np.nan, np.inf, -np.inf, 1e38, 1e-45, -1.0]
        )
        values[name] = x
    elif kind == 5:
        x.flat[chance.randrange(x.size)] = chance.choice([-1, 0, 100])
    elif kind == 6:
        values["local"] = np.zeros((chance.randrange(7), 2, 3), np.float32)
    else:
        values[chance.choice(["embedding", "other", "global"])] = np.array(["a", "b"])
    file = BytesIO()
    np.savez(file, **values)
    return file.getvalue()


def stop(*_: Any) -> None:
    raise TimeoutError(f"longer than {SECONDS} s")


def run(name: str, count: int, seed: int = 0) -> Found:
    """Count the outcomes of a parser for `count` broken files, or fewer if it is slow."""
    parser, chance, found = PARSERS[name], random.Random(f"{name} {seed}"), Found()
    folder = Path(tempfile.mkdtemp())
    try:
        parser.fill(folder)
        file = folder / parser.name
        good = file.read_bytes()
        parser.read(file)  # which must be possible
        for _ in range(max(1, count // parser.slow)):
            arrayed = name == "features" and chance.random() < 0.5
            content = changed_arrays(chance) if arrayed else mutated(good, chance)
            file.write_bytes(content)
            outcome = one(parser, file)
            found.counts[outcome.partition("\n")[0].partition(":")[0]] += 1
            if outcome not in ("read", "refused"):
                found.faults.append((outcome, content))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return found


def one(parser: Parser, file: Path) -> str:
    """Run the parser and return the outcome."""
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parser.read(file)
        return "read"
    except InputError:
        return "refused"
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--count", type=int, default=100_000)
    flags.add_argument("--parser", choices=list(PARSERS), action="append")
    flags.add_argument("--seed", type=int, default=0)
    given = flags.parse_args()
    faults = 0
    for name in given.parser or PARSERS:
        begin = time.perf_counter()
        found = run(name, given.count, given.seed)
        counts = ", ".join(f"{n:,} {what}" for what, n in found.counts.most_common())
        print(f"{name:<20} {time.perf_counter() - begin:7.1f} s  {counts}", flush=True)
        faults += len(found.faults)
        for number, (outcome, content) in enumerate(found.faults[:3]):
            print(f"  {outcome[:300]}")
            Path(f"fuzz-{name.replace(' ', '-').replace(',', '')}-{number}").write_bytes(content)
    sys.exit(bool(faults))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    main()
