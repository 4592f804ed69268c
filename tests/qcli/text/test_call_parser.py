"""Tool calls in the ids of an answer: whole calls, whatever the pieces; nothing of them in the text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pytest
import vocabularies
from hypothesis import given, settings
from hypothesis import strategies as st

from qcli.text.call_parser import CallParser
from qcli.text.harmony_calls import HarmonyCallParser
from qcli.text.think_tags import find_think_tags
from qcli.text.thoughts import AnswerParser, Thought, answer_parser
from qcli.text.tokenizer import Tokenizer
from qcli.tools.call import MalformedCall, ToolCall
from qcli.tools.notation import Notation, find_notation
from qcli.tools.tool import Tools, checked_tools

CITY, DAYS = {"type": "string"}, {"type": "integer"}
WEATHER = {"name": "weather", "parameters": {"properties": {"city": CITY, "days": DAYS}, "required": ["city"]}}
NOTE = {
    "name": "note",
    "parameters": {"properties": {"text": CITY, "tags": {"type": "array"}, "on": {"type": "boolean"}}},
}
TOOLS = checked_tools([WEATHER, NOTE, {"name": "now"}])
CALLS = [
    ("weather", {"city": "Zürich", "days": 1}),
    ("note", {"text": 'a "b" {c} [d]\n</tool> \\ é 你', "tags": ["x", {"y": None}], "on": True}),
    ("now", {}),
]
MARKERS = {  # of each family: special tokens with their types, and what its template holds
    "json": ({"<tool_call>": 4, "</tool_call>": 4, "<think>": 4, "</think>": 4}, "<tool_call> <think> </think>"),
    "xml": ({"<tool_call>": 4, "</tool_call>": 4, "<think>": 4, "</think>": 4}, "<tool_call> <function=x> <think>"),
    "spelled": ({"<x>": 3}, "<tool_call> <function=x>"),
    "pairs": ({"<tool_call>": 4, "</tool_call>": 4, "<arg_key>": 4, "</arg_key>": 4, "<arg_value>": 4}, "<arg_key>"),
    "python": ({"<|tool_call_start|>": 3, "<|tool_call_end|>": 3}, ""),
    "mistral": ({"[TOOL_CALLS]": 3, "[ARGS]": 3}, ""),
    "mistral list": ({"[TOOL_CALLS]": 3}, ""),
    "json list": ({"<|tool_call|>": 3}, ""),
    "gemma": ({"<|tool_call>": 4, "<tool_call|>": 4, '<|"|>': 4, "<|channel>": 4, "<channel|>": 4}, ""),
    "closed list": ({"<TOOLCALL>": 4, "</TOOLCALL>": 4}, "<TOOLCALL> <think>"),
    "harmony": (
        dict.fromkeys(["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>", "<|constrain|>"], 3),
        "",
    ),
}
TAGGED = ("json", "xml", "spelled", "pairs")


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Tokenizer, Notation, str]]:
    """Of each family a vocabulary with a token for every byte, its notation, and its template."""
    folder, found = tmp_path_factory.mktemp("families"), {}
    for name, (special, template) in MARKERS.items():
        tokenizer = Tokenizer.from_gguf(vocabularies.of_bytes(folder / f"{name}.gguf", special))
        notation = find_notation(special, template)
        assert notation
        found[name] = tokenizer, notation, template
    return found


def parser_of(family: tuple[Tokenizer, Notation, str], prompt: str = "", tools: Tools = TOOLS) -> AnswerParser:
    tokenizer, notation, template = family
    if notation.family == "harmony":
        return HarmonyCallParser(tokenizer, "<|start|>assistant", tools)
    thoughts = answer_parser(tokenizer, find_think_tags(tokenizer, template), prompt)
    return CallParser(thoughts, tokenizer, notation, tools)


def read(family: tuple[Tokenizer, Notation, str], said: str | list[int], prompt: str = "") -> dict[str, Any]:
    """Text, thoughts, calls, and what began as a call and is none."""
    parser = parser_of(family, prompt)
    ids = family[0].encode(said) if isinstance(said, str) else said
    return sorted_out([piece for id in ids for piece in parser.push(id)] + [*parser.flush()])


def sorted_out(pieces: Iterable[str]) -> dict[str, Any]:
    pieces = [*pieces]
    kinds = Thought | ToolCall | MalformedCall
    return {
        "text": "".join(piece for piece in pieces if not isinstance(piece, kinds)),
        "thoughts": "".join(piece for piece in pieces if isinstance(piece, Thought)),
        "calls": [(piece.name, piece.arguments) for piece in pieces if isinstance(piece, ToolCall)],
        "malformed": [str(piece) for piece in pieces if isinstance(piece, MalformedCall)],
    }


def only(text: str = "", calls: list[Any] | None = None, thoughts: str = "", malformed: list[str] | None = None) -> Any:
    return {"text": text, "thoughts": thoughts, "calls": calls or [], "malformed": malformed or []}


@pytest.mark.parametrize("family", MARKERS)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_calls_as_each_family_writes_them(families: Any, family: str, n: int) -> None:
    notation = families[family][1]
    calls = [ToolCall(*call) for call in CALLS[:n]]
    said = notation.written(calls)
    before = "" if family == "harmony" else "I look.\n\n"
    said = said.replace("<|call|><|channel|>", "<|call|><|start|>assistant<|channel|>")
    assert read(families[family], before + said) == only(before.strip(), CALLS[:n])


@pytest.mark.parametrize("family", MARKERS)
def test_what_is_cut_is_never_shown(families: Any, family: str) -> None:
    """Cut at every token, an answer has whole calls or none, and nothing of a half one in its text."""
    tokenizer, notation, _ = families[family]
    said = notation.written([ToolCall(*call) for call in CALLS[:2]])
    ids = tokenizer.encode(said.replace("<|call|><|channel|>", "<|call|><|start|>assistant<|channel|>"))
    for end in range(len(ids) + 1):
        found = read(families[family], ids[:end])
        assert found["text"] in ("", *("<tool_"[:n] for n in range(6)))
        assert found["calls"] in ([], CALLS[:1], CALLS[:2])


@pytest.mark.parametrize("family", TAGGED)
def test_a_call_ends_the_thought_that_it_is_in(families: Any, family: str) -> None:
    _, notation, template = families[family]
    said = notation.written([ToolCall(*CALLS[0])])
    if "<think>" in template:
        opened = read(families[family], f"hm {said}", "assistant<think>\n")
        assert opened == only("", CALLS[:1], "hm </think>")
        own = read(families[family], f"<think>hm{said}<think>more</think>Done.")
        assert own == only("Done.", CALLS[:1], "<think>hm</think><think>more</think>")


def test_a_whole_function_of_a_tool_begins_a_call_and_nothing_less(families: Any) -> None:
    said = "Yes: <function=weather>\n<parameter=city>\nA\n</parameter>\n</function>\n</tool_call>"
    assert read(families["xml"], said) == only("Yes:", [("weather", {"city": "A"})])
    for text in ("#include <functional>\nstd::<function=x>", "<function", "<function=weathe", "<function=other>"):
        assert read(families["xml"], text) == only(text)


@pytest.mark.parametrize("template", ["<tool_call>", "<tool_call><function=", "<tool_call><arg_key>"])
def test_tokens_of_several_letters(storyteller_tokenizer: Tokenizer, template: str) -> None:
    """Which hold the end of a marker and the beginning of what follows it."""
    notation = find_notation((), template)
    assert notation
    family = storyteller_tokenizer, notation, template
    for calls in (CALLS[:1], CALLS):
        said = "I look.\n\n" + notation.written([ToolCall(*call) for call in calls]) + "\nAnd < that."
        assert read(family, said) == only("I look.\nAnd < that.", calls)


def test_values_that_look_like_markup_stay_values(families: Any) -> None:
    value = "if a < b:\n  </function>\n<tool_call> </parameter> x"
    said = f"<tool_call>\n<function=note>\n<parameter=text>\n{value}\n</parameter>\n</function>\n</tool_call>"
    assert read(families["xml"], said) == only("", [("note", {"text": value})])


@pytest.mark.parametrize(
    "text", ["<tool_call> marks a call", "a <tool_call>", "1 < 2 <tool", "<tool_call>\nhm\n\nyes \n"]
)
@pytest.mark.parametrize("family", ["json", "spelled"])
def test_text_that_is_certain_to_be_no_call_passes(families: Any, family: str, text: str) -> None:
    found = read(families[family], text)
    assert found == only(text) or (text.endswith("_call>") and found == only("a", malformed=["<tool_call>"]))


@pytest.mark.parametrize(
    "inside",
    [
        '{"name": 1}',
        '{"name": "weather", "arguments": 3}',
        '{"name": NaN}',
        "{" * 3000 + "}" * 3000,
        '{"a": ' + "9" * 5000 + "}",
    ],
)
def test_what_began_as_a_call_and_is_none_is_no_text(families: Any, inside: str) -> None:
    found = read(families["json"], f"Well. <tool_call>{inside}</tool_call>\nSo.")
    assert (found["text"], found["calls"], len(found["malformed"])) == ("Well.\nSo.", [], 1)


def test_forgiven_spellings(families: Any) -> None:
    for inside in (
        '{"name": "weather", "arguments": "{\\"city\\": \\"A\\", \\"days\\": 2.0}"}',
        '{"type": "function", "function": {"name": "weather", "parameters": {"city": "A", "days": 2}}}',
        '[{"name": "weather", "arguments": {"days": 2, "city": "A"}}]',
        "<function=weather><parameter=city>A</parameter><parameter=days> 2 </parameter></function>",
    ):
        assert read(families["xml"], f"<tool_call>{inside}</tool_call>")["calls"] == [
            ("weather", {"city": "A", "days": 2})
        ]
    several = '<tool_call>\n{"name": "now"}\n{"name": "now", "arguments": {}}\n</tool_call>'
    assert read(families["json"], several) == only("", [("now", {})] * 2)


def test_names_that_python_would_not_read(families: Any) -> None:
    tools = checked_tools([{"name": "get-time", "parameters": {"properties": {"at": CITY}}}])
    parser = parser_of(families["python"], tools=tools)
    said = '<|tool_call_start|>[get-time(at="call get-time(x)")]<|tool_call_end|>'
    pieces = [piece for id in families["python"][0].encode(said) for piece in parser.push(id)]
    assert sorted_out(pieces) == only("", [("get-time", {"at": "call get-time(x)"})])


def test_headers_of_harmony(families: Any) -> None:
    call = '<|message|>{"city": "A"}<|call|>'
    for header in (
        "<|channel|>commentary to=functions.weather <|constrain|>json",
        " to=functions.weather<|channel|>commentary json",
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary to=functions.weather json",
    ):
        found = read(families["harmony"], header + call)
        assert (found["text"], found["calls"]) == ("", [("weather", {"city": "A"})])
    cut = read(families["harmony"], '<|channel|>commentary to=functions.weather<|message|>{"ci')
    assert cut == only("", malformed=['to=weather {"ci'])
    assert read(families["harmony"], "<|channel|>final<|message|>to=functions.weather") == only("to=functions.weather")


PARTS = [
    *("<tool_call>", "</tool_call>", "<function=weather>", "</function>", "<parameter=city>", "</parameter>", "\n"),
    *('{"name": "now"', ', "arguments": {}', "}", "[", "]", "<arg_key>", "</arg_key>", "<arg_value>", "now", " é"),
    *("[TOOL_CALLS]", "[ARGS]", "<|tool_call_start|>", "<|tool_call_end|>", "now()", "<think>", "</think>", '"', "\\"),
    *(
        "<|channel|>",
        "commentary to=functions.now",
        "<|message|>",
        "<|end|>",
        "<|call|>",
        "<|tool_call|>",
        "x",
        "<",
        "final",
    ),
]


@settings(max_examples=12, deadline=None)
@given(parts=st.lists(st.sampled_from(PARTS), max_size=16))
def test_no_stream_breaks_a_parser(families: Any, parts: list[str]) -> None:
    """Whatever comes: calls are whole, stay what they were when more comes, and no marker of one is in the text."""
    said = "".join(parts)
    for family in families.values():
        found, more = read(family, said), read(family, said + "q")
        begins = re.escape(family[1].begin) + (r"\s*(\{|<function=)" if family[1].begin == "<tool_call>" else "")
        assert not re.search(begins, found["text"])
        assert all(isinstance(arguments, dict) for _, arguments in found["calls"])
        assert found["calls"][: len(more["calls"])] == more["calls"]
