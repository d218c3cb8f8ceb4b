"""Losses of a classifier over the identities, and of distances to one center per identity."""

import math
from typing import Any

import keras
from keras import ops

from keras_reid import checks
from keras_reid.errors import invalid
from keras_reid.losses.labels import LabeledLoss, checked_labels, class_indices
from keras_reid.losses.registry import MARGINS

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_reid")
class IdentityLoss(LabeledLoss):
    """`−Σ_c q_c log p_c` with `q = (1 − ε) · onehot + ε / c`.

    Smoothed cross-entropy (Szegedy et al., CVPR 2016, arXiv:1512.00567) on logits.

    Args:
        label_smoothing: ε, fraction of the target, in [0, 1), for all identities alike.

    `y_true` are class indices `(b,)` or `(b, 1)` in 0 … c − 1, `y_pred` logits `(b, c)`. Logits
    `(b, p, c)` of p classifiers, one for each part, add up their losses (PCB, Sun et al., ECCV
    2018, arXiv:1711.09349). The result is `(b,)` in nats.

    Raises:
        InputError: if `label_smoothing` is out of range, the logits are of another rank or the
            labels have several columns (one-hot).

    Example:
        >>> import numpy as np
        >>> logits = np.log([[3.0, 1.0]])  # probabilities 0.75 and 0.25
        >>> round(float(IdentityLoss(label_smoothing=0.0)([0], logits)), 3)  # −ln 0.75
        0.288
    """

    def __init__(
        self,
        label_smoothing: float = 0.1,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        fix = "0.1 is usual, 0 is plain cross-entropy."
        checks.within("[0, 1)", fix, label_smoothing=label_smoothing)
        self.label_smoothing = float(label_smoothing)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return ops.sum(self.of_parts(y_true, y_pred), axis=-1)

    def of_parts(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Return the losses `(b, p)` of all classifiers."""
        logits = _of_parts(y_pred)
        labels = class_indices(checked_labels(y_true, logits))
        labels = ops.broadcast_to(labels[:, None], ops.shape(logits)[:2])
        onehot = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        uniform = -ops.mean(ops.log_softmax(logits), axis=-1)
        return (1 - self.label_smoothing) * onehot + self.label_smoothing * uniform


@keras.saving.register_keras_serializable(package="keras_reid")
class VisibleIdentityLoss(IdentityLoss):
    """`Σ_p c_p · CE_p`: smoothed cross-entropy of parts, weighted by their visibility.

    Loss of the parts of HOReID (Wang et al., CVPR 2020, arXiv:2003.08177). The visibility gets no
    gradient. In `compile` the loss is listed under `"part_logits"`.

    Args:
        label_smoothing: as in `IdentityLoss`.

    `y_true` are class indices `(b,)`, `y_pred` the tuple of logits `(b, p, c)` and visibility
    `(b, p)`; the result is `(b,)` in nats.

    Example:
        >>> import numpy as np
        >>> logits = np.log([[[3.0, 1.0], [1.0, 99.0]]])  # the second part is hidden
        >>> loss = VisibleIdentityLoss(label_smoothing=0.0)
        >>> round(float(loss([0], (logits, np.array([[1.0, 0.0]])))), 3)  # −ln 0.75
        0.288
    """

    outputs = ("part_logits", "visibility")

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        logits, visibility = y_pred
        weight = ops.stop_gradient(ops.cast(visibility, "float32"))
        return ops.sum(weight * self.of_parts(y_true, logits), axis=-1)


@keras.saving.register_keras_serializable(package="keras_reid")
class MarginSoftmaxLoss(IdentityLoss):
    """Cross-entropy of `scale · ψ(cos θ)` for the own identity and `scale · cos θ` for the others.

    `ψ` makes the own identity look farther away than it is, with the margin `m`:

    - `"arcface"`: `cos(θ + m)`, and `cos θ − m sin m` where θ + m > π, m in radians, 0.5
      (Deng et al., CVPR 2019, arXiv:1801.07698);
    - `"cosface"`: `cos θ − m`, 0.35 (Wang et al., CVPR 2018, arXiv:1801.09414);
    - `"sphereface"`: `(−1)^k cos(mθ) − 2k` with θ in [kπ/m, (k + 1)π/m], m a whole number, 4
      (Liu et al., CVPR 2017, arXiv:1704.08063), here with normalized features.

    Args:
        kind: `"arcface"`, `"cosface"` or `"sphereface"`.
        scale: factor of the cosines, which limits the confidence of the softmax.
        margin: m; None is the usual margin of the kind.
        label_smoothing: see `IdentityLoss`.

    `y_true` are class indices `(b,)` or `(b, 1)` in 0 … c − 1, `y_pred` cosines `(b, c)`, the
    output of `keras_reid.layers.CosineClassifier`; the result is `(b,)` in nats. Cosines
    outside [−1, 1] are clipped and have no gradient.

    Raises:
        InputError: an unknown kind, a scale, margin or label smoothing out of range, labels of
            several columns, or cosines that are not a matrix.

    Example:
        >>> import numpy as np
        >>> loss = MarginSoftmaxLoss("cosface", scale=1.0, margin=0.5)
        >>> round(float(loss([0], np.array([[1.0, 0.5]]))), 3)  # equal after the margin: ln 2
        0.693
    """

    def __init__(
        self,
        kind: str = "arcface",
        scale: float = 64.0,
        margin: float | None = None,
        label_smoothing: float = 0.0,
        **common: Any,
    ) -> None:
        super().__init__(label_smoothing, **common)
        checks.one_of(MARGINS, kind=kind)
        usual, allows, rule = MARGINS[kind][1:]
        if margin is not None and not allows(margin):
            raise invalid("margin", f"{rule} for {kind}", margin, f"{usual} is usual.")
        checks.above(0, "64 is usual, 30 with few identities.", scale=scale)
        self.kind = kind
        self.scale = float(scale)
        self.margin = usual if margin is None else margin

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        cosines = _scores(y_pred)
        # Not a clip alone: at exactly 1 JAX halves its gradient.
        bound = ops.stop_gradient(ops.clip(cosines, -1.0, 1.0))
        cosines = ops.where(ops.abs(cosines) <= 1, cosines, bound)
        own = _own(y_true, cosines)
        cosine = ops.sum(ops.where(own, cosines, 0.0), axis=-1, keepdims=True)
        margined = MARGINS[self.kind].apply(cosine, self.margin)
        return super().call(y_true, self.scale * ops.where(own, margined, cosines))


@keras.saving.register_keras_serializable(package="keras_reid")
class CenterLoss(LabeledLoss):
    """`½ |x − center of its identity|²` (Wen et al., ECCV 2016), of squared distances.

    The centers are weights of a layer, so that they are trained, saved, resumed and replicated
    with the model; the loss only picks each image's own distance. Two lines add centers and loss:

        distances = keras_reid.layers.Centers(num_identities, name="centers")(features)
        model.compile(loss={"centers": CenterLoss(), …}, loss_weights={"centers": 0.0005})

    `keras_reid.models.build(..., centers=True)` replaces the first line. The model's optimizer
    updates the centers, instead of the update rule of the paper. Alone, the loss collapses the
    embedding: add it to another loss with a small weight.

    `y_true` are class indices `(b,)` or `(b, 1)` in 0 … c − 1, `y_pred` squared distances
    `(b, c)`; the result is `(b,)`, and NaN where a label is not in 0 … c − 1.

    Raises:
        InputError: if the distances are not a matrix or the labels have several columns.

    Example:
        >>> import numpy as np
        >>> squared_distances = np.array([[4.0, 9.0]])
        >>> float(CenterLoss()([0], squared_distances))
        2.0
    """

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        squared = _scores(y_pred)
        own = _own(y_true, squared)
        half = ops.sum(ops.where(own, squared, 0.0), axis=-1) / 2
        return ops.where(ops.any(own, axis=-1), half, math.nan)


def _of_parts(y_pred: Tensor) -> Tensor:
    """Return logits `(b, p, c)`; p is 1 for one classifier."""
    if len(y_pred.shape) == 3:
        return ops.cast(y_pred, "float32")
    return _scores(y_pred)[:, None]


def _scores(y_pred: Tensor) -> Tensor:
    scores = ops.cast(y_pred, "float32")
    fix = "Pass the output of a classifier, or of layers.Centers."
    checks.shapes(fix, y_pred=("(b, identities)", scores.shape))
    return scores


def _own(y_true: Tensor, scores: Tensor) -> Tensor:
    """Return the mask `(b, c)` of the scores of the own identities."""
    labels = class_indices(checked_labels(y_true, scores))
    classes = ops.arange(ops.shape(scores)[-1], dtype=keras.backend.standardize_dtype(labels.dtype))
    return labels[:, None] == classes[None, :]
