"""Stored features, stripes and re-ranking of several commands."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from keras_reid import evaluation, scale
from keras_reid.cli.options import MOST, option
from keras_reid.errors import Shown, invalid


@dataclass(frozen=True, kw_only=True)
class FeatureOptions:
    """Options of commands that use the stripes of a model, or a re-ranker."""

    topic: ClassVar[str] = "evaluation"

    stripes: int | None = option(
        "Number of pooled stripes. Default: rows of the feature map.", least=1
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
        except ValueError:
            numbers = {"": math.nan}
        if not all(abs(number) <= MOST for number in numbers.values()):
            rule = "NAME=NUMBER, separated by commas"
            raise invalid("rerank_options", rule, Shown(",".join(texts)))
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


def stored_embeddings(
    path: str, flag: str, side: str | None = None
) -> tuple[np.ndarray, evaluation.StoredFeatures]:
    """Return the embeddings (n, d) of `stored_features`, and the whole.

    Raises:
        InputError: the file of the flag has stripes only.
    """
    stored = stored_features(path, side)
    if "embedding" not in stored.features:
        raise invalid(flag, "a file with embeddings", path)
    return stored.features["embedding"], stored
