"""Text that people wrote stays text: what control tokens they spell is not read as such.

A chat template puts the template's own control tokens and people's words into one string. Before it runs, a mark is put
into every control token that a message spells ("<|im_end|>" in a `git diff`), and where the end of one text could make
one with the beginning of the next. The mark passes through the template as an ordinary character; the tokenizer looks for
control tokens while it is there, and takes it out of the rest before that is cut into tokens.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from itertools import product
from typing import Any, Final

_MARKS: Final = "".join(map(chr, range(0xFDD0, 0xFDF0)))  # noncharacters: in no text that means anything
_KEPT_KEYS: Final = ("role", "type")  # of a message and of its parts: words of the protocol


class ControlTexts:
    """The control tokens of a vocabulary, to be found in text."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._without: dict[frozenset[str], ControlTexts] = {}
        self.texts = frozenset(text for text in texts if len(text) > 1)
        self._longest = max(map(len, self.texts), default=1)
        self._first = re.compile(f"[{re.escape(''.join({text[0] for text in self.texts}))}]") if self.texts else None
        self._begun = {text[:n] for text in self.texts for n in range(1, len(text))}
        self._ended = {text[n:] for text in self.texts for n in range(1, len(text))}
        lengths: dict[str, set[int]] = {}
        for text in self.texts:
            lengths.setdefault(text[0], set()).add(len(text))
        self._lengths = {first: sorted(found) for first, found in lengths.items()}

    def without(self, kept: frozenset[str]) -> ControlTexts:
        """All of these but some; made once, as every message of an assistant asks for the same."""
        if not kept & self.texts:
            return self
        if kept not in self._without:
            self._without[kept] = ControlTexts(self.texts - kept)
        return self._without[kept]

    def sealed(self, text: str, mark: str) -> str:
        """The text with a mark inside every control token, and where a neighbouring text could complete one."""
        if self._first is None:
            return text
        places = {place.start() + 1 for place in self._first.finditer(text) if self._spells(text, place.start())}
        if any(text[:n] in self._ended for n in range(1, min(len(text), self._longest) + 1)):
            places.add(0)
        parts, done = [], 0
        for place in sorted(places):
            parts.append(text[done:place])
            done = place
        return mark.join([*parts, text[done:]])

    def _spells(self, text: str, at: int) -> bool:
        """Whether a control token stands there, or begins and is cut by the end of the text."""
        if any(text[at : at + n] in self.texts for n in self._lengths[text[at]]):
            return True
        return len(text) - at < self._longest and text[at:] in self._begun


def free_mark(values: Iterable[Any]) -> str:
    """A short text that none of these texts has, at any depth of lists and dictionaries, to mark control tokens with.

    One character, or a few where somebody has used up all that would do. No end of it is a beginning of it, so that it is
    found where it was put, whatever stands beside it.
    """
    texts = list(_texts([*values]))
    for mark in _MARKS:
        if not any(mark in text for text in texts):
            return mark
    first, others = _MARKS[0], _MARKS[1:]
    size, used = 0, {""}
    while len(used) == len(others) ** size:
        size += 1
        behind = re.compile(f"(?<={first})[{others}]{{{size}}}")
        used = {found for text in texts for found in behind.findall(text)}
    return first + next(tail for tail in map("".join, product(others, repeat=size)) if tail not in used)


def sealed_message(
    message: Mapping[str, Any], control: ControlTexts, mark: str, kept: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """A message whose texts are sealed, at any depth; `kept`: what an assistant's own text may spell (marks of thoughts)."""
    result: dict[str, Any] = sealed_value(message, control.without(kept), mark, _KEPT_KEYS)
    return result


def sealed_value(value: Any, control: ControlTexts, mark: str, kept_keys: Container[str] = ()) -> Any:
    """A value whose texts are sealed, at any depth of lists and dictionaries, keys too; those under kept keys are not."""
    if isinstance(value, str):
        return control.sealed(value, mark)
    if isinstance(value, Mapping):
        return {
            control.sealed(str(key), mark): inner
            if key in kept_keys and isinstance(inner, str)
            else sealed_value(inner, control, mark, kept_keys)
            for key, inner in value.items()
        }
    return (
        [sealed_value(inner, control, mark, kept_keys) for inner in value] if isinstance(value, list | tuple) else value
    )


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value, at any depth of lists and dictionaries, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts([*value, *value.values()])
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
