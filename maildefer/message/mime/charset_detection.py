"""Detects the charset of a text that declares none and is in no western language, by its letters.

In mail such texts are short: a subject, a name. So no statistics of pairs are used, but simple facts about letters:
which are common in a language, that capitals stand first in a word, which rows of the double-byte tables hold common
characters. Where these are not decisive, no charset is returned. charset-normalizer was rejected: it fails on names,
and the same mail would be read differently where it is installed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

_LEAST: Final = 0.55  # the share of letters that have to be common in the language

# The most common letters of Russian, Greek and Hebrew; case and accents are checked apart.
_SINGLE: Final = {
    "koi8-r": frozenset("оеаинтсрвлкмдпуяыьгз"),
    "cp1251": frozenset("оеаинтсрвлкмдпуяыьгз"),
    "iso8859-7": frozenset("αοιετσνηυρπκλμςάίόέή"),
    "cp1255": frozenset("יוהלאמתשרבנםדעח"),
}
_WORD: Final = re.compile(r"\w+")
_KANA: Final = re.compile(r"[\u3041-\u30ff]")
_BEYOND_ASCII: Final = re.compile(r"[^\x00-\x7f]")


def detected(data: bytes) -> str | None:
    """The name of the charset, in which `data` can be decoded; None if it is not certain."""
    if b"\x1b" in data:
        name = "iso2022_kr" if b"\x1b$)C" in data else "iso2022_jp_2"
        return name if _decoded(data, name) is not None else None
    for name, is_plausible in _DOUBLE_BEFORE.items():
        if (text := _decoded(data, name)) is not None and is_plausible(data, text):
            return name
    shares = {name: _share_single(data, name, common) for name, common in _SINGLE.items()}
    best = max(shares, key=lambda name: shares[name])
    if shares[best] >= _LEAST:
        return best
    for name, is_plausible in _DOUBLE.items():
        if (text := _decoded(data, name)) is not None and is_plausible(data, text):
            return name
    return None


def _decoded(data: bytes, charset: str) -> str | None:
    try:
        return data.decode(charset)
    except UnicodeDecodeError:
        return None


def _share_single(data: bytes, charset: str, common: frozenset[str]) -> float:
    """The share of common letters, each where its case makes sense, among what is beyond ASCII."""
    text = _decoded(data, charset)
    beyond = len(_BEYOND_ASCII.findall(text)) if text else 0
    if not text or not beyond:
        return 0.0
    likely = 0.0
    for word in _WORD.findall(text):
        if word[1:] == word[1:].lower():
            likely += sum(letter in common for letter in word.lower())
        elif word.isupper():  # a subject may be in capitals; but in the wrong table ordinary words are, too
            likely += 0.5 * sum(letter in common for letter in word.lower())
    return likely / beyond


def _japanese(data: bytes, text: str) -> bool:
    return len(_KANA.findall(text)) >= 0.1 * len(_BEYOND_ASCII.findall(text))


def _korean(data: bytes, text: str) -> bool:
    """Whether the text is syllables with spaces between words; without spaces, it is as likely Chinese."""
    syllables = sum("\uac00" <= letter <= "\ud7a3" for letter in text)
    return syllables >= 0.9 * len(_BEYOND_ASCII.findall(text)) and (" " in text.strip() or syllables > 20)


def _in_rows(first: int, last: int) -> Callable[[bytes, str], bool]:
    """A check whether most characters are in the rows of a table that hold the common ones."""

    def is_plausible(data: bytes, text: str) -> bool:
        leads: list[int] = []
        place = 0
        while place < len(data):
            if data[place] >= 0x80:
                leads.append(data[place])
                place += 1
            place += 1
        return sum(lead <= 0xA3 or first <= lead <= last for lead in leads) >= 0.8 * len(leads)

    return is_plausible


# Kana is decisive; the others are tried only where no alphabet fits.
_DOUBLE_BEFORE: Final[dict[str, Callable[[bytes, str], bool]]] = {"cp932": _japanese, "euc_jp": _japanese}
_DOUBLE: Final[dict[str, Callable[[bytes, str], bool]]] = {
    "euc_kr": _korean,
    "gb2312": _in_rows(0xB0, 0xD7),
    "big5": _in_rows(0xA4, 0xC6),
    "gb18030": _in_rows(0xB0, 0xD7),
}
