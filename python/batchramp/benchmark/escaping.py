"""Users' text before it is shown: what is no letter of it, spelt out.

Labels, targets, names, paths and the messages of users' errors may hold anything; a
terminal obeys some of it (an escape sequence clears the screen, a bidirectional mark
turns the line around), and a page or a file may refuse it.
"""

from __future__ import annotations

import re
import unicodedata

_SPELT = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's controls, format marks, lone surrogates, and separators of lines."""

_JOINERS = "\u200c\u200d"
"""Format marks that are letters' own: of Persian and Indic words, and of emoji."""

_ASCII = re.compile(r"[ -~]*")


def printable(text: str) -> str:
    r"""Return a text as one line that can be printed: `\x1b`, `\n`, `\u202e` spelt out.

    Letters of every script stay, and so does a backslash.
    """
    if _ASCII.fullmatch(text):
        return text
    return "".join(map(_spelt, text))


def _spelt(character: str) -> str:
    if unicodedata.category(character) in _SPELT and character not in _JOINERS:
        return character.encode("unicode_escape").decode("ascii")
    return character
