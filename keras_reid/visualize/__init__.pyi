from .pictures import (
    draw_alignment,
    draw_groups,
    draw_keypoints,
    draw_timeline,
    draw_tracks,
    search_page,
)

__all__ = [
    "draw_alignment",
    "draw_groups",
    "draw_keypoints",
    "draw_timeline",
    "draw_tracks",
    "search_page",
]
