"""Pictures and pages of what a model does."""

from keras_reid.visualize.pictures import (
    draw_alignment,
    draw_groups,
    draw_keypoints,
    draw_tracks,
    search_page,
)

__all__ = ["draw_alignment", "draw_groups", "draw_keypoints", "draw_tracks", "search_page"]
