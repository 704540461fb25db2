"""What stands in the pages: their commands, code and configs."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from emotion import REPOSITORY

PAGES = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for path in [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")]
)
# Pages that report what was measured at commits whose keys and modules may be gone since
HISTORIC = ("docs/published.md", "docs/face_mesh.md")
CURRENT = [page for page in PAGES if page not in (*HISTORIC, "CHANGELOG.md")]
SCRIPTS = ("train", "preprocess", "predict", "evaluate")


def tokens(page: str) -> list[Token]:
    """Return the tokens of a page, with those inside of paragraphs and tables."""
    found = []
    for token in MarkdownIt().enable("table").parse((REPOSITORY / page).read_text("utf-8")):
        found += [token, *(token.children or [])]
    return found


def code_spans(page: str) -> list[str]:
    return [token.content for token in tokens(page) if token.type == "code_inline"]


def commands(page: str) -> Iterator[list[str]]:
    """Yield the words of each shell command of a page."""
    for token in tokens(page):
        if token.type == "fence" and token.info in ("", "bash", "sh"):
            for line in token.content.replace("\\\n", " ").splitlines():
                if words := shlex.split(line, comments=True):
                    yield words


def all_commands() -> list[str]:
    """Return every command of the pages once, as a shell would read it."""
    return sorted({shlex.join(words) for page in CURRENT for words in commands(page)})


def script_of(words: list[str]) -> tuple[str, list[str]] | None:
    """Return the script that a command runs and its arguments, or None for other commands."""
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # environment variables
        words = words[1:]
    if re.fullmatch(r"(\.venv/bin/)?python", words[0]) and len(words) > 1:
        name, arguments = words[1].removesuffix(".py"), words[2:]
    elif words[0].startswith("emotion-"):
        name, arguments = words[0].removeprefix("emotion-"), words[1:]
    else:
        return None
    return (name, arguments) if name in SCRIPTS else None


def python_code(page: str) -> list[str]:
    """Return the Python code of a page."""
    return [t.content for t in tokens(page) if t.type == "fence" and t.info == "python"]


def own_configs() -> Iterator[tuple[Path, str, str, str]]:
    """Yield the path, script, arguments and content of each config of one's own in the pages."""
    first = r"# (conf/(\w+)/(\w+)\.yaml), then: python (\w+)\.py (.*)\n"
    for page in CURRENT:
        for token in tokens(page):
            if token.type == "fence" and (found := re.match(first, token.content)):
                yield Path(found[1]), found[4], found[5], token.content
