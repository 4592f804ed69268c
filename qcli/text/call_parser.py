"""Tool calls told apart from an answer and its thoughts, id by id: whole calls come out, or none.

The ids of an answer go through a parser of thoughts (see qcli.text.thoughts). Where it has text, the marker that begins a
call is looked for, be it a token or spelled by several; text that may be its beginning is kept back. What follows a marker
is read by the notation's reader and never shown, unless it is certain to be no call: then it was text.
"""

from __future__ import annotations

from collections.abc import Iterator

from qcli.text.thoughts import AnswerParser, Thought
from qcli.text.tokenizer import Tokenizer
from qcli.tools.bodies import Body, Read
from qcli.tools.call import MalformedCall
from qcli.tools.notation import Notation
from qcli.tools.tool import Tools

_SURELY = 6  # characters of a marker at the very end, which then is one that was cut


class CallParser(AnswerParser):
    """Calls between markers; the rest is as another parser has it. A call within a thought ends the thought."""

    def __init__(self, parser: AnswerParser, tokenizer: Tokenizer, notation: Notation, tools: Tools) -> None:
        super().__init__(tokenizer)
        self._inner, self._notation, self._tools = parser, notation, tools
        self._begin_id, self._end_id = map(tokenizer.special_id, (notation.begin, notation.end))
        self._is_special = tokenizer.is_special
        # What is shown of a marker that turns out to begin no call: nothing where it is a control token.
        self._as_text = notation.begin if self._begin_id is None else tokenizer.decode([self._begin_id])
        self._triggers = notation.triggers(tools)
        self._inside = tokenizer.stream(special=True)  # of calls, whose markers may be control tokens
        self._kept = ""  # text that may be the beginning of a marker, and white space that a call may follow
        self._in_thought = False  # whether what is kept belongs to one
        self._marker: str | None = None  # the text that began the call; None outside of calls
        self._begun = ""  # of the inside, as long as no reader is known
        self._body: Body | None = None
        self._spoken = False  # whether any text has come
        self._after = False  # whether a call has ended, and its last marker may follow
        self._broken = ""  # what has come of a broken call, which ends with its last marker
        self.calls = 0  # how many have come

    @property
    def thinking(self) -> bool:
        """Whether what comes next belongs to a thought."""
        return self._marker is None and self._inner.thinking

    @property
    def call_begun(self) -> str | None:
        """What has come of the inside of a call that has begun and is not whole; None outside of calls."""
        if self._marker is None:
            return None
        return self._body.text if self._body else self._begun

    @property
    def opening(self) -> str:
        """The text that begins a call."""
        return self._notation.begin

    before_channel = False  # that is harmony's

    @property
    def is_whole(self) -> bool:
        """Whether nothing is half-written: no character, no marker, no call."""
        return self._marker is None and not self._kept.strip() and self._inner.is_whole

    def push(self, id: int) -> Iterator[str]:
        """The pieces that this id completes."""
        if self._after and id not in (self._begin_id, self._end_id) and self._is_special(id):
            self._after, self._kept = False, ""  # as a tag that opens a thought
        if self._marker is not None or self._after or self._broken:
            yield from self._within(self._inside.push(id))
        elif id == self._begin_id:
            yield from self._scan(self._inner.flush())
            yield from self._open(self._notation.begin, "")
        else:
            yield from self._scan(self._inner.push(id))

    def flush(self) -> Iterator[str]:
        """The rest, after the last id: a call that is cut comes as MalformedCall."""
        yield from self._within(self._inside.flush())
        if self._marker is not None:
            read = self._body.flush() if self._body else None
            yield from self._take(read or Read("broken", (), ""))
        if self._broken:
            yield MalformedCall(self._broken)
            self._broken = ""
        if self._after:
            self._after, self._kept = False, ""  # a marker that is cut
        yield from self._scan(self._inner.flush())
        if len(self._kept) >= _SURELY and self._notation.begin.startswith(self._kept):
            kept, self._kept = self._kept, ""
            yield MalformedCall(kept)
        yield from self._release()

    def _scan(self, pieces: Iterator[str]) -> Iterator[str]:
        """Look through pieces for what begins a call."""
        for piece in pieces:
            if self._marker is not None or self._after or self._broken:
                yield from self._within(piece)
                continue
            if not piece:
                continue
            thought = isinstance(piece, Thought)
            if thought != self._in_thought:
                yield from self._release()
                self._in_thought = thought
            self._kept += piece
            yield from self._look()

    def _look(self) -> Iterator[str]:
        """Pass on what is known to be no beginning of a call; open one that begins."""
        found = min(((at, text) for text in self._triggers if (at := self._kept.find(text)) >= 0), default=None)
        if found is None:
            held = self._held()
            sure = len(self._kept) - held
            if not self._in_thought:
                sure = len(self._kept[:sure].rstrip())
            text, self._kept = self._kept[:sure], self._kept[sure:]
            yield self._piece_of(text)
            return
        at, marker = found
        rest, self._kept = self._kept[at + len(marker) :], self._kept[:at]
        yield from self._open(marker, self._triggers[marker] + rest)

    def _held(self) -> int:
        """How many characters at the end may be the beginning of a marker."""
        longest = min(max(map(len, self._triggers)) - 1, len(self._kept))
        ends = (self._kept[-n:] for n in range(longest, 0, -1))
        return next((len(end) for end in ends if any(text.startswith(end) for text in self._triggers)), 0)

    def _open(self, marker: str, text: str) -> Iterator[str]:
        """Begin a call: white space before it is no part of the answer, and a thought ends."""
        self._kept = self._kept if self._in_thought else self._kept.rstrip()
        yield from self._release()
        yield from self._inner.leave_thought()
        self._in_thought = False
        yield from self._begin(marker, text)

    def _begin(self, marker: str, text: str) -> Iterator[str]:
        self._marker, self._begun, self._body = marker, "", None
        yield from self._within(text)

    def _within(self, text: str) -> Iterator[str]:
        """Text inside of a call, or right after one."""
        if not text:
            return
        if self._broken:
            yield from self._in_broken(text)
        elif self._after:
            yield from self._behind(text)
        elif self._body:
            yield from self._take(self._body.push(text))
        else:
            self._begun += text
            yield from self._choose(self._begun.lstrip())

    def _choose(self, begun: str) -> Iterator[str]:
        """Choose a reader for a call that has begun so, once it is known that it is not empty."""
        end = self._notation.end
        if not begun or (end.startswith(begun) and begun != end):
            return
        if end and begun.startswith(end):
            self._broken = self._notation.begin
            self._marker = None
            yield from self._in_broken(begun)
            return
        body = self._notation.bodies(begun[0])
        self._body = body(self._tools) if body else None
        yield from self._take(self._body.push(self._begun) if self._body else Read("none", (), self._begun))

    def _take(self, read: Read | None) -> Iterator[str]:
        """Do what a reader has found out."""
        if read is None:
            return
        marker = self._marker or ""
        begun = self._body.text if self._body else self._begun
        self._marker, self._body = None, None
        if read.kind == "none":
            self._kept += self._as_text  # not to be found again; what begins a call further on is
            yield from self._release()
            yield from self._scan(iter([read.rest]))
        elif read.kind == "broken":
            self._broken = (begun if self._triggers.get(marker) else marker + begun) or marker
            yield from self._in_broken("")
        else:
            self.calls += len(read.calls)
            yield from read.calls
            self._after = True
            yield from self._behind(read.rest)

    def _behind(self, text: str) -> Iterator[str]:
        """Text after a call: its last marker is dropped, white space but for a line end, and another call may begin at once."""
        self._kept += text
        while self._kept.strip():
            self._kept = self._kept.lstrip()
            end = self._notation.end
            if end and self._kept.startswith(end):
                self._kept = self._kept[len(end) :]
            elif self._kept[0] in "{," and self._notation.family in ("json", "json list"):
                rest, self._kept, self._after = self._kept.lstrip(","), "", False
                yield from self._begin(self._notation.begin, rest)
                return
            elif any(text.startswith(self._kept) for text in (end, *self._triggers)):
                return
            else:
                rest, self._kept, self._after = self._kept, "", False
                yield from self._scan(iter(["\n" + rest if self._spoken else rest]))
                return
        self._kept = ""

    def _in_broken(self, text: str) -> Iterator[str]:
        """What follows a broken call up to its last marker belongs to it."""
        before = len(self._broken)
        self._broken += text
        end = self._notation.end
        at = self._broken.find(end, max(0, before - len(end)) if text else 0) if end else -1
        if at >= 0:
            whole, rest = self._broken[:at], self._broken[at + len(end) :]
            self._broken = ""
            yield MalformedCall(whole)
            self._after = True
            yield from self._behind(rest)

    def _release(self) -> Iterator[str]:
        kept, self._kept = self._kept, ""
        yield self._piece_of(kept)

    def _piece_of(self, text: str) -> str:
        self._spoken = self._spoken or (bool(text) and not self._in_thought)
        return Thought(text) if self._in_thought else text
