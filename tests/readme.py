"""The parts of README.md that follow from the code: `python -m tests.readme` writes them again, a test compares them."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

from runtime.cli import reference

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
WIDTH = 100  # characters of a file's one sentence
PLAIN = {  # files without a docstring
    "schema.sql": "tables, and views a person can read",
    "queries.sql": "the named queries",
    "smollm2.txt": "the wheel with the default model, hash checked",
    "page.html": "the page",
    "page.css": "its looks",
    "page.js": "its behaviour",
}


def file_map() -> str:
    """One line a file of the program: its path and the first sentence of its docstring."""
    files = sorted(
        path.relative_to(ROOT).as_posix()
        for folder in ("runtime", "plugins")
        for path in (ROOT / folder).rglob("*")
        if path.suffix == ".py" or path.name in PLAIN
    )
    return "\n".join(f"{name:<38} {_sentence(ROOT / name)}".rstrip() for name in files)


def _sentence(path: Path) -> str:
    if path.name in PLAIN:
        return PLAIN[path.name]
    text = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0].split())
    return textwrap.shorten(re.split(r"(?<=[.:]) ", text)[0].rstrip(".:"), WIDTH, placeholder=" …")


def rewritten(text: str) -> str:
    """The README with its file map and configuration reference as the code has them now."""
    for title, language, body in (
        ("Configuration reference", "toml", reference.reference()),
        ("File map", "", file_map()),
    ):
        block = re.compile(rf"(## {title}\n.*?```{language}\n).*?(```)", re.DOTALL)
        text = block.sub(lambda found, body=body: f"{found[1]}{body.strip()}\n{found[2]}", text, count=1)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text(encoding="utf-8")), encoding="utf-8")
