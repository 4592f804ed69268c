"""What a text goes on with where it repeats itself."""

from __future__ import annotations

from qcli.drafts.lookup import PromptLookup


def after(*ids):
    lookup = PromptLookup()
    lookup.extend(ids)
    return lookup


def test_three_tokens_must_be_alike():
    assert after(1, 2, 3, 4, 5, 9, 2, 3).guess(4) is None
    assert after(1, 2, 3, 4, 5, 1, 2, 3).guess(4) == ([4, 5, 1, 2], 3)
    assert after().guess(4) is None
    assert after(1, 2).guess(4) is None
    assert after(1, 2, 3, 1, 2, 3).guess(0) is None


def test_the_longest_likeness_wins_then_the_last():
    lookup = after(8, 1, 2, 3, 10, 9, 1, 2, 3, 11, 8, 1, 2, 3)
    assert lookup.guess(1) == ([10], 4)
    lookup = after(7, 1, 2, 3, 10, 9, 1, 2, 3, 11, 8, 1, 2, 3)
    assert lookup.guess(1) == ([11], 3)


def test_a_text_that_comes_in_pieces():
    lookup = after(1, 2)
    for token in (3, 4, 5, 1, 2, 3):
        lookup.extend([token])
    assert lookup.guess(2) == ([4, 5], 3)
    lookup.extend([4])
    assert lookup.guess(2) == ([5, 1], 4)


def test_one_token_again_and_again():
    assert after(*[5] * 40).guess(3) == ([5], 32)
    lookup = after(*[5] * 6, 6, *[5] * 6)
    assert lookup.guess(3).ids == [6, 5, 5]
