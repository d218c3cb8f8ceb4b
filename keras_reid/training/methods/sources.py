"""Sampling of training images from several data sets."""

from dataclasses import asdict, dataclass
from typing import Any

from keras_reid.data.shares import BATCHES, WEIGHTS
from keras_reid.training.methods.method import Factory, Method, setting


@dataclass(frozen=True, kw_only=True)
class Sources(Method):
    """Shares of the sources in an epoch and in a batch, see `keras_reid.data.pk_batches`."""

    source_sampling: str = setting(
        "Number of identities of each data set in an epoch: proportional to its images, balanced "
        "(equal) or sqrt (proportional to the square root).",
        choices=WEIGHTS,
        default="proportional",
    )
    source_batches: str = setting(
        "Data sets of the identities in a batch: mixed (all) or single (one).",
        choices=BATCHES,
        default="mixed",
    )

    @property
    def active(self) -> bool:
        return self != Sources()

    @property
    def sampling(self) -> dict[str, Any]:
        """Arguments of `keras_reid.data.pk_batches` and `pk_steps`."""
        return asdict(self)

    def batches(self, factory: Factory) -> Factory:
        return factory[0], {**factory[1], **self.sampling}
