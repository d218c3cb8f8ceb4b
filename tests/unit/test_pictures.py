"""Images of alignments, keypoints, tracks and timelines."""

import numpy as np
import pytest

from keras_reid import visualize
from keras_reid.errors import InputError
from keras_reid.visualize import charts, pictures, track_pictures

DIAGONAL = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 1]], bool)


def image(height=64, width=32, value=0):
    return np.full((height, width, 3), value, np.uint8)


def drawn(path=DIAGONAL, costs=None, first=None, second=None, height=96):
    first, second = (image() if one is None else one for one in (first, second))
    return np.asarray(visualize.draw_alignment(first, second, path, costs, height))


def test_draw_alignment_places_images_side_by_side():
    picture = drawn(first=image(value=10), second=image(32, 32, value=200))
    assert picture.shape == (96, 48 + 48 + 96, 3)
    assert tuple(picture[5, 5]) == (10, 10, 10)
    assert tuple(picture[5, -5]) == (200, 200, 200)
    assert tuple(picture[0, 70]) == (255, 255, 255), "between them it is white"


def test_draw_alignment_marks_stripe_boundaries():
    path = np.array([[True, False], [True, False], [True, True]])
    picture = drawn(path)
    assert all(tuple(picture[y, 20]) == pictures.GRAY for y in (32, 64))
    assert tuple(picture[48, -20]) == pictures.GRAY
    assert tuple(picture[32, -20]) == (0, 0, 0)


def test_draw_alignment_lines_join_matched_stripes():
    picture = drawn()
    middles = [16, 48, 80]
    for i, j in np.argwhere(DIAGONAL):
        halfway = (middles[i] + middles[j]) // 2
        assert tuple(picture[halfway, 48 + 24]) == pictures.NEAR, (i, j)
    assert tuple(picture[(16 + 80) // 2 + 12, 50]) == (255, 255, 255), "and no others"


def test_draw_alignment_lower_cost_draws_stronger_line():
    costs = np.zeros((3, 3))
    costs[0, 0] = 1.0
    picture = drawn(costs=costs)
    assert tuple(picture[16, 72]) == pictures.PALE
    assert tuple(picture[48, 72]) == pictures.NEAR
    wide = (picture[40:56, 60] != 255).any(axis=1).sum()
    narrow = (picture[12:20, 60] != 255).any(axis=1).sum()
    assert wide > narrow


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first": np.full((4, 4, 3), 0.5)}, "`image` must be uint8, .*, got float64 from 0.5"),
        (
            {"second": np.zeros((4, 4), np.uint8)},
            r"`image` must be of shape \(h, w, 3\), got \(4, 4\)",
        ),
        (
            {"path": DIAGONAL[None]},
            r"`path` must be of shape \(s, t\), got \(1, 3, 3\).*path\[i, j\]",
        ),
        ({"costs": np.zeros((2, 3))}, r"`costs` must be of shape \(3, 3\), got \(2, 3\)"),
    ],
)
def test_draw_alignment_invalid_arguments_raises(change, message):
    with pytest.raises(InputError, match=message):
        drawn(**change)


def test_draw_keypoints_confidence_sets_darkness():
    image = np.full((64, 32, 3), 255, np.uint8)
    points = np.array([[0.5, 0.25, 1.0], [0.5, 0.5, 0.2], [0.5, 0.75, 0.0]])
    picture = np.asarray(visualize.draw_keypoints(image, points, height=256)).astype(int)
    assert picture.shape == (256, 128, 3)
    sure, unsure, unseen = (picture[y, 64].sum() for y in (64, 128, 192))
    assert sure < unsure < unseen == 3 * 255
    heat = np.zeros((2, 1, 1))
    heat[1] = 1
    warm = np.asarray(visualize.draw_keypoints(image, points[2:], heat, 64)).astype(int)
    assert (warm[60, :, 0] > warm[60, :, 1] + 50).all()
    assert (warm[2] == 255).all()
    with pytest.raises(InputError, match=r"`keypoints` must be of shape \(k, 3\)"):
        visualize.draw_keypoints(image, points[:, :2])


def test_draw_tracks_keeps_color_per_track_name():
    frame = np.full((60, 80, 3), 255, np.uint8)
    boxes = np.array([[10, 20, 20, 30], [50, 20, 20, 30]])
    trails = [np.array([[5, 55], [15, 55]]), np.zeros((1, 2))]
    one = np.asarray(visualize.draw_tracks(frame, boxes, ["a", "b"], trails))
    other = np.asarray(visualize.draw_tracks(frame, boxes[::-1], ["a", "b"]))
    a, b = one[40, 10], one[40, 50]
    assert a.tolist() != b.tolist()
    assert other[40, 50].tolist() == a.tolist()
    assert one[55, 8].tolist() == a.tolist()  # the trail
    assert one[35, 20].tolist() == [255] * 3  # inside of the box


def test_draw_timeline_bars_match_intervals():
    seen = {"berta": [(5.0, 10.0)], "anna": [(0.0, 2.0), (8.0, 10.0)]}
    picture = np.asarray(visualize.draw_timeline(seen, width=600, row=20))
    assert picture.shape == (3 * 20 + 8, 600, 3)
    colored = (picture < 255).any(-1)
    rows = colored[10], colored[30]  # anna came first
    bars = [np.flatnonzero(row) for row in rows]
    ends = 600 - 8
    # Both bars reach the end. The bar of berta begins in the middle of anna's row.
    assert abs(bars[0].max() - ends) <= 1
    assert abs(bars[1].max() - ends) <= 1
    begin = bars[1][bars[1] > 150].min()
    assert 250 < begin < 400
    assert not rows[0][begin - 60 : begin + 60].any()  # anna was away from 2 to 8 s
    with pytest.raises(InputError, match="`intervals` must be intervals of at least one person"):
        visualize.draw_timeline({})


def test_track_colors_of_consecutive_numbers_are_distinct():
    colors = np.array([track_pictures._color(number) for number in range(1, 9)], float)
    distances = np.linalg.norm(colors[:, None] - colors, axis=-1)
    assert distances[~np.eye(8, dtype=bool)].min() > 40


def test_training_charts_show_losses_and_scores_only():
    pytest.importorskip("matplotlib", reason="matplotlib, extra plots, is not installed")
    row = {"epoch": 1, "logits_identity": 2.0, "features_triplet_active": 0.5, "seconds": 9.0}
    curves = charts.training([row, {**row, "epoch": 2, "val_mAP": 0.25}])
    assert curves.keys() == {"losses", "scores while training"}
    assert "logits_identity" in curves["losses"]
    assert "seconds" not in curves["losses"]
    assert "features_triplet_active" not in curves["losses"]
    assert "val_mAP" in curves["scores while training"]
    assert charts.training([]) == {}


def test_search_page_hit_without_camera_has_no_camera_line():
    hit = {"image": "gone.png", "identity": "anna", "camera": "", "distance": 0.5}
    page = visualize.search_page(
        [{"image": "gone.png", "answer": "anna", "hits": [hit, {**hit, "camera": "7"}]}]
    )
    assert page.count("camera") == 1
    assert "camera 7" in page
    assert "2. anna" in page
    assert "distance 0.500" in page
