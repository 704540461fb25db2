"""Write docs/settings.md from the configs and their comments: python -m docs.settings."""

import re
from collections.abc import Iterator
from pathlib import Path

from emotion.cli import CONF_DIR

PAGE = Path(__file__).with_suffix(".md")
SCRIPTS = ("train", "preprocess", "predict", "evaluate")
SHARED = ("clips", "stacks")  # included by several scripts
HEAD = """# Settings

```
python train.py --cfg job                # every key with its value, composed
python train.py KEY=VALUE GROUP=OPTION   # change some; -m KEY=A,B sweeps them
```

`python -m docs.settings` writes this page from the comments in `conf/`. A value with brackets or a
`~` needs quotes of its own: `'data.root="~/clips (1)"'`. `emotion/config.py` has the
types and ranges; unknown keys are refused.
"""
KEY = re.compile(r"(?P<indent> *)(?P<key>\w+):(?: +(?P<value>[^#\s].*?))?(?: +# +(?P<comment>.*))?")


def keys(path: Path, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield each key of a config file that has a value or a comment: key, default, comment."""
    parents: list[tuple[int, str]] = []
    for line in path.read_text("utf-8").splitlines():
        found = KEY.fullmatch(line)
        if not found:
            continue
        indent, key = len(found["indent"]), found["key"]
        parents = [parent for parent in parents if parent[0] < indent]
        names = [name for _, name in parents] + [key]
        parents.append((indent, key))
        if names[0] in ("defaults", "hydra") or key == "_target_":
            continue
        if found["value"] or found["comment"]:
            name = prefix + ".".join(names)
            yield name, found["value"] or "", found["comment"] or ""


def introduction(path: Path) -> str:
    """Return the first sentence of a config file's comment, without its commands."""
    lines = path.read_text("utf-8").splitlines()
    comments = [line[2:] for line in lines if line.startswith("# ") and "@package" not in line]
    is_text = [not re.match(r"python \S+\.py|make |    ", line) for line in comments]
    text = " ".join(line for line, keep in zip(comments, is_text, strict=True) if keep)
    first = re.split(r"(?<=[^l]\.)\s(?=[A-Z])|:\s|:$", text)[0]  # not after "et al."
    return first.replace("<", "&lt;")


def table(rows: list[tuple[str, str, str]]) -> str:
    """Write the rows of keys as a Markdown table."""
    lines = ["| key | default | meaning |", "| --- | --- | --- |"]
    for key, value, comment in rows:
        default = f"`{value}`" if value else ""
        lines.append(f"| `{key}` | {default} | {comment} |".replace("$|", "$\\|"))
    return "\n".join(lines)


def page() -> str:
    """Return the page: groups with their options, then the keys of scripts and of groups."""
    groups = sorted(
        {path.parent for path in CONF_DIR.rglob("*.yaml") if path.parent != CONF_DIR},
        key=lambda folder: folder.relative_to(CONF_DIR).as_posix(),
    )
    parts = [HEAD, "## Groups\n", "| group | option | |\n| --- | --- | --- |"]
    for folder in groups:
        for path in sorted(folder.glob("*.yaml"), key=lambda path: (len(path.stem), path.stem)):
            group = folder.relative_to(CONF_DIR).as_posix()
            parts.append(f"| `{group}` | `{path.stem}` | {introduction(path)} |")
    for name in (*SHARED, *SCRIPTS):
        title = "`train.py` and `preprocess.py`" if name == "stacks" else f"`{name}.py`"
        title = "all scripts that read clips" if name == "clips" else title
        rows = list(keys(CONF_DIR / f"{name}.yaml"))
        parts += ["", f"## Keys of {title}\n", table(rows)]
    parts += ["", "## Keys of groups\n"]
    rows = {}
    for folder in groups:
        group = folder.relative_to(CONF_DIR).as_posix()
        if group not in ("data", "experiment", "hparams"):
            for path in sorted(folder.glob("*.yaml")):
                package = group.replace("/", ".")
                for key, value, comment in keys(path, f"{package}."):
                    rows.setdefault(key, (key, value, comment))
    parts.append(table([row for row in rows.values() if row[2]]))
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
