"""What a hostile template may not do: take long, or take much memory, in any one step."""

from __future__ import annotations

import tracemalloc

import pytest

from qcli.text import template_sandbox
from qcli.text.template_functions import EndlessError
from qcli.text.template_sandbox import compiled, render

DOUBLED = "{%% set ns = namespace(x=%s) %%}{%% for i in range(60) %%}{%% set ns.x = %s %%}{%% endfor %%}{{ ns.x }}"
GREEDY = [
    "{{ 'a'.ljust(10 ** 10) }}",
    "{{ 'a'.zfill(10 ** 10) }}",
    "{{ ('\\t' * 1000).expandtabs(10 ** 8) }}",
    "{{ '%10000000000d' % 1 }}",
    "{{ '%*d' % (10000000000, 1) }}",
    "{{ '%10000000000d' | format(1) }}",
    "{{ '{:>10000000000}'.format(1) }}",
    "{{ '{:>{}}'.format(1, 10 ** 10) }}",
    "{{ '{x:>{y}}'.format_map({'x': 1, 'y': 10 ** 10}) }}",
    "{{ ('a' * 1000).replace('a', 'b' * 1000).replace('b', 'c' * 1000) }}",
    "{{ ('a' * 1000) | replace('a', 'b' * 1000) | replace('b', 'c' * 1000) }}",
    "{{ ('a' * 10000).join('b' * 10000) }}",
    "{{ (['a' * 10000] * 10000) | join('x') }}",
    "{{ ('\\n' * 100000) | indent(10 ** 10) }}",
    "{{ strftime_now('%9999999999d') }}",
    "{{ (1).to_bytes(10 ** 10, 'big') }}",
    DOUBLED % ("'aaaa'", "ns.x + ns.x"),
    DOUBLED % ("'aaaa'", "ns.x ~ ns.x"),
    DOUBLED.replace("{%% set ns.x = %s %%}", "{%% set y %%}{{ ns.x }}{{ ns.x }}{%% endset %%}{%% set ns.x = %s %%}")
    % ("'aaaa'", "y"),
    DOUBLED % ("[1]", "[ns.x, ns.x]"),
    DOUBLED % ("[1]", "(ns.x, ns.x)"),
    DOUBLED % ("[1]", "{'a': ns.x, 'b': ns.x}"),
    DOUBLED % ("[1]", "dict(a=ns.x, b=ns.x)"),
    DOUBLED % ("[1]", "[ns.x] * 2"),
    DOUBLED % ("[1]", "ns.x + ns.x"),
    DOUBLED % ("[1]", "namespace(a=ns.x, b=ns.x)"),
]


@pytest.mark.parametrize("source", GREEDY)
def test_what_would_fill_the_memory_is_refused(source, monkeypatch):
    monkeypatch.setattr(template_sandbox, "_TEXT", 1 << 18)
    monkeypatch.setattr(template_sandbox, "_ITEMS", 1 << 12)
    tracemalloc.start()
    try:
        with pytest.raises(EndlessError):
            render(compiled(source), {})
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_a_long_message_may_be_repeated_and_cut():
    text = "word " * (1 << 20)
    source = "{{ m ~ '|' ~ m }}{{ (m + m).split('|') | length }}{{ m.strip() | length }}"
    assert len(render(compiled(source), {"m": text})) == 2 * len(text) + 1 + len("15242879")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ 'a'.ljust(3) ~ '|' }}", "a  |"),
        ("{{ '%05.1f' % 2.5 }}", "002.5"),
        ("{{ '{:>4}'.format(7) }}", "   7"),
        ("{{ 'a-b'.replace('-', '+') | replace('a', 'c') }}", "c+b"),
        ("{{ ['a', 1] | join(', ') }}{{ [{'n': 'x'}, {'n': 'y'}] | join('-', attribute='n') }}", "a, 1x-y"),
        ("{{ 'a\\nb' | indent(2) }}|{{ 'a\\nb' | indent(1, true) }}", "a\n  b| a\n b"),
        ("{{ 'é' | tojson }}{{ 'é<' | tojson(ensure_ascii=true) }}", '"é""\\u00e9<"'),
        ("{{ 2.567 | round(1) }}{{ [1, 2] | sum }}", "2.63"),
        ("{{ (1, 2) == (1, 2) }}{{ {'a': [1]}.a[0] }}", "True1"),
        ("{% for a, b in [(1, 2)] %}{{ a }}{{ b }}{% endfor %}{% set x, y = (3, 4) %}{{ x }}{{ y }}", "1234"),
    ],
)
def test_ordinary_work_goes_on(source, expected):
    assert render(compiled(source), {}) == expected
