"""Options of `evaluate.py`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from keras_reid import checks, evaluation, reranking
from keras_reid.cli.common import ModelOptions
from keras_reid.cli.features import FeatureOptions
from keras_reid.cli.options import option
from keras_reid.errors import InputError
from keras_reid.evaluation.protocols import TIES

OF_EMBEDDINGS = ("euclidean", "cosine")
OF_TRACKLETS = (
    "--tracklets compares embeddings. Leave --distance, --attributes and --attribute_filter out."
)


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(FeatureOptions, ModelOptions):
    """Images or features to score, scores and outputs."""

    topic: ClassVar[str] = "evaluation"

    features: Sequence[str] | None = option(
        "QUERY,GALLERY instead of a model: each an .npz file with embedding (n, d), identity (n,) "
        "and camera (n,), or a folder of such .npy files, which are memory-mapped; or one .mat "
        "file with query_f, query_label, query_cam, gallery_f, … as in pytorch_result.mat.",
        topic="data",
    )
    tracklets: bool = option("Group the images to tracklets, and rank these.", False, topic="data")
    distance: str = option(
        "Distance of embeddings (euclidean, cosine), of aligned stripes (local), their sum (DMLI), "
        "or of the parts that both images show (visible; models with pose).",
        "euclidean",
        choices=("euclidean", "cosine", "local", "global_local", "visible"),
    )
    local: str = option(
        "Stripes: pooled from the last feature map of any Keras model, or trained, the output "
        "'local'.",
        "pooled",
        choices=("pooled", "trained"),
    )
    set_distance: str = option(
        "Distance of tracklets: of their mean embeddings (pooled), or frame by frame.",
        "pooled",
        choices=("pooled", *evaluation.SET_DISTANCES),
    )
    rerank: str = option(
        "Re-ranking by the neighbors of query and gallery.",
        "none",
        choices=("none", *reranking.RERANKERS, *reranking.ALIASES),
    )
    ties: str = option(
        "Order of equal distances: by gallery index, or the bounds over all orders.",
        "index",
        choices=tuple(TIES),
    )
    verify: bool = option("Also score pairs of images (1:1): EER, and TAR at several FARs.", False)
    attributes: str | None = option(
        "Table or .mat file: also score the attributes that a run predicts."
    )
    attribute_filter: float | None = option(
        "Rank gallery images last that contradict the attributes of the query, where both are "
        "predicted with this probability, such as 0.9, and print the cost."
    )
    camera_pairs: bool = option("Also score each pair of cameras.", False)
    repeats: int = option("Number of draws of cuhk03-classic and viper.", 10, least=1)
    draw_seed: int = option("Seed of these draws.", 0, least=0)
    out: str | None = option("New JSON file for the scores.", topic="output")
    report: str | None = option(
        "New HTML file for scores, curves, ranked lists with their pictures, and changes by "
        "re-ranking. Needs Matplotlib.",
        topic="output",
    )
    save_features: str | None = option(
        "New folder for query.npz and gallery.npz, or new .mat file for both with the arrays of "
        "pytorch_result.mat.",
        topic="output",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_sources()
        self._check_distances()
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
        if self.report and protocol.rule.halves:
            raise InputError(
                f"--report shows a list of each query, but protocol {protocol.name} ranks random "
                "halves. Leave --report out."
            )
        return protocol

    def _check_sources(self) -> None:
        if not self.features:
            return
        if self.model_name or len(self.sides or ()) != 2:
            files = ",".join(self.features)
            raise InputError(
                f"--features must be QUERY,GALLERY or one .mat file, without a model, got {files}."
            )
        if self.uses_attributes or self.tracklets:
            flag = "--tracklets" if self.tracklets else "--attributes and --attribute_filter"
            raise InputError(f"{flag} need images. Give --model, not --features.")

    def _check_distances(self) -> None:
        of_embeddings = self.distance in OF_EMBEDDINGS
        if self.tracklets and (self.uses_attributes or not of_embeddings):
            raise InputError(OF_TRACKLETS)
        if self.by_frame and not self.tracklets:
            raise InputError("--set_distance compares the frames of tracklets. Give --tracklets.")
        if self.by_frame and self.save_features:
            raise InputError("--save_features stores embeddings. Leave --set_distance out.")
        if self.by_frame and self.rerank not in ("none", "k_reciprocal"):
            raise InputError("--set_distance can be re-ranked by k_reciprocal only.")
        if evaluation.holds_both_sides(self.save_features or "") and not of_embeddings:
            raise InputError(
                "--save_features stores embeddings in a .mat file. Leave --distance out, or name a "
                "folder."
            )
        if self.attribute_filter is not None and (self.rerank, self.distance) != (
            "none",
            "euclidean",
        ):
            raise InputError(
                "--attribute_filter ranks by embeddings. Leave --rerank and --distance out."
            )
