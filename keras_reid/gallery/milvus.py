"""Galleries in Milvus: embedded (Milvus Lite, a folder) or a server or cluster."""

import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError, invalid
from keras_reid.gallery.rows import Condition, Row, SearchResult, key
from keras_reid.names import expanded, normalized

PEOPLE, NEXT, OLD, SETTINGS = "people", "people_next", "people_old", "people_settings"
TEXT = 4096  # bytes of a text at most
BATCH_BYTES = 2**24  # a message of Milvus is 64 MiB at most
BATCH = 1000  # keys or rows in a message
UNCLEAN = "replaced"  # setting: the files can hold rows twice, or erased rows
SPELLED = "spelled"
NO_TIME = -1e300  # time of rows without one: servers before 2.5 have no nulls
LARGEST_TOP_K = 16_384


class MilvusStore:
    """`Store` in the collection "people" of a database; settings in "people_settings".

    The primary key `id` is the `key` of the image: the client writes keys into filters, where file
    names would be parsed. An embedded Milvus has written its segments to the disk when a method
    returns. A cluster erases deleted rows from its storage when it compacts.

    Args:
        uri: folder of Milvus Lite, or address of a server.
    """

    def __init__(self, uri: str) -> None:
        pymilvus = checks.installed("pymilvus", "gallery")
        for name in ("pymilvus", "milvus_lite", "grpc"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # they repeat raised errors
        self.embedded = "://" not in uri
        self.uri = str(expanded(uri).absolute()) if self.embedded else uri
        self.types, self.failure = pymilvus.DataType, pymilvus.MilvusException
        self.converted = self.unclean = False
        with self._errors():
            if self.embedded:
                Path(self.uri).parent.mkdir(parents=True, exist_ok=True)
                Path(self.uri).mkdir(mode=0o700, exist_ok=True)  # embeddings are personal data
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
        if not self.embedded:
            return
        if self.client.has_collection(PEOPLE) and (damaged or self.settings().get(UNCLEAN)):
            self.client.flush(PEOPLE)
            self.purge()
        self._convert()

    def _load(self, collection: str) -> bool:
        """Load a collection and return True; if its index is damaged, drop it and return False."""
        if not self.client.has_collection(collection):
            return True
        try:
            self.client.load_collection(collection)
        except self.failure:
            if not self.embedded:
                raise
            self.client.drop_index(collection, "embedding")
            self.client.load_collection(collection)
            return False
        return True

    def _convert(self) -> None:
        """Convert a gallery of version 0.2.0, on a server before rows are looked up or written."""
        if not self.converted and self.client.has_collection(PEOPLE):
            if SPELLED not in self._fields():
                self._rewrite()
            self.converted = True

    def _fields(self) -> dict[str, Any]:
        """Return the columns of the people by name."""
        return {field["name"]: field for field in self.client.describe_collection(PEOPLE)["fields"]}

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
        types = {"id": self.types.INT64, SPELLED: self.types.INT64}
        types |= dict.fromkeys(Row._fields, self.types.VARCHAR) | {"time": self.types.DOUBLE}
        self._create(collection, types, width)

    def settings(self) -> dict[str, Any]:
        with self._errors():
            rows = self.client.get(SETTINGS, ["settings"], ["value"])
        return json.loads(rows[0]["value"]) if rows else {}

    def save_settings(self, settings: dict[str, Any]) -> None:
        row = {"name": "settings", "value": json.dumps(settings), "embedding": [0.0, 0.0]}
        with self._errors():
            self.client.upsert(SETTINGS, [row])
            self._synchronize(SETTINGS)

    def write(self, images: Sequence[str], x: np.ndarray, rows: Sequence[Row]) -> None:
        with self._errors():
            self._mark(True)  # for the process after a kill
            if not self.client.has_collection(PEOPLE):
                self._create_people(PEOPLE, x.shape[1])
                self.client.load_collection(PEOPLE)
            self._convert()
            self.unclean |= bool(images)
            put = self.client.upsert if images else self.client.insert
            step = max(1, BATCH_BYTES // (4 * x.shape[1] + TEXT))
            for start in range(0, len(rows), step):
                part = slice(start, start + step)
                put(PEOPLE, [_record(*pair) for pair in zip(rows[part], x[part], strict=True)])
            if left := sorted({*map(key, images)} - {key(row.image) for row in rows}):
                self.client.delete(PEOPLE, ids=left)
            self._synchronize(PEOPLE)

    def _mark(self, unclean: bool) -> None:
        """Note whether the files can hold rows twice or erased rows."""
        settings = self.settings()
        if self.embedded and settings.get(UNCLEAN, False) != unclean:
            self.save_settings({**settings, UNCLEAN: unclean})

    def _synchronize(self, collection: str) -> None:
        if self.embedded:  # a cluster's log is durable when it answers
            self.client.flush(collection)

    def purge(self) -> None:
        """Erase deleted rows from the storage, at once in an embedded gallery."""
        with self._errors():
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
        stored = [name for name in (*Row._fields, "embedding") if name in fields]
        records = self._records(stored)
        while batch := list(islice(records, BATCH)):
            self.client.insert(NEXT, [_record(_row(one), one["embedding"]) for one in batch])
        self.client.flush(NEXT)
        # Two renames, because a kill can interrupt the removal of a collection.
        self.client.rename_collection(PEOPLE, OLD)
        self.client.rename_collection(NEXT, PEOPLE)
        self.client.drop_collection(OLD)
        self.client.load_collection(PEOPLE)

    def _records(self, fields: Sequence[str], condition: str = "") -> Iterator[dict[str, Any]]:
        """Yield the fields of rows, each row once. The fields must include the image."""
        if not self.client.has_collection(PEOPLE):
            return
        iterator = self.client.query_iterator(
            PEOPLE, batch_size=BATCH, filter=condition, output_fields=list(fields)
        )
        images: set[str] = set()  # after a kill, and in old versions, rows come twice
        while batch := iterator.next():
            yield from {r["image"]: r for r in batch if r["image"] not in images}.values()
            images.update(record["image"] for record in batch)
        iterator.close()

    def count(self) -> int:
        with self._errors():
            if not self.client.has_collection(PEOPLE):
                return 0
            return int(self.client.query(PEOPLE, "", ["count(*)"])[0]["count(*)"])

    def identities(self) -> dict[str, int]:
        with self._errors():
            records = self._records(["image", "identity"])
            return dict(sorted(Counter(record["identity"] for record in records).items()))

    def rows(self, conditions: Sequence[Condition]) -> Iterator[Row]:
        with self._errors():
            self._convert()
            yield from map(_row, self._records(Row._fields, _expression(conditions)))

    def embeddings(self, images: Sequence[str]) -> np.ndarray:
        held: dict[int, list[float]] = {}
        keys = [key(image) for image in images]
        with self._errors():
            for start in range(0, len(keys), BATCH):
                records = self.client.get(PEOPLE, keys[start : start + BATCH], ["embedding"])
                held |= {record["id"]: record["embedding"] for record in records}
        return np.array([held[one] for one in keys], np.float32)

    def search(
        self, x: np.ndarray, top_k: int, conditions: Sequence[Condition]
    ) -> list[list[SearchResult]]:
        if top_k > LARGEST_TOP_K:
            raise invalid("top_k", f"at most {LARGEST_TOP_K:,} in Milvus", top_k)
        results = []
        for start in range(0, len(x), 256):
            with self._errors():
                batch = self.client.search(
                    PEOPLE,
                    data=x[start : start + 256].tolist(),
                    limit=top_k,
                    filter=_expression(conditions),
                    output_fields=list(Row._fields[:4]),
                )
            results += [sorted(map(_result, hits), key=lambda hit: hit.distance) for hits in batch]
        return results

    def stats(self) -> dict[str, Any]:
        return {"search": "Milvus Lite, exact" if self.embedded else f"Milvus at {self.uri}"}

    def close(self) -> None:
        with self._errors():
            if self.unclean:
                self.purge()
            self._mark(False)
        self.client.close()
        if self.embedded:
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(self.uri)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Convert errors of Milvus and of the file system to InputError."""
        try:
            yield
        except OSError as error:
            raise InputError(f"{self.uri}: {error.strerror}. Choose another folder.") from error
        except self.failure as error:
            fix = "Start Milvus, for instance with 'docker compose up -d', or check the address."
            if self.embedded:
                fix = "Close it in other processes, and check that it is a gallery of Milvus Lite."
            raise InputError(f"Gallery {self.uri}: {error.message.strip()[:200]}. {fix}") from error


def _remove_rests(folder: Path) -> None:
    """Remove parts of collections after a kill, because Milvus Lite does not list them."""
    for collection in folder.glob("collections/*"):
        if not (collection / "schema.json").exists():
            shutil.rmtree(collection)


def _record(row: Row, embedding: Any) -> dict[str, Any]:
    """Return a row as the collection stores it."""
    return {
        **row._asdict(),
        "id": key(row.image),
        SPELLED: key(normalized(row.image)),
        "identity": normalized(row.identity),
        "camera": normalized(row.camera),
        "time": NO_TIME if row.time is None else row.time,
        "embedding": embedding,
    }


def _row(record: Mapping[str, Any]) -> Row:
    row = Row(**{name: record[name] for name in Row._fields if name in record})
    return row._replace(time=None) if row.time == NO_TIME else row


def _result(hit: dict[str, Any]) -> SearchResult:
    distance = float(np.sqrt(max(0.0, hit["distance"])))  # Milvus returns |x − y|²
    return SearchResult(*_row(hit["entity"])[:4], distance)


def _expression(conditions: Sequence[Condition]) -> str:
    """Return conditions in the language of Milvus, which escapes quotes and backslashes as JSON."""
    if any(column == "time" for column, *_ in conditions):
        conditions = [*conditions, ("time", ">", NO_TIME)]
    return " and ".join(f"{a} {b} {json.dumps(c, ensure_ascii=False)}" for a, b, c in conditions)
