"""Loops: which answers go round in circles, and which merely repeat themselves, as texts do."""

from __future__ import annotations

import random

import pytest

from qcli.text.loops import LoopDetector

SENTENCE = "The little fox ran over the hill and looked for its friend, but nobody was there any more. "
WAIT = "Wait, let me check that again. If x is 3, then y has to be 5, and z cannot be 4.\n\n"
FUNCTION = "def area(width, height):\n    # the area of a rectangle\n    return width * height\n\n\n"


@pytest.fixture
def end(storyteller_tokenizer):
    """How many characters of a text come before it is taken for a loop; None if it is none."""

    def read(text, before=""):
        loops, stream, seen = LoopDetector(), storyteller_tokenizer.stream(), 0
        loops.skip(before)
        for id in storyteller_tokenizer.encode(text, special=False):
            piece = stream.push(id)
            seen += len(piece)
            if loops.push(id, piece):
                return seen
        return None

    return read


@pytest.mark.parametrize(
    "unit", [SENTENCE, WAIT, "I do not know what you mean.\n", "我们去公园玩，然后我们回家吃饭睡觉。"]
)
def test_the_same_again_and_again_is_a_loop(end, unit):
    begun = "It was a day like any other.\n"
    stopped = end(begun + unit * 40)
    assert stopped is not None
    assert stopped - len(begun) <= max(4 * len(unit), 60 * 7)


def test_a_sentence_of_20_tokens_or_more_is_noticed_the_third_time(end, storyteller_tokenizer):
    assert len(storyteller_tokenizer.encode(SENTENCE)) >= 20
    assert end(SENTENCE * 2) is None
    assert end(SENTENCE * 4) - len(SENTENCE * 3) in range(len("The "))  # the first of all begins without a blank


def test_lines_are_the_same_whatever_their_numbers(end):
    line = "Check the oil level of the engine before you drive off."
    assert end("\n".join(f"{n}. {line}" for n in range(1, 20))) is not None
    assert end("\n\n".join(f"- {line}" for _ in range(20))) is not None
    assert end("\n".join(f"{n}. {line} {word}" for n, word in enumerate("one two three four five six".split()))) is None


@pytest.mark.parametrize("unit", ["!", "ha ", "0, ", "| | | |\n", "\n", "\U0001f98a"])
def test_what_says_nothing_is_a_loop_when_it_is_very_long(end, unit, storyteller_tokenizer):
    tokens = len(storyteller_tokenizer.encode(unit * 50)) / 50
    assert end(unit * int(300 / tokens)) is None
    assert end(unit * int(900 / tokens)) is not None or not unit.strip()


def test_code_may_repeat_itself_more_than_prose(end):
    assert end(f"So:\n```python\n{FUNCTION * 4}```\n") is None
    assert end(f"So:\n```python\n{FUNCTION * 60}```\n") is not None
    assert end(FUNCTION * 4) is not None  # as prose
    assert end(FUNCTION * 4, before="So:\n```python\n") is None  # of an answer that goes on


REFRAIN = "You can't always get what you want\n" * 3 + "But if you try some day, you just might find\n"
FORM = "Name: ______________  Date: ______________\n" * 12
TABLE = "| day | open | closed |\n| --- | --- | --- |\n" + "".join(
    f"| {day} | 9:00 | 17:00 |\n" for day in ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
)
EMPTY_TABLE = "| a | b | c | d |\n|---|---|---|---|\n" + "|   |   |   |   |\n" * 20
CHESS = "r n b q k b n r\np p p p p p p p\n" + ". . . . . . . .\n" * 4 + "P P P P P P P P\nR N B Q K B N R\n"
BOX = "+" + "-" * 40 + "+\n" + ("|" + " " * 40 + "|\n") * 8 + "+" + "-" * 40 + "+\n"
BRACES = "```c\n" + "".join(f"{' ' * (24 - 4 * n)}}}\n" for n in range(6)) + "```\n"
CELLS = '```html\n<div class="board">\n' + '  <div class="cell"></div>\n' * 9 + "</div>\n```\n"
SUDOKU = "```python\ngrid = [\n" + "    [0, 0, 0, 0, 0, 0, 0, 0, 0],\n" * 9 + "]\n```\n"
COUNTING = "\n".join(map(str, range(1, 300)))
ITEMS = "\n".join(f"{n}. item {n}" for n in range(1, 100))
TESTS = "```python\n" + "".join(f"assert fib({n}) == fib({n} - 1) + fib({n} - 2)\n" for n in range(2, 40)) + "```\n"
KNOCKING = "Knock, knock, knocking at the old green door\n" * 4 + "And nobody came\n"
ROW = "Row, row, row your boat\nGently down the stream\nMerrily, merrily, merrily, merrily\nLife is but a dream\n" * 2
DIALOGUE = '"No," she said.\n"Yes," he said.\n' * 3


@pytest.mark.parametrize(
    "text",
    [
        *(REFRAIN, FORM, TABLE, EMPTY_TABLE, CHESS, BOX, BRACES, CELLS, SUDOKU, COUNTING, ITEMS, TESTS, KNOCKING, ROW),
        *(DIALOGUE, "\n" * 200, "-" * 200 + "\n", "Ha ha ha " * 20),
    ],
)
def test_what_repeats_itself_and_is_no_loop(end, text):
    assert end(text) is None


def test_two_letters_in_any_order_are_no_loop():
    chance, loops = random.Random(0), LoopDetector()
    assert not any(loops.push(chance.randrange(2), " one two three") for _ in range(3000))


@pytest.mark.parametrize("size", [1, 19, 20, 21, 300, 1024])
def test_passages_of_every_size_are_found_when_they_are_whole_a_third_time(size):
    loops = LoopDetector()
    ids = [*range(5000, 5100), *[*range(size)] * 100]
    found = next(i for i, id in enumerate(ids) if loops.push(id, " the cat sat"))
    assert found - 99 == max(3 * size, -(-60 // size) * size)
