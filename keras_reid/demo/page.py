"""Layout of the search page, by Gradio."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from keras_reid import checks
from keras_reid.demo.answers import Answers, Query
from keras_reid.errors import InputError


def page(answers: Answers) -> gr.Blocks:
    """Return the page of one gallery."""
    with gr.Blocks(title="Search", analytics_enabled=False, delete_cache=(60, 60)) as blocks:
        gr.Markdown(f"# Search\n{answers.contents()}.")
        query, images = gr.State(None), gr.State([])
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
                    "k": gr.Slider(1, 100, 10, step=1, label="Images per query"),
                    "cameras": gr.Textbox(label="Cameras, separated by commas", elem_id="cameras"),
                    "not_cameras": gr.Textbox(label="Excluded cameras"),
                    "after": gr.Textbox(label="From this time: seconds, or 2026-01-31T12:00"),
                    "before": gr.Textbox(label="Before this time"),
                    "match_probability": gr.Slider(
                        0, 1, limits.match, label="Probability of a match", elem_id="match"
                    ),
                    "possible_probability": gr.Slider(
                        0, 1, limits.possible, label="… of a possible match", elem_id="possible"
                    ),
                    "rerank": gr.Checkbox(False, label="Re-rank", elem_id="rerank"),
                }
                go = gr.Button("Search", variant="primary", elem_id="go")
            with gr.Column(scale=3):
                shown = gr.HTML(elem_id="shown")
                rank = gr.Number(1, precision=0, minimum=1, label="Explain result number")
                why = gr.Button("Explain", elem_id="why")
                pictures = gr.HTML(elem_id="pictures")

        def upload(path: str | None) -> Query | None:
            if path is None:
                return None
            try:
                return answers.of_image(path)
            finally:
                Path(path).unlink(missing_ok=True)  # the session keeps its pixels

        def search(query: Query | None, *values: Any) -> tuple[str, list[str], str]:
            if query is None:
                raise InputError("No query. Choose an image or a description first.")
            options = dict(zip(filters, values, strict=True))
            return *answers.search(query, **{**options, "k": int(options["k"])}), ""

        def explain(query: Query, images: list[str], rank: float) -> str:
            checks.within(f"[1, {len(images)}]", "Search first.", rank=rank)
            return answers.why(query, images[int(rank) - 1])

        run: dict[str, Any] = {
            "fn": with_messages(search),
            "inputs": [query, *filters.values()],
            "outputs": [shown, images, pictures],
        }
        for event, make, source in (
            (file.upload, upload, file),
            (chosen.input, answers.of_image, chosen),
            (words.input, answers.of_description, words),
        ):
            event(with_messages(make), source, query).success(**run)
        go.click(**run)
        why.click(with_messages(explain), [query, images, rank], pictures)
    return blocks


def with_messages(act: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with invalid input shown as a message on the page."""

    @functools.wraps(act)
    def run(*values: Any) -> Any:
        try:
            return act(*values)
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return run
