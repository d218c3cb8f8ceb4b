"""Kills a process that enrols, at random moments, and looks at what it left.

`python tests/killed.py FOLDER`: each child tells through a pipe what was acknowledged, and dies by
SIGKILL. Everything acknowledged must be there, everything else must be rows that the child meant to
enrol, and the gallery must go on.
"""

import os
import random
import select
import signal
import sys
import time
import traceback

import numpy as np
import tensorflow as tf  # noqa: F401  before the children, who would import it each

from keras_reid import gallery
from keras_reid.gallery import arrays, file_store, milvus  # noqa: F401  children find them imported

KILLS = 10
WIDTH, BATCH = 32, 40


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


def kill_one(uri, first, chance):
    """The first numbers of the batches that a child was told are in, before it was killed."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        enrol_for_ever(uri, first, write)
    os.close(write)
    text = b""
    while b"\n" not in text:
        text += os.read(read, 100)
    time.sleep(chance.uniform(0.0, 0.4))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while select.select([read], [], [], 0)[0] and (more := os.read(read, 4096)):
        text += more
    os.close(read)
    # A line that the kill cut short was not told.
    return [int(line) for line in text.decode().rpartition("\n")[0].split("\n")[1:]]


def check(uri, told):
    """In a child, so that the gallery is opened anew: all that was told is there, no rubbish."""
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
    for uri in (f"faiss:{sys.argv[1]}/index.faiss", f"{sys.argv[1]}/people.db"):
        told, first = [], 0
        for _ in range(KILLS):
            told += kill_one(uri, first, chance)
            kills += 1
            check(uri, told)
            first += 10_000
        assert told, "no batch was acknowledged: the kills came too early"
        batches += len(told)
    print(f"{kills} kills, {batches} acknowledged batches of {BATCH} rows, all there")


if __name__ == "__main__":
    main()
