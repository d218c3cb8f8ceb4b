"""Self-contained HTML pages of searches and evaluations."""

import base64
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from keras_reid.errors import InputError
from keras_reid.evaluation import RankingResult, VerificationResult
from keras_reid.evaluation.lists import RankedList
from keras_reid.evaluation.verification import resolvable
from keras_reid.pixels import decode
from keras_reid.visualize import charts
from keras_reid.visualize.pictures import draw_heat, scaled

TEMPLATES = Environment(
    loader=PackageLoader("keras_reid.visualize"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
SCORES = ("mAP", "mAP_trapezoid", "mINP")
FAR = 1e-2  # FAR of the threshold in the report's histogram
PHOTO_HEIGHT = 400  # in pixels
CHANGES = 10  # queries with the largest gains, and as many with the largest losses


def search_page(queries: Sequence[Mapping[str, Any]], height: int = 128) -> str:
    """Return an HTML page of searches: each query with its hits, nearest first, with pictures.

    Args:
        queries: mappings with `image` (a file, or uint8 RGB `(h, w, 3)`), `answer` (a text) and
            `hits`, each a mapping with `image`, `identity`, `camera` and `distance`. `described` is
            true for searches by attributes; their distances are misfits. With a `verdict`, "match",
            "possible match" or "no match", images of the nearest person have a green, amber or gray
            frame. `name` replaces the path of the query image, and `photo`, uint8 RGB `(h, w, 3)`,
            is shown above it.
        height: height of the pictures in pixels. Unreadable files become gray boxes.

    Example:
        >>> from keras_reid import visualize
        >>> hit = {"image": "anna.jpg", "identity": "anna", "camera": "north", "distance": 0.2}
        >>> query = {"image": "query.jpg", "answer": "match: anna", "hits": [hit]}
        >>> "match: anna" in visualize.search_page([query])
        True
    """
    searches = [_searched(query, height) for query in queries]
    return TEMPLATES.get_template("search.html").render(title="Search", queries=searches)


def search_answer(query: Mapping[str, Any], height: int = 128) -> str:
    """Return the part of `search_page` about one query, with its styles, for another page."""
    return TEMPLATES.get_template("answer.html").render(query=_searched(query, height))


def _searched(query: Mapping[str, Any], height: int) -> dict[str, Any]:
    measure = "misfit" if query.get("described") else "distance"
    verdict = (query.get("verdict") or "").replace(" ", "-")
    nearest = query["hits"][0]["identity"] if query["hits"] else None

    def shown(hit: Mapping[str, Any], rank: int) -> dict[str, Any]:
        caption = [f"{rank}. {hit['identity']}", f"{measure} {hit['distance']:.3f}"]
        caption += [f"camera {hit['camera']}"] if hit["camera"] else []
        kind = verdict if hit["identity"] == nearest else ""
        return {"picture": picture(hit["image"], height), "caption": caption, "kind": kind}

    return {
        "answer": str(query["answer"]),
        "photo": None if query.get("photo") is None else picture(query["photo"], PHOTO_HEIGHT),
        "picture": picture(query["image"], height) | {"name": _name(query)},
        "hits": [shown(hit, rank) for rank, hit in enumerate(query["hits"], start=1)],
    }


def _name(query: Mapping[str, Any]) -> str:
    """Return the name of a query; an array has none."""
    image = query["image"]
    return str(query.get("name") or ("" if isinstance(image, np.ndarray) else image or ""))


def picture(image: Any, height: int, heat: np.ndarray | None = None) -> dict[str, Any]:
    """Return the name, the JPEG and the heat map of an image for a page.

    The JPEG and the heat map are None if the file is unreadable.

    Args:
        image: a file, uint8 RGB `(h, w, 3)`, or None.
        height: in pixels.
        heat: heat map, as `activation` returns it.
    """
    if image is None or isinstance(image, np.ndarray):
        name, pixels = "", image
    else:
        name, pixels = str(image), None
        with suppress(InputError):
            pixels = decode(image)
    shown: dict[str, Any] = {"name": name, "code": None, "heat": None}
    if pixels is not None:
        shown["code"] = jpeg(scaled(pixels, height))
        if heat is not None:
            shown["heat"] = jpeg(draw_heat(pixels, heat, height))
    return shown


def jpeg(image: Image.Image) -> str:
    """Return a picture as base64, for `data:image/jpeg;base64,…`."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return base64.b64encode(file.getvalue()).decode()


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """Contents of the report of an evaluation.

    Attributes:
        title, subtitle: title and subtitle of the page.
        results: scores by name; the last is the main result, such as "re-ranked".
        metrics: all scores of the JSON file, which the page contains too.
        verification: 1:1 trials.
        failures, successes: lists of queries with a wrong first image, and of other queries.
        query, gallery: `evaluation.StoredFeatures`, with paths for pictures.
        heat: maps `(h', w')` of similarity to the query by (query, gallery image), and by
            (query, None) of the query itself.
        history: epochs of the training run, as in `history.jsonl`.
        speed: descriptions by name.
    """

    title: str
    subtitle: str
    results: Mapping[str, RankingResult]
    metrics: Mapping[str, Any]
    verification: VerificationResult
    failures: Sequence[RankedList]
    successes: Sequence[RankedList]
    query: Any
    gallery: Any
    heat: Mapping[tuple[int, int | None], np.ndarray] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    speed: Mapping[str, str] = field(default_factory=dict)


LISTS = {
    "Hardest failures": "Queries with the worst first match: ✓ is the query's person, ✗ another "
    "person. Red areas resemble the query.",
    "Typical successes": "Queries with a right first image and median average precision.",
}


def report_page(report: Report, height: int = 112) -> str:
    """Return a self-contained HTML page, with curves by Matplotlib.

    Args:
        report: contents.
        height: height of the pictures in pixels. Unreadable files become gray boxes.

    Raises:
        InputError: Matplotlib is not installed.
    """
    results = [*report.results.values()]
    verification = report.verification
    enough = resolvable(FAR, len(verification.impostor))
    threshold = verification.threshold_at_far(FAR).value if enough else None
    lists = zip(LISTS, (report.failures, report.successes), strict=True)
    return TEMPLATES.get_template("report.html").render(
        title=report.title,
        subtitle=report.subtitle,
        results=list(report.results),
        scores=_scores(results),
        intervals=report.metrics.get("intervals"),
        protocol=report.metrics["protocol"],
        charts=_charts(report, threshold),
        verification=verification.to_dict(),
        threshold=threshold,
        far=FAR,
        cameras=_cameras(results[-1]),
        chosen={
            title: [_list(report, one, height) for one in some] for title, some in lists if some
        },
        about=LISTS,
        changes=_changes(results[0], results[-1], report.query) if len(results) > 1 else None,
        speed=report.speed,
        metrics=report.metrics,
    )


def _charts(report: Report, threshold: float | None) -> dict[str, str]:
    """Return the curves as SVG by title."""
    first, *others = report.results.values()
    drawn = {
        "CMC": charts.cmc(report.results),
        "ROC": charts.roc(report.verification),
        "distances of pairs": charts.distances(report.verification, threshold),
    }
    if others:
        drawn["AP of each query"] = charts.changes(first, others[-1])
    return drawn | charts.training(report.history)


def _scores(results: Sequence[RankingResult]) -> dict[str, list[float]]:
    """Return the scores of all results by name."""
    ranks = [k for k in (1, 5, 10, 20) if k <= len(results[-1].cmc)]
    scores = {f"rank-{k}": [result.rank(k) for result in results] for k in ranks}
    return scores | {name: [getattr(result, name) for result in results] for name in SCORES}


def _cameras(result: RankingResult) -> dict[str, Any] | None:
    """Return the table of camera pairs; None if they were not scored."""
    pairs = result.camera_pairs
    columns = sorted({gallery for _, gallery in pairs})
    rows = {q: [pairs.get((q, g)) for g in columns] for q in sorted({q for q, _ in pairs})}
    return {"columns": columns, "rows": rows} if pairs else None


def _changes(before: RankingResult, after: RankingResult, query: Any) -> dict[str, Any]:
    """Return counts of changed queries, and the queries with the largest changes."""
    old, new = before.per_query, after.per_query
    gain = new.average_precision - old.average_precision
    order = np.argsort(-gain, kind="stable")
    first_before, first_after = old.first[:, 0].astype(int), new.first[:, 0].astype(int)
    rows = [
        {
            "name": f"query {old.query[i]}" if query.path is None else query.path[old.query[i]],
            "before": old.average_precision[i],
            "after": new.average_precision[i],
            "first_before": first_before[i],
            "first_after": first_after[i],
        }
        for i in dict.fromkeys([*order[:CHANGES], *order[-CHANGES:]])
        if gain[i]
    ]
    return {
        "better": int((gain > 0).sum()),
        "worse": int((gain < 0).sum()),
        "same": int((gain == 0).sum()),
        "won": int(((first_before > 1) & (first_after == 1)).sum()),
        "lost": int(((first_before == 1) & (first_after > 1)).sum()),
        "rows": rows,
    }


def _list(report: Report, ranked: RankedList, height: int) -> dict[str, Any]:
    """Return a query and its nearest images for the template."""

    def shown(side: Any, row: int, hit: int | None) -> tuple[dict[str, Any], list[str]]:
        path = None if side.path is None else side.path[row]
        camera = [] if side.camera is None else [f"camera {side.camera[row]}"]
        heat = report.heat.get((ranked.query, hit))
        return picture(path, height, heat), [str(side.identity[row]), *camera]

    hits = []
    rows = zip(ranked.gallery.tolist(), ranked.distance, ranked.same, strict=True)
    for rank, (row, distance, same) in enumerate(rows, start=1):
        image, words = shown(report.gallery, row, row)
        caption = [f"{rank}.", *words, f"distance {distance:.3f}"]
        kind = "right" if same else "wrong"
        hits.append({"picture": image, "caption": caption, "kind": kind})
    image, words = shown(report.query, ranked.query, None)
    return {"query": image, "caption": ["query", *words], "hits": hits}
