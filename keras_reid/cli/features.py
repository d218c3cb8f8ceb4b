"""Stored features, stripes and re-ranking of several commands."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from keras_reid import evaluation, scale
from keras_reid.cli.options import MOST, option
from keras_reid.errors import Shown, invalid


@dataclass(frozen=True, kw_only=True)
class FeatureOptions:
    """Stripes of a model, and options of a re-ranker."""

    topic: ClassVar[str] = "evaluation"

    stripes: int | None = option(
        "Number of pooled stripes. Default: one for each row of the feature map.", least=1
    )
    rerank_options: Sequence[str] | None = option(
        "Options of the re-ranker, such as k1=20,k2=6,lambda_value=0.3."
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
            received = Shown(",".join(texts))
            rule = "NAME=NUMBER, separated by commas"
            raise invalid("rerank_options", rule, received) from None
        return {name: int(x) if x.is_integer() else x for name, x in numbers.items()}


def stored_features(path: str, side: str | None = None) -> evaluation.StoredFeatures:
    """Return features of a file, of a folder of arrays, or of a folder of `embed.py`.

    Args:
        path: the file or folder.
        side: "query" or "gallery", of a file with both; None: the rows of both.
    """
    if scale.Shards.holds(path):
        return scale.Shards(path).mapped()
    return evaluation.load_features(path, side)
