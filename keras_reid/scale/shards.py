"""A folder of embeddings in Parquet files, each of which is there as a whole or not at all."""

import importlib
import itertools
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError, first_line
from keras_reid.evaluation import StoredFeatures
from keras_reid.io import (
    Busy,
    check_writable,
    locked,
    new_file,
    new_folder,
    read_json,
    replaced_file,
)
from keras_reid.names import expanded, normalized
from keras_reid.scale.listing import Listed

# Readers of Parquet folders skip names that begin with "_". *.parquet does not match the listing.
LISTING, ABOUT, MAPPED = "_listing", "_embed.json", "_embedding.npy"
UNREADABLE, DIMENSION = b"unreadable", b"dimension"


class Shard(NamedTuple):
    """Some of the images: paths (n,), identities and cameras (n,) or None, embeddings (n, d).

    Where others have an identity or camera and an image has none, that is "". The embedding of a
    file that does not decode is NaN.
    """

    path: np.ndarray
    identity: np.ndarray | None
    camera: np.ndarray | None
    embedding: np.ndarray

    @property
    def decodes(self) -> np.ndarray:
        """Mask (n,) of the files that do."""
        return ~np.isnan(self.embedding[:, 0])

    def readable(self) -> "Shard":
        """The images that decode alone."""
        mask = self.decodes
        columns = self._asdict().items()
        return self._replace(**{name: x[mask] for name, x in columns if x is not None})


class Shards:
    """The folder that `embed` fills: a file `part-N.parquet` for each row group of `_listing`.

    Parts have the columns path, identity, camera (text, or null), embedding (d float32 of length 1;
    null where the file does not decode) and digest (of the file's content). Any program that reads
    folders of Parquet files reads the folder. Other files begin with `_` or `.`.

    Args:
        folder: of an earlier call of `embed`.

    Raises:
        InputError: there is none, or pyarrow is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = expanded(folder)
        if not self.holds(folder):
            raise InputError(
                f"a folder of embeddings holds {ABOUT}: {self.folder} does not; make it with "
                "keras_reid.scale.embed, or python embed.py"
            )
        self.about = read_json(self.folder / ABOUT, {"fingerprint": str}, "Embed the images again.")
        metadata = self._listing().metadata
        self.count = metadata.num_row_groups
        self.sizes = [metadata.row_group(number).num_rows for number in range(self.count)]

    def _listing(self) -> Any:
        """Open the listing, which other processes may replace at any time."""
        return _parquet(self.folder / LISTING, "ParquetFile")

    @staticmethod
    def holds(folder: str | os.PathLike[str]) -> bool:
        """Whether a folder is one of embeddings."""
        return (expanded(folder) / ABOUT).is_file()

    def __len__(self) -> int:
        """The number of images."""
        return sum(self.sizes)

    @property
    def missing(self) -> list[int]:
        """Shards without embeddings, or with those of images that were listed before."""
        return [number for number in range(self.count) if not self.complete(number)]

    def fresh(self, number: int) -> bool:
        """Return whether a shard was written since the images were listed."""
        file, listing = self.file(number), self.folder / LISTING
        recent = file.exists() and file.stat().st_mtime_ns >= listing.stat().st_mtime_ns
        return recent and self.complete(number)

    def complete(self, number: int) -> bool:
        """Return whether a shard has embeddings of the images that are listed."""
        if not self.file(number).exists():
            return False
        part = self._part(number, list(Listed._fields))
        return part.replace_schema_metadata().equals(self.listed(number).replace_schema_metadata())

    def file(self, number: int) -> Path:
        """Where a shard's embeddings are."""
        return self.folder / f"part-{number:06d}.parquet"

    def listed(self, number: int) -> Any:
        """The images of a shard, a table of pyarrow."""
        return self._listing().read_row_group(number)

    def _part(self, number: int, columns: list[str] | None = None) -> Any:
        """Return columns of a shard that was embedded; None: all."""
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
        """Write the embeddings (m, d) of the rows (m,) of a shard that decode.

        Args:
            number: of the shard.
            listed: its n images, as `listed` returns them.
            rows, embeddings: of the files that decode.
            digests: (n,) digests of the files.
        """
        arrow = _arrow()
        width = embeddings.shape[1]
        decodes = np.zeros(len(listed), bool)
        decodes[rows] = True
        # Lists of one length, with nulls among them, are more than older versions can write.
        ends = np.cumsum(np.concatenate([[0], width * decodes])).astype(np.int32)
        flat = arrow.array(embeddings.astype(np.float32).reshape(-1))
        column = arrow.ListArray.from_arrays(arrow.array(ends), flat, mask=arrow.array(~decodes))
        table = listed.append_column("embedding", column)
        table = table.append_column("digest", arrow.array(digests, arrow.string()))
        about = {UNREADABLE: str(len(listed) - len(rows)), DIMENSION: str(width)}
        table = table.replace_schema_metadata(about)
        with replaced_file(self.file(number)) as partial:
            arrow.parquet.write_table(table, partial)
        (self.folder / MAPPED).unlink(missing_ok=True)  # it has the embeddings of before

    def read(self, number: int) -> Shard:
        """A shard that was embedded."""
        table = self._part(number)
        column = table["embedding"].combine_chunks()
        width = int(table.schema.metadata[DIMENSION])
        embedding = np.full((len(table), width), np.nan, np.float32)
        embedding[np.asarray(column.is_valid())] = column.flatten().to_numpy().reshape(-1, width)

        def texts(name: str) -> np.ndarray | None:
            known = table[name].to_pylist()
            return np.array([normalized(text or "") for text in known]) if any(known) else None

        path = np.array(table["path"].to_pylist(), dtype=str)
        return Shard(path, texts("identity"), texts("camera"), embedding)

    def digests(self, number: int) -> list[str]:
        """Return the digests of the files of a shard that was embedded; "" if unreadable."""
        return self._part(number, ["digest"])["digest"].to_pylist()

    def known(self, number: int) -> dict[tuple[str, str], np.ndarray]:
        """Return the embeddings (d,) of a shard by path and digest, without unreadable files."""
        if not self.file(number).exists():
            return {}
        shard = self.read(number)
        rows = zip(
            shard.path.tolist(), self.digests(number), shard.embedding, shard.decodes, strict=True
        )
        return {(path, digest): x for path, digest, x, decodes in rows if digest and decodes}

    def mapped(self) -> StoredFeatures:
        """The images that decode: embeddings (n, d) in a mapped file, and what is known of them.

        The file, `_embedding.npy`, is written next to the parts at the first call.

        Raises:
            InputError: some shards are missing, or no images are listed.
        """
        if not len(self):
            raise InputError(f"{self.folder} has no images. Add some, and embed again.")
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

    def _broken(self, number: int) -> int:
        """How many files of a shard did not decode."""
        return int(_parquet(self.file(number), "read_schema").metadata[UNREADABLE])

    @property
    def failed(self) -> int:
        """The number of files that did not decode."""
        return sum(map(self._broken, range(self.count)))

    def unreadable(self, most: int) -> list[str]:
        """Files, so many at most, that did not decode."""
        found: list[str] = []
        for number in range(self.count):
            if len(found) < most and self.file(number).exists() and self._broken(number):
                shard = self.read(number)
                found += shard.path[~shard.decodes].tolist()
        return found[:most]

    @property
    def numbers(self) -> list[int]:
        """The shards that have images."""
        return np.flatnonzero(self.sizes).tolist()

    def __iter__(self) -> Iterator[Shard]:
        """Yield all shards that have images, one at a time.

        Raises:
            InputError: some are missing, or older than the listing.
        """
        missing = self.missing
        if missing:
            raise InputError(
                f"all shards are read: {len(missing)} of {self.count} in {self.folder} are not "
                "there; the same call of embed goes on"
            )
        return map(self.read, self.numbers)


def _joined(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """A column of all shards; None where one has none."""
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if len(known) == len(parts) else None


def create(
    folder: Path, images: Iterable[Listed], shard_size: int, about: Mapping[str, Any]
) -> Shards:
    """Return the folder with its listing: new, or that of an earlier call with its listing updated.

    Args:
        folder: new, or of an earlier call.
        images: all images.
        shard_size: images of a shard.
        about: settings that are the same in all calls; `images` is a folder, table or pattern.

    Raises:
        InputError: no images in a first call or at a missing path, another folder, or other
            settings.
    """
    check_writable(folder)
    rows = iter(images)
    first = list(itertools.islice(rows, 1))
    # Of a folder or table whose images were deleted, no embedding is kept. A missing one raises.
    emptied = Shards.holds(folder) and os.path.exists(about["images"])
    if not first and not emptied:
        raise InputError(
            "there must be at least one image to embed: received none; name a table, a folder or "
            "a pattern of image files"
        )
    rows = itertools.chain(first, rows)
    if not Shards.holds(folder):
        try:
            with new_folder(folder) as staged:
                _write_listing(_blocks(rows, shard_size), staged / LISTING)
                (staged / ABOUT).write_text(json.dumps(about, indent=1), encoding="utf-8")
            return Shards(folder)
        except InputError:
            if not Shards.holds(folder):  # by another process, meanwhile
                raise
            return _same(Shards(folder), about)
    shards = _same(Shards(folder), about)
    with locked(folder / ".listing.lock", wait=True), replaced_file(folder / LISTING) as new:
        _write_listing(_updated(shards, rows, shard_size), new)
    return Shards(folder)


def _blocks(rows: Iterator[Listed], size: int) -> Iterator[list[Listed]]:
    while block := list(itertools.islice(rows, size)):
        yield block


def _write_listing(blocks: Iterable[Sequence[Listed]], file: Path) -> None:
    """Write a row group of each block; blocks may be empty."""
    arrow = _arrow()
    schema = arrow.schema([(name, arrow.string()) for name in Listed._fields])
    with arrow.parquet.ParquetWriter(file, schema) as out:
        for block in blocks:
            columns = [[row[i] for row in block] for i in range(len(Listed._fields))]
            arrays = [arrow.array(column, arrow.string()) for column in columns]
            out.write_table(arrow.table(arrays, schema=schema), max(1, len(block)))


def _updated(shards: Shards, images: Iterator[Listed], size: int) -> Iterator[Sequence[Listed]]:
    """Yield the blocks of the new listing: images stay in their shards, new ones come last.

    Images that are no longer listed are left out. Paths are in memory from the first difference on.
    """
    rows: dict[str, list[Listed]] = defaultdict(list)
    for number in range(shards.count):
        paths = shards.listed(number)["path"].to_pylist()
        block = list(itertools.islice(images, len(paths)))
        if not rows and [image.path for image in block] == paths:
            yield block
            continue
        for image in itertools.chain(block, images):
            rows[image.path].append(image)
        yield [rows[path].pop(0) for path in paths if rows.get(path)]
    yield from _blocks(itertools.chain(*rows.values(), images), size)


def _same(shards: Shards, about: Mapping[str, Any]) -> Shards:
    for name, value in about.items():
        if shards.about.get(name) != value:
            raise InputError(
                f"what was begun goes on with the same model and images: in {shards.folder} "
                f"{name} is {shards.about.get(name)!r}, received {value!r}; name another folder"
            )
    return shards


def _parquet(file: Path, function: str, **options: Any) -> Any:
    """Return the result of a function of `pyarrow.parquet` that reads a file."""
    arrow = _arrow()
    try:
        return getattr(arrow.parquet, function)(file, **options)
    except (OSError, arrow.ArrowException) as error:
        raise InputError(
            f"{file} must be a whole Parquet file ({first_line(error)}): remove it, and embed again"
        ) from error


def _arrow() -> Any:
    checks.installed("pyarrow.parquet", "scale")
    return importlib.import_module("pyarrow")
