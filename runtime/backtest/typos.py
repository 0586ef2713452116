"""Text as people type it in a hurry and as machines hear it: one slip in a share of the words."""

from __future__ import annotations

import random

ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
NEIGHBOURS = {
    letter: [row[i] for i in (place - 1, place + 1) if 0 <= i < len(row)]
    for row in ROWS
    for place, letter in enumerate(row)
}
# what speech recognition takes for each other
HEARD = {
    "to": "two", "two": "to", "for": "four", "four": "for", "there": "their", "their": "there", "your": "you're",
    "its": "it's", "by": "buy", "buy": "by", "no": "know", "know": "no", "right": "write", "wait": "weight",
    "hour": "our", "our": "hour", "week": "weak", "here": "hear", "hear": "here", "see": "sea", "one": "won",
    "pay": "pay a", "cash": "cache", "cheque": "check", "check": "cheque", "lights": "light's", "light": "lite",
}  # fmt: skip


def typed(text: str, share: float, generator: random.Random) -> str:
    """`share` of the words, in [0, 1], get one slip each."""
    return " ".join(_slip(word, generator) if generator.random() < share else word for word in text.split(" "))


def _slip(word: str, generator: random.Random) -> str:
    heard = HEARD.get(word.lower())
    if heard is not None and generator.random() < 0.5:
        return heard
    places = [i for i, letter in enumerate(word) if letter.isalpha()]
    if not places:
        return word
    at, kind = generator.choice(places), generator.choice(("swap", "drop", "double", "neighbour"))
    if kind == "swap" and at + 1 < len(word):
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == "drop" and len(word) > 1:
        return word[:at] + word[at + 1 :]
    near = NEIGHBOURS.get(word[at].lower(), [])
    if kind == "neighbour" and near:
        return word[:at] + generator.choice(near) + word[at + 1 :]
    return word[: at + 1] + word[at:]
