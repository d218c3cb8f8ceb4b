"""Hooks of `mkdocs build`: pages from outside of docs/, and pages of the API."""

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PAGES = {
    "README.md": "index.md",
    "benchmarks/README.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
}
PACKAGES = (
    *("losses", "mining", "distances", "layers", "models", "training", "data", "evaluation"),
    *("reranking", "gallery", "tracking", "inference", "serving", "scale", "visualize"),
)
INHERITED = {"Gallery"}  # classes with public methods of a base that has no entry of its own
LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)]*)?\))")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not in docs/."""
    for source, name in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        here = Path(source).parent
        files.append(File.generated(config, name, content=_relinked(text, here)))
    for package in PACKAGES:
        page = _api(importlib.import_module(f"keras_reid.{package}"))
        files.append(File.generated(config, f"api/{package}.md", content=page))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return a page of docs/ with links to pages from outside of docs/."""
    if page.file.generated_by is None:
        return _relinked(markdown, Path("docs"))
    return markdown


def _relinked(text: str, folder: Path) -> str:
    """Return the text of a page in a folder with the links of the site."""

    def other(match: re.Match[str]) -> str:
        begin, target, end = match.groups()
        if "://" in target:
            return match[0]
        path = (ROOT / folder / target).resolve().relative_to(ROOT).as_posix()
        if path in PAGES:
            return begin + PAGES[path] + end
        if path.startswith("docs/"):
            return begin + path.removeprefix("docs/") + end
        raise FileNotFoundError(f"{folder}: {target} has no page")

    return LINK.sub(other, text)


def _api(module: ModuleType) -> str:
    """Return the page of a package, with a reference to the docstring of each public name."""
    lines = [f"# keras_reid.{module.__name__.split('.')[-1]}", "", inspect.getdoc(module) or "", ""]
    for name in getattr(module, "__all__", None) or _own(module):
        found = getattr(module, name)
        if inspect.ismodule(found):
            lines += [f"## {name}", "", f"::: {found.__name__}", ""]
        elif inspect.isclass(found) or inspect.isfunction(found):
            options = ["    options:", "      inherited_members: true"] if name in INHERITED else []
            lines += [f"::: {found.__module__}.{found.__qualname__}", *options, ""]
    return "\n".join(lines)


def _own(module: ModuleType) -> list[str]:
    """Return the public names that a module without `__all__` defines."""
    own = (n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__)
    return [name for name in own if not name.startswith("_")]
