"""Creation and update of the listing in a folder of embeddings."""

import itertools
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_reid import checks
from keras_reid.errors import Shown, invalid, invalid_file
from keras_reid.io import check_writable, locked, replaced_file
from keras_reid.scale.listing import ImageEntry
from keras_reid.scale.shards import ABOUT, CROPS, LISTING, MAPPED, Shards, arrow_package


def create(
    folder: Path,
    images: Iterable[ImageEntry],
    shard_size: int,
    about: Mapping[str, Any],
    overwrite: bool = False,
) -> Shards:
    """Return the folder with a new or updated listing.

    Args:
        folder: new folder, or that of an earlier call.
        images: all images.
        shard_size: images of a shard.
        about: settings that are the same in all calls; `images` is a folder, table or pattern.
        overwrite: replace a folder of earlier calls with other settings.

    Raises:
        InputError: a first call without images, a missing path, a folder with other files, or
            other settings than in earlier calls.
    """
    check_writable(folder)
    rows = iter(images)
    first = list(itertools.islice(rows, 1))
    # A folder or table without images drops all embeddings; a missing one raises.
    if not first and not (Shards.holds(folder) and os.path.exists(about["images"])):
        raise invalid("images", "at least one image", Shown("none"), "Check the path.")
    rows = itertools.chain(first, rows)
    if overwrite:
        _clear(folder, about)
    if not Shards.holds(folder):
        _create(folder, _blocks(rows, shard_size), about)
        return _same(Shards(folder), about)
    shards = _same(Shards(folder), about)
    with locked(folder / ".listing.lock", wait=True), replaced_file(folder / LISTING) as new:
        _write_listing(_updated(shards, rows, shard_size), new)
    return Shards(folder)


def _clear(folder: Path, about: Mapping[str, Any]) -> None:
    """Remove the files of earlier calls with other settings; crops can be used again."""
    with locked(folder / ".listing.lock", wait=True):
        if Shards.holds(folder) and Shards(folder).about != about:
            for pattern in (ABOUT, LISTING, MAPPED, "part-*.parquet"):
                for file in folder.glob(pattern):
                    file.unlink()


def _create(folder: Path, blocks: Iterable[Sequence[ImageEntry]], about: Mapping[str, Any]) -> None:
    """Write the first listing, and the settings last; listing the images may write crops."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(path.name != CROPS and not path.name.startswith(".") for path in folder.iterdir()):
        fix = "Choose another path."
        raise invalid_file(folder, "be a new or empty folder", "other files", fix)
    with locked(folder / ".listing.lock", wait=True):
        if Shards.holds(folder):  # another process may have created it
            return
        with replaced_file(folder / LISTING) as new:
            _write_listing(blocks, new)
        with replaced_file(folder / ABOUT) as new:
            new.write_text(json.dumps(about, indent=1), encoding="utf-8")


def _blocks(rows: Iterator[ImageEntry], size: int) -> Iterator[list[ImageEntry]]:
    while block := list(itertools.islice(rows, size)):
        yield block


def _write_listing(blocks: Iterable[Sequence[ImageEntry]], file: Path) -> None:
    """Write a row group of each block; blocks may be empty."""
    arrow = arrow_package()
    schema = arrow.schema([(name, arrow.string()) for name in ImageEntry._fields])
    with arrow.parquet.ParquetWriter(file, schema) as out:
        for block in blocks:
            table = arrow.Table.from_pylist([row._asdict() for row in block], schema)
            out.write_table(table, max(1, len(block)))


def _updated(
    shards: Shards, images: Iterator[ImageEntry], size: int
) -> Iterator[Sequence[ImageEntry]]:
    """Yield the blocks of the new listing: images stay in their shards, new ones come last.

    Images that are no longer listed are left out. Paths are in memory from the first difference on.
    """
    rows: dict[str, list[ImageEntry]] = defaultdict(list)
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
        fix = f"{shards.folder} has this value. Choose another folder, or set `overwrite`."
        # Folders of earlier versions do not have all settings.
        checks.one_of([shards.about.get(name, value)], fix, **{name: value})
    return shards
