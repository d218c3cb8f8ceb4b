"""Write the notebooks of pages in docs/, with a cell for each Python block.

    python tools/notebooks.py

The files are examples/*.ipynb, without outputs. Tests run them and compare them with the pages.
"""

import re
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).parent.parent
PAGES = ("tutorial", "gallery", "plain-fit")
LINK = re.compile(r"\]\((?!https?:|#)([^)]+)\)")


def notebook(page: str) -> nbformat.NotebookNode:
    """Return the notebook of a page."""
    text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    parts = re.split(r"```python\n(.*?)```\n", text, flags=re.DOTALL)
    cells = []
    for number, part in enumerate(parts):
        if number % 2:
            cells.append(new_code_cell(part.strip()))
        elif part.strip():
            cells.append(new_markdown_cell(LINK.sub(r"](../docs/\1)", part.strip())))
    for number, cell in enumerate(cells):
        cell.id = f"{page}-{number}"  # random ones would differ each time
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def main() -> None:
    for page in PAGES:
        nbformat.write(notebook(page), ROOT / f"examples/{page}.ipynb")


if __name__ == "__main__":
    main()
