"""Blank lines around thoughts are no part of the answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcli.text.answer_start import AnswerStart
from qcli.text.thoughts import Thought


def sorted_out(pieces: list[str]) -> tuple[str, str]:
    """Thoughts and answer."""
    start = AnswerStart()
    found = [*start.push(pieces), *start.flush()]
    assert "".join(found) == "".join(pieces)
    thoughts, answer = ([piece for piece in found if isinstance(piece, Thought) is wanted] for wanted in (True, False))
    return "".join(thoughts), "".join(answer)


@pytest.mark.parametrize(
    ("pieces", "thoughts", "answer"),
    [
        ([Thought("hm"), "\n", "\nYes", "\n."], "hm\n\n", "Yes\n."),
        (["\n", Thought("hm"), "Yes"], "\nhm", "Yes"),
        (["\n", "\nYes"], "", "\n\nYes"),
        (["\n"], "", "\n"),
        ([Thought("hm"), "\n"], "hm\n", ""),
        (["Yes", Thought("hm"), "\nNo"], "hm", "Yes\nNo"),
    ],
)
def test_line_ends_belong_to_thoughts_if_there_are_any(pieces: list[str], thoughts: str, answer: str) -> None:
    assert sorted_out(pieces) == (thoughts, answer)


piece = st.text("\na", max_size=3)


@given(st.lists(piece | piece.map(Thought), max_size=6))
def test_nothing_is_lost_and_nobody_elses_words_become_the_answers(pieces: list[str]) -> None:
    _, answer = sorted_out(pieces)
    assert "".join(piece for piece in pieces if not isinstance(piece, Thought)).endswith(answer)
