"""Galleries in a file: rows in a database, and beside it the faiss index made of them."""

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from keras_reid.errors import InputError
from keras_reid.gallery.approximate import InvertedFile, faiss
from keras_reid.gallery.arrays import ArrayStore
from keras_reid.gallery.store import Rows
from keras_reid.io import PRIVATE, drop_leftovers, replaced_file
from keras_reid.names import normalized

TABLES = """
create table if not exists rows (
    id integer primary key, image text not null unique, identity text not null,
    camera text not null, time real, attributes text not null, embedding blob not null,
    digest text not null default '');
create index if not exists by_identity on rows (identity);
create table if not exists settings (name text primary key, value text not null);
"""
STALE = "stale"  # setting: rows were erased since the last VACUUM
COLUMNS = "id, image, identity, camera, time, attributes, embedding, digest"


class FileStore(ArrayStore):
    """Rows in the SQLite database INDEX.rows; INDEX is a faiss index, which can be made again.

    The database is what counts: a write is acknowledged when it is committed and synchronized to
    the disk. The index is written when it is built and on closing, and deleted with the first row
    that is erased. A revision number says whether it is of the rows; one of other rows is dropped.

    Embeddings are personal data. New files can be read by their owner alone. Removed rows are in no
    file when `remove` returns, or, if it was killed, when the gallery is open again. Replaced rows
    are in no file when the gallery is closed, or open again. SQLite keeps copies of deleted cells
    in the gaps of its pages, even with `secure_delete`. Therefore, VACUUM writes all pages again.
    """

    def __init__(self, path: Path, approximate_from: int, recall: float) -> None:
        super().__init__(approximate_from, recall)
        faiss()
        self.path = path
        self.database_path = path.with_name(path.name + ".rows")
        if path.exists() and not self.database_path.exists():
            raise InputError(
                f"a gallery is an index and its rows: {path} is there, {self.database_path} is "
                "not; bring it back, or name a new file"
            )
        with self._told():
            path.parent.mkdir(parents=True, exist_ok=True)
            self.database_path.touch(PRIVATE)
            # Autocommit: a transaction is what `_writing` says is one.
            self.database = sqlite3.connect(self.database_path, timeout=1, isolation_level=None)
            try:
                self.database.execute("pragma locking_mode = exclusive")
                self.database.execute("pragma synchronous = full")
                self.database.execute("pragma secure_delete = on")
                # In exclusive mode the journal stays otherwise, with what was removed.
                self.database.execute("pragma journal_mode = truncate")
                self.database.execute("begin exclusive")
                for statement in TABLES.split(";"):
                    self.database.execute(statement)
                self._convert()
                self.database.execute("commit")
                drop_leftovers(self.path)
                self._load()
            except BaseException:
                self.database.close()
                raise

    def _convert(self) -> None:
        """Brings rows of version 0.2.0 up to date: a column for digests, and names in NFC."""
        columns = self.database.execute("select name from pragma_table_info('rows')").fetchall()
        if ("digest",) in columns:
            return
        self._set(STALE, True)
        self.database.execute("alter table rows add column digest text not null default ''")
        for column in ("identity", "camera"):
            texts = f"select distinct {column} from rows where typeof({column}) = 'text'"
            for (name,) in self.database.execute(texts).fetchall():
                if normalized(name) != name:
                    self.database.execute(
                        f"update rows set {column} = ? where {column} = ?", (normalized(name), name)
                    )

    def _load(self) -> None:
        """All that the files hold."""
        try:
            self._vacuum()
            self._settings = self._value("settings", {})
            self._read()
        except InputError:
            raise
        except (TypeError, ValueError, KeyError, AttributeError) as error:  # of damaged values
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> InputError:
        return InputError(
            f"the rows of the gallery cannot be read: {self.database_path} gave '{error}'; bring "
            "back a copy of the file"
        )

    def _read(self) -> None:
        cursor = self.database.execute(f"select {COLUMNS} from rows order by id")
        while records := cursor.fetchmany(2**16):
            ids, image, identity, camera, time, attributes, blobs, digest = map(
                list, zip(*records, strict=True)
            )
            embedding = np.frombuffer(b"".join(blobs), np.float32).reshape(len(ids), -1)
            times = np.array(time, np.float64)  # None becomes NaN
            rows = Rows(embedding, identity, camera, times, image, attributes, digest)
            self._hold(rows, np.array(ids))
        if self.path.exists():
            self._read_index()

    def _read_index(self) -> None:
        try:
            index = faiss().read_index(str(self.path))
        except RuntimeError as error:
            raise InputError(
                f"the index {self.path} cannot be read ({os.path.getsize(self.path):,} bytes, "
                "truncated or of another kind); its rows are safe in "
                f"{self.database_path.name}: delete the index, and it is made again"
            ) from error
        of = self._value("index", {})
        if of.get("revision") == self._value("revision", 0) and index.ntotal == len(self.ids):
            wide = of.get("wide", 1)  # earlier versions kept rows, not codes
            self.index = InvertedFile(index, of["probes"], wide, of["recall"], of["built"])
        else:  # it may hold who was removed
            self.path.unlink()

    def save_settings(self, settings: dict[str, Any]) -> None:
        with self._writing():
            self._set("settings", settings)
        super().save_settings(settings)

    def add(self, rows: Rows) -> None:
        with self._writing():
            ids = self._insert(rows)
        self._hold(rows, ids)

    def _insert(self, rows: Rows) -> np.ndarray:
        """Writes the rows behind the others and returns their ids."""
        last = self.database.execute("select max(id) from rows").fetchone()[0]
        ids = np.arange(len(rows)) + (0 if last is None else last + 1)
        times = [None if np.isnan(time) else time for time in rows.time.tolist()]
        blobs = [x.tobytes() for x in rows.embedding]
        texts = (rows.image, rows.identity, rows.camera)
        self.database.executemany(
            f"insert into rows ({COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?)",
            zip(ids.tolist(), *texts, times, rows.attributes, blobs, rows.digest, strict=True),
        )
        return ids

    def replace(self, images: Sequence[str], rows: Rows) -> None:
        with self._writing():
            self._erase("image", images)
            ids = self._insert(rows)
        self._drop(self._rows_of(images))
        self._hold(rows, ids)

    def _erase(self, column: str, values: Sequence[str]) -> None:
        """Delete rows from the database, and the index, which holds them too."""
        found = self.database.executemany(
            f"delete from rows where {column} = ?", [(value,) for value in values]
        )
        if found.rowcount:
            self._set(STALE, True)
            self.path.unlink(missing_ok=True)  # the next search makes another

    def _vacuum(self) -> None:
        """Write the database again if its pages may hold copies of erased rows."""
        if self._value(STALE, False):
            self.database.execute("vacuum")
            self.database.execute("delete from settings where name = ?", (STALE,))

    def remove(self, identity: str) -> int:
        with self._writing():
            self._erase("identity", [identity])
        dropped = self._drop(self.identity == identity)
        with self._told():
            self._vacuum()
        return dropped

    def _inverted_file(self) -> InvertedFile | None:
        before = self.index
        index = super()._inverted_file()
        if index is not None and index is not before:
            self._write_index()
        return index

    def _write_index(self) -> None:
        """Puts the index in place of the last."""
        assert self.index is not None
        with replaced_file(self.path, PRIVATE) as new:
            self.index.write(new)
        of = {name: getattr(self.index, name) for name in ("probes", "wide", "recall", "built")}
        with self._told():
            self._set("index", {**of, "revision": self._value("revision", 0)})

    def close(self) -> None:
        with self._told():
            self._vacuum()
            of = self._value("index", {})
            if self.index is not None and of.get("revision") != self._value("revision", 0):
                self._write_index()
            self.database.close()
        super().close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction, of which everything or nothing stays."""
        with self._told():
            self.database.execute("begin immediate")
            try:
                yield
                self._set("revision", self._value("revision", 0) + 1)
                self.database.execute("commit")
            except BaseException:
                if self.database.in_transaction:
                    self.database.execute("rollback")
                raise

    def _value(self, name: str, default: Any) -> Any:
        row = self.database.execute("select value from settings where name = ?", (name,)).fetchone()
        return default if row is None else json.loads(row[0])

    def _set(self, name: str, value: Any) -> None:
        self.database.execute(
            "insert or replace into settings values (?, ?)", (name, json.dumps(value))
        )

    @contextmanager
    def _told(self) -> Iterator[None]:
        """One sentence where the file system or the database refuses."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise InputError(
                    f"a gallery in a file is open in one process at a time: {self.database_path} "
                    "is in use; close the other, or serve the people with Milvus"
                ) from error
            raise InputError(f"{self.database_path} gave '{error}': check its disk") from error
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise self._damaged(error) from error
        except OSError as error:
            raise InputError(
                f"a gallery is written to a file: {self.path} gave '{error.strerror or error}'; "
                "name another"
            ) from error
