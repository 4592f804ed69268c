"""Markdown shown while it comes, on a terminal: nothing is erased or drawn again, whatever the terminal does meanwhile.

Prose appears word by word, a line of code when it is complete, a heading too, a table when it ends. On the screen stands
what Rich's `Markdown` shows of the whole text, line for line, but for what cannot be known before it has come:

- a heading that is underlined by the next line is a paragraph, for it is there already; the underline is left out;
- a link whose address is defined elsewhere is shown as typed, and so is the definition;
- the numbers of a list are as wide as each is, not as wide as the last one;
- bold words whose end does not come within 60 characters are bold up to the end of the paragraph, if it never comes; a
  link or code within a line whose end does not come within 300 is none;
- the colours of code know nothing of the line before;
- a table is known by the | that its first line begins with.

And but for what is meant to differ:

- code stands between two lines and has nothing at its sides, and its long lines are left to the terminal, so that it can be
  copied; Rich has blank lines, a space at the left, and breaks long lines;
- an image stands where it is in the text, with its address; a link that is its own address is shown once;
- HTML is shown, for an answer may say vector<int>;
- lists and quotes leave eight cells for text, on however narrow a terminal, and are text where they are more than 20 deep;
- between two blocks there is one blank line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich.color import ColorSystem
from rich.console import Console, RenderableType
from rich.markdown import Markdown
from rich.rule import Rule
from rich.style import Style
from rich.text import Text

from qcli.terminal import markdown_blocks as blocks
from qcli.terminal.inline_markdown import Inline, named, parser
from qcli.terminal.markdown_blocks import Container, Fence
from qcli.terminal.markdown_leaves import Code, Paragraph
from qcli.terminal.text import Filter
from qcli.terminal.wrapped_lines import Lines, Painter

_NARROWEST = 8  # cells for text
_DEEPEST = 20  # containers within each other; what would begin more is text
_COLORS = {"standard": ColorSystem.STANDARD, "256": ColorSystem.EIGHT_BIT, "truecolor": ColorSystem.TRUECOLOR}


class MarkdownWriter:
    """Shows a text in Markdown that comes in pieces; `write` gets what a terminal is to be sent.

    `width` is asked for whenever a line begins, so that a window may change its size.
    """

    def __init__(self, write: Callable[[str], object], width: Callable[[], int], no_color: bool = False) -> None:
        self._write, self._width = write, width
        self._console = Console(force_terminal=True, legacy_windows=False, width=80, no_color=no_color)
        self._paint = Painter(_COLORS.get(self._console.color_system or "", ColorSystem.STANDARD), no_color)
        self._filter = Filter()
        self._line = ""  # as far as it has come, while it is not known what it begins
        self._flows = False  # whether the rest of the line belongs to the paragraph
        self._containers: list[Container] = []
        self._paragraph: Paragraph | None = None
        self._table: list[str] = []
        self._code: Code | None = None
        self._any = False  # whether anything has been shown

    def __call__(self, piece: str) -> None:
        """Show what this piece completes."""
        if shown := "".join(self._shown(self._filter(piece))):
            self._write(shown)

    def close(self) -> None:
        """Show what is left at the end, of the text or of what has come of it; the next piece begins a new text."""
        if shown := "".join(self._rest()):
            self._write(shown)
        self._filter, self._any = Filter(), False

    def _rest(self) -> Iterator[str]:
        if self._line:
            yield from self._take(self._line)
        yield from self._end_leaf()
        yield from self._leave(0)
        self._line, self._flows = "", False

    def _shown(self, text: str) -> Iterator[str]:
        while text:
            end = text.find("\n") + 1 or len(text)
            part, text = text[:end], text[end:]
            if self._flows and self._paragraph:
                yield from self._paragraph.feed(part)
                self._flows = not part.endswith("\n")
                continue
            self._line += part
            if part.endswith("\n"):
                line, self._line = self._line[:-1], ""
                yield from self._take(line)
                if self._paragraph:
                    yield from self._paragraph.feed("\n")
            elif self._is_prose(self._line):
                line, self._line = self._line, ""
                yield from self._take(line)
                self._flows = True

    def _is_prose(self, line: str) -> bool:
        """Whether so much of a line tells that its words belong to a paragraph, and need not wait."""
        if self._code or self._table or not blocks.is_decided(line):
            return False
        rest, _ = self._within(blocks.spread(line))
        return self._paragraph is not None or blocks.indentation(rest) < 4

    def _take(self, raw: str) -> Iterator[str]:
        """Show what a line begins, or goes on with."""
        rest, depth = self._within(blocks.spread(raw))
        if self._code:
            inside = depth >= self._code.depth
            if inside and self._code.takes(rest):
                yield from self._code.feed(rest)
                return
            ends = inside and self._code.fence is not None
            yield from self._end_leaf()
            if ends:
                return
        if not rest.strip():
            yield from self._end_leaf()
            yield from self._leave(
                next((i for i, c in enumerate(self._containers[depth:], depth) if c.kind == ">"), 99)
            )
            return
        yield from self._take_text(rest, depth)

    def _take_text(self, rest: str, depth: int) -> Iterator[str]:
        if self._table:
            taken = depth == len(self._containers) and self._takes_row(rest)
            if taken:
                self._table.append(rest)
                return
            yield from self._end_table()
        left = self._containers[depth:]
        in_paragraph = self._paragraph is not None and all(one.kind == ">" for one in left)
        if self._paragraph and left and not blocks.begins_block(rest, in_paragraph):
            yield from self._paragraph.feed(rest.lstrip())
            return
        before = left[0] if left else None
        if before:
            yield from self._end_leaf()
            yield from self._leave(depth)
        while blocks.indentation(rest) < 4 and len(self._containers) < _DEEPEST and not self._is_underline(rest):
            found = blocks.container(rest, self._paragraph is not None)
            if not found:
                break
            yield from self._end_leaf()
            yield from self._enter(found[0], before)
            before, rest = None, found[1]
        if rest.strip():
            yield from self._leaf(rest)

    def _within(self, line: str) -> tuple[str, int]:
        """The line without what its containers begin with, and to how many of these it belongs."""
        for depth, one in enumerate(self._containers):
            rest = one.rest(line)
            if rest is None:
                return line, depth
            line = rest
        return line, len(self._containers)

    def _enter(self, one: Container, before: Container | None) -> Iterator[str]:
        if before and before.kind == one.kind != ">":
            one.number = before.number + 1
        else:
            yield from self._gap()
        self._containers.append(one)

    def _leave(self, depth: int) -> Iterator[str]:
        """End the containers from this depth on; an item without any text is shown too."""
        while len(self._containers) > depth:
            if self._containers[-1].bare and self._containers[-1].kind != ">":
                yield self._start() + "\n"
            self._containers.pop()

    def _leaf(self, line: str) -> Iterator[str]:
        """What a line begins that contains no other block, or the next line of a paragraph."""
        if self._is_underline(line):
            yield from self._end_leaf()
        elif self._paragraph is None and blocks.indentation(line) > 3:
            yield from self._begin_code(None)
            assert self._code is not None
            yield from self._code.feed(line)
        elif found := (None if blocks.indentation(line) > 3 else blocks.heading(line)):
            yield from self._heading(*found)
        elif blocks.is_rule(line):
            yield from self._end_leaf()
            yield from self._gap()
            yield from self._drawn(Rule(style=named("hr"), characters="-"))
        elif fence := blocks.fence(line):
            yield from self._begin_code(fence)
        elif line.lstrip().startswith("|") and blocks.indentation(line) < 4:
            self._table = [line]
        else:
            yield from self._prose(line)

    def _prose(self, line: str) -> Iterator[str]:
        if self._paragraph is None:
            yield from self._gap()
            self._paragraph = Paragraph(Lines(self._begin, self._paint), self._style)
        yield from self._paragraph.feed(line.lstrip(" "))

    def _is_underline(self, line: str) -> bool:
        return self._paragraph is not None and blocks.is_underline(line)

    def _heading(self, level: int, text: str) -> Iterator[str]:
        yield from self._end_leaf()
        yield from self._gap()
        inline, shown = Inline(), Text(justify="center" if level == 1 else None)
        for part, style in (*inline.feed(text), *inline.close()):
            shown.append(part, self._style + named(f"h{level}") + style)
        yield from self._drawn(shown)

    def _begin_code(self, fence: Fence | None) -> Iterator[str]:
        yield from self._end_leaf()
        yield from self._gap()
        self._code = Code(fence, len(self._containers), self._begin, self._paint)
        yield from self._code.open()

    def _takes_row(self, line: str) -> bool:
        if len(self._table) == 1:
            return blocks.is_header_rule(line, self._table[0])
        return not blocks.begins_block(line, in_paragraph=False)

    def _end_table(self) -> Iterator[str]:
        """Show a table, or the line that looked like the first of one."""
        rows, self._table = self._table, []
        if len(rows) == 1:
            yield from self._prose(rows[0])
            assert self._paragraph is not None
            yield from self._paragraph.feed("\n")
        elif rows:
            yield from self._end_leaf()
            yield from self._gap()
            table = Markdown("", hyperlinks=False)
            table.parsed = parser().parse("\n".join(rows))
            yield from self._drawn(table)

    def _end_leaf(self) -> Iterator[str]:
        """End the paragraph, the table or the code that goes on."""
        if self._table:
            yield from self._end_table()
        if self._paragraph:
            paragraph, self._paragraph = self._paragraph, None
            yield from paragraph.close()
        if self._code:
            code, self._code = self._code, None
            yield from code.close()

    def _gap(self) -> Iterator[str]:
        """The blank line before a block, unless it is the first or within another one."""
        if self._any and not self._containers:
            yield "\n"
        self._any = True

    @property
    def _style(self) -> Style:
        return named("block_quote") if any(one.kind == ">" for one in self._containers) else Style.null()

    def _begin(self) -> tuple[str, int]:
        """What the next line starts with, and the cells that are left for its text."""
        return self._start(), self._left()

    def _left(self) -> int:
        """The cells that the containers leave for text; a few, however narrow the terminal is."""
        columns = self._width()
        return max(min(columns, _NARROWEST), columns - sum(one.cells for one in self._containers))

    def _start(self) -> str:
        shown = ""
        for one in self._containers:
            style = "block_quote" if one.kind == ">" else "item.number" if one.is_numbered else "item.bullet"
            marker = one.marker if one.bare or one.kind == ">" else " " * len(one.marker)
            shown += self._paint(marker, named(style))
            one.bare = False
        return shown

    def _drawn(self, content: RenderableType) -> Iterator[str]:
        """What Rich draws, within the containers."""
        options = self._console.options.update(width=self._left())
        lines = self._console.render_lines(content, options, style=self._style, pad=False)
        for line in lines:
            while line and not line[-1].text.strip():
                line.pop()
        while lines and not lines[-1]:
            lines.pop()
        for line in lines[next((i for i, line in enumerate(lines) if line), 0) :]:
            yield self._start() + self._paint.segments(line) + "\n"
