"""Data sets for training a model, and data sets for scoring only."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from keras_reid import checks, data
from keras_reid.data.sources import check_names, divided
from keras_reid.errors import InputError, Shown, counted, invalid
from keras_reid.names import expanded


class Source(NamedTuple):
    """Data set before it is read.

    Attributes:
        name: name in labels, logs and scores.
        format: key of `data.READERS`.
        path: folder or table.
    """

    name: str
    format: str
    path: str

    def read(
        self, left_out: Sequence[str]
    ) -> tuple[data.ReidDataset | None, dict[str, data.ReidDataset]]:
        """Return the images to train on, and the left-out ones by name.

        Args:
            left_out: folders, relative to that of the data set; an empty name is the data set.
        """
        dataset = data.load(self.format, self.path)
        if "" in left_out:
            if len(left_out) > 1:
                rule = f"{self.name} or folders of it"
                raise invalid("leave_out", rule, Shown("both"), "Omit the folders.")
            return None, {self.name: dataset}
        path, left = expanded(self.path), {}
        for folder in left_out:
            name = f"{self.name}/{folder}"
            root = path if path.is_dir() else path.parent
            dataset, left[name] = divided(dataset, root / folder)
            if not left[name].parts():
                raise invalid("leave_out", "names of data sets, or NAME/FOLDER with images", name)
        return dataset, left


@dataclass(frozen=True)
class Sources:
    """Data sets of a training run.

    Attributes:
        trained: data sets to train on, by name.
        left_out: left-out data sets or folders, by name.
        several: True if `--dataset` lists several data sets, also if only one is trained on.
    """

    trained: dict[str, data.ReidDataset]
    left_out: dict[str, data.ReidDataset]
    several: bool

    @classmethod
    def load(cls, formats: str, paths: str, leave_out: Sequence[str] = ()) -> "Sources":
        """Read data sets.

        Args:
            formats: keys of `data.READERS`, separated by commas.
            paths: a folder or table of each data set, or NAME=PATH, separated by commas.
            leave_out: names of data sets, or NAME/FOLDER.

        Raises:
            InputError: unknown formats or names, another number of paths, or unreadable data.
        """
        sources = {source.name: source for source in parsed(formats, paths)}
        names = [name.partition("/") for name in dict.fromkeys(leave_out)]
        for owner, _, _ in names:
            checks.one_of(sources, leave_out=owner)
        trained: dict[str, data.ReidDataset] = {}
        left_out: dict[str, data.ReidDataset] = {}
        for source in sources.values():
            own = [folder for owner, _, folder in names if owner == source.name]
            kept, left = source.read(own)
            trained |= {} if kept is None else {source.name: kept}
            left_out |= left
        return cls(trained, left_out, len(sources) > 1)

    def dataset(self, holdout: float = 0.0) -> data.ReidDataset:
        """Return the union of the data sets to train on; a single data set is not changed.

        Args:
            holdout: fraction of the identities that are held out, in data sets without query and
                gallery images.

        Raises:
            InputError: all data sets are left out, or see `data.ReidDataset.hold_out`.
        """
        if not self.trained:
            raise InputError("`leave_out` must leave a data set to train on.", "leave_out")
        parts = [
            part.hold_out(holdout) if holdout and part.query is None else part
            for part in self.trained.values()
        ]
        return data.union(parts, list(self.trained)) if self.several else parts[0]


def parsed(formats: str, paths: str) -> list[Source]:
    """Return the data sets of the flags --dataset and --data_dir.

    Args:
        formats: keys of `data.READERS`, separated by commas. If there is only one, the path is not
            split, unless it does not exist.
        paths: a path of each, separated by commas; for several, also NAME=PATH.

    Raises:
        InputError: another number of paths, invalid or equal names.
    """
    kinds, places = formats.split(","), paths.split(",")
    if len(kinds) == 1 and (len(places) == 1 or os.path.exists(expanded(paths))):
        return [Source(named(paths)[0], formats, paths)]
    if len(places) != len(kinds) or not all(places):
        rule = "one path for each data set of --dataset, separated by commas"
        received = (
            f"{counted(sum(map(bool, places)), 'path')} for {counted(len(kinds), 'data set')}"
        )
        raise invalid("data_dir", rule, Shown(received))
    names = [named(place) for place in places]
    check_names([name for name, _ in names], "data_dir")
    return [Source(name, kind, path) for (name, path), kind in zip(names, kinds, strict=True)]


def named(place: str) -> tuple[str, str]:
    """Return name and path of NAME=PATH, or the name of a file or folder and its path."""
    name, equals, path = place.partition("=")
    if equals and not {"/", os.sep} & {*name}:
        return name, path
    absolute = Path(os.path.abspath(expanded(place)))
    return absolute.stem if absolute.suffix.lower() == ".csv" else absolute.name, place


def scored_after(sources: Sources, tables: Sequence[str]) -> dict[str, data.ReidDataset]:
    """Return the data sets to score on after training by name: left-out ones, and tables.

    Left-out data sets without query and gallery images are not included.

    Args:
        sources: data sets of the training run.
        tables: paths of tables, or NAME=PATH.

    Raises:
        InputError: invalid or equal names, or a table without query and gallery images.
    """
    added = [named(table) for table in tables]
    check_names([name for name, _ in added], "test_tables")
    tests = {k: v for k, v in sources.left_out.items() if v.query is not None}
    for name, path in added:
        if name in {*sources.trained, *sources.left_out}:
            rule = "tables with other names than the data sets"
            raise invalid("test_tables", rule, name, "Use NAME=PATH.")
        tests[name] = data.load("csv", path)
        if tests[name].query is None:
            raise invalid("test_tables", "tables with query and gallery images", path)
    return tests


def check_training(
    dataset: data.ReidDataset, tests: Mapping[str, data.ReidDataset], unlabeled: bool
) -> None:
    """Raise for training images without identity, and for images to score on in training.

    Args:
        dataset: data set to train on.
        tests: data sets to score on after training, by name.
        unlabeled: the recipe trains on images without identity.
    """
    if (images := dataset.train) is None:
        return
    if images.unlabeled.any() and not unlabeled:
        first = images[images.unlabeled][:1]
        name = first.columns.get(data.SOURCE, ["NAME"])[0]
        raise InputError(
            "This recipe needs an identity of each image, but "
            f"{counted(int(images.unlabeled.sum()), 'training image')} of {dataset.name} have "
            f"none, such as {first.path[0]}. Leave out their folders by --leave_out={name}/FOLDER."
        )
    trained = {*map(os.path.abspath, images.path.tolist())} if tests else set()
    for name, test in tests.items():
        paths = [path for part in (test.query, test.gallery) if part for path in part.path]
        if shared := [path for path in paths if os.path.abspath(path) in trained]:
            raise InputError(
                f"{name} must not contain training images, got {len(shared)}, such as "
                f"{shared[0]}. Leave them out by --leave_out."
            )
