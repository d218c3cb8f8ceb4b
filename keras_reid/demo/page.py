"""Layout of the search page, by Gradio."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from keras_reid import checks, gallery
from keras_reid.demo.answers import Answers, Query, filter_of
from keras_reid.errors import InputError


def page(answers: Answers) -> gr.Blocks:
    """Return the page of one gallery."""
    search, explain = (functools.partial(act, answers) for act in (_search, _explain))
    with gr.Blocks(title="Search", analytics_enabled=False, delete_cache=(60, 60)) as blocks:
        gr.Markdown(f"# Search\n{answers.contents()}.")
        query, images = gr.State(None), gr.State([])
        with gr.Row():
            with gr.Column(scale=1):
                file, chosen, words = _sources(answers)
                fields = _fields(answers.limits)
                go = gr.Button("Search", variant="primary", elem_id="go")
            with gr.Column(scale=3):
                shown = gr.HTML(elem_id="shown")
                rank = gr.Number(1, precision=0, minimum=1, label="Explain result number")
                why = gr.Button("Explain", elem_id="why")
                pictures = gr.HTML(elem_id="pictures")
        run: dict[str, Any] = {
            "fn": with_messages(search),
            "inputs": [query, *fields],
            "outputs": [shown, images, pictures],
        }
        for event, make, source in (
            (file.upload, functools.partial(_upload, answers), file),
            (chosen.input, answers.of_image, chosen),
            (words.input, answers.of_description, words),
        ):
            event(with_messages(make), source, query).success(**run)
        go.click(**run)
        why.click(with_messages(explain), [query, images, rank], pictures)
    return blocks


def _sources(answers: Answers) -> tuple[gr.File, gr.Dropdown, gr.Dropdown]:
    """Return the fields of a query: an upload, an image of the folder, or a description."""
    images = [(Path(path).name, path) for path in answers.choices]
    words = [word for name in answers.attributes for word in (name, f"not {name}")]
    return (
        gr.File(label="Image of a person", type="filepath", elem_id="upload"),
        gr.Dropdown(
            images, value=None, label="Or one of these", visible=bool(images), elem_id="chosen"
        ),
        gr.Dropdown(words, multiselect=True, label="Or a description", visible=bool(words)),
    )


def _fields(limits: gallery.Limits) -> list[Any]:
    """Return the fields of a search, in the order of the arguments of `_search`."""
    return [
        gr.Slider(1, 100, 10, step=1, label="Images per query"),
        gr.Textbox(label="Cameras, separated by commas", elem_id="cameras"),
        gr.Textbox(label="Excluded cameras"),
        gr.Textbox(label="From this time: seconds, or 2026-01-31T12:00"),
        gr.Textbox(label="Before this time"),
        gr.Slider(0, 1, limits.match, label="Probability of a match", elem_id="match"),
        gr.Slider(0, 1, limits.possible, label="… of a possible match", elem_id="possible"),
        gr.Checkbox(False, label="Re-rank", elem_id="rerank"),
    ]


def _upload(answers: Answers, path: str | None) -> Query | None:
    if path is None:
        return None
    try:
        return answers.of_image(path)
    finally:
        Path(path).unlink(missing_ok=True)  # the session keeps its pixels


def _search(answers: Answers, query: Query | None, *values: Any) -> tuple[str, list[str], str]:
    if query is None:
        raise InputError("No query. Choose an image or a description first.")
    k, *texts, match, possible, rerank = values
    where, limits = filter_of(*texts), gallery.Limits(match, possible)
    return *answers.search(query, k=int(k), filter=where, limits=limits, rerank=rerank), ""


def _explain(answers: Answers, query: Query, images: list[str], rank: float) -> str:
    checks.within(f"[1, {len(images)}]", "Search first.", rank=rank)
    return answers.why(query, images[int(rank) - 1])


def with_messages(act: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with invalid input shown as a message on the page."""

    @functools.wraps(act)
    def run(*values: Any) -> Any:
        try:
            return act(*values)
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return run
