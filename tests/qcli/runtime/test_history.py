"""The history of a text: the same where it was computed in the same pieces, another everywhere after they differed."""

from __future__ import annotations

from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from qcli.runtime.history import common_length, extend

IDS = list(range(100, 120))
CHUNK = 8


def computed(*pieces: list[int], steps: bool = True) -> list[int]:
    """The history after pieces were added one after the other; a single id by a step."""
    history: list[int] = []
    for piece in pieces:
        extend(history, piece, CHUNK, step=steps and len(piece) == 1)
    return history


def pieces(ids: list[int], ends: list[int]) -> list[list[int]]:
    return [ids[a:b] for a, b in zip([0, *ends], [*ends, len(ids)], strict=True) if a < b]


def test_other_pieces_or_ids_are_another_history_to_the_end():
    ways = [
        computed(IDS),
        computed(IDS[:4], IDS[4:]),
        computed(IDS[:5], IDS[5:]),
        computed(IDS[:4], IDS[4:6], IDS[6:]),
        computed(*([id_] for id_ in IDS)),
        computed(*([id_] for id_ in IDS), steps=False),
        computed(IDS[:19], IDS[19:]),
        computed(IDS[:19], IDS[19:], steps=False),
        computed([99, *IDS[1:]]),
    ]
    assert all(len(way) == len(IDS) for way in ways)
    assert len({way[-1] for way in ways}) == len(ways)


def test_chunks_end_where_they_end_in_one_go():
    """So a cut at a multiple of their size does not show."""
    assert computed(IDS[:8], IDS[8:]) == computed(IDS[:16], IDS[16:]) == computed(IDS)


def test_a_text_that_goes_on_keeps_what_it_had():
    history = computed(IDS[:10])
    assert computed(IDS[:10], IDS[10:])[:10] == history
    assert len(set(computed(IDS))) == len(IDS)


@given(st.lists(st.integers(1, 19), max_size=4), st.lists(st.integers(1, 19), max_size=4))
def test_two_ways_have_in_common_what_came_in_the_same_parts(one, two):
    def parts(ends):
        return [(a, b, b - a == 1) for a, b in zip([0, *ends], [*ends, 20], strict=True) if a < b]

    def in_chunks(ends):
        found = []
        for a, b, step in parts(ends):
            cuts = [a, *range(a - a % CHUNK + CHUNK, b, CHUNK), b]
            found += [(x, y, step) for x, y in pairwise(cuts)]
        return found

    one, two = sorted(set(one)), sorted(set(two))
    same = 0
    for x, y in zip(in_chunks(one), in_chunks(two), strict=False):
        if x != y:
            break
        same = x[1]
    a, b = computed(*pieces(IDS, one)), computed(*pieces(IDS, two))
    assert common_length(a, b) == same
    assert all(x != y for x, y in zip(a[same:], b[same:], strict=True))


def test_ids_that_differ_at_one_place_differ_from_its_chunk_on():
    for place, other in combinations(range(len(IDS)), 2):
        changed = [*IDS]
        changed[place], changed[other] = changed[other], changed[place]
        assert common_length(computed(IDS), computed(changed)) == place - place % CHUNK
