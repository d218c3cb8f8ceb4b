"""Galleries in Milvus: embedded (Milvus Lite, a folder) or a server or cluster."""

import hashlib
import itertools
import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError
from keras_reid.gallery.store import Filter, Labels, Rows, SearchResult
from keras_reid.names import expanded, normalized

PEOPLE, NEXT, SETTINGS = "people", "people_next", "people_settings"
TEXT = 4096  # bytes of a name at most
BATCH_BYTES = 2**24  # a message of Milvus is 64 MiB at most
REPLACED = "replaced"  # in the settings
KEY = "id"
SPELLED = "spelled"  # `_key` of the image in NFC, the same for all spellings
FIELDS = ["image", "identity", "camera", "time"]
STORED = [*FIELDS, "attributes", "digest", "embedding"]
LONGEST = 16_384  # hits of one search of Milvus
UNKNOWN = -1e300  # a time that is not known: servers before 2.5 have no nulls


class MilvusStore:
    """Rows in the collection "people" of a database; settings in "people_settings".

    A row is known by 63 bits of a hash of its image: names of files would be taken for language
    where the client makes a filter of its keys.

    A write is acknowledged when Milvus has acknowledged it; an embedded one has then written its
    segments to the disk. What is removed from an embedded gallery is gone from its files; a
    cluster drops it from its storage when it compacts.
    """

    def __init__(self, uri: str) -> None:
        pymilvus = checks.installed("pymilvus", "gallery")
        for name in ("pymilvus", "milvus_lite", "grpc"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # they repeat raised errors
        self.embedded = "://" not in uri
        self.uri, self.types = uri, pymilvus.DataType
        self.converted = False
        self.replaced = False  # rows, which are to be erased from the storage
        if self.embedded:
            path = expanded(uri).absolute()
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.mkdir(mode=0o700, exist_ok=True)  # embeddings are personal data
            except OSError as error:
                raise InputError(
                    f"`{path}` must be a folder of Milvus Lite, or new, got '{error.strerror}'. "
                    "Name another."
                ) from error
            uri = str(path)
            _drop_cut_indexes(path)
        killed = self.embedded and _has_log(path)
        with self._seen():
            self.client = pymilvus.MilvusClient(uri, timeout=10)
            self._recover()
            if self.embedded and PEOPLE in self.client.list_collections():
                self._clean(path, killed)

    def _recover(self) -> None:
        """Ends what a kill interrupted, and loads what there is."""
        names = self.client.list_collections()
        if NEXT in names:
            if PEOPLE in names:
                self.client.drop_collection(NEXT)
            else:
                self.client.rename_collection(NEXT, PEOPLE)
        if SETTINGS not in names:
            types = {"name": self.types.VARCHAR, "value": self.types.VARCHAR}
            self._create(SETTINGS, types, 2)  # a collection has to have a vector
        for name in self.client.list_collections():
            if name in (PEOPLE, SETTINGS):
                self.client.load_collection(name)
        if PEOPLE in names and (self.embedded or KEY not in self._fields()):
            self._convert()

    def _convert(self) -> None:
        """Brings a gallery of version 0.2.0 or before up to date: digests, and names in NFC.

        A server's is converted by the first process that writes, since others may be searching it.
        """
        if not self.converted and not {KEY, SPELLED, "digest"} <= self._fields().keys():
            self._rewrite()
        self.converted = True

    def _fields(self) -> dict[str, Any]:
        """The columns of the people by name."""
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
        with self._seen():
            rows = self.client.get(SETTINGS, ids=["settings"], output_fields=["value"])
        return json.loads(rows[0]["value"]) if rows else {}

    def save_settings(self, settings: dict[str, Any]) -> None:
        row = {"name": "settings", "value": json.dumps(settings), "embedding": [0.0, 0.0]}
        with self._seen():
            self.client.upsert(SETTINGS, [row])
            self._synchronize(SETTINGS)

    def add(self, rows: Rows) -> None:
        with self._seen():
            if not self.client.has_collection(PEOPLE):
                self._create_people(PEOPLE, rows.embedding.shape[1])
                self.client.load_collection(PEOPLE)
            self._convert()
            for part in _messages(rows):
                self.client.insert(PEOPLE, part)
            self._synchronize(PEOPLE)

    def replace(self, images: Sequence[str], rows: Rows) -> None:
        with self._seen():
            self._convert()
            self._mark(replaced=True)
            for part in _messages(rows):
                self.client.upsert(PEOPLE, part)
            left = sorted({*map(_key, images)} - {*map(_key, rows.image)})
            if left:
                self.client.delete(PEOPLE, ids=left)
            self._synchronize(PEOPLE)

    def _mark(self, replaced: bool) -> None:
        """Note, also for after a kill, whether the storage holds rows that were replaced."""
        self.replaced = replaced
        settings = self.settings()
        if self.embedded and settings.get(REPLACED, False) != replaced:
            self.save_settings({**settings, REPLACED: replaced})

    def _synchronize(self, collection: str) -> None:
        # A cluster's log is durable when it answers, and it limits how often it is flushed.
        if self.embedded:
            self.client.flush(collection)

    def remove(self, identity: str) -> int:
        with self._seen():
            if not self.count():
                return 0
            self._convert()  # before names are compared
            his = f"identity == {_literal(identity)}"
            found = self._count(his)
            if not found:
                return 0
            self.client.delete(PEOPLE, filter=his)
            self._synchronize(PEOPLE)
            self._erase()
        return found

    def _erase(self) -> None:
        """Erase removed and replaced rows from the storage, at once in an embedded gallery."""
        if self.embedded:
            self._rewrite()
        else:
            self.client.compact(PEOPLE)
        self._mark(replaced=False)

    def _rewrite(self) -> None:
        """Writes the rows to new files: Milvus Lite keeps removed ones in the old."""
        fields = self._fields()
        self._create_people(NEXT, fields["embedding"]["params"]["dim"])
        for batch in self._all([name for name in STORED if name in fields]):
            self.client.insert(NEXT, [_record(**row) for row in batch])
        self.client.flush(NEXT)
        self.client.drop_collection(PEOPLE)
        self.client.rename_collection(NEXT, PEOPLE)
        self.client.load_collection(PEOPLE)

    def _clean(self, path: Path, killed: bool) -> None:
        """Writes anew what a kill left: rows that come twice, or that were being removed.

        Killed between writing a segment and dropping its log, Milvus Lite keeps rows of both.
        Killed while it removes, it keeps those rows, and a note of which they are.
        """
        copies = False
        if killed:
            self.client.flush(PEOPLE)
            copies = self._count() > sum(map(len, self._all(["image"])))
        if copies or _has_removed(path) or self.settings().get(REPLACED):
            self._erase()

    def _all(self, fields: list[str], condition: str = "") -> Iterator[list[dict[str, Any]]]:
        """All rows, or those of a condition, each once, some at a time; fields have the image."""
        if not self.client.has_collection(PEOPLE):
            return
        iterator = self.client.query_iterator(
            PEOPLE, batch_size=1000, filter=condition, output_fields=fields
        )
        seen: set[str] = set()  # after a kill, and in old versions, rows come twice
        while batch := iterator.next():
            new = {row["image"]: row for row in batch if row["image"] not in seen}
            seen |= new.keys()
            if new:
                yield list(new.values())
        iterator.close()

    def count(self) -> int:
        with self._seen():
            return self._count()

    def _count(self, condition: str = "") -> int:
        if not self.client.has_collection(PEOPLE):
            return 0
        return int(self.client.query(PEOPLE, condition, ["count(*)"])[0]["count(*)"])

    def identities(self) -> dict[str, int]:
        with self._seen():
            batches = self._all(["image", "identity"])
            counts = Counter(row["identity"] for batch in batches for row in batch)
        return dict(sorted(counts.items()))

    def held(self, images: Sequence[str]) -> dict[str, Labels]:
        with self._seen():
            if not self.client.has_collection(PEOPLE):
                return {}
            known = self._fields()
            fields = [name for name in (*FIELDS, "attributes", "digest") if name in known]
            rows = self._get(images, fields)
            if SPELLED in known:
                others = [_key(normalized(image)) for image in images if not image.isascii()]
                for start in range(0, len(others), 1000):
                    some = f"{SPELLED} in {others[start : start + 1000]}"
                    rows += self.client.query(PEOPLE, some, fields)
        labels = {row["image"]: _labels(**row) for row in rows}
        labels = {normalized(image): row for image, row in labels.items()} | labels
        places = {i: i if i in labels else normalized(i) for i in images}
        return {image: labels[place] for image, place in places.items() if place in labels}

    def _get(self, images: Sequence[str], fields: list[str]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for start in range(0, len(images), 1000):
            keys = [_key(image) for image in images[start : start + 1000]]
            rows += self.client.get(PEOPLE, ids=keys, output_fields=fields)
        return rows

    def search(self, embeddings: np.ndarray, k: int, filter: Filter) -> list[list[SearchResult]]:
        if k > LONGEST:
            raise InputError(f"Milvus finds at most {LONGEST:,} at a time: received k={k:,}")
        hits = []
        for start in range(0, len(embeddings), 256):
            with self._seen():
                found = self.client.search(
                    PEOPLE,
                    data=embeddings[start : start + 256].tolist(),
                    limit=k,
                    filter=_expression(filter),
                    output_fields=FIELDS,
                )
            hits += [sorted(map(_hit, row), key=lambda hit: hit.distance) for row in found]
        return hits

    def embeddings(self, images: Sequence[str]) -> np.ndarray:
        with self._seen():
            rows = self._get(images, ["image", "embedding"])
        held = {row["image"]: row["embedding"] for row in rows}
        return np.array([held[image] for image in images], np.float32)

    def of(self, identities: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        condition = f"identity in {_literal(list(identities))}"
        with self._seen():
            batches = self._all(["image", "identity", "embedding"], condition)
            rows = [row for batch in batches for row in batch]
        x = np.array([row["embedding"] for row in rows], np.float32)
        return x, [row["identity"] for row in rows]

    def described(self, filter: Filter) -> Iterator[tuple[SearchResult, str]]:
        with self._seen():
            for batch in self._all([*FIELDS, "attributes"], _expression(filter)):
                for row in batch:
                    if row["attributes"]:
                        yield _found(row, 0.0), row["attributes"]

    def stats(self) -> dict[str, Any]:
        return {"search": "Milvus Lite, exact" if self.embedded else f"Milvus at {self.uri}"}

    def close(self) -> None:
        if self.replaced:
            with self._seen():
                self._erase()
        self.client.close()
        if self.embedded:
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(str(expanded(self.uri).absolute()))

    @contextmanager
    def _seen(self) -> Iterator[None]:
        """One sentence where Milvus refuses."""
        from pymilvus.exceptions import MilvusException

        try:
            yield
        except MilvusException as error:
            remedy = "Is it open in another process, or not a gallery of Milvus Lite?"
            if not self.embedded:
                remedy = (
                    "Start Milvus, for instance with 'docker compose up -d', or check the address."
                )
            message = error.message.strip()[:200]
            raise InputError(
                f"`{self.uri}` must be a Milvus gallery, got '{message}'. {remedy}"
            ) from error


def _drop_cut_indexes(path: Path) -> None:
    """A kill can leave an index of a segment empty, which Milvus Lite makes again if it is gone."""
    for file in path.glob("collections/*/partitions/*/indexes/*"):
        if file.is_file() and not file.stat().st_size:
            file.unlink(missing_ok=True)


def _has_log(path: Path) -> bool:
    """Whether an embedded gallery was not closed, but killed."""
    return any(file.stat().st_size for file in path.glob("collections/*/wal/*") if file.is_file())


def _has_removed(path: Path) -> bool:
    """Whether files of an embedded gallery hold rows that were removed."""
    removed = path.glob("collections/*/partitions/*/delta/*")
    return any(SETTINGS not in file.parts for file in removed)


def _key(image: str) -> int:
    """63 bits of a hash of its name."""
    return int.from_bytes(hashlib.blake2b(image.encode(), digest_size=8).digest(), "big") >> 1


def _messages(rows: Rows) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows as records, so many at a time as a message of Milvus takes."""
    times = [None if np.isnan(time) else time for time in rows.time.tolist()]
    texts = (rows.image, rows.identity, rows.camera, times, rows.attributes, rows.digest)
    records = zip(*texts, rows.embedding, strict=True)
    step = max(1, BATCH_BYTES // (4 * rows.embedding.shape[1] + TEXT))
    while part := list(itertools.islice(records, step)):
        yield [_record(**dict(zip(STORED, values, strict=True))) for values in part]


def _record(
    image: str, identity: str, camera: str, time: float | None, digest: str = "", **others: Any
) -> dict[str, Any]:
    """Return a row as the collection has it, also of one of an earlier version."""
    return {
        **others,
        KEY: _key(image),
        SPELLED: _key(normalized(image)),
        "image": image,
        "identity": normalized(identity),
        "camera": normalized(camera),
        "time": _stored_time(time),
        "digest": digest,
    }


def _labels(
    image: str,
    identity: str,
    camera: str,
    time: float | None,
    attributes: str,
    digest: str = "",
    **others: Any,
) -> Labels:
    known = None if time == UNKNOWN else time
    return Labels(image, identity, camera, known, attributes, digest)


def _hit(found: dict[str, Any]) -> SearchResult:
    return _found(found["entity"], float(np.sqrt(max(0.0, found["distance"]))))  # it is |x − y|²


def _found(row: dict[str, Any], distance: float) -> SearchResult:
    image, identity, camera, time = (row[name] for name in FIELDS)
    return SearchResult(image, identity, camera, None if time == UNKNOWN else time, distance)


def _stored_time(time: float | None) -> float:
    """Null in galleries of earlier versions."""
    return UNKNOWN if time is None else time


def _literal(value: Any) -> str:
    """Text or a list of texts as Milvus reads it: the one place where values become a filter.

    JSON has the escapes of Milvus for the quote and the backslash; it would write control
    characters as Milvus Lite does not read them, but a gallery refuses these.
    """
    return json.dumps(value, ensure_ascii=False)


def _expression(filter: Filter) -> str:
    conditions = []
    if filter.cameras is not None:
        conditions.append(f"camera in {_literal(filter.cameras)}")
    if filter.not_cameras:
        conditions.append(f"camera not in {_literal(filter.not_cameras)}")
    if filter.after is not None:
        conditions.append(f"time >= {float(filter.after)!r}")
    if filter.before is not None:
        conditions.append(f"time < {float(filter.before)!r} and time > {UNKNOWN!r}")
    return " and ".join(conditions)
