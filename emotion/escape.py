"""Foreign text, such as the name of a clip, made harmless where it is shown."""

import html
import logging
import re

FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")  # how a cell begins that a spreadsheet evaluates
# Markdown's own punctuation, and `$`, with which some viewers begin a formula.
MARKDOWN = re.compile(r"([\\`*_{}\[\]#|$~!])")


def for_terminal(text: str) -> str:
    r"""Write control characters and bytes that are not UTF-8 as escapes; keep line ends and tabs.

    >>> print(for_terminal("a\x1b[31m"))
    a\x1b[31m
    """
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def for_markdown(text: str) -> str:
    r"""Escape Markdown and HTML in a text of one line.

    >>> print(for_markdown("<b>|*"))
    &lt;b&gt;\|\*
    """
    line = for_terminal(" ".join(text.split()))
    return MARKDOWN.sub(r"\\\1", html.escape(line, quote=False))


def for_spreadsheet(text: str) -> str:
    """Put `'` before a cell that a spreadsheet would evaluate; `from_spreadsheet` removes it.

    >>> for_spreadsheet("=1+1")
    "'=1+1"
    """
    return f"'{text}" if text.startswith(FORMULA) else text


def from_spreadsheet(cell: str) -> str:
    """Return the text of a cell of `for_spreadsheet`."""
    return cell.removeprefix("'") if cell[1:].startswith(FORMULA) else cell


class LogFormatter(logging.Formatter):
    """Formats log records for a terminal; see `for_terminal`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the escaped text of a record."""
        return for_terminal(super().format(record))
