"""`keras-reid search enrol DIR|CSV`: add persons to a gallery."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_reid import data, gallery, scale
from keras_reid.cli.photos import GalleryPhotoOptions
from keras_reid.cli.terminal import progress, say
from keras_reid.errors import InputError, counted, invalid_file
from keras_reid.io import content_digest, read_table, table_path
from keras_reid.names import resolved
from keras_reid.scale.listing import check_once

Columns = tuple[np.ndarray, dict[str, Any]]  # readable rows, arguments of `Gallery.enrol`
CHUNK = 1024  # images that are embedded and stored at a time


class Block(NamedTuple):
    """Images to enrol.

    Attributes:
        labels: images, identities, cameras and times (n,), as in `Gallery.enrol`.
        digests: (n,) digests of the content.
        fingerprint: fingerprint of the model.
        embed: function of row numbers. It returns the numbers of the readable images, and arguments
            of `Gallery.enrol` for these.
    """

    labels: dict[str, np.ndarray | None]
    digests: np.ndarray
    fingerprint: str
    embed: Callable[[np.ndarray], Columns]

    def rows(self, rows: np.ndarray) -> dict[str, Any]:
        """Return the labels of some images."""
        columns = self.labels.items()
        return {name: None if x is None else x[rows].tolist() for name, x in columns}


@dataclass
class Enrolment:
    """Counts of an enrolment, and the skipped files.

    Attributes:
        added: new images.
        replaced: images that were embedded again because their content changed.
        moved: images with another identity, camera or time than before.
        kept: images that were enrolled before, unchanged.
        unfit: paths of the skipped files.
    """

    added: int = 0
    replaced: int = 0
    moved: int = 0
    kept: int = 0
    unfit: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"enrolled {counted(self.added, 'image')}, {self.replaced:,} embedded again (changed), "
            f"{self.moved:,} moved (another identity, camera or time), {self.kept:,} already "
            f"enrolled, {len(self.unfit):,} skipped"
        )

    def update(self, people: gallery.Gallery, block: Block) -> None:
        """Add new images, embed changed images again, and move images with other labels."""
        digests = block.digests
        labels = block.rows(np.arange(len(digests)))
        changes = people.changes(**labels, digests=digests.tolist())
        rows = np.flatnonzero(changes.new | changes.replaced)
        if len(rows):
            fit, values = block.embed(rows)
            self.unfit += [labels["images"][row] for row in np.setdiff1d(rows, fit)]
            rows = fit
        if len(rows):
            people.enrol(
                **block.rows(rows),
                **values,
                model_fingerprint=block.fingerprint,
                existing="replace",
                digests=digests[rows].tolist(),
            )
        moved = np.setdiff1d(np.flatnonzero(changes.moved), rows)
        if len(moved):
            people.relabel(**block.rows(moved))
        self.added += int(changes.new[rows].sum())
        self.replaced += int(changes.replaced[rows].sum())
        self.moved += int(changes.moved.sum())
        self.kept += int((~(changes.new | changes.replaced | changes.moved)).sum())

    def print_summary(self, options: GalleryPhotoOptions, people: gallery.Gallery) -> None:
        """Print the counts, the skipped files and the size of the gallery."""
        say(str(self))
        images, identities = people.count(), len(people.identities())
        size = f"{counted(images, 'image')} of {counted(identities, 'identity')}"
        say(f"{options.uri}: {size}")
        if people.calibration is not None and (adapted := people.calibrate()) is not None:
            count = counted(adapted.after.images, "enrolled image")
            say(f"match probabilities adapted to {count}")


def enrol(options: GalleryPhotoOptions, arguments: list[str]) -> Enrolment:
    """Add the images of a folder or list, embedded here, or the embeddings of `embed.py`."""
    source = Path(arguments[0])
    stored = scale.Shards.holds(source)
    total, blocks = (_shard_blocks if stored else _image_blocks)(options, source)
    counts, done = Enrolment(), 0
    report = progress("enrolling")
    with gallery.open(options.uri) as people:
        if not stored:
            options.calibrated(people)
        for block in blocks:
            counts.update(people, block)
            done += len(block.digests)
            report(done, total)
        counts.print_summary(options, people)
    if not stored:
        options.finder.skipped.total = total
        options.finder.skipped.finish()
    return counts


def _image_blocks(options: GalleryPhotoOptions, source: Path) -> tuple[int, Iterator[Block]]:
    images, times = _people(source)
    check_once(source, images.path.tolist())
    options.check_images(images.path.tolist())
    names = options.settings.get("attribute_names")
    embed = options.embedder(also=("attribute_probabilities",) if names else ())

    def block(start: int) -> Block:
        chunk = images[start : start + CHUNK]
        paths = chunk.path.tolist()

        def columns(rows: np.ndarray) -> Columns:
            persons = options.finder.find(chunk.path[rows], one=True)
            rows = rows[persons.rows]
            if not len(rows):
                return rows, {}
            outputs = embed(replace(chunk[rows], path=persons.files))
            if not names:
                return rows, {"embeddings": outputs}
            attributes = outputs["attribute_probabilities"]
            predictions = {"attributes": attributes, "attribute_names": names}
            return rows, {"embeddings": outputs["embedding"], **predictions}

        labels = {
            "images": chunk.path,
            "identities": chunk.identity,
            "cameras": chunk.camera,
            "times": np.array([times.get(path) for path in paths], float),
        }
        return Block(labels, np.array([*map(content_digest, paths)]), options.fingerprint, columns)

    return len(images), map(block, range(0, len(images), CHUNK))


def _shard_blocks(options: GalleryPhotoOptions, source: Path) -> tuple[int, Iterator[Block]]:
    shards = scale.Shards(source)
    tables = map(shards.listed, shards.numbers)
    check_once(source, (path for table in tables for path in table["path"].to_pylist()))
    if options.model_name:
        raise InputError(f"{source} holds embeddings. Omit --model.")

    def block(number: int, shard: scale.Shard) -> Block:
        if shard.identity is None:
            raise InputError(f"{source} has no identities. Embed a table with a column identity.")

        def columns(rows: np.ndarray) -> Columns:
            rows = rows[shard.decodes[rows]]
            return rows, {"embeddings": shard.embedding[rows]}

        labels = {"images": shard.path, "identities": shard.identity, "cameras": shard.camera}
        digests = np.array(shards.digests(number))
        return Block(labels, digests, shards.about["fingerprint"], columns)

    return len(shards), map(block, shards.numbers, shards)


def _people(path: Path) -> tuple[data.PersonImages, dict[str, float]]:
    """Return all images of a folder or table, by resolved paths, and the known times."""
    if not path.exists():
        raise InputError(f"{path} not found.")
    dataset = data.load("folder" if path.is_dir() else "csv", str(path.absolute()))
    images = data.joined(*dataset.parts().values())
    images = images[~images.distractor]
    if images.unlabeled.any():
        received, fix = f"none of {images.path[images.unlabeled][0]}", "Fill in the missing cells."
        raise invalid_file(path, "have an identity of each image", received, fix)
    images = replace(images, path=np.array([resolved(path) for path in images.path.tolist()]))
    return images, {} if path.is_dir() else _times(path.absolute())


def _times(table: Path) -> dict[str, float]:
    """Return the seconds of the rows that have a time, by resolved path."""
    return {
        resolved(table_path(table, line.values["path"])): time
        for line in read_table(table, ("path",), ("time",))[1]
        if (time := gallery.seconds(line.values.get("time"))) is not None
    }
