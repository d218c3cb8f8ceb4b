"""Options of several commands: data, the embedder, and the gallery."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from keras_reid import data, evaluation, inference
from keras_reid.cli.network import NetworkOptions
from keras_reid.cli.options import option, reject
from keras_reid.cli.runtime import open_model
from keras_reid.cli.sources import Sources
from keras_reid.cli.startup import import_keras
from keras_reid.cli.terminal import progress
from keras_reid.errors import Shown, invalid
from keras_reid.evaluation.protocols import RULES
from keras_reid.gallery import LIMITS, Gallery, Limits
from keras_reid.inference.sources import KINDS
from keras_reid.models.shipped import PRETRAINED

SCHEME = re.compile("([a-z]+:)?(.*)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Options of commands that read the images of a data set."""

    topic: ClassVar[str] = "data"

    dataset: str | None = option(
        "Format of the data set; docs/own-data.md describes the folders.",
        choices=tuple(data.READERS),
    )
    data_dir: str | None = option("Folder of the data set, or the table of csv.")
    keypoints: str | None = option(
        "Body points for models with pose: FILE.csv, or movenet:FILE.tflite, a network that "
        "estimates the points. Default: as in the training of --model or --base_run, if any."
    )
    keypoints_cache: str | None = option(
        "CSV file of estimated points. Default: keypoints-movenet.csv next to the data set."
    )
    protocol: str | None = option(
        f"Rule that removes gallery images from the ranking of a query: {', '.join(RULES)}. Use "
        "no-camera if the data has no cameras. Default: mars for tracklets, else that of the "
        "training run, else market1501.",
        topic="evaluation",
    )
    overwrite: bool = option("Replacement of outputs that exist.", False, topic="output")
    embed_batch_size: int = option("Number of images embedded at a time.", 16, least=1, most=2**14)

    def __post_init__(self) -> None:
        # Shells replace the ~ of `~/x`, not that of `--out=~/x`.
        for one in fields(self):
            object.__setattr__(self, one.name, with_home(getattr(self, one.name)))

    def dataset_of(self, name: str | None, data_dir: str | None, use: str) -> data.ReidDataset:
        """Return the data set of that name in that folder.

        `use` begins the error if the name or the folder is missing.
        """
        reject((not name or data_dir is None, f"{use}: --dataset and --data_dir are required."))
        return data.load(str(name), str(data_dir))

    def dataset_of_run(self, settings: Mapping[str, Any], use: str) -> data.ReidDataset:
        """Return the data set of the flags, else that of a run with its validation persons.

        The data set of a run with several sources is their union, without left-out ones.
        """
        name, data_dir = settings.get("dataset"), self.data_dir or settings.get("data_dir")
        if self.dataset is not None or not name or data_dir is None:
            return self.dataset_of(self.dataset or name, data_dir, use)
        sources = Sources.load(name, data_dir, settings.get("leave_out") or ())
        return sources.dataset(settings.get("holdout", 0.0))

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
        f"Embedder: {KINDS}. Loading a SavedModel runs its code. Default: the pretrained model."
    )
    run: str | None = option("Alias of --model for a run folder.")
    pretrained: str = option(
        "Pretrained model, the default embedder. "
        + " ".join(f"{card.name}: {card.license}" for card in PRETRAINED.values()),
        next(iter(PRETRAINED), None),
        choices=tuple(PRETRAINED),
    )
    member: str = option(
        "Member of a mutually trained run: a number, best (highest mAP in training), or ensemble "
        "(joined embeddings).",
        "1",
    )

    aliases: ClassVar[tuple[str, ...]] = ("model", "run")  # flags that name a model

    def __post_init__(self) -> None:
        super().__post_init__()
        names = sum(getattr(self, alias) is not None for alias in self.aliases)
        flags = ", ".join(f"--{alias}" for alias in self.aliases)
        reject((names > 1, f"Only one of {flags} can name the model."))

    @property
    def model_name(self) -> str | None:
        """Path or name that --model or an alias has; None for the default."""
        return next((name for alias in self.aliases if (name := getattr(self, alias))), None)

    @cached_property
    def model_source(self) -> inference.Source:
        """Model before it is loaded."""
        return inference.Source.of(self.model_name or self.pretrained)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Training settings of the model; empty if unknown."""
        return self.model_source.settings

    @property
    def points(self) -> str | None:
        """Source of body points, from the flag or the run; None if neither has one."""
        return self.keypoints or self.settings.get("keypoints")

    def with_points(self, images: data.PersonImages) -> data.PersonImages:
        """Return the images with their body points, if there is a source."""
        data_dir = self.data_dir or self.settings.get("data_dir")
        return self.with_keypoints(images, self.points, data_dir)


@dataclass(frozen=True, kw_only=True)
class ModelOptions(NetworkOptions, RunOptions):
    """Embedder of any format."""

    topic: ClassVar[str] = "model"

    saved_model: str | None = option(
        "Alias of --model for an export folder EXPORT_DIR/NAME/VERSION."
    )

    aliases: ClassVar[tuple[str, ...]] = (*RunOptions.aliases, "saved_model")
    converts: ClassVar[bool] = False  # True: the first use of a run converts it for ONNX Runtime

    @cached_property
    def loading(self) -> dict[str, Any]:
        """Further arguments of `inference.load`, from the flags."""
        return {"member": self.member, **self.network}

    @cached_property
    def comparer(self) -> inference.Embedder | inference.PairVerifier:
        """The model: an embedder, or a pair verifier, which only `verify` accepts."""
        return open_model(self.model_source, self.converts, self.loading)

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
        outputs = ("embedding", *(["local"] if stripes else []), *also)
        if self.model_source.is_keras and outputs != inference.ONLY_EMBEDDING:
            import_keras()
        embedder = self.loaded.pooled(count) if stripes == "pooled" else self.loaded
        embedder = embedder.select(*outputs)
        frames = self.settings.get("frames", 4)

        def embed(images: data.PersonImages) -> Any:
            if "keypoints" in embedder.inputs:
                images = self.with_points(images)
            return embedder.embed(images, self.embed_batch_size, frames, progress("embedding"))

        return embed

    def pixel_embedder(self) -> tuple[Callable[[Any], np.ndarray], tuple[int, int]]:
        """Return an embedding function and its image size (h, w).

        The function takes uint8 images (b, h, w, 3) and returns embeddings (b, d).
        """
        embedder = self.loaded
        if embedder.takes_clips:
            raise invalid(
                "model", "a model of single images", Shown(f"{self.model_source} of tracklets")
            )
        if "keypoints" not in embedder.inputs or self.points is None:
            return lambda images: embedder([images]), embedder.image_size
        estimate = data.estimator_of(self.points)

        def embed(images: Any) -> np.ndarray:
            return embedder([{"images": images, "keypoints": estimate(images)}])

        return embed, embedder.image_size


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
    """Options of commands that use a gallery: its address, the model, and probabilities."""

    topic: ClassVar[str] = "gallery"
    converts: ClassVar[bool] = True

    match_probability: float = option(
        "Minimum probability of a match. Measured at the default, in galleries of 30 persons: at "
        "most 1 of 100 queries of persons who are not enrolled gave a match.",
        LIMITS.match,
        least=0,
        most=1,
    )
    possible_probability: float = option(
        "Minimum probability of a possible match. Measured at the default, in galleries of 30 "
        "persons: of 100 queries whose nearest person was right, at most 7 gave no match.",
        LIMITS.possible,
        least=0,
        most=1,
    )
    gallery: str | None = option(
        "Gallery: a path that ends in .db (Milvus Lite), file:NAME (the SQLite file NAME.rows, "
        "searched in memory), or http://HOST:PORT (a Milvus server)."
    )

    @property
    def uri(self) -> str:
        """URI of the gallery."""
        reject(
            (self.gallery is None, "--gallery is required, such as --gallery=people.db."),
            (self.gallery == "memory:", "--gallery=memory: ends with the command. Give a file."),
        )
        return str(self.gallery)

    @property
    def limits(self) -> Limits:
        """Limits of the decisions."""
        return Limits(self.match_probability, self.possible_probability)

    def calibrated(self, people: Gallery) -> evaluation.MatchCalibration | None:
        """Return the calibration of a gallery, which gets that of the model if it has none."""
        if people.calibration is None and people.fingerprint in (None, self.fingerprint):
            people.calibration = self.loaded.calibration
        return people.calibration
