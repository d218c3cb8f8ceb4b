from .board import Board
from .charts import need_matplotlib
from .pages import Report, jpeg, picture, report_page, search_answer, search_page
from .pictures import (
    activation,
    draw_alignment,
    draw_groups,
    draw_heat,
    draw_keypoints,
    draw_ranked_lists,
    draw_timeline,
    draw_tracks,
)

__all__ = [
    "Board",
    "Report",
    "activation",
    "draw_alignment",
    "draw_groups",
    "draw_heat",
    "draw_keypoints",
    "draw_ranked_lists",
    "draw_timeline",
    "draw_tracks",
    "jpeg",
    "need_matplotlib",
    "picture",
    "report_page",
    "search_answer",
    "search_page",
]
