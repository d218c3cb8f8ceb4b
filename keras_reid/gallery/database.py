"""Galleries in an SQLite database, in memory or in a file."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from keras_reid.errors import InputError
from keras_reid.gallery.approximate import InvertedFile
from keras_reid.gallery.rows import Condition, Row, SearchResult, key
from keras_reid.gallery.vectors import NO_ROW, Vectors
from keras_reid.io import PRIVATE, drop_leftovers
from keras_reid.names import normalized

# In exclusive mode the journal would keep deleted rows, unless it is truncated.
OPENING = """
pragma locking_mode = exclusive;
pragma synchronous = full;
pragma secure_delete = on;
pragma journal_mode = truncate;
begin exclusive;
create table if not exists rows (
    id integer primary key, image text not null unique, identity text not null,
    camera text not null, time real, attributes text not null, embedding blob not null,
    digest text not null default '', spelled integer not null default 0);
create index if not exists by_identity on rows (identity);
create table if not exists settings (name text primary key, value text not null);
create table if not exists candidates (last integer not null, numbers text not null,
    codes blob not null);
"""
COLUMNS = ", ".join(Row._fields)
TEXTS = ["image", "identity", "camera", "attributes", "digest"]
STALE = "stale"  # setting: rows were erased since the last VACUUM
SAVE = "insert or replace into settings values (?, ?)"
LISTED = "(select value from json_each(?))"
LARGEST_BLOB = 10**9  # bytes in SQLite
FEW = 0.05  # fraction of the rows below which a filtered search is exact


class DatabaseStore:
    """`Store` in an SQLite database, with the embeddings in memory.

    A write returns when it is committed and synchronized to the disk. From `approximate_from` rows
    on, an inverted file retrieves candidates if faiss is installed. It is stored in the database.

    Embeddings are personal data: only the owner can read new files. Deleted rows are in no file
    when `purge` or `close` returns, or, after a kill, when the gallery is opened again. SQLite
    keeps copies of deleted cells in the gaps of its pages, even with `secure_delete`. Therefore,
    VACUUM writes all pages again.

    Args:
        path: database file, or None for a database in memory.
        approximate_from: minimum number of rows for an inverted file.
        recall: fraction of true neighbors that the inverted file must retrieve in a sample.
    """

    def __init__(self, path: Path | None, approximate_from: int, recall: float) -> None:
        self.path, self.approximate_from, self.recall = path, approximate_from, recall
        self.vectors, self.ids = Vectors(), np.zeros(0, np.int64)  # ascending
        self.index: InvertedFile | None = None
        with self._errors():
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch(PRIVATE)
            # Callers that search from several threads use a lock.
            self.database = sqlite3.connect(
                path or ":memory:", timeout=1, isolation_level=None, check_same_thread=False
            )
            try:
                self.database.executescript(OPENING)
                self._convert()
                self.database.execute("commit")
                self.purge()
                self._load()
            except BaseException:
                self.database.close()
                raise

    def _convert(self) -> None:
        """Convert a file of version 0.2.0.

        Its rows had no digest and no key of the spelling, and names were not in Unicode NFC. The
        inverted file was a file of its own, which can hold erased rows.
        """
        columns = [name for (name,) in self._all("select name from pragma_table_info('rows')")]
        if "spelled" not in columns:
            self.database.create_function("nfc", 1, normalized)
            self.database.create_function("key", 1, key)
            if "digest" not in columns:
                self.database.execute("alter table rows add digest text not null default ''")
            self.database.execute("alter table rows add spelled integer not null default 0")
            self.database.execute(
                "update rows set identity = nfc(identity), camera = nfc(camera), "
                "spelled = key(nfc(image))"
            )
            self.database.execute(SAVE, (STALE, "true"))
        self.database.execute("create index if not exists by_spelling on rows (spelled)")
        if self.path:
            if self._all("select 1 from settings where name = 'index'"):
                self.path.with_suffix("").unlink(missing_ok=True)
                self.database.execute("delete from settings where name = 'index'")
            drop_leftovers(self.path.with_suffix(""))

    def _load(self) -> None:
        """Read the embeddings, and check the columns of a damaged file."""
        wrong = " or ".join(f"typeof({name}) != 'text'" for name in TEXTS)
        if self._all(f"select 1 from rows where {wrong} limit 1"):
            raise ValueError("a column of another type")
        self.settings()
        cursor = self.database.execute("select id, embedding from rows order by id")
        while records := cursor.fetchmany(2**16):
            ids, blobs = zip(*records, strict=True)
            x = np.frombuffer(b"".join(blobs), np.float32).reshape(len(ids), -1)
            self._append(x, np.array(ids))
        for last, numbers, codes in self._all("select * from candidates"):
            if len(self.ids) >= self.approximate_from:
                with suppress(RuntimeError):  # damaged: the next search builds another
                    self.index = InvertedFile.from_bytes(codes, json.loads(numbers))
                    later = np.flatnonzero(self.ids > last)
                    self.index.add(self.vectors.take(later), self.ids[later])

    def settings(self) -> dict[str, Any]:
        with self._errors():
            saved = self._all("select value from settings where name = 'settings'")
            return dict(json.loads(saved[0][0])) if saved else {}

    def save_settings(self, settings: dict[str, Any]) -> None:
        with self._errors():
            self.database.execute(SAVE, ("settings", json.dumps(settings)))

    def count(self) -> int:
        return len(self.ids)

    def identities(self) -> dict[str, int]:
        groups = "select identity, count(*) from rows group by identity order by identity"
        with self._errors():
            return dict(self._all(groups))

    def rows(self, conditions: Sequence[Condition]) -> Iterator[Row]:
        return (row for _, row in self._rows(conditions))

    def _rows(self, conditions: Sequence[Condition]) -> Iterator[tuple[int, Row]]:
        """Yield ids and rows, in the order of the ids."""
        where, values = _where(conditions)
        with self._errors():
            select = f"select id, {COLUMNS} from rows where {where} order by id"
            for number, *columns in self.database.execute(select, values):
                yield number, Row(*columns)

    def _ids(self, conditions: Sequence[Condition]) -> np.ndarray:
        """Return the ids of rows, ascending."""
        where, values = _where(conditions)
        select = f"select id from rows where {where} order by id"
        return np.array([i for (i,) in self.database.execute(select, values)], np.int64)

    def embeddings(self, images: Sequence[str]) -> np.ndarray:
        ids = {row.image: i for i, row in self._rows([("image", "in", images)])}
        return self.vectors.take(np.searchsorted(self.ids, [ids[image] for image in images]))

    def search(
        self, x: np.ndarray, top_k: int, conditions: Sequence[Condition]
    ) -> list[list[SearchResult]]:
        kept = None
        if conditions:
            with self._errors():
                kept = np.isin(self.ids, self._ids(conditions))
        places, distances = self._nearest(x, top_k, kept)
        ids = np.where(places == NO_ROW, NO_ROW, self.ids[places])
        rows = dict(self._rows([("id", "in", np.unique(ids).tolist())]))
        return [
            [SearchResult(*rows[i][:4], d) for i, d in zip(*pair, strict=True) if i != NO_ROW]
            for pair in zip(ids.tolist(), distances.tolist(), strict=True)
        ]

    def _nearest(
        self, x: np.ndarray, k: int, kept: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return places (q, k) in `ids`, or NO_ROW, and distances (q, k)."""
        few = kept is not None and kept.sum() < max(FEW * len(kept), 10 * k)
        index = None if few else self._inverted_file()
        if index is None:
            return self.vectors.nearest(x, k, kept)
        ids = index.search(x, k, None if kept is None else self.ids[kept])
        places = np.where(ids == NO_ROW, NO_ROW, np.searchsorted(self.ids, ids))
        short = (places != NO_ROW).sum(axis=1) < k  # the lists held fewer of the kept rows
        if short.any():
            places[short] = NO_ROW
            places[short, :k] = self.vectors.nearest(x[short], k, kept)[0]
        places, distances = self.vectors.measured(x, places)
        return places[:, :k], distances[:, :k]

    def _inverted_file(self) -> InvertedFile | None:
        count = len(self.ids)
        if count < max(2, self.approximate_from):
            return None
        if self.index is None or count > 2 * self.index.numbers["built"]:
            try:
                self.index = InvertedFile.build(self.vectors, self.ids, self.recall)
            except InputError:  # faiss is not installed
                self.approximate_from = 2**62
            else:
                self._save_index(self.index)
        return self.index

    def _save_index(self, index: InvertedFile) -> None:
        record = int(self.ids[-1]), json.dumps(index.numbers), index.to_bytes()
        if self.path and len(record[2]) < LARGEST_BLOB:
            with self._errors(), self.database:
                self.database.execute("begin immediate")
                self.database.execute("delete from candidates")
                self.database.execute("insert into candidates values (?, ?, ?)", record)

    def write(self, images: Sequence[str], x: np.ndarray, rows: Sequence[Row]) -> None:
        ids = np.arange(len(rows)) + (int(self.ids[-1]) + 1 if len(self.ids) else 0)
        records = [
            (*row, key(normalized(row.image)), y.tobytes() if self.path else b"", i)
            for row, y, i in zip(rows, x, ids.tolist(), strict=True)
        ]
        insert = f"insert into rows ({COLUMNS}, spelled, embedding, id) values (?{', ?' * 8})"
        with self._errors(), self.database:  # committed completely or not at all
            self.database.execute("begin immediate")
            deleted = self._ids([("image", "in", images)])
            if len(deleted):
                self.database.executemany(
                    "delete from rows where id = ?", deleted[:, None].tolist()
                )
                self.database.execute("delete from candidates")
                self.database.execute(SAVE, (STALE, "true"))
            self.database.executemany(insert, records)
        if len(deleted):
            # The inverted file is dropped too, because centers of k-means can equal embeddings of
            # its training set. The next search builds another.
            kept = ~np.isin(self.ids, deleted)
            self.vectors.keep(kept)
            self.ids, self.index = self.ids[kept], None
        if rows:
            self._append(x, ids)
            if self.index is not None:
                self.index.add(x, ids)

    def _append(self, x: np.ndarray, ids: np.ndarray) -> None:
        self.vectors.append(x)
        self.ids = np.concatenate([self.ids, ids])

    def purge(self) -> None:
        """Write the database again if its pages can hold copies of deleted rows."""
        with self._errors():
            if self._all("select 1 from settings where name = ?", STALE):
                self.database.execute("vacuum")
                self.database.execute("delete from settings where name = ?", (STALE,))

    def stats(self) -> dict[str, Any]:
        return {"search": "exact"} if self.index is None else self.index.stats()

    def close(self) -> None:
        self.purge()
        self.database.close()

    def _all(self, query: str, *values: Any) -> list[Any]:
        """Return the records of a query."""
        return self.database.execute(query, values).fetchall()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Convert errors of the database and of the file system to InputError."""
        try:
            yield
        except InputError:
            raise
        except (sqlite3.Error, OSError, TypeError, ValueError) as error:
            fix = "It cannot be read. Restore a copy of the file."
            if isinstance(error, OSError):
                fix = "Choose another name."
            elif "locked" in str(error):
                fix = (
                    "Only one process can open it. Close the other process, or use a Milvus server."
                )
            elif isinstance(error, sqlite3.OperationalError):
                fix = "Check its disk."
            text = getattr(error, "strerror", None) or error
            raise InputError(f"Gallery {self.path}: {text}. {fix}") from error


def _where(conditions: Sequence[Condition]) -> tuple[str, list[Any]]:
    """Return conditions in SQL, and the values of its parameters."""
    texts, values = ["true"], []
    for column, operator, value in conditions:
        several = operator.endswith("in")
        texts.append(f"{column} {operator} {LISTED if several else '?'}")
        values.append(json.dumps(value) if several else value)
    return " and ".join(texts), values
