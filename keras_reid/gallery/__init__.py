"""Galleries of known people: enrol, search, remove; in memory, in a file, or in Milvus."""

import os

from keras_reid import checks
from keras_reid.errors import InputError
from keras_reid.gallery.decision import (
    LIMITS,
    MATCH,
    NO_MATCH,
    NOT_CALIBRATED,
    POSSIBLE_MATCH,
    Decision,
    Identification,
    Limits,
    Verification,
    verify,
)
from keras_reid.gallery.gallery import Gallery
from keras_reid.gallery.inputs import check_exists, seconds
from keras_reid.gallery.store import Filter, SearchResult
from keras_reid.names import expanded

__all__ = [
    "LIMITS",
    "MATCH",
    "NOT_CALIBRATED",
    "NO_MATCH",
    "POSSIBLE_MATCH",
    "Decision",
    "Filter",
    "Gallery",
    "Identification",
    "Limits",
    "SearchResult",
    "Verification",
    "check_exists",
    "open",
    "seconds",
    "verify",
]

APPROXIMATE_FROM = 1_000_000


def open(
    uri: str | os.PathLike[str],
    approximate_from: int = APPROXIMATE_FROM,
    recall: float = 0.99,
) -> Gallery:
    """The gallery at `uri`, made if there is none.

    - `memory:`: in this process, gone when it ends.
    - `faiss:index.faiss`: rows in the file `index.faiss.rows`, searched in memory; for one process
      at a time. The index is a faiss inverted file and exists from `approximate_from` rows on.
    - `people.db`, any path that ends in `.db`: Milvus Lite, embedded, for one process at a time.
    - `http://host:19530`, also `https` and `tcp`: a Milvus server or cluster.

    >>> people = open("memory:")
    >>> people.enrol([[1.0, 0.0], [0.0, 1.0]], ["anna", "berta"], model_fingerprint="mine")
    2
    >>> (hits,) = people.search([[0.8, 0.6]], k=1)
    >>> hits.pop().identity
    'anna'
    >>> people.close()

    Args:
        uri: one of the above.
        approximate_from: rows from which `memory:` and `faiss:` look for candidates in an inverted
            file; below, and in Milvus Lite, every search is exact.
        recall: the fraction of true neighbors that the inverted file has to find in a sample.

    Raises:
        InputError: another address, or a gallery that cannot be opened.
    """
    checks.at_least(1, approximate_from=approximate_from)
    checks.within("(0, 1]", recall=recall)
    from keras_reid.gallery.arrays import ArrayStore
    from keras_reid.gallery.file_store import FileStore
    from keras_reid.gallery.milvus import MilvusStore

    uri = os.fspath(uri)
    if uri == "memory:":
        return Gallery(ArrayStore(approximate_from, recall))
    scheme, _, rest = uri.partition(":")
    if scheme == "faiss" and rest:
        return Gallery(FileStore(expanded(rest).absolute(), approximate_from, recall))
    if scheme in ("http", "https", "tcp") or uri.endswith(".db"):
        return Gallery(MilvusStore(uri))
    raise InputError(
        "a gallery is memory:, faiss:FILE, a path that ends in .db (Milvus Lite) or "
        f"http://HOST:PORT (Milvus): received {uri!r}"
    )
