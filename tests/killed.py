"""Kill processes that enroll or remove at random moments, and check the gallery afterwards.

`python tests/killed.py FOLDER [KILLS]`: each child writes acknowledgments to a pipe until SIGKILL.
All acknowledged rows must be in the gallery, all other rows must be those of the interrupted call,
and the gallery must still work. No file may contain an embedding of a removed person: immediately
if the removal was acknowledged, else after another removal.
"""

import os
import random
import select
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import tensorflow as tf  # noqa: F401  before the children, who would import it each

from keras_reid import gallery
from keras_reid.gallery import database, milvus  # noqa: F401  children find them imported

KILLS = int(sys.argv[2]) if sys.argv[2:] else 10  # of each kind of gallery
WIDTH, BATCH = 32, 40
SMALL = {"approximate_from": 100}


def row(number):
    return np.random.default_rng(number).standard_normal(WIDTH).astype(np.float32)


def enrol_for_ever(uri, first, out):
    with gallery.open(uri) as people:
        os.write(out, b"open\n")
        while True:
            numbers = range(first, first + BATCH)
            people.enrol(
                np.stack([row(i) for i in numbers]),
                [f"p{i}" for i in numbers],
                images=[f"{i}.jpg" for i in numbers],
                model_fingerprint="model",
            )
            os.write(out, f"{first}\n".encode())
            first += BATCH


def remove_for_ever(uri, first, out):
    with gallery.open(uri, **SMALL) as people:
        os.write(out, b"open\n")
        while True:
            assert people.remove(f"p{first}") == 1
            os.write(out, f"{first}\n".encode())
            first += 1


def kill_one(uri, first, chance, act=enrol_for_ever, acknowledged=0):
    """Kill a child after so many acknowledgements and a pause; return all acknowledged numbers."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        act(uri, first, write)
    os.close(write)
    text = b""
    while text.count(b"\n") <= acknowledged:
        text += os.read(read, 100)
    time.sleep(chance.uniform(0.0, 0.4))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while select.select([read], [], [], 0)[0] and (more := os.read(read, 4096)):
        text += more
    os.close(read)
    # A line that the kill cut short was not told.
    return [int(line) for line in text.decode().rpartition("\n")[0].split("\n")[1:]]


def in_child(act, *arguments):
    """Run a function in a child process, which opens the gallery again."""
    child = os.fork()
    if not child:
        code = 1
        try:
            act(*arguments)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0, f"{arguments} are damaged"


def fill(uri, count):
    with gallery.open(uri, **SMALL) as people:
        people.enrol(
            np.stack([row(i) for i in range(count)]),
            [f"p{i}" for i in range(count)],
            model_fingerprint="model",
        )
        people.search(row(0)[None], 1)  # which makes an index


def held(folder, numbers):
    """Return the numbers of persons with embeddings in a file."""
    content = b"\0".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
    return [i for i in numbers if row(i).tobytes() in content]


def kill_removals(uri, folder, count, chance):
    """Return the number of kills and of removed persons."""
    in_child(fill, uri, count)
    # Check that the search for bytes works: a remaining person is found.
    assert held(folder, [count - 1]) == [count - 1]
    first = kills = 0
    while kills < KILLS and first < count - 10:
        told = kill_one(uri, first, chance, remove_for_ever)
        kills += 1
        assert held(folder, told) == [], f"{uri} keeps who was removed"
        first = max([first - 1, *told]) + 1
        in_child(finish, uri, folder, first)
        first += 1
    return kills, first


def finish(uri, folder, number):
    """Remove an interrupted person again: no file may contain the embeddings."""
    with gallery.open(uri, **SMALL) as people:
        assert people.remove(f"p{number}") in (0, 1)
        assert held(folder, range(number + 1)) == []
        assert people.remove(f"p{number}") == 0


def check(uri, told):
    """Check in a child process that the gallery has all acknowledged rows and no others."""
    child = os.fork()
    if not child:
        code = 1
        try:
            with gallery.open(uri) as people:
                names = people.identities()
                acknowledged = {f"p{i}" for first in told for i in range(first, first + BATCH)}
                assert acknowledged <= set(names), sorted(acknowledged - set(names))[:5]
                assert set(names.values()) <= {1}
                assert people.count() == len(names)
                numbers = sorted(int(name[1:]) for name in names)
                if numbers:
                    stored = people.store.embeddings([f"{i}.jpg" for i in numbers])
                    assert (stored == np.stack([row(i) for i in numbers])).all()
                fresh = f"after-{len(told)}-{os.getpid()}"
                assert people.enrol(row(0)[None], [fresh], model_fingerprint="model") == 1
                assert people.remove(fresh) == 1
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0, f"{uri} is damaged after {len(told)} batches"


def main():
    chance, kills, batches = random.Random(0), 0, 0
    for uri in (f"file:{sys.argv[1]}/index", f"{sys.argv[1]}/people.db"):
        told, first = [], 0
        for number in range(1, KILLS + 1):
            told += kill_one(uri, first, chance, acknowledged=number == KILLS and not told)
            kills += 1
            check(uri, told)
            first += 10_000
        assert told, "no batch was acknowledged: the kills came too early"
        batches += len(told)
    for kind in ("file:{}/index", "{}/people.db"):
        folder = Path(sys.argv[1]) / f"removed-{kind[:5].strip('{}/')}"
        folder.mkdir()
        died, removed = kill_removals(kind.format(folder), folder, 60 * KILLS, chance)
        print(f"{died} kills while removing, {removed} people gone from all files")
    print(f"{kills} kills, {batches} acknowledged batches of {BATCH} rows, all there")


if __name__ == "__main__":
    main()
