"""Named recipes of `train.py`."""

from keras_reid import checks
from keras_reid.training.recipe import Recipe

# Batch-hard triplet and smoothed identity loss around a BN neck (Luo et al., Bag of Tricks, CVPRW
# 2019, arXiv:1903.07071), with a shorter cosine schedule and L2-normalized features. With raw
# features the triplet loss starts above the identity loss and pushes all features into a narrow
# cone, which cost 17 points of mAP in the same time.
_BOT = Recipe(
    backbone="mobilenetv2",
    weights="imagenet",
    height=128,
    width=64,
    epochs=24,
    learning_rate=7e-4,
    pooling="gem",
    normalize=True,
)

_MUTUAL = _BOT.replace(
    members="mobilenetv2,mobilenetv2", distillation="logits:1,distances:1", ramp_up=4.0
)

# With a triplet loss of the whole image, without dropout and erasing: classifiers of parts alone
# learn too slowly for so few epochs.
_PCB = _BOT.replace(parts=4, part_dropout=0.0, label_smoothing=0.0, augment="flip")

RECIPES: dict[str, Recipe] = {
    "bot": _BOT,
    # The three standard training strategies, with 24 epochs each: a classifier alone, a classifier
    # that is fine-tuned by a metric loss, and both losses together.
    "classification": _BOT.replace(metric_weight=0.0),
    "finetune_metric": _BOT.replace(pretrain_epochs=12, epochs=12, identity_weight=0.0),
    "joint": _BOT,
    # The best scores: most epochs on small images, the last ones on images of four times the size.
    "strong": _BOT.replace(height=256, width=128, small_epochs=20, epochs=4, embedding="features"),
    # Mutual learning of two models (Zhang et al., arXiv:1706.00384 and 1711.08184), and
    # distillation of logits from the run in `teacher`. The weights are those of public
    # reproductions with L2-normalized features. AlignedReID's 0.01 and 0.001 are for raw features,
    # with squared distances that are some thousand times larger.
    "mutual": _MUTUAL,
    "distill_logits": _BOT.replace(distillation="logits:1", temperature=4.0),
    # Any embedder as teacher, which sees the views of the student (Beyer et al., CVPR 2022,
    # arXiv:2106.05237), and images without identity.
    "distill": _BOT.replace(
        distillation="cosine:4,distances:40",
        views_per_round=50_000,
        epochs=16,
        learning_rate=1e-3,
        weight_decay=1e-4,
        num_identities_per_batch=32,
        identity_weight=0.0,
        metric_weight=0.0,
        augment="crop",
    ),
    # Identity and triplet loss of the global features, and the triplet loss of aligned stripes
    # (Zhang et al., AlignedReID, 2017, arXiv:1711.08184); with two members, its mutual learning.
    "aligned": _BOT.replace(stripes=8),
    "aligned_mutual": _MUTUAL.replace(stripes=8),
    # Parts with a classifier each (Sun et al., PCB, ECCV 2018, arXiv:1711.09349), without and with
    # refinement by a learned assignment of pixels to parts.
    "pcb": _PCB,
    "pcb_rpp": _PCB.replace(epochs=12, induction_epochs=4, refinement_epochs=8),
    # Parts around body points (Wang et al., HOReID, CVPR 2020, arXiv:2003.08177).
    "pose": _BOT.replace(pose=True, pooling="avg_max"),
    # Identity and attributes together (Lin et al., Pattern Recognition 2019, arXiv:1703.07220).
    # With its factor of 8 on the identity loss, a short run does not learn the attributes.
    "attributes": _BOT.replace(attribute_weight=1.0),
    # Clips of tracklets (Gao and Nevatia, arXiv:1805.02104).
    "tracklets": _BOT.replace(
        temporal="mean", num_identities_per_batch=8, num_instances=2, frames=4
    ),
    # Two images compared inside the network (Varior et al., ECCV 2016, arXiv:1607.08378).
    "pair_verifier": _BOT.replace(
        pair_verifier=True, identity_weight=0.0, num_instances=2, pooling="avg", flip=False
    ),
    # Synthetic pedestrians on a CPU in a minute or two, without pretrained weights.
    "tiny": Recipe(
        backbone="tiny",
        weights="none",
        height=64,
        width=32,
        epochs=20,
        learning_rate=2e-3,
        normalize=True,
        flip=False,
    ),
}


def get(name: str) -> Recipe:
    """Return a recipe.

    Args:
        name: key of `RECIPES`.

    Raises:
        InputError: an unknown name.
    """
    checks.one_of(sorted(RECIPES), recipe=name)
    return RECIPES[name]
