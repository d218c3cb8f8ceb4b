"""The search page, laid out by Gradio."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from keras_reid.demo.answers import Answers, Query
from keras_reid.errors import InputError


def page(answers: Answers) -> gr.Blocks:
    """The page of one gallery."""
    with gr.Blocks(title="Search", analytics_enabled=False, delete_cache=(60, 60)) as blocks:
        gr.Markdown(f"# Search\n{answers.known()}.")
        query, found = gr.State(None), gr.State([])
        with gr.Row():
            with gr.Column(scale=1):
                file = gr.File(label="Image of a person", type="filepath", elem_id="upload")
                chosen = gr.Dropdown(
                    [(Path(path).name, path) for path in answers.choices],
                    value=None,
                    label="Or one of these",
                    visible=bool(answers.choices),
                    elem_id="chosen",
                )
                words = gr.Dropdown(
                    [word for name in answers.attributes for word in (name, f"not {name}")],
                    multiselect=True,
                    label="Or a description",
                    visible=bool(answers.attributes),
                )
                limits = answers.limits
                filters = {
                    "k": gr.Slider(1, 100, 10, step=1, label="Images shown"),
                    "cameras": gr.Textbox(label="Cameras, with commas", elem_id="cameras"),
                    "not_cameras": gr.Textbox(label="Not these cameras"),
                    "after": gr.Textbox(label="From this time on: seconds, or 2026-01-31T12:00"),
                    "before": gr.Textbox(label="Before this time"),
                    "match_probability": gr.Slider(
                        0, 1, limits.match, label="Match: least probability", elem_id="match"
                    ),
                    "possible_probability": gr.Slider(
                        0,
                        1,
                        limits.possible,
                        label="Possible match: least probability",
                        elem_id="possible",
                    ),
                    "rerank": gr.Checkbox(False, label="Re-rank", elem_id="rerank"),
                }
                go = gr.Button("Search", variant="primary", elem_id="go")
            with gr.Column(scale=3):
                shown = gr.HTML(elem_id="shown")
                rank = gr.Number(1, precision=0, minimum=1, label="Why is this rank there?")
                explain = gr.Button("Why?", elem_id="why")
                pictures = gr.HTML(elem_id="pictures")

        def uploaded(path: str | None) -> Query | None:
            if path is None:
                return None
            try:
                return answers.of_image(path)
            finally:
                Path(path).unlink(missing_ok=True)  # its pixels are in the session alone

        def searched(query: Query | None, *values: Any) -> tuple[str, list[str], str]:
            if query is None:
                raise InputError("nobody is looked for: choose an image or a description first")
            wanted = dict(zip(filters, values, strict=True))
            wanted["k"] = int(wanted["k"])
            return *answers.search(query, **wanted), ""

        def explained(query: Query | None, found: list[str], rank: float) -> str:
            if query is None or not 1 <= rank <= len(found):
                raise InputError(f"a rank is 1 to {len(found)} here: received {rank}; search first")
            return answers.why(query, found[int(rank) - 1])

        search: dict[str, Any] = {
            "fn": told(searched),
            "inputs": [query, *filters.values()],
            "outputs": [shown, found, pictures],
        }
        for event, make, given in (
            (file.upload, uploaded, file),
            (chosen.input, answers.of_image, chosen),
            (words.input, answers.of_description, words),
        ):
            event(told(make), given, query).success(**search)
        go.click(**search)
        explain.click(told(explained), [query, found, rank], pictures)
    return blocks


def told(act: Callable[..., Any]) -> Callable[..., Any]:
    """What is wrong with an input is a message on the page."""

    @functools.wraps(act)
    def tell(*given: Any) -> Any:
        try:
            return act(*given)
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return tell
