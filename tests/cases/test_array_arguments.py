"""Arguments may be arrays wherever sequences are accepted."""

import numpy as np
import pytest

from keras_reid import gallery, layers, visualize
from keras_reid.training.edges import pairs

ROWS = np.eye(3, 4)


@pytest.mark.parametrize("count", [1, 3])
def test_enrol_times_as_array_are_stored(count):
    people = gallery.open("memory:")
    times = np.array([0.0, np.nan, 2.0])[:count]
    names = np.array(["a", "b", "c"])[:count]
    people.enrol(ROWS[:count], names, cameras=names, times=times, model_fingerprint="f")
    hits = people.search(ROWS[:1], 1, gallery.Filter(after=-1.0, not_cameras=np.array(["c"])))
    assert hits[0][0].identity == "a"
    assert people.relabel(np.array([hits[0][0].image]), ["z"], times=np.zeros(1)) == 1


def test_enrol_attribute_names_as_array_are_stored():
    people = gallery.open("memory:")
    names = np.array(["hat", "bag"])
    shares = np.array([[0.9, 0.1], [0.2, 0.8]])
    people.enrol(
        ROWS[:2], ["a", "b"], attributes=shares, attribute_names=names, model_fingerprint="f"
    )
    more = {"attributes": shares[:1], "attribute_names": names}
    people.enrol(ROWS[2:], ["c"], model_fingerprint="f", **more)
    assert people.attribute_names == ["hat", "bag"]


def test_draw_tracks_trails_as_array_are_drawn():
    frame = np.zeros((60, 40, 3), np.uint8)
    trails = np.array([[[1, 1], [30, 50]], [[5, 5], [30, 5]]])
    boxes = np.array([[5, 20, 10, 20], [20, 20, 10, 20]])
    names = np.array(["a", "b"])
    drawn = np.asarray(visualize.draw_tracks(frame, boxes, names, trails))
    listed = np.asarray(visualize.draw_tracks(frame, boxes, ["a", "b"], list(trails)))
    np.testing.assert_array_equal(drawn, listed)
    assert (drawn != np.asarray(visualize.draw_tracks(frame, boxes, names))).any()


@pytest.mark.parametrize("edges", [[["a", "b"], ["b", "a"]], [["a", "b"]]])
def test_pairs_edges_as_array_are_pairs_of_names(edges):
    assert pairs(np.array(edges), ["a", "b"], []) == [tuple(edge) for edge in edges]


def test_pose_pooling_groups_as_array_are_groups():
    assert layers.PosePooling(np.array([[0, 1], [2, 3]])).groups == ((0, 1), (2, 3))
