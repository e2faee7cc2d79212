"""TOML that users write, read with errors that say where and what to write instead."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from batchramp.values import shown

MAX_BYTES = 2**24
"""The longest file: a hundred thousand entries, more than anybody waits for."""

MAX_DEPTH = 32
"""How deep arrays and tables may lie in each other; a suite needs five."""

_PLACE = re.compile(r"\(at line (\d+), column (\d+)\)")
_TOKEN = re.compile(r"[^\s,=\[\]{}#\"']+")
_LONGEST_TOKEN = 60
_PART = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*"""
_DEEP_KEY = re.compile(rf"(?:^|[\[{{,])\s*(?:{_PART}){{{MAX_DEPTH}}}", re.MULTILINE)
_MANY_DIGITS = re.compile(r"\d[\d_]{4299,}")

# What is often written that TOML does not know, and what to write for it.
_INSTEAD = (
    (re.compile(r"([+-]?)(\.\d.*)"), r"a digit comes before the point: write \g<1>0\2"),
    (re.compile(r"([+-]?\d+\.)"), r"a digit comes after the point: write \g<1>0"),
    (re.compile(r"[+-]?0\d.*"), r"a whole number begins with no 0"),
    (re.compile(r"True"), r"write true"),
    (re.compile(r"False"), r"write false"),
    (re.compile(r"None|null|nil"), r"leave a key out that has no value"),
    (re.compile(r"[+-]?\d+(\.\d+)?%"), r"write a fraction, such as 0.5"),
)
_UNQUOTED = (re.compile(r"([^\W\d][\w./:-]*)"), r'a text needs quotes: write "\1"')


def read_toml(path: Path) -> str:
    """Return the text of a file, with or without a byte-order mark.

    Raises:
        ValueError: It is too long, or not UTF-8.
        OSError: It cannot be read.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"a suite must have at most {MAX_BYTES} bytes, got {size}")
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte, line = content[error.start], content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"a suite must be UTF-8 text, got the byte 0x{byte:02x} at place "
            f"{error.start} (at line {line})"
        ) from error


def parse_toml(text: str) -> dict[str, Any]:
    """Return the table that a text is.

    Raises:
        ValueError: It is no TOML, lies too deep, or has a number of too many digits;
            the message has line and column.
    """
    if not isinstance(text, str):
        raise ValueError(f"text of a suite must be a string, got {shown(text)}")
    text = text.removeprefix("\ufeff")
    if _DEEP_KEY.search(text):  # whose reading takes time by the square of its parts
        raise ValueError(_too_deep())
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(_explain(str(error), text)) from error
    except RecursionError:
        raise ValueError(_too_deep()) from None
    except ValueError as error:
        found = _MANY_DIGITS.search(text)
        if found is None:
            raise
        line = text.count("\n", 0, found.start()) + 1
        message = f"a number must have at most 4300 digits (at line {line})"
        raise ValueError(message) from error
    check_depth(table)
    return table


def check_depth(table: dict[str, Any]) -> None:
    """Refuse tables and arrays that lie deeper in each other than `MAX_DEPTH`."""
    level: list[Any] = [table]
    for _ in range(MAX_DEPTH + 1):
        inner = (x.values() if isinstance(x, dict) else x for x in level)
        # Each once, for an array made in Python may hold itself, and twice at that.
        found = {
            id(value): value
            for values in inner
            for value in values
            if isinstance(value, dict | list | tuple)
        }
        level = list(found.values())
        if not level:
            return
    raise ValueError(_too_deep())


def _too_deep() -> str:
    return f"a suite must nest at most {MAX_DEPTH} arrays and tables, got more"


def _explain(message: str, text: str) -> str:
    """Add what to write to what tomllib says of a place."""
    place = _PLACE.search(message)
    if place is None:
        return message
    line, column = (int(number) for number in place.groups())
    known = (*_INSTEAD, _UNQUOTED) if message.startswith("Invalid value") else _INSTEAD
    for token in _TOKEN.finditer(text.split("\n")[line - 1]):
        if token.start() <= column - 1 <= token.end() <= token.start() + _LONGEST_TOKEN:
            for pattern, instead in known:
                if found := pattern.fullmatch(token.group()):
                    return f"{message}: {found.expand(instead)}"
    return message
