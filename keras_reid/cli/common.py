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
from typing import Any, ClassVar

import numpy as np
from tqdm import tqdm

from keras_reid import checks, data, evaluation, inference, scale
from keras_reid.cli.options import MOST, option
from keras_reid.errors import InputError, printable
from keras_reid.evaluation.protocols import RULES
from keras_reid.gallery import LIMITS, Gallery, Limits
from keras_reid.inference.preprocessing import LAYOUTS, ORDERS
from keras_reid.inference.sources import KINDS
from keras_reid.io import check_writable
from keras_reid.models.shipped import PRETRAINED

SCHEME = re.compile("([a-z]+:)?(.*)", re.DOTALL)
EVERY = 10.0  # seconds between lines of progress in a pipe
AFTER = 2.0  # seconds until a bar is shown on a terminal
NUMBERS = ("input_size", "scale", "mean")  # flags of several numbers


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
        "of a training is P x K, see --num_identities_per_batch and --num_instances.",
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

    def dataset_of_run(self, settings: Mapping[str, Any], what: str) -> data.ReidDataset:
        """Return the data set of the flags, else that of a run with its validation persons."""
        name = self.dataset or settings.get("dataset")
        dataset = self.dataset_of(name, self.data_dir or settings.get("data_dir"), what)
        if settings.get("holdout") and dataset.query is None and self.dataset is None:
            dataset = dataset.hold_out(settings["holdout"])
        return dataset

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
    """A Keras model that embeds: a run, a .keras file or a pretrained model."""

    model: str | None = option(
        f"Model that embeds: {KINDS}. Default: the model of --pretrained. Loading a SavedModel "
        "runs its code."
    )
    run: str | None = option("Run folder; an alias of --model.")
    pretrained: str = option(
        "Pretrained model, the default embedder. "
        + " ".join(f"{card.name}: {card.license}" for card in PRETRAINED.values()),
        next(iter(PRETRAINED), None),
        choices=tuple(PRETRAINED),
    )
    member: str = option(
        "Of a run whose members learned from each other: a number, best (the highest mAP when it "
        "was trained), or ensemble (all embeddings side by side).",
        "1",
    )

    aliases: ClassVar[tuple[str, ...]] = ("model", "run")  # flags that name a model

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum(getattr(self, alias) is not None for alias in self.aliases) > 1:
            flags = " or ".join(f"--{alias}" for alias in self.aliases)
            raise InputError(f"name one model: give either {flags}")

    @property
    def model_name(self) -> str | None:
        """The path or name of --model or an alias; None: the default."""
        return next((name for alias in self.aliases if (name := getattr(self, alias))), None)

    @cached_property
    def source(self) -> inference.Source:
        """The model before it is loaded."""
        return inference.Source.of(self.model_name or self.pretrained)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Training settings of the model; empty if unknown."""
        return self.source.settings

    @property
    def points(self) -> str | None:
        """The source of body points, for a model that takes them."""
        return self.keypoints or self.settings.get("keypoints")

    def with_points(self, images: data.PersonImages) -> data.PersonImages:
        """Return the images with their body points, if there is a source."""
        data_dir = self.data_dir or self.settings.get("data_dir")
        return self.with_keypoints(images, self.points, data_dir)


@dataclass(frozen=True, kw_only=True)
class ModelOptions(RunOptions):
    """A model that embeds, of any format."""

    saved_model: str | None = option(
        "Export folder EXPORT_DIR/NAME/VERSION; an alias of --model. Loading a SavedModel runs its "
        "code."
    )
    runtime: str = option(
        "Runtime of a network: auto is ONNX Runtime for .onnx, OpenVINO for .xml and LiteRT for "
        ".tflite; openvino also runs .onnx and .tflite.",
        "auto",
        choices=("auto", "keras", "saved_model", "onnx", "openvino", "litert"),
    )
    input_size: Sequence[str] | None = option(
        "HEIGHT,WIDTH in pixels of an .onnx, .xml or .tflite network. This flag and the next four "
        "are needed only if the file does not contain the setting."
    )
    channel_order: str | None = option("Channels of the network's input.", choices=ORDERS)
    scale: Sequence[str] | None = option(
        "Gray levels, 1 or 3 numbers: the network's input is (pixel - mean) / scale."
    )
    mean: Sequence[str] | None = option("Gray levels, 1 or 3 numbers; see --scale.")
    layout: str | None = option("Axes of the network's input.", choices=LAYOUTS)

    aliases: ClassVar[tuple[str, ...]] = (*RunOptions.aliases, "saved_model")

    @cached_property
    def loading(self) -> dict[str, Any]:
        """Further arguments of `inference.load`, from the flags."""
        numbers = {name: _numbers(name, getattr(self, name)) for name in NUMBERS}
        words = {"channel_order": self.channel_order, "layout": self.layout}
        return {"runtime": self.runtime, "member": self.member, **numbers, **words}

    @cached_property
    def loaded(self) -> inference.Embedder:
        """The embedder of the model."""
        return inference.load(self.source, **self.loading)

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the embedder; galleries store it."""
        return self.loaded.fingerprint

    def embedder(
        self, stripes: str | None = None, count: int | None = None, also: Sequence[str] = ()
    ) -> Callable[[data.PersonImages], Any]:
        """Return a function from images (or tracklets) to features.

        Args:
            stripes: "pooled" or "trained": also return stripes.
            count: number of pooled stripes; None: one for each row of the feature map.
            also: further outputs.
        """
        embedder = self.loaded.pooled(count) if stripes == "pooled" else self.loaded
        embedder = embedder.select("embedding", *(["local"] if stripes else []), *also)
        frames = self.settings.get("frames", 4)

        def embed(images: data.PersonImages) -> Any:
            if "keypoints" in embedder.inputs:
                images = self.with_points(images)
            return embedder.embed(images, self.embed_batch_size, frames, progress("embedding"))

        return embed

    def pixel_embedder(self) -> tuple[Callable[[Any], np.ndarray], tuple[int, int]]:
        """Return a function from uint8 images (b, h, w, 3) to embeddings (b, d), and their size."""
        embedder = self.loaded
        if embedder.takes_clips:
            raise InputError(
                f"{self.source} is a model of tracklets, not of single images: name another"
            )
        if "keypoints" not in embedder.inputs or self.points is None:
            return lambda images: embedder([images]), embedder.image_size
        estimate = data.estimator_of(self.points)

        def embed(images: Any) -> np.ndarray:
            return embedder([{"images": images, "keypoints": estimate(images)}])

        return embed, embedder.image_size


def _numbers(name: str, texts: Sequence[str] | None) -> list[float] | None:
    try:
        return None if texts is None else [float(text) for text in texts]
    except ValueError:
        raise InputError(f"`{name}` must be numbers, got {','.join(texts or ())}.", name) from None


def with_home(value: Any) -> Any:
    """Return the value of an option with `~` in texts replaced: `~/x`, `file:~/x`."""
    if isinstance(value, str):
        scheme, path = SCHEME.fullmatch(value).groups("")  # type: ignore[union-attr]
        return scheme + os.path.expanduser(path)
    if isinstance(value, list | tuple):
        return type(value)(map(with_home, value))
    if isinstance(value, dict):
        return {name: with_home(one) for name, one in value.items()}
    return value


@dataclass(frozen=True, kw_only=True)
class GalleryOptions(ModelOptions):
    """Gallery, model, and probabilities of a match."""

    match_probability: float = option(
        "Least probability of a match. At the default, up to 1 of 100 queries of persons who are "
        "not enrolled was a match.",
        LIMITS.match,
        least=0,
        most=1,
    )
    possible_probability: float = option(
        "Least probability of a possible match. At the default, up to 7 of 100 queries whose "
        "nearest person is right were no match.",
        LIMITS.possible,
        least=0,
        most=1,
    )
    gallery: str | None = option(
        "people.db (Milvus Lite), file:NAME, or http://HOST:PORT (Milvus)."
    )

    @property
    def uri(self) -> str:
        """The gallery."""
        if self.gallery is None:
            raise InputError("a search has a gallery: give --gallery, such as --gallery=people.db")
        if self.gallery == "memory:":
            raise InputError("memory: ends with the command: name a gallery that stays, people.db")
        return self.gallery

    @property
    def limits(self) -> Limits:
        """The two probabilities."""
        return Limits(self.match_probability, self.possible_probability)

    def calibrated(self, people: Gallery) -> evaluation.MatchCalibration | None:
        """Return the calibration of a gallery, which gets that of the model if it has none."""
        if people.calibration is None and people.fingerprint in (None, self.fingerprint):
            people.calibration = self.loaded.calibration
        return people.calibration


@dataclass(frozen=True, kw_only=True)
class FeatureOptions:
    """Stripes of a model, and numbers of a re-ranker."""

    stripes: int | None = option(
        "Number of pooled stripes. Default: one for each row of the feature map.", least=1
    )
    rerank_options: Sequence[str] | None = option(
        "Of the re-ranker, such as k1=20,k2=6,lambda_value=0.3."
    )

    @property
    def rerank_numbers(self) -> dict[str, Any]:
        """Options of the re-ranker by name."""
        texts = self.rerank_options or ()
        try:
            numbers = {name: float(number) for name, number in (text.split("=") for text in texts)}
            if not all(abs(number) <= MOST for number in numbers.values()):
                raise ValueError("NaN, infinite or too large")
        except ValueError:
            raise InputError(
                "rerank_options are NAME=NUMBER, separated by commas: received "
                f"{','.join(texts)!r}",
                "rerank_options",
            ) from None
        return {name: int(x) if x.is_integer() else x for name, x in numbers.items()}


def stored_features(path: str, side: str | None = None) -> evaluation.StoredFeatures:
    """Features of a file, of a folder of arrays, or of one that `embed.py` wrote.

    Args:
        path: the file or folder.
        side: "query" or "gallery", of a file with both; None: the rows of both.
    """
    if scale.Shards.holds(path):
        return scale.Shards(path).mapped()
    return evaluation.load_features(path, side)


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
    """Return a function that reports the progress, the rate and the remaining time on stderr.

    On a terminal it shows a bar for loops of more than two seconds, which is cleared at the end. In
    a pipe it prints a line every ten seconds.
    """
    bar: Any = None
    begin = printed = 0.0

    def report(done: int, total: int | None) -> None:
        nonlocal bar, begin, printed
        now = time.monotonic()
        if bar is None or done < bar.n or total != bar.total:  # a loop begins
            if bar is not None:
                bar.close()
            shown = {"delay": AFTER, "leave": False, "dynamic_ncols": True}
            pipe = not sys.stderr.isatty()
            bar = tqdm(None, what, total, file=sys.stderr, disable=pipe, **shown)
            begin = printed = now
        bar.update(done - bar.n)
        bar.n = done  # a disabled bar does not count
        if bar.disable and now - printed >= EVERY:
            printed = now
            line = tqdm.format_meter(done, total, now - begin, ncols=0)
            print(f"{what}: {line.strip()}", file=sys.stderr, flush=True)
        if total is not None and done >= total:
            bar.close()

    return report


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
