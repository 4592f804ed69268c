"""What a header tells of the memory that keys and values take."""

from __future__ import annotations

from qcli.bench.gemma_shapes import GEMMA4_26B
from qcli.forecast.glance import amounts
from qcli.forecast.known_shape import header_of_shape


def test_a_window_does_not_grow_with_the_context():
    file = header_of_shape(GEMMA4_26B)
    one, two, four = (amounts(file, ctx).beside for ctx in (1 << 10, 1 << 14, 1 << 15))
    keys, local = 2 * 512, 2 * 8 * 256  # values of each token; layers that see all have values that are their keys
    assert four - two == (1 << 14) * 5 * keys * 2
    assert two - one == ((1 << 14) - (1 << 10)) * 5 * keys * 2 + (2048 - (1 << 10)) * 25 * local * 2
