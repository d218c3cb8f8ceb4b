"""Folder of embeddings in Parquet files, which are written atomically."""

import importlib
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_reid import checks
from keras_reid.errors import invalid_file
from keras_reid.evaluation import StoredFeatures
from keras_reid.io import (
    Busy,
    locked,
    new_file,
    parsing,
    read_json,
    replaced_file,
)
from keras_reid.names import StrPath, expanded, normalized
from keras_reid.scale.listing import ImageEntry

# Readers of Parquet folders skip names that begin with "_". *.parquet does not match the listing.
LISTING, ABOUT, MAPPED = "_listing", "_embed.json", "_embedding.npy"
CROPS = "_crops"  # folder of the persons of photos
UNREADABLE, DIMENSION = b"unreadable", b"dimension"


class Shard(NamedTuple):
    """Part of the images: paths (n,), identities and cameras (n,) or None, embeddings (n, d).

    A missing label is "" if other images have one. The embedding of an unreadable file is NaN.
    """

    path: np.ndarray
    identity: np.ndarray | None
    camera: np.ndarray | None
    embedding: np.ndarray

    @property
    def decodes(self) -> np.ndarray:
        """Mask (n,) of the readable files."""
        return ~np.isnan(self.embedding[:, 0])

    def readable(self) -> "Shard":
        """Return the readable images."""
        columns = self._asdict().items()
        return self._replace(**{name: x[self.decodes] for name, x in columns if x is not None})


class Shards:
    """Result of `embed`: a file `part-N.parquet` for each row group of `_listing` in a folder.

    Parts have the columns path, identity, camera (text or null), embedding (d float32 of length 1;
    null for unreadable files) and digest (of the content of the file). Any program that reads
    folders of Parquet files reads the folder. The names of other files begin with `_` or `.`.

    Args:
        folder: folder of an earlier call of `embed`.

    Raises:
        InputError: another folder, or pyarrow is not installed.
    """

    def __init__(self, folder: StrPath) -> None:
        self.folder = expanded(folder)
        fix = "Embed the images (keras_reid.scale.embed)."
        self.about = read_json(self.folder / ABOUT, {"fingerprint": str}, fix)
        metadata = self._listing().metadata
        self.count = metadata.num_row_groups
        self.sizes = [metadata.row_group(number).num_rows for number in range(self.count)]

    def _listing(self) -> Any:
        """Listing, opened again in each call, because other processes may replace it."""
        return _parquet(self.folder / LISTING, "ParquetFile")

    @staticmethod
    def holds(folder: StrPath) -> bool:
        """Return whether a folder is a result of `embed`."""
        return (expanded(folder) / ABOUT).is_file()

    def __len__(self) -> int:
        """Return the number of images."""
        return sum(self.sizes)

    @property
    def missing(self) -> list[int]:
        """Shards without embeddings, or with embeddings of an earlier listing."""
        return [number for number in range(self.count) if not self.complete(number)]

    def fresh(self, number: int) -> bool:
        """Return whether a shard was written since the images were listed."""
        file, listing = self.file(number), self.folder / LISTING
        recent = file.exists() and file.stat().st_mtime_ns >= listing.stat().st_mtime_ns
        return recent and self.complete(number)

    def complete(self, number: int) -> bool:
        """Return whether a shard has embeddings of its images in the listing."""
        if not self.file(number).exists():
            return False
        part = self._part(number, list(ImageEntry._fields))
        return part.equals(self.listed(number))  # ignores the metadata

    def file(self, number: int) -> Path:
        """Return the path of the embeddings of a shard."""
        return self.folder / f"part-{number:06d}.parquet"

    def listed(self, number: int) -> Any:
        """Return the images of a shard as a pyarrow table."""
        return self._listing().read_row_group(number)

    def _part(self, number: int, columns: list[str] | None = None) -> Any:
        """Return columns of an embedded shard; None: all."""
        return _parquet(self.file(number), "read_table", columns=columns)

    @contextmanager
    def claimed(self, number: int) -> Iterator[bool]:
        """Yield False if another process embeds the shard."""
        lock = self.folder / f".part-{number:06d}.lock"
        try:
            with locked(lock):
                yield True
        except Busy:
            yield False

    def write(
        self,
        number: int,
        listed: Any,
        rows: np.ndarray,
        embeddings: np.ndarray,
        digests: Sequence[str],
    ) -> None:
        """Write the embeddings (m, d) of the readable rows (m,) of a shard.

        Args:
            number: number of the shard.
            listed: its n images, a result of `listed`.
            rows: (m,) rows of the readable files.
            embeddings: (m, d) of these files.
            digests: (n,) digests of the files.
        """
        arrow = arrow_package()
        vectors = dict(zip(rows.tolist(), embeddings.astype(np.float32), strict=True))
        column = [vectors.get(row) for row in range(len(listed))]  # None becomes null
        column = arrow.array(column, arrow.list_(arrow.float32()))
        table = listed.append_column("embedding", column)
        table = table.append_column("digest", arrow.array(digests, arrow.string()))
        about = {UNREADABLE: str(len(listed) - len(rows)), DIMENSION: str(embeddings.shape[1])}
        table = table.replace_schema_metadata(about)
        with replaced_file(self.file(number)) as partial:
            arrow.parquet.write_table(table, partial)
        (self.folder / MAPPED).unlink(missing_ok=True)  # it has earlier embeddings

    def read(self, number: int) -> Shard:
        """Return an embedded shard."""
        table = self._part(number)
        column = table["embedding"].combine_chunks()
        width = int(table.schema.metadata[DIMENSION])
        embedding = np.full((len(table), width), np.nan, np.float32)
        embedding[np.asarray(column.is_valid())] = column.flatten().to_numpy().reshape(-1, width)

        def texts(name: str) -> np.ndarray | None:
            labels = table[name].to_pylist()
            return np.array([normalized(text or "") for text in labels]) if any(labels) else None

        path = np.array(table["path"].to_pylist(), dtype=str)
        return Shard(path, texts("identity"), texts("camera"), embedding)

    def digests(self, number: int) -> list[str]:
        """Return the digests of the files of an embedded shard; "" if unreadable."""
        return self._part(number, ["digest"])["digest"].to_pylist()

    def vectors(self, number: int) -> dict[tuple[str, str], np.ndarray]:
        """Return the embeddings (d,) of a shard by path and digest, except unreadable files."""
        if not self.file(number).exists():
            return {}
        shard = self.read(number)
        rows = zip(
            shard.path.tolist(), self.digests(number), shard.embedding, shard.decodes, strict=True
        )
        return {(path, digest): x for path, digest, x, decodes in rows if digest and decodes}

    def mapped(self) -> StoredFeatures:
        """Return the readable images: memory-mapped embeddings (n, d), and labels.

        The first call writes the mapped file, `_embedding.npy`.

        Raises:
            InputError: shards are missing, or no images are listed.
        """
        checks.at_least(1, "Add some, and embed again.", images=len(self))
        file = self.folder / MAPPED
        if not file.exists():
            self._write_mapped(file)
        parts = [shard[:3] for shard in map(Shard.readable, self)]
        path, identity, camera = (_joined(column) for column in zip(*parts, strict=True))
        embedding = np.load(file, mmap_mode="r")
        return StoredFeatures({"embedding": embedding}, identity, camera, path)

    def _write_mapped(self, file: Path) -> None:
        count = len(self) - self.failed
        done = 0
        with new_file(file) as partial:
            for shard in map(Shard.readable, self):
                if not done:
                    shape = count, shard.embedding.shape[1]
                    array = np.lib.format.open_memmap(partial, "w+", np.float32, shape)
                array[done : done + len(shard.path)] = shard.embedding
                done += len(shard.path)
            array.flush()

    def _failed(self, number: int) -> int:
        return int(_parquet(self.file(number), "read_schema").metadata[UNREADABLE])

    @property
    def failed(self) -> int:
        """Number of unreadable files."""
        return sum(map(self._failed, range(self.count)))

    def unreadable(self, most: int) -> list[str]:
        """Return the paths of at most `most` unreadable files."""
        numbers = (n for n in range(self.count) if self.file(n).exists() and self._failed(n))
        paths = (shard.path[~shard.decodes].tolist() for shard in map(self.read, numbers))
        return list(itertools.islice(itertools.chain.from_iterable(paths), most))

    @property
    def numbers(self) -> list[int]:
        """Numbers of the shards with images."""
        return np.flatnonzero(self.sizes).tolist()

    def __iter__(self) -> Iterator[Shard]:
        """Yield all shards with images.

        Raises:
            InputError: a shard is missing, or older than the listing.
        """
        if missing := self.missing:
            received = f"{self.count - len(missing)} of {self.count}"
            fix = "Repeat the call of embed."
            raise invalid_file(self.folder, "have all shards", received, fix)
        return map(self.read, self.numbers)


def _joined(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """Return a column of all shards; None if a shard lacks it."""
    columns = [part for part in parts if part is not None]
    return np.concatenate(columns) if len(columns) == len(parts) else None


def _parquet(file: Path, function: str, **options: Any) -> Any:
    """Return the result of a function of `pyarrow.parquet` that reads a file."""
    arrow = arrow_package()
    fix = "Remove it, and embed the images again."
    with parsing(file, "be a Parquet file", fix, (OSError, arrow.ArrowException)):
        return getattr(arrow.parquet, function)(file, **options)


def arrow_package() -> Any:
    """Return pyarrow; raise `InputError` if it is not installed."""
    checks.installed("pyarrow.parquet", "scale")
    return importlib.import_module("pyarrow")
