"""Galleries of enrolled persons: enrol, search, remove; in memory, in a file, or in Milvus."""

import os
from pathlib import Path

from keras_reid import checks
from keras_reid.errors import InputError, invalid
from keras_reid.gallery.decision import (
    LIMITS,
    MATCH,
    NO_MATCH,
    POSSIBLE_MATCH,
    Decision,
    Identification,
    Limits,
    Verification,
    verify,
)
from keras_reid.gallery.gallery import Gallery
from keras_reid.gallery.rows import Filter, SearchResult, seconds
from keras_reid.names import expanded

__all__ = [
    "LIMITS",
    "MATCH",
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

SCHEMES = ("file", "faiss")  # faiss: the name in version 0.2.0


def open(
    uri: str | os.PathLike[str], approximate_from: int = 1_000_000, recall: float = 0.99
) -> Gallery:
    """Open the gallery at `uri`, or create it.

    - `memory:`: in this process, lost at its end.
    - `file:people`: rows in the SQLite file `people.rows`, searched in memory; for one process at a
      time. `faiss:people` is the former name of the same gallery.
    - `people.db`, any path that ends in `.db`: Milvus Lite, embedded, for one process at a time.
    - `http://host:19530`, also `https` and `tcp`: a Milvus server or cluster.

    >>> people = open("memory:")
    >>> people.enrol([[1.0, 0.0], [0.0, 1.0]], ["anna", "berta"], model_fingerprint="mine")
    2
    >>> (hits,) = people.search([[0.8, 0.6]], top_k=1)
    >>> hits.pop().identity
    'anna'
    >>> people.close()

    Args:
        uri: one of the above.
        approximate_from: minimum number of rows for an inverted file in `memory:` and `file:`.
            Other searches are exact, also in Milvus Lite.
        recall: fraction of true neighbors that the inverted file must retrieve in a sample.

    Raises:
        InputError: another address, or a gallery that cannot be opened.
    """
    checks.at_least(1, approximate_from=approximate_from)
    checks.within("(0, 1]", recall=recall)
    from keras_reid.gallery.database import DatabaseStore
    from keras_reid.gallery.milvus import MilvusStore

    uri = os.fspath(uri)
    if uri == "memory:":
        return Gallery(DatabaseStore(None, approximate_from, recall))
    if rows := _rows_file(uri):
        if rows.with_suffix("").exists() and not rows.exists():
            raise InputError(f"{rows} not found. Restore it, or choose a new name.")
        return Gallery(DatabaseStore(rows, approximate_from, recall))
    if uri.startswith(("http:", "https:", "tcp:")) or uri.endswith(".db"):
        return Gallery(MilvusStore(uri))
    rule = "memory:, file:NAME, a path that ends in .db (Milvus Lite) or http://HOST:PORT (Milvus)"
    raise invalid("gallery", rule, uri)


def check_exists(uri: str) -> None:
    """Raise if the gallery does not exist, so that a typo does not create one."""
    path = _rows_file(uri) or expanded(uri)
    if "://" not in uri and not path.exists():
        raise InputError(f"Gallery {path} not found. Enrol images first, or check the path.")


def _rows_file(uri: str) -> Path | None:
    """Return the database of a gallery in a file."""
    scheme, _, rest = uri.partition(":")
    return expanded(rest + ".rows").absolute() if scheme in SCHEMES and rest else None
