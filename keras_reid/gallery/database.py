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
from keras_reid.gallery.rows import NO_FILTER, Filter, Row, SearchResult
from keras_reid.gallery.vectors import NO_ROW, Vectors
from keras_reid.io import PRIVATE, drop_leftovers
from keras_reid.names import normalized

# In exclusive mode the journal would keep removed rows, unless it is truncated.
OPENING = """
pragma locking_mode = exclusive;
pragma synchronous = full;
pragma secure_delete = on;
pragma journal_mode = truncate;
begin exclusive;
create table if not exists rows (
    id integer primary key, image text not null unique, identity text not null,
    camera text not null, time real, attributes text not null, embedding blob not null,
    digest text not null default '');
create index if not exists by_identity on rows (identity);
create table if not exists settings (name text primary key, value text not null);
create table if not exists candidates (last integer not null, numbers text not null,
    codes blob not null);
"""
COLUMNS = "image, identity, camera, time, attributes, digest"
TEXTS = ["image", "identity", "camera", "attributes", "digest"]
STALE = "stale"  # setting: rows were erased since the last VACUUM
LISTED = "(select value from json_each(?))"
LARGEST_BLOB = 10**9  # bytes in SQLite
FEW = 0.05  # fraction of the rows below which a filtered search is exact


class DatabaseStore:
    """Rows in an SQLite database, with their embeddings in memory. `MilvusStore` has its methods.

    A write returns when it is committed and synchronized to the disk. From `approximate_from` rows
    on, an inverted file retrieves candidates if faiss is installed. It is stored in the database.

    Embeddings are personal data: only the owner can read new files. Removed rows are in no file
    when `remove` returns, or, after a kill, when the gallery is opened again. Replaced rows are in
    no file when the gallery is closed, or opened again. SQLite keeps copies of deleted cells in the
    gaps of its pages, even with `secure_delete`. Therefore, VACUUM writes all pages again.

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
                for statement in OPENING.split(";"):
                    self.database.execute(statement)
                self._convert()
                self.database.execute("commit")
                self._vacuum()
                self._load()
            except BaseException:
                self.database.close()
                raise

    def _convert(self) -> None:
        """Convert a file of an earlier version.

        In version 0.2.0, rows had no digest, and names were not in Unicode NFC. In version 0.3.0,
        the inverted file was a file of its own, which can hold erased rows.
        """
        columns = self.database.execute("select name from pragma_table_info('rows')").fetchall()
        if ("digest",) not in columns:
            self._set(STALE, True)
            self.database.create_function("nfc", 1, normalized)
            self.database.execute("alter table rows add column digest text not null default ''")
            self.database.execute("update rows set identity = nfc(identity), camera = nfc(camera)")
        if self.path and self._get("index", None) is not None:
            self.path.with_suffix("").unlink(missing_ok=True)
            self.database.execute("delete from settings where name = 'index'")
        if self.path:
            drop_leftovers(self.path.with_suffix(""))

    def _load(self) -> None:
        """Read the embeddings, and check the columns of a damaged file."""
        wrong = " or ".join(f"typeof({name}) != 'text'" for name in TEXTS)
        if self.database.execute(f"select 1 from rows where {wrong}").fetchone():
            raise ValueError("a column of another type")
        self._read_spellings()
        self.settings()
        cursor = self.database.execute("select id, embedding from rows order by id")
        while records := cursor.fetchmany(2**16):
            ids, blobs = zip(*records, strict=True)
            x = np.frombuffer(b"".join(blobs), np.float32).reshape(len(ids), -1)
            self._append(x, np.array(ids))
        record = self.database.execute("select last, numbers, codes from candidates").fetchone()
        if record and len(self.ids) >= self.approximate_from:
            with suppress(RuntimeError):  # damaged: the next search builds another
                self.index = InvertedFile.from_bytes(record[2], json.loads(record[1]))
                later = np.flatnonzero(self.ids > record[0])
                self.index.add(self.vectors.take(later), self.ids[later])

    def _read_spellings(self) -> None:
        images = self.database.execute("select image from rows order by id desc")
        self.spellings = {normalized(i): i for (i,) in images if not i.isascii()}

    def settings(self) -> dict[str, Any]:
        """Return the last saved settings; empty in a new gallery."""
        with self._errors():
            return dict(self._get("settings", {}))

    def save_settings(self, settings: dict[str, Any]) -> None:
        with self._errors():
            self._set("settings", settings)

    def add(self, x: np.ndarray, rows: Sequence[Row]) -> None:
        """Add checked rows with their embeddings (n, d), durably."""
        self.replace([], x, rows)

    def replace(self, images: Sequence[str], x: np.ndarray, rows: Sequence[Row]) -> None:
        """Erase the rows of these image references and add others, in one transaction.

        Closing the gallery erases the old rows from the file.
        """
        blobs = [y.tobytes() if self.path else b"" for y in x]
        with self._writing():
            erased = self._erase(f"image in {LISTED}", json.dumps(list(images)))
            last = self.database.execute("select max(id) from rows").fetchone()[0]
            ids = np.arange(len(rows)) + (0 if last is None else last + 1)
            self.database.executemany(
                f"insert into rows (id, embedding, {COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?)",
                [(i, y, *row) for i, y, row in zip(ids.tolist(), blobs, rows, strict=True)],
            )
        self._drop(erased)
        self._append(x, ids)
        for row in rows:
            if not row.image.isascii():
                self.spellings.setdefault(normalized(row.image), row.image)
        if self.index is not None:
            self.index.add(x, ids)

    def _append(self, x: np.ndarray, ids: np.ndarray) -> None:
        self.vectors.append(x)
        self.ids = np.concatenate([self.ids, ids])

    def remove(self, identity: str) -> int:
        """Erase the rows of an identity, durably, and return their number."""
        with self._writing():
            erased = self._erase("identity = ?", identity)
        self._drop(erased)
        with self._errors():
            self._vacuum()
        return len(erased)

    def _erase(self, condition: str, value: str) -> np.ndarray:
        """Delete rows and the inverted file from the database, and return the ids of the rows."""
        chosen = self.database.execute(f"select id from rows where {condition}", [value])
        ids = np.array([i for (i,) in chosen.fetchall()], np.int64)
        if len(ids):
            self.database.execute(f"delete from rows where {condition}", [value])
            self.database.execute("delete from candidates")
            self._set(STALE, True)
        return ids

    def _drop(self, ids: np.ndarray) -> None:
        """Drop erased rows from memory.

        The inverted file is dropped too, because centers of k-means can equal embeddings of its
        training set. The next search builds another.
        """
        if len(ids):
            kept = ~np.isin(self.ids, ids)
            self.vectors.keep(kept)
            self.ids, self.index = self.ids[kept], None
            self._read_spellings()

    def _vacuum(self) -> None:
        """Write the database again if its pages can hold copies of erased rows."""
        if self._get(STALE, False):
            self.database.execute("vacuum")
            self.database.execute("delete from settings where name = ?", (STALE,))

    def count(self) -> int:
        return len(self.ids)

    def identities(self) -> dict[str, int]:
        """Return the number of rows of each identity."""
        with self._errors():
            groups = "select identity, count(*) from rows group by identity order by identity"
            return dict(self.database.execute(groups).fetchall())

    def held(self, images: Sequence[str]) -> dict[str, Row]:
        """Return the rows of those images that the gallery holds, by the passed reference.

        Without a row of the same reference, a row with the same reference in Unicode NFC counts.
        """
        spelled = {image: self.spellings.get(normalized(image), image) for image in images}
        listed = json.dumps([*images, *spelled.values()])
        rows = {row.image: row for _, row in self._rows(f"image in {LISTED}", listed)}
        pairs = [(image, own) for image in images for own in (spelled[image], image)]
        return {image: rows[own] for image, own in pairs if own in rows}

    def _rows(self, condition: str, *values: str) -> Iterator[tuple[int, Row]]:
        """Yield ids and rows, in the order of the ids."""
        with self._errors():
            select = f"select id, {COLUMNS} from rows where {condition} order by id"
            for number, *columns in self.database.execute(select, values):
                yield number, Row(*columns)

    def search(self, x: np.ndarray, top_k: int, filter: Filter) -> list[list[SearchResult]]:
        """Return the nearest rows of each query (q, d), nearest first."""
        kept = None
        if filter != NO_FILTER:
            with self._errors():
                select = f"select id from rows where {filter.condition(_literal)} order by id"
                chosen = [i for (i,) in self.database.execute(select)]
            kept = np.isin(self.ids, np.array(chosen, np.int64))
        places, distances = self._nearest(x, top_k, kept)
        ids = np.where(places == NO_ROW, NO_ROW, self.ids[places])
        rows = dict(self._rows(f"id in {LISTED}", json.dumps(np.unique(ids).tolist())))
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
            with self._writing():
                self.database.execute("delete from candidates")
                self.database.execute("insert into candidates values (?, ?, ?)", record)

    def embeddings(self, images: Sequence[str]) -> np.ndarray:
        """Return embeddings (n, d) of enrolled images, by their references in the gallery."""
        rows = self._rows(f"image in {LISTED}", json.dumps(list(images)))
        ids = {row.image: i for i, row in rows}
        places = np.searchsorted(self.ids, [ids[image] for image in images])
        return self.vectors.take(places)

    def of(self, identities: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        """Return embeddings (n, d) of all images of these identities, and the identity of each."""
        rows = dict(self._rows(f"identity in {LISTED}", json.dumps(list(identities))))
        x = self.vectors.take(np.searchsorted(self.ids, [*rows]))
        return x, [row.identity for row in rows.values()]

    def described(self, where: Filter) -> Iterator[Row]:
        """Yield the rows that have attributes."""
        conditions = filter(None, ["attributes != ''", where.condition(_literal)])
        for _, row in self._rows(" and ".join(conditions)):
            yield row

    def stats(self) -> dict[str, Any]:
        """Return facts about the search, by name."""
        return {"search": "exact"} if self.index is None else self.index.stats()

    def close(self) -> None:
        with self._errors():
            self._vacuum()
            self.database.close()

    def _get(self, name: str, default: Any) -> Any:
        row = self.database.execute("select value from settings where name = ?", (name,)).fetchone()
        return default if row is None else json.loads(row[0])

    def _set(self, name: str, value: Any) -> None:
        self.database.execute(
            "insert or replace into settings values (?, ?)", (name, json.dumps(value))
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Run one transaction, which is committed completely or not at all."""
        with self._errors():
            self.database.execute("begin immediate")
            try:
                yield
                self.database.execute("commit")
            except BaseException:
                if self.database.in_transaction:
                    self.database.execute("rollback")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Convert errors of the database and of the file system to InputError."""
        try:
            yield
        except InputError:
            raise
        except sqlite3.OperationalError as error:
            fix = "Check its disk."
            if "locked" in str(error):
                fix = "Only one process can open it. Close the other, or use a Milvus server."
            raise InputError(f"Gallery {self.path}: {error}. {fix}") from error
        except (sqlite3.DatabaseError, TypeError, ValueError) as error:
            raise InputError(
                f"Rows of gallery {self.path} cannot be read: {error}. Restore a copy of the file."
            ) from error
        except OSError as error:
            raise InputError(
                f"Gallery {self.path}: {error.strerror or error}. Choose another name."
            ) from error


def _literal(texts: Sequence[str]) -> str:
    """Return texts as a list of SQL; hexadecimal digits leave no text to escape."""
    values = (text.encode("utf-8", "surrogatepass").hex() for text in texts)
    return "(" + ", ".join(f"cast(x'{value}' as text)" for value in values) + ")"
