"""Verification by comparing two images inside the network (Varior et al., arXiv:1607.08378)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from absl import logging

from keras_reid import data, models, training
from keras_reid.errors import InputError, counted
from keras_reid.training.methods.method import Factory, LossSettings, Method, Term, setting

if TYPE_CHECKING:
    import keras

    from keras_reid.data import PersonImages

# The model has no embedding, and the batches hold pairs.
FIXED = {
    "identity_weight": 0.0,
    "num_instances": 2,
    "camera_balanced": False,
    "source_sampling": "proportional",
    "source_batches": "mixed",
    "stripes": 0,
    "members": "",
    "teacher": "",
    "distillation": "",
    "pretrain_epochs": 0,
}


@dataclass(frozen=True, kw_only=True)
class PairVerification(Method):
    """`contrastive loss(distances of pairs)`; the model is one of `models.build_pair_verifier`.

    A batch has P · 2 pairs, half of them of one person.
    """

    embeds: ClassVar[bool] = True
    pair_verifier: bool = setting(
        "Model that compares two images inside the network, for keras-reid search verify only.",
        default=False,
    )
    gate: str = setting(
        "Backbone layer with the feature maps that a pair verifier compares; every path must run "
        "through it. Not set: the layer of this kind nearest to the middle.",
        default="",
    )

    @property
    def active(self) -> bool:
        return self.pair_verifier

    @property
    def fixed(self) -> Mapping[str, Any]:
        return {**super().fixed, **FIXED}

    def sampled(self, images: "PersonImages") -> "PersonImages":
        paired = _paired(images)
        if left := len(images) - len(paired):
            logging.warning("%s of persons with one image are left out.", counted(left, "image"))
        return paired

    def batches(self, factory: Factory) -> Factory:
        settings = factory[1]
        names = ("image_size", "augment", "seed", "first_epoch", "cache")
        arguments = {name: settings[name] for name in names}
        pairs = settings["num_identities_per_batch"] * settings["num_instances"]
        return lambda images: data.pair_batches(_paired(images), pairs, **arguments), {}

    def model(self, *sizes: Any, **common: Any) -> "keras.Model":
        backbone, _, image_size = sizes
        del common["neck"]
        return models.build_pair_verifier(backbone, image_size, gate=self.gate or None, **common)

    def terms(self, terms: list[Term], settings: LossSettings) -> list[Term]:
        from keras_reid.losses import ContrastiveLoss

        if settings.gather:
            raise InputError("A pair verifier trains on one replica. Choose the strategy none.")
        (weight,) = (term.weight for term in terms if term.output == "features")
        loss = ContrastiveLoss(**settings.of_metric("margin"), pairs="given")
        return [Term("distance", loss, weight)]

    def evaluation(self, factory: Factory) -> Factory:
        arguments = {name: value for name, value in factory[1].items() if name != "flip"}
        return training.PairEvaluation, arguments


def _paired(images: "PersonImages") -> "PersonImages":
    """Return the images of persons with two or more."""
    _, owner, counts = np.unique(images.identity, return_inverse=True, return_counts=True)
    return images[counts[owner] > 1]
