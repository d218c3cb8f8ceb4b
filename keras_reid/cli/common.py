"""Options of several commands: data, the embedder, and the gallery."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from keras_reid import checks, data, evaluation, inference
from keras_reid.cli.options import option
from keras_reid.cli.terminal import progress
from keras_reid.errors import InputError, Shown, invalid
from keras_reid.evaluation.protocols import RULES
from keras_reid.gallery import LIMITS, Gallery, Limits
from keras_reid.inference.preprocessing import LAYOUTS, ORDERS
from keras_reid.inference.sources import KINDS
from keras_reid.models.shipped import PRETRAINED

SCHEME = re.compile("([a-z]+:)?(.*)", re.DOTALL)
NUMBERS = ("input_size", "scale", "mean")  # flags of several numbers


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Images of a data set."""

    topic: ClassVar[str] = "data"

    dataset: str | None = option(
        "; ".join(f"{name}: {reader.layout}" for name, reader in data.READERS.items())
    )
    data_dir: str | None = option("Folder of the data set; for csv the file.")
    keypoints: str | None = option(
        "Body points of the images, for models with pose: FILE.csv, or movenet:FILE.tflite to "
        "estimate them. Default: those of the run."
    )
    keypoints_cache: str | None = option(
        "Table for estimated points. Default: keypoints-movenet.csv next to the data set."
    )
    protocol: str | None = option(
        f"Rule for gallery images to leave out of a query's ranking: {', '.join(RULES)}. "
        "no-camera is for data without cameras. Default: market1501; mars for tracklets.",
        topic="evaluation",
    )
    embed_batch_size: int = option(
        "Images embedded at a time. The feature maps of 16 fit into the caches of a CPU.",
        16,
        least=1,
        most=2**14,
    )

    def __post_init__(self) -> None:
        # Shells replace the ~ of `~/x`, not that of `--out=~/x`.
        for one in fields(self):
            object.__setattr__(self, one.name, with_home(getattr(self, one.name)))

    def dataset_of(self, name: str | None, data_dir: str | None, use: str) -> data.ReidDataset:
        """Return the data set of that name in that folder; `use` begins the error without one."""
        if name is not None:
            checks.one_of(data.READERS, dataset=name)
        if name is None or data_dir is None:
            raise InputError(f"{use}: --dataset and --data_dir are required.")
        return data.load(name, data_dir)

    def dataset_of_run(self, settings: Mapping[str, Any], use: str) -> data.ReidDataset:
        """Return the data set of the flags, else that of a run with its validation persons."""
        name = self.dataset or settings.get("dataset")
        dataset = self.dataset_of(name, self.data_dir or settings.get("data_dir"), use)
        if settings.get("holdout") and dataset.query is None and self.dataset is None:
            dataset = dataset.hold_out(settings["holdout"])
        return dataset

    def protocol_of(self, images: data.PersonImages, recorded: str | None = None) -> str:
        """Return the protocol of the flag, else mars for tracklets, else the one of a run."""
        return self.protocol or ("mars" if images.has_tracklets else recorded or "market1501")

    def with_keypoints(
        self, images: data.PersonImages, source: str | None, data_dir: str | None
    ) -> data.PersonImages:
        """Return the images with the body points of a source, if there is one."""
        if source is None:
            return images
        cache = self.keypoints_cache
        if cache is None and data_dir is not None:
            root = Path(data_dir)
            cache = str((root if root.is_dir() else root.parent) / "keypoints-movenet.csv")
        return data.annotated(images, source, cache, progress("estimating body points"))


@dataclass(frozen=True, kw_only=True)
class RunOptions(DataOptions):
    """Keras model that embeds images: a run, a .keras file or a pretrained model."""

    topic: ClassVar[str] = "model"

    model: str | None = option(
        f"Embedder: {KINDS}. Default: --pretrained. Loading a SavedModel runs its code."
    )
    run: str | None = option("Run folder; an alias of --model.")
    pretrained: str = option(
        "Default embedder. "
        + " ".join(f"{card.name}: {card.license}" for card in PRETRAINED.values()),
        next(iter(PRETRAINED), None),
        choices=tuple(PRETRAINED),
    )
    member: str = option(
        "Member of a run of mutual learning: a number, best (the highest mAP in training), or "
        "ensemble (all embeddings joined).",
        "1",
    )

    aliases: ClassVar[tuple[str, ...]] = ("model", "run")  # flags that name a model

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum(getattr(self, alias) is not None for alias in self.aliases) > 1:
            flags = ", ".join(f"--{alias}" for alias in self.aliases)
            raise InputError(f"Only one of {flags} can name the model.")

    @property
    def model_name(self) -> str | None:
        """Path or name of --model or an alias; None: the default."""
        return next((name for alias in self.aliases if (name := getattr(self, alias))), None)

    @cached_property
    def source(self) -> inference.Source:
        """Model before it is loaded."""
        return inference.Source.of(self.model_name or self.pretrained)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Training settings of the model; empty if unknown."""
        return self.source.settings

    @property
    def points(self) -> str | None:
        """Source of body points, for a model with that input."""
        return self.keypoints or self.settings.get("keypoints")

    def with_points(self, images: data.PersonImages) -> data.PersonImages:
        """Return the images with their body points, if there is a source."""
        data_dir = self.data_dir or self.settings.get("data_dir")
        return self.with_keypoints(images, self.points, data_dir)


@dataclass(frozen=True, kw_only=True)
class ModelOptions(RunOptions):
    """Embedder of any format."""

    topic: ClassVar[str] = "model"

    saved_model: str | None = option("Export folder EXPORT_DIR/NAME/VERSION; an alias of --model.")
    runtime: str = option(
        "Runtime of the network. auto: ONNX Runtime for .onnx, OpenVINO for .xml, LiteRT for "
        ".tflite. OpenVINO also runs .onnx and .tflite.",
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
    def comparer(self) -> inference.Embedder | inference.PairVerifier:
        """The model: an embedder, or a pair verifier, which only `verify` accepts."""
        return inference.load(self.source, **self.loading)

    @cached_property
    def loaded(self) -> inference.Embedder:
        """The embedder of the model; raise for a pair verifier."""
        return inference.as_embedder(self.comparer)

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
            raise invalid("model", "a model of single images", Shown(f"{self.source} of tracklets"))
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
        raise invalid(name, "numbers", Shown(",".join(texts or ()))) from None


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

    topic: ClassVar[str] = "gallery"

    match_probability: float = option(
        "Minimum probability of a match. At the default, up to 1 of 100 queries of persons who are "
        "not enrolled was a match.",
        LIMITS.match,
        least=0,
        most=1,
    )
    possible_probability: float = option(
        "Minimum probability of a possible match. At the default, up to 7 of 100 queries with "
        "the right nearest person were no match.",
        LIMITS.possible,
        least=0,
        most=1,
    )
    gallery: str | None = option(
        "people.db (Milvus Lite), file:NAME, or http://HOST:PORT (Milvus)."
    )

    @property
    def uri(self) -> str:
        """URI of the gallery."""
        if self.gallery is None:
            raise InputError("--gallery is required, such as --gallery=people.db.")
        if self.gallery == "memory:":
            fix = "It ends with the command."
            raise invalid("gallery", "a stored gallery such as people.db", "memory:", fix)
        return self.gallery

    @property
    def limits(self) -> Limits:
        """Limits of the decisions."""
        return Limits(self.match_probability, self.possible_probability)

    def calibrated(self, people: Gallery) -> evaluation.MatchCalibration | None:
        """Return the calibration of a gallery, which gets that of the model if it has none."""
        if people.calibration is None and people.fingerprint in (None, self.fingerprint):
            people.calibration = self.loaded.calibration
        return people.calibration
