"""`keras-reid crop FOLDER|FILE… --out=DIR`: crops of the persons in photos.

Images that are not photos, by --detect, are copied unchanged. Subfolders of FOLDER are kept.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from keras_reid import data
from keras_reid.cli.common import with_home
from keras_reid.cli.options import Command, option, reject
from keras_reid.cli.photos import Persons, PhotoOptions, crop_name
from keras_reid.cli.terminal import say
from keras_reid.errors import counted
from keras_reid.io import check_replaceable, check_writable, new_folder


@dataclass(frozen=True, kw_only=True)
class CropOptions(PhotoOptions):
    """Options of `crop`.

    Attributes:
        words: a folder of photos, or files.
    """

    topic: ClassVar[str] = "output"

    out: str | None = option(
        "New folder with a file for each person: PNG crops of photos, and copies of other images."
    )
    words: tuple[str, ...] = ()


def crop(options: CropOptions) -> list[str]:
    """Write the crops and return their paths.

    Raises:
        InputError: no photos, an output that exists, or more than 1 % of the files do not decode;
            the crops of the others are written.
    """
    required = "A folder or files, and --out, are required, such as crop photos --out=crops."
    reject((not options.words or not options.out, required))
    out = Path(with_home(options.out))
    check_replaceable(out)  # before photos are searched
    check_writable(out)
    root, paths = _photos([with_home(word) for word in options.words])
    options.check_images(paths)
    persons = options.finder.require(paths)
    files = _copy(persons, [Path(path) for path in paths], root, out)
    say(f"{counted(len(files), 'person')} of {counted(len(paths), 'image')} in {out}")
    options.finder.skipped.finish()
    return files


def _photos(words: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Return the folder and its images, or None and the files."""
    if len(words) == 1 and (folder := Path(words[0])).is_dir():
        # The same form as that of the listed paths: links to folders are resolved.
        return folder, data.unlabeled(folder).path.tolist()
    return None, list(words)


def _copy(persons: Persons, paths: Sequence[Path], root: Path | None, out: Path) -> list[str]:
    """Copy the files of persons to a new folder, in the subfolders of their photos."""
    written: list[str] = []
    with new_folder(out) as staged:
        for name, file, row in zip(*(column.tolist() for column in persons), strict=True):
            path = paths[row]
            inner = path.parent.relative_to(root) if root else Path()
            place = inner / crop_name(name, file)
            if (staged / place).exists():  # a.jpg and a.png, or files of several folders
                place = inner / f"{row:06d}_{place.name}"
            (staged / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, staged / place)
            written.append(str(out / place))
    return written


SHOWN = "detect detector out strict"
run = Command(crop, CropOptions, SHOWN, words=())
