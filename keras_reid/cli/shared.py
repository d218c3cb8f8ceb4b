"""What the commands have in common: data, a model that embeds, and what they say."""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from keras_reid import checks, data, evaluation, gallery, models, scale, serving
from keras_reid.cli.options import MOST, option
from keras_reid.cli.startup import import_keras
from keras_reid.errors import InputError, printable
from keras_reid.evaluation.protocols import RULES
from keras_reid.io import check_writable
from keras_reid.models.shipped import PRETRAINED, Pretrained
from keras_reid.training.runs import Run

if TYPE_CHECKING:
    import keras


SCHEME = re.compile("([a-z]+:)?(.*)", re.DOTALL)
EVERY = 10.0  # seconds between lines of progress in a pipe
AFTER = 2.0  # seconds until a bar is shown on a terminal
PAIRS = "1:1 at FAR 0.0001", "1:1 at FAR 0.01"


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which images."""

    dataset: str | None = option(
        "; ".join(f"{name}: {reader.layout}" for name, reader in data.READERS.items())
    )
    data_dir: str | None = option("The folder, or for csv the file, that holds the data set.")
    keypoints: str | None = option(
        "Body points of the images, for models with pose: FILE.csv, or movenet:FILE.tflite to "
        "estimate them. Default: those of the run."
    )
    keypoints_cache: str | None = option(
        "Table in which estimated points are kept; default: keypoints-movenet.csv beside the data "
        "set."
    )
    protocol: str | None = option(
        f"{', '.join(RULES)}: which gallery images are left out of a query's ranking. no-camera is "
        "for data without cameras. Default: market1501, of tracklets mars."
    )
    embed_batch_size: int = option(
        "Images embedded at a time: of 16 the feature maps fit into the caches of a CPU. A batch "
        "of a training is P x K, see --identities and --instances.",
        16,
        least=1,
        most=2**14,
    )

    def __post_init__(self) -> None:
        # Shells replace the ~ of `~/x`, not that of `--out=~/x`.
        for one in fields(self):
            object.__setattr__(self, one.name, with_home(getattr(self, one.name)))

    def dataset_of(self, name: str | None, data_dir: str | None, what: str) -> data.ReidDataset:
        """The data set of that name in that folder; `what` says who needs one if there is none."""
        if name is not None:
            checks.one_of(data.READERS, dataset=name)
        if name is None or data_dir is None:
            raise InputError(f"{what}: give --dataset and --data_dir")
        return data.load(name, data_dir)

    def dataset_of_run(
        self, settings: Mapping[str, Any], what: str
    ) -> tuple[data.ReidDataset, str, str]:
        """The data set that is named, else that of a run, as this one used it; name and folder."""
        name = self.dataset or settings.get("dataset")
        data_dir = self.data_dir or settings.get("data_dir")
        dataset = self.dataset_of(name, data_dir, what)
        if settings.get("holdout") and dataset.query is None and self.dataset is None:
            dataset = dataset.hold_out(settings["holdout"])
        assert name is not None
        assert data_dir is not None
        return dataset, name, data_dir

    def protocol_of(self, images: data.PersonImages, recorded: str | None = None) -> str:
        """The protocol that is said, else of tracklets MARS's, else the recorded one of a run."""
        return self.protocol or ("mars" if images.has_tracklets else recorded or "market1501")

    def with_keypoints(
        self, images: data.PersonImages, source: str | None, data_dir: str | None
    ) -> data.PersonImages:
        """The images with the body points of a source, if there is one."""
        if source is None:
            return images
        cache = self.keypoints_cache
        if cache is None and data_dir is not None:
            root = Path(data_dir)
            cache = str((root if root.is_dir() else root.parent) / "keypoints-movenet.csv")
        return data.annotated(images, source, cache, progress("estimating body points"))


@dataclass(frozen=True, kw_only=True)
class RunOptions(DataOptions):
    """A trained model: a run, or else one that comes with the package."""

    run: str | None = option(
        "Run folder; train.py makes runs/DATASET-RECIPE-N by default. Default: the model of "
        "--pretrained."
    )
    pretrained: str = option(
        "Model of the package, which embeds where no other is named. "
        + " ".join(f"{card.name}: {card.licence}" for card in PRETRAINED.values()),
        next(iter(PRETRAINED), None),
        choices=tuple(PRETRAINED),
    )
    member: str = option(
        "Of a run whose members learned from each other: a number, best (the highest mAP when it "
        "was trained), or ensemble (all embeddings side by side).",
        "1",
    )

    @cached_property
    def settings(self) -> dict[str, Any]:
        """With what the model was trained."""
        return Run(self.run).settings if self.run else {"flip": PRETRAINED[self.pretrained].flip}

    @cached_property
    def model(self) -> "keras.Model":
        """The trained model."""
        import_keras()
        if self.run:
            return Run(self.run).load_model(self.member)
        if self.member != "1":
            raise InputError(
                f"a member is one of a run: received {self.member!r}; give --run too", "member"
            )
        return models.pretrained(self.pretrained)


@dataclass(frozen=True, kw_only=True)
class ModelOptions(RunOptions):
    """A model that embeds: a run, or an export."""

    saved_model: str | None = option(
        "An exported export/NAME/VERSION folder instead of --run. Loading it runs its code."
    )

    def check_one_model(self) -> None:
        """A run or an export embeds, or neither, and then a model of the package."""
        if self.run is not None and self.saved_model is not None:
            raise InputError("name one model: give either --run or --saved_model")

    @property
    def shipped(self) -> Pretrained | None:
        """The model of the package, where no other is named."""
        return None if self.run or self.saved_model else PRETRAINED[self.pretrained]

    @cached_property
    def calibration(self) -> evaluation.MatchCalibration | None:
        """Calibration of match probabilities that comes with the model; None: it has none."""
        if self.run:
            return Run(self.run).calibration(self.member)
        if self.saved_model:
            contract = self._exported.contract
            values = None if contract is None else contract.about.get("calibration")
        else:
            values = PRETRAINED[self.pretrained].calibration
        return None if values is None else evaluation.MatchCalibration(**values)

    @property
    def shipped_pairs(self) -> tuple[float, float] | None:
        """Distances of sure and of possible pairs of one person, of the model of the package."""
        if self.shipped is None:
            return None
        sure, possible = (self.shipped.thresholds[name]["value"] for name in PAIRS)
        return sure, possible

    @cached_property
    def settings(self) -> dict[str, Any]:
        """With what the model was trained; empty of an export."""
        return {} if self.saved_model else super().settings

    @cached_property
    def fingerprint(self) -> str:
        """Of the model; galleries ask for it."""
        if self.saved_model:
            return self._exported.fingerprint
        return serving.fingerprint(self.model, self.settings["flip"])

    @cached_property
    def _exported(self) -> "serving.ExportedEmbedder":
        assert self.saved_model is not None
        import_keras()
        return serving.load(self.saved_model)

    def embedder(
        self, stripes: str | None = None, count: int | None = None, also: Sequence[str] = ()
    ) -> Callable[[data.PersonImages], Any]:
        """From images (or tracklets) to features.

        Args:
            stripes: "pooled" or "trained": yield stripes, too.
            count: of the pooled stripes; None: one for each row of the map.
            also: further outputs, of a run.
        """
        if self.saved_model:
            if also:
                raise InputError(f"an export yields no {', '.join(also)}: give --run")
            saved, size = self._exported, self.embed_batch_size

            def embed_files(images: data.PersonImages) -> Any:
                paths = images.path.tolist()
                found = saved.embed_files(paths, size, bool(stripes), progress("embedding"))
                if not images.has_tracklets:
                    return found
                return models.inference.tracklet_means(found, images.owner)

            return embed_files
        model = self.model
        if stripes == "pooled":
            model = models.stripes(model, count)
        embedder = models.Embedder(model, self.settings["flip"], bool(stripes), tuple(also))
        source = self._points(model)

        def embed(images: data.PersonImages) -> Any:
            data_dir = self.data_dir or self.settings.get("data_dir")
            images = self.with_keypoints(images, source, data_dir)
            frames = self.settings.get("frames", 4)
            tell = progress("embedding")
            return embedder.embed(images, self.embed_batch_size, frames, tell)

        return embed

    def pixel_embedder(self) -> tuple[Callable[[Any], np.ndarray], tuple[int, int]]:
        """From uint8 images (b, h, w, 3) to embeddings (b, d), and their size (h, w)."""
        if self.saved_model:
            return self._exported, self._exported.image_size
        model = self.model
        if models.takes_clips(model):
            raise InputError(
                f"{self.run} is a model of tracklets, not of single images: name another"
            )
        embedder = models.Embedder(model, self.settings["flip"])
        source = self._points(model)
        if source is None:
            return lambda images: embedder([images]), embedder.image_size
        estimate = data.estimator_of(source)
        return (
            lambda images: embedder([{"images": images, "keypoints": estimate(images)}]),
            embedder.image_size,
        )

    def _points(self, model: "keras.Model") -> str | None:
        """Where a model that needs body points has them from."""
        return (
            (self.keypoints or self.settings.get("keypoints")) if needs_keypoints(model) else None
        )


def with_home(value: Any) -> Any:
    """Return the value of an option with `~` in texts replaced: `~/x`, `faiss:~/x`."""
    if isinstance(value, str):
        scheme, path = SCHEME.fullmatch(value).groups("")  # type: ignore[union-attr]
        return scheme + os.path.expanduser(path)
    if isinstance(value, list | tuple):
        return type(value)(map(with_home, value))
    if isinstance(value, dict):
        return {name: with_home(one) for name, one in value.items()}
    return value


@dataclass(frozen=True, kw_only=True)
class DecisionOptions(ModelOptions):
    """Model, and probabilities of a match."""

    match_probability: float = option(
        "Least probability of a match. At the default, about 1 of 100 queries of persons who are "
        "not enrolled is a match.",
        gallery.LIMITS.match,
        least=0,
        most=1,
    )
    possible_probability: float = option(
        "Least probability of a possible match. At the default, about 3 of 100 queries whose "
        "nearest person is right are no match.",
        gallery.LIMITS.possible,
        least=0,
        most=1,
    )

    @property
    def limits(self) -> gallery.Limits:
        """The two probabilities."""
        return gallery.Limits(self.match_probability, self.possible_probability)

    def calibrated(self, people: gallery.Gallery) -> evaluation.MatchCalibration | None:
        """Return the calibration of a gallery, which gets that of the model if it has none."""
        if people.calibration is None and people.fingerprint in (None, self.fingerprint):
            people.calibration = self.calibration
        return people.calibration


@dataclass(frozen=True, kw_only=True)
class GalleryOptions(DecisionOptions):
    """Gallery, and the form of the output."""

    gallery: str | None = option(
        "people.db (Milvus Lite), faiss:FILE, or http://HOST:PORT (Milvus)."
    )
    output: str = option("What is printed.", "table", choices=("table", "json"))

    @property
    def uri(self) -> str:
        """The gallery."""
        if self.gallery is None:
            raise InputError("a search has a gallery: give --gallery, such as --gallery=people.db")
        if self.gallery == "memory:":
            raise InputError("memory: ends with the command: name a gallery that stays, people.db")
        return self.gallery


def stored_features(path: str, side: str | None = None) -> evaluation.StoredFeatures:
    """Features of a file, of a folder of arrays, or of one that `embed.py` wrote.

    Args:
        path: the file or folder.
        side: "query" or "gallery", of a file with both; None: the rows of both.
    """
    if scale.Shards.holds(path):
        return scale.Shards(path).mapped()
    return evaluation.load_features(path, side)


def needs_keypoints(model: "keras.Model") -> bool:
    """Whether a model is called with body points, too."""
    return "keypoints" in models.input_names(model)


def say(text: str = "") -> None:
    """Prints at once, so that progress is seen through a pipe too; nothing moves the terminal."""
    print(printable(text), flush=True)


def say_json(value: Any) -> None:
    """Prints JSON, with escapes if the encoding of stdout lacks a character of it."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2)
    say(text)


def progress(what: str) -> Callable[[int, int | None], None]:
    """Tells on stderr how far a loop is, at what rate, and how long it will take, if that is known.

    On a terminal a bar, of loops of more than two seconds; in a pipe a line every ten seconds.
    """
    bar: Any = None

    def report(done: int, total: int | None) -> None:
        nonlocal bar
        if bar is None or done < bar.n or total != bar.total:  # a loop begins
            if bar is not None:
                bar.close()
            bar = (Bar if sys.stderr.isatty() else Lines)(what, total)
        bar.update(done - bar.n)
        if total is not None and done >= total:
            bar.close()

    return report


class Bar(tqdm):
    """On a terminal; gone when the loop has ended."""

    def __init__(self, what: str, total: int | None) -> None:
        super().__init__(
            desc=what, total=total, file=sys.stderr, delay=AFTER, leave=False, dynamic_ncols=True
        )


class Lines:
    """In a pipe or a log, where nothing is written over."""

    def __init__(self, what: str, total: int | None) -> None:
        self.what, self.total, self.n = what, total, 0
        self.begin = self.said = time.monotonic()

    def update(self, more: int) -> None:
        """Says how far it is, if nothing was said for ten seconds."""
        self.n += more
        now = time.monotonic()
        if now - self.said >= EVERY:
            self.said = now
            line = tqdm.format_meter(self.n, self.total, now - self.begin, ncols=0)
            print(f"{self.what}: {line.strip()}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing is left to be closed."""


def numbers_by_name(texts: Sequence[str], argument: str) -> dict[str, float]:
    """`["k1=20", "alpha=3.0"]` as numbers by name."""
    options = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            value = float(number)
            if not abs(value) <= MOST:
                raise ValueError("NaN, infinite or too large")
            options[name] = int(number) if number.lstrip("-").isdecimal() else value
        except ValueError:
            raise InputError(
                f"{argument} are NAME=NUMBER, separated by commas: received {text!r}", argument
            ) from None
    return options


def check_picture(**named: str | None) -> None:
    """An output that is a picture is named like one.

    Args:
        named: by its flag, the file that is asked for; None: none.
    """
    for flag, file in named.items():
        if file and Path(file).suffix.lower() not in data.SUFFIXES:
            raise InputError(
                f"--{flag} is a picture, named *{', *'.join(data.SUFFIXES)}: received {file!r}"
            )


def check_outputs(**outputs: str | None) -> None:
    """Outputs are new, for nothing that exists is written over, and can be written."""
    for name, value in outputs.items():
        if value and os.path.lexists(value):
            raise InputError(f"--{name} is new: {value!r} exists")
        if value:
            check_writable(value)
