"""Breaks the package, one line at a time, and says which break a test has noticed.

    python tools/mutations.py
    python tools/mutations.py --only=MixStyle

Each break is made in a copy of the package; the named test, which passes without it, must fail. The
table is printed in Markdown, and the exit code is 1 if a break was not noticed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Break:
    """One break.

    Attributes:
        what: is broken, in words.
        file: of the repository.
        line: what stands there, once.
        broken: what is put in its place.
        test: that must fail: a file of `tests`, `::` and a name.
    """

    what: str
    file: str
    line: str
    broken: str
    test: str


BREAKS = (
    Break(
        "a new file is written over another",
        "keras_reid/files.py",
        "os.link(partial, path)",
        "os.rename(partial, path)",
        "unit/test_files.py::test_nothing_is_written_over",
    ),
    Break(
        "of a file that was not finished a part is left",
        "keras_reid/files.py",
        "partial.unlink()",
        "pass",
        "unit/test_files.py::test_of_a_block_that_fails_nothing_is_left",
    ),
    Break(
        "an open interval holds its end",
        "keras_reid/checks.py",
        "else low < number",
        "else low <= number",
        "unit/test_checks.py::test_what_passes_and_what_does_not",
    ),
    Break(
        "statistics of a loss have a gradient",
        "keras_reid/losses/base.py",
        "{name: ops.stop_gradient(value) for name, value in statistics.items()}",
        "statistics",
        "unit/test_losses.py::test_statistics_have_no_gradient",
    ),
    Break(
        "half of the square between unit vectors is the square",
        "keras_reid/evaluation/rows.py",
        "squared /= 2",
        "squared /= 1",
        "unit/test_ranking.py::test_zero_vectors_have_cosine_zero_to_everything",
    ),
    Break(
        "a re-ranking of both sets is scored by halves",
        "keras_reid/evaluation/ranking.py",
        'if source.reranking != "none" and (rule.halves or rule.one_set):',
        "if False:",
        "unit/test_ranking.py::test_bad_input",
    ),
    Break(
        "the parts of a training are refined from its start",
        "keras_reid/training/methods/parts.py",
        "_refine(members, False)",
        "_refine(members, True)",
        "unit/test_training.py::test_refined_parts_are_induced",
    ),
    Break(
        "MixStyle mixes nobody's style in",
        "keras_reid/layers/style.py",
        "other = keras.random.shuffle(ops.arange(count), seed=self.draws)",
        "other = ops.arange(count)",
        "unit/test_domains.py::test_a_mixed_map_has_the_style_between_two_images",
    ),
    Break(
        "MixStyle does not divide by the deviation",
        "keras_reid/layers/style.py",
        "((x - mean) / deviation)",
        "(x - mean)",
        "unit/test_domains.py::test_a_mixed_map_has_the_style_between_two_images",
    ),
    Break(
        "MixStyle at test time",
        "keras_reid/layers/style.py",
        "if not training:",
        "if training is False:",
        "unit/test_domains.py::test_mixing_is_drawn_anew_and_never_at_test_time",
    ),
    Break(
        "MixStyle's statistics have a gradient",
        "keras_reid/layers/style.py",
        "map(ops.stop_gradient, (mean, ops.sqrt(variance + self.epsilon)))",
        "(mean, ops.sqrt(variance + self.epsilon))",
        "unit/test_domains.py::test_statistics_have_no_gradient",
    ),
    Break(
        "MixStyle where the image is halved once",
        "keras_reid/models/backbones.py",
        "in (4, 8)",
        "in (2, 8)",
        "unit/test_domains.py::test_styles_are_mixed_in_early_stages_and_nothing_else_changes",
    ),
    Break(
        "the whole image does not count in the visible distance",
        "keras_reid/distances/visibility.py",
        "weight = ops.ones_like(total)",
        "weight = ops.zeros_like(total) + 1e-6",
        "unit/test_pose.py::test_the_visible_distance_is_that_of_the_oracle",
    ),
    Break(
        "the same, in evaluation",
        "keras_reid/evaluation/local.py",
        "weight = np.ones_like(total)",
        "weight = np.full_like(total, 0.5)",
        "unit/test_pose.py::test_evaluation_compares_visible_parts_as_the_distance_does",
    ),
    Break(
        "images are not spread over cameras",
        "keras_reid/data/sampling.py",
        "fraction = _spread(classes, cameras, fraction)",
        "pass",
        "unit/test_sampling.py::test_spread_images_of_an_identity_are_of_many_cameras",
    ),
    Break(
        "identities of frames in another order than the frames",
        "keras_reid/data/clips.py",
        "tf.repeat(identity, frames)",
        "tf.tile(identity, [frames])",
        "unit/test_tracklets.py::test_training_clips_draw_a_frame_of_each_stretch",
    ),
    Break(
        "short tracklets repeat their last frame",
        "keras_reid/data/clips.py",
        "own % size",
        "tf.minimum(own, size - 1)",
        "unit/test_tracklets.py::test_training_clips_draw_a_frame_of_each_stretch",
    ),
    Break(
        "single frames are not trained",
        "keras_reid/training/methods/tracklets.py",
        "self.frame_weight * term.weight,",
        "0.0,",
        "unit/test_tracklets.py::test_single_frames_learn_beside_the_clips",
    ),
    Break(
        "what small images taught is lost",
        "keras_reid/training/fitting.py",
        "member.set_weights(copy.get_weights())",
        "pass",
        "unit/test_training.py::test_small_images_come_first_and_what_they_taught_goes_on",
    ),
    Break(
        "nothing is taken from the run that a model starts from",
        "keras_reid/training/fitting.py",
        "layer.set_weights(given)",
        "pass",
        "unit/test_domains.py::test_larger_images_and_other_identities_start_from_a_run",
    ),
    Break(
        "an image of no colour counts in the accuracy of colours",
        "keras_reid/evaluation/attribute_scoring.py",
        "counted &= (true > 0).sum(1) == 1",
        "pass",
        "unit/test_attributes.py::test_classifiers_are_counted_as_papers_count_them",
    ),
    Break(
        "attributes are predicted from features as they are",
        "keras_reid/models/heads.py",
        'name="attributes")(normal)',
        'name="attributes")(features)',
        "unit/test_attributes.py::test_attributes_are_predicted_behind_a_normalisation",
    ),
    Break(
        "whatever passes its collapse value is a collapse",
        "keras_reid/training/callbacks.py",
        "alike = negative - positive <= APART * max(negative, value)",
        "alike = True",
        "unit/test_training.py::test_a_loss_that_passes_its_collapse_value_is_no_collapse",
    ),
    Break(
        "the embedding comes out of the neck all the same",
        "keras_reid/models/image.py",
        'behind if embedding == "neck" else no_neck(features)',
        "no_neck(behind)",
        "unit/test_domains.py::test_features_before_the_neck_can_be_the_embedding",
    ),
    Break(
        "covered points keep their confidence",
        "tools/occluded_queries.py",
        "np.where(inside, 0, points[:, 2])",
        "points[:, 2]",
        "unit/test_occluded_queries.py::test_covered_points_are_not_seen_and_all_others_stay",
    ),
)


def noticed(broken: Break, copy: Path) -> bool:
    """Whether the test fails in a copy of the repository with the break, which is then mended."""
    file = copy / broken.file
    text = file.read_text(encoding="utf-8")
    if text.count(broken.line) != 1:
        raise SystemExit(f"{broken.file} must hold once: {broken.line}")
    file.write_text(text.replace(broken.line, broken.broken), encoding="utf-8")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "", f"tests/{broken.test}"],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        file.write_text(text, encoding="utf-8")
    if done.returncode not in (0, 1):  # nothing that ran
        raise SystemExit(f"{broken.test} could not be run:\n{done.stdout[-2000:]}{done.stderr}")
    return done.returncode == 1


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="Breaks with this in their words.")
    only = parser.parse_args().only
    wanted = [each for each in BREAKS if only in each.what]
    if not wanted:
        parser.error(f"--only is part of what is broken in words: no break has {only!r}")
    print("| broken | test | noticed |\n| --- | --- | --- |")
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", "runs", "data", "*.egg*"))
        shutil.copytree(ROOT / "keras_reid" / "data", copy / "keras_reid" / "data")
        for broken in wanted:
            found = noticed(broken, copy)
            missed += not found
            print(f"| {broken.what} | `{broken.test}` | {'yes' if found else 'NO'} |", flush=True)
    print(f"\n{len(wanted) - missed} of {len(wanted)} were noticed")
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
