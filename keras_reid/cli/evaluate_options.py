"""Options of `evaluate.py`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from keras_reid import checks, evaluation, reranking
from keras_reid.cli.common import ModelOptions
from keras_reid.cli.features import FeatureOptions
from keras_reid.cli.options import option, reject
from keras_reid.evaluation.protocols import TIES

OF_EMBEDDINGS = ("euclidean", "cosine")
OF_TRACKLETS = "--tracklets excludes --distance, --attributes and --attribute_filter."


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(FeatureOptions, ModelOptions):
    """Options of `evaluate`: the images or features, the scores, and the files to write."""

    topic: ClassVar[str] = "evaluation"

    features: Sequence[str] | None = option(
        "Features instead of a model: QUERY,GALLERY, two .npz files or folders of .npy files with "
        "embedding (n, d), identity (n,) and camera (n,); or one .mat file like "
        "pytorch_result.mat.",
        topic="data",
    )
    tracklets: bool = option("Tracklets, not images, as queries and gallery.", False, topic="data")
    distance: str = option(
        "Distance of embeddings (euclidean, cosine), of aligned stripes (local), of embeddings and "
        "stripes together (global_local), or of the parts that both images show (visible).",
        "euclidean",
        choices=("euclidean", "cosine", "local", "global_local", "visible"),
    )
    local: str = option(
        "Source of the stripes: pooled (from the last feature map), or trained (the output 'local' "
        "of the model).",
        "pooled",
        choices=("pooled", "trained"),
    )
    set_distance: str = option(
        "Distance of two tracklets: that of their mean embeddings (pooled), or computed from the "
        "distances of their frames.",
        "pooled",
        choices=("pooled", *evaluation.SET_DISTANCES),
    )
    rerank: str = option(
        "Method that re-ranks by the neighbors of query and gallery images.",
        "none",
        choices=("none", *reranking.RERANKERS, *reranking.ALIASES),
    )
    ties: str = option(
        "Order of equal distances: index (of the gallery images), optimistic (true matches first: "
        "upper bound), or pessimistic (true matches last: lower bound).",
        "index",
        choices=tuple(TIES),
    )
    verify: bool = option("Scores of image pairs (1:1), too: EER, and TAR at several FARs.", False)
    attributes: str | None = option(
        "Table or .mat file of true attributes, to score the predicted attributes."
    )
    attribute_filter: float | None = option(
        "Certainty of predicted attributes, such as 0.9. A gallery image is ranked last if one of "
        "its attributes contradicts the query, and both predictions have this certainty."
    )
    camera_pairs: bool = option("Scores of each pair of cameras, too.", False)
    repeats: int = option(
        "Number of random draws of the protocols cuhk03-classic and viper.", 10, least=1
    )
    draw_seed: int = option("Seed of the random draws.", 0, least=0)
    out: str | None = option("New JSON file of the scores.", topic="output")
    report: str | None = option(
        "New HTML file of scores, curves, ranked lists with pictures, and changes by re-ranking.",
        topic="output",
    )
    save_features: str | None = option(
        "New folder for the features in query.npz and gallery.npz, or new .mat file in the format "
        "of pytorch_result.mat.",
        topic="output",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_conflicts()
        self.rerank_numbers  # noqa: B018  raises
        self.protocol_named(self.protocol, None)
        if self.attribute_filter is not None:
            checks.within("(0.5, 1]", "0.9 is usual.", attribute_filter=self.attribute_filter)

    @property
    def sides(self) -> Sequence[str] | None:
        """Files of query and gallery features."""
        files = self.features
        if files and len(files) == 1 and evaluation.holds_both_sides(files[0]):
            return [files[0], files[0]]
        return files

    @property
    def uses_attributes(self) -> bool:
        """True if the model predicts attributes of the images."""
        return self.attributes is not None or self.attribute_filter is not None

    @property
    def by_frame(self) -> bool:
        """True if tracklets are compared frame by frame."""
        return self.set_distance != "pooled"

    def protocol_named(self, name: str | None, dataset: str | None) -> evaluation.Protocol:
        """Return the protocol, by default market1501, with the options; `dataset` is recorded."""
        protocol = evaluation.Protocol(
            name or "market1501",
            ties=self.ties,
            repeats=self.repeats,
            seed=self.draw_seed,
            dataset=dataset,
        )
        halves = f"--report excludes --protocol={protocol.name}, which ranks random halves."
        reject((self.report and protocol.rule.halves, halves))
        return protocol

    def _check_conflicts(self) -> None:
        """Raise for flags that exclude each other."""
        files, of_images = self.features or (), self.tracklets or self.uses_attributes
        of_embeddings = self.distance in OF_EMBEDDINGS
        in_matlab = evaluation.holds_both_sides(self.save_features or "")
        plain = (self.rerank, self.distance) == ("none", "euclidean")
        pair = f"--features must be QUERY,GALLERY or one .mat file, got {','.join(files)}."
        images = "--tracklets, --attributes and --attribute_filter need images, not --features."
        matlab = "--save_features=*.mat excludes --distance. Name a folder."
        filtered = "--attribute_filter excludes --rerank and --distance."
        by_frame = self.by_frame and self.rerank not in ("none", "k_reciprocal")
        reject(
            (files and self.model_name, "--features excludes a model."),
            (files and len(self.sides or ()) != 2, pair),
            (files and of_images, images),
            (self.tracklets and (self.uses_attributes or not of_embeddings), OF_TRACKLETS),
            (self.by_frame and not self.tracklets, "--set_distance needs --tracklets."),
            (self.by_frame and self.save_features, "--set_distance excludes --save_features."),
            (by_frame, "--set_distance needs --rerank=none or k_reciprocal."),
            (in_matlab and not of_embeddings, matlab),
            (self.attribute_filter is not None and not plain, filtered),
        )
