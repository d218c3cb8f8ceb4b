"""Galleries in Milvus: embedded (Milvus Lite, a folder) or a server or cluster."""

import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError, invalid
from keras_reid.gallery.rows import NO_TIME, Filter, Row, SearchResult
from keras_reid.names import expanded, normalized

PEOPLE, NEXT, OLD, SETTINGS = "people", "people_next", "people_old", "people_settings"
TEXT = 4096  # bytes of a text at most
BATCH_BYTES = 2**24  # a message of Milvus is 64 MiB at most
UNCLEAN = "replaced"  # setting: the files can hold rows twice, or erased rows
KEY = "id"
SPELLED = "spelled"  # `_key` of the image in NFC, the same for all spellings
STORED = [*Row._fields, "embedding"]
LARGEST_TOP_K = 16_384


class MilvusStore:
    """Rows in the collection "people" of a database; settings in "people_settings".

    The key of a row is a hash of 63 bits of its image: the client writes keys into filters, where
    file names would be parsed.

    A write returns when Milvus has acknowledged it. An embedded Milvus has then written its
    segments to the disk. Removed rows are erased from the files of an embedded gallery. A cluster
    erases them from its storage when it compacts.

    Args:
        uri: folder of Milvus Lite, or address of a server.
    """

    def __init__(self, uri: str) -> None:
        pymilvus = checks.installed("pymilvus", "gallery")
        for name in ("pymilvus", "milvus_lite", "grpc"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # they repeat raised errors
        self.embedded = "://" not in uri
        self.uri, self.types = uri, pymilvus.DataType
        self.converted = False
        self.unclean = False
        if self.embedded:
            path = expanded(uri).absolute()
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.mkdir(mode=0o700, exist_ok=True)  # embeddings are personal data
            except OSError as error:
                raise InputError(f"{path}: {error.strerror}. Choose another folder.") from error
            self.uri = str(path)
        with self._errors():
            self.client = pymilvus.MilvusClient(self.uri, timeout=10)
            self._recover()

    def _recover(self) -> None:
        """Load the collections, and repair the files after a kill."""
        names = self.client.list_collections()
        if self.embedded:
            _remove_rests(Path(self.uri))
        if NEXT in names and PEOPLE not in names:  # NEXT is complete
            self.client.rename_collection(NEXT, PEOPLE)
        for name in {NEXT, OLD} & set(self.client.list_collections()):
            self.client.drop_collection(name)
        if SETTINGS not in names:
            types = {"name": self.types.VARCHAR, "value": self.types.VARCHAR}
            self._create(SETTINGS, types, 2)  # a collection must have a vector
        damaged = not all([self._load(SETTINGS), self._load(PEOPLE)])
        if not self.client.has_collection(PEOPLE):
            return
        if self.embedded and (damaged or self.settings().get(UNCLEAN)):
            self.client.flush(PEOPLE)
            self._erase()
        if self.embedded or KEY not in self._fields():
            self._convert()

    def _load(self, collection: str) -> bool:
        """Load a collection; without its index, and return False, if a kill damaged the index."""
        from pymilvus.exceptions import MilvusException

        if not self.client.has_collection(collection):
            return True
        try:
            self.client.load_collection(collection)
        except MilvusException:
            if not self.embedded:
                raise
            self.client.drop_index(collection, "embedding")
            self.client.load_collection(collection)
            return False
        return True

    def _convert(self) -> None:
        """Convert a gallery of version 0.2.0 or earlier: digests, and names in NFC.

        The first process that writes converts a server's gallery, because others may search it.
        """
        if not self.converted and not {KEY, SPELLED, "digest"} <= self._fields().keys():
            self._rewrite()
        self.converted = True

    def _fields(self) -> dict[str, Any]:
        """Return the columns of the people by name."""
        fields = self.client.describe_collection(PEOPLE)["fields"]
        return {field["name"]: field for field in fields}

    def _create(self, collection: str, types: dict[str, Any], width: int) -> None:
        schema = self.client.create_schema(auto_id=False, enable_dynamic_field=False)
        for i, (name, kind) in enumerate(types.items()):
            text = {"max_length": TEXT} if kind == self.types.VARCHAR else {}
            schema.add_field(name, kind, is_primary=i == 0, **text)
        schema.add_field("embedding", self.types.FLOAT_VECTOR, dim=width)
        index = self.client.prepare_index_params()
        kind = "FLAT" if self.embedded else "AUTOINDEX"
        index.add_index("embedding", index_type=kind, metric_type="L2")
        self.client.create_collection(
            collection, schema=schema, index_params=index, consistency_level="Strong"
        )

    def _create_people(self, collection: str, width: int) -> None:
        types = dict.fromkeys((KEY, SPELLED, *STORED[:-1]), self.types.VARCHAR)
        types |= {KEY: self.types.INT64, SPELLED: self.types.INT64, "time": self.types.DOUBLE}
        self._create(collection, types, width)

    def settings(self) -> dict[str, Any]:
        with self._errors():
            rows = self.client.get(SETTINGS, ids=["settings"], output_fields=["value"])
        return json.loads(rows[0]["value"]) if rows else {}

    def save_settings(self, settings: dict[str, Any]) -> None:
        row = {"name": "settings", "value": json.dumps(settings), "embedding": [0.0, 0.0]}
        with self._errors():
            self.client.upsert(SETTINGS, [row])
            self._synchronize(SETTINGS)

    def add(self, x: np.ndarray, rows: Sequence[Row]) -> None:
        with self._writing():
            if not self.client.has_collection(PEOPLE):
                self._create_people(PEOPLE, x.shape[1])
                self.client.load_collection(PEOPLE)
            self._convert()
            for part in _messages(x, rows):
                self.client.insert(PEOPLE, part)

    def replace(self, images: Sequence[str], x: np.ndarray, rows: Sequence[Row]) -> None:
        with self._writing():
            self._convert()
            self.unclean = True
            for part in _messages(x, rows):
                self.client.upsert(PEOPLE, part)
            left = sorted({*map(_key, images)} - {_key(row.image) for row in rows})
            if left:
                self.client.delete(PEOPLE, ids=left)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Note, for the process after a kill, that the files can hold rows twice or erased rows."""
        with self._errors():
            self._mark(True)
            yield
            self._synchronize(PEOPLE)

    def _mark(self, unclean: bool) -> None:
        settings = self.settings()
        if self.embedded and settings.get(UNCLEAN, False) != unclean:
            self.save_settings({**settings, UNCLEAN: unclean})

    def _synchronize(self, collection: str) -> None:
        # A cluster's log is durable when it answers, and it limits how often it is flushed.
        if self.embedded:
            self.client.flush(collection)

    def remove(self, identity: str) -> int:
        with self._errors():
            if not self.client.has_collection(PEOPLE):
                return 0
            self._convert()  # before names are compared
            condition = f"identity == {_literal(identity)}"
            count = self._count(condition)
            if count:
                with self._writing():
                    self.client.delete(PEOPLE, filter=condition)
                self._erase()
        return count

    def _erase(self) -> None:
        """Erase removed and replaced rows from the storage, at once in an embedded gallery."""
        if self.embedded:
            self._rewrite()
        else:
            self.client.compact(PEOPLE)
        self.unclean = False
        self._mark(False)

    def _rewrite(self) -> None:
        """Write the rows to new files, because Milvus Lite keeps removed rows in the old files."""
        fields = self._fields()
        self._create_people(NEXT, fields["embedding"]["params"]["dim"])
        for batch in self._all([name for name in STORED if name in fields]):
            self.client.insert(NEXT, [_record(**row) for row in batch])
        self.client.flush(NEXT)
        # Two renames, because a kill can interrupt the removal of a collection.
        self.client.rename_collection(PEOPLE, OLD)
        self.client.rename_collection(NEXT, PEOPLE)
        self.client.drop_collection(OLD)
        self.client.load_collection(PEOPLE)

    def _all(self, fields: list[str], condition: str = "") -> Iterator[list[dict[str, Any]]]:
        """Yield all rows, or those of a condition, each once, in batches; fields have the image."""
        if not self.client.has_collection(PEOPLE):
            return
        iterator = self.client.query_iterator(
            PEOPLE, batch_size=1000, filter=condition, output_fields=fields
        )
        images: set[str] = set()  # after a kill, and in old versions, rows come twice
        while batch := iterator.next():
            new = {row["image"]: row for row in batch if row["image"] not in images}
            images |= new.keys()
            if new:
                yield list(new.values())
        iterator.close()

    def count(self) -> int:
        with self._errors():
            return self._count()

    def _count(self, condition: str = "") -> int:
        if not self.client.has_collection(PEOPLE):
            return 0
        return int(self.client.query(PEOPLE, condition, ["count(*)"])[0]["count(*)"])

    def identities(self) -> dict[str, int]:
        with self._errors():
            batches = self._all(["image", "identity"])
            counts = Counter(row["identity"] for batch in batches for row in batch)
        return dict(sorted(counts.items()))

    def held(self, images: Sequence[str]) -> dict[str, Row]:
        with self._errors():
            if not self.client.has_collection(PEOPLE):
                return {}
            fields = self._fields()
            columns = [name for name in Row._fields if name in fields]
            rows = self._get(images, columns)
            if SPELLED in fields:
                others = [_key(normalized(image)) for image in images if not image.isascii()]
                for start in range(0, len(others), 1000):
                    some = f"{SPELLED} in {others[start : start + 1000]}"
                    rows += self.client.query(PEOPLE, some, columns)
        own = {row["image"]: _row(**row) for row in rows}
        spelled = {normalized(image): row for image, row in own.items()} | own
        pairs = [(image, name) for image in images for name in (normalized(image), image)]
        return {image: spelled[name] for image, name in pairs if name in spelled}

    def _get(self, images: Sequence[str], fields: list[str]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for start in range(0, len(images), 1000):
            keys = [_key(image) for image in images[start : start + 1000]]
            rows += self.client.get(PEOPLE, ids=keys, output_fields=fields)
        return rows

    def search(self, x: np.ndarray, top_k: int, filter: Filter) -> list[list[SearchResult]]:
        if top_k > LARGEST_TOP_K:
            raise invalid("top_k", f"at most {LARGEST_TOP_K:,} in Milvus", top_k)
        results = []
        for start in range(0, len(x), 256):
            with self._errors():
                batch = self.client.search(
                    PEOPLE,
                    data=x[start : start + 256].tolist(),
                    limit=top_k,
                    filter=filter.condition(_literal),
                    output_fields=list(Row._fields[:4]),
                )
            results += [sorted(map(_result, hits), key=lambda hit: hit.distance) for hits in batch]
        return results

    def embeddings(self, images: Sequence[str]) -> np.ndarray:
        with self._errors():
            rows = self._get(images, ["image", "embedding"])
        held = {row["image"]: row["embedding"] for row in rows}
        return np.array([held[image] for image in images], np.float32)

    def of(self, identities: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        condition = f"identity in {_literal(identities)}"
        with self._errors():
            batches = self._all(["image", "identity", "embedding"], condition)
            rows = [row for batch in batches for row in batch]
        x = np.array([row["embedding"] for row in rows], np.float32)
        return x, [row["identity"] for row in rows]

    def described(self, where: Filter) -> Iterator[Row]:
        with self._errors():
            for batch in self._all(list(Row._fields[:5]), where.condition(_literal)):
                yield from (_row(**row) for row in batch if row["attributes"])

    def stats(self) -> dict[str, Any]:
        return {"search": "Milvus Lite, exact" if self.embedded else f"Milvus at {self.uri}"}

    def close(self) -> None:
        with self._errors():
            if self.unclean:
                self._erase()
            self._mark(False)
        self.client.close()
        if self.embedded:
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(self.uri)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Convert errors of Milvus to InputError."""
        from pymilvus.exceptions import MilvusException

        try:
            yield
        except MilvusException as error:
            fix = "Start Milvus, for instance with 'docker compose up -d', or check the address."
            if self.embedded:
                fix = "Is it open in another process, or not a gallery of Milvus Lite?"
            raise InputError(f"Gallery {self.uri}: {error.message.strip()[:200]}. {fix}") from error


def _remove_rests(folder: Path) -> None:
    """Remove what a kill left of removed collections: Milvus Lite does not list a part of one."""
    for collection in folder.glob("collections/*"):
        if not (collection / "schema.json").exists():
            shutil.rmtree(collection)


def _key(image: str) -> int:
    """Return 63 bits of a hash of an image reference."""
    return int.from_bytes(hashlib.blake2b(image.encode(), digest_size=8).digest(), "big") >> 1


def _messages(x: np.ndarray, rows: Sequence[Row]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows as records, in parts that fit into a message of Milvus."""
    step = max(1, BATCH_BYTES // (4 * x.shape[1] + TEXT))
    for start in range(0, len(rows), step):
        part = zip(rows[start : start + step], x[start : start + step], strict=True)
        yield [_record(**row._asdict(), embedding=embedding) for row, embedding in part]


def _record(image: str, identity: str, camera: str, time: float | None, **rest: Any) -> Any:
    """Return a row as the collection stores it, also for a row of an earlier version."""
    return {
        "digest": "",
        **rest,
        KEY: _key(image),
        SPELLED: _key(normalized(image)),
        "image": image,
        "identity": normalized(identity),
        "camera": normalized(camera),
        "time": _stored_time(time),
    }


def _row(time: float | None, id: int = 0, **columns: Any) -> Row:
    return Row(**columns, time=None if time == NO_TIME else time)


def _result(hit: dict[str, Any]) -> SearchResult:
    row = _row(**hit["entity"])
    return SearchResult(*row[:4], float(np.sqrt(max(0.0, hit["distance"]))))  # it is |x − y|²


def _stored_time(time: float | None) -> float:
    """Return the time; galleries of earlier versions have nulls."""
    return NO_TIME if time is None else time


def _literal(value: Any) -> str:
    """Return a text or texts in the language of Milvus.

    JSON has the escapes of Milvus for the quote and the backslash. It writes control characters in
    a form that Milvus Lite does not read, but a gallery has no such texts.
    """
    return json.dumps(value, ensure_ascii=False)
