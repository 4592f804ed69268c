"""Constraints as they are given: what is right, and what is refused with its place before any model is there."""

from __future__ import annotations

import json
from contextlib import suppress
from time import process_time
from typing import Any

import pytest

from qcli.constraints.constraint import constraint
from qcli.constraints.matcher import Matcher
from qcli.constraints.vocabulary import Vocabulary
from qcli.errors import QcliError, UsageError

BYTES = Vocabulary([bytes([byte]) for byte in range(256)], lambda text: list(text.encode()))
CAT = {
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
    "additionalProperties": False,
}


def fits(text, **given):
    """Whether a text is what a constraint asks for, to its end."""
    wanted = constraint(**given)
    matcher = Matcher(BYTES, wanted.grammar, wanted.is_json)
    return matcher.accept_all(list(text.encode())) and matcher.is_whole


def nested(levels):
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def test_what_fits_each_kind():
    assert constraint() is None
    assert fits('{"name":"Tim"}', schema=CAT)
    assert not fits('{"name":"Tim"', schema=CAT)
    assert not fits('{"name": "Tim"}', schema=CAT)  # white space may come without an end, so there is none
    assert fits("ab", regex="ab?")
    assert not fits("abc", regex="ab?")
    assert [fits(text, choices=["yes", 'say "no"\n']) for text in ("yes", 'say "no"\n', "ye")] == [True, True, False]
    assert fits("1+2*3", grammar='start: NUMBER (OP NUMBER)*\nNUMBER: /[0-9]/\nOP: "+" | "*"\n')


JSON = r"""# a part of llama.cpp's own grammar of JSON
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""


@pytest.mark.parametrize(
    ("grammar", "right", "wrong"),
    [
        ("root ::= a b\na ::= [a-z]+\nb ::= [a-z0-9]+\n", ["ab", "abc9", "a9"], ["a", "9a", ""]),
        ('root ::= "yes" | ("no" "!"{2,3})?\n', ["yes", "no!!", "no!!!", ""], ["no", "no!", "yes!"]),
        (r'root ::= "\u0041\x42" [\u00e9\u4e00-\u4e09]', ["ABé", "AB一"], ["AB", "ABe"]),
        (r'root ::= "\"\\u0041"', ['"\\u0041'], ['"A']),
        ('root ::= "(" root ")" | "x"\n', ["x", "((x))"], ["(x", "()"]),
        (JSON, ['{"a": [1, 2.5, "x\\n"]}', "{}"], ["[1]", '{"a"}', '{"a": "\n"}']),
    ],
)
def test_grammars_of_llama_cpp(grammar, right, wrong):
    assert [text for text in right if not fits(text, grammar=grammar)] == []
    assert [text for text in wrong if fits(text, grammar=grammar)] == []


def test_a_schema_comes_as_a_mapping_as_json_or_in_a_file(tmp_path, monkeypatch):
    (tmp_path / "cat.json").write_text(json.dumps(CAT), "utf-8-sig")
    monkeypatch.chdir(tmp_path)
    grammars = {
        constraint(schema=given).grammar for given in (CAT, f" {json.dumps(CAT)}", "cat.json", tmp_path / "cat.json")
    }
    assert len(grammars) == 1
    assert constraint(schema=True).is_json
    assert not constraint(regex="a").is_json


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "strin"}, "at #: strin is none of the types string,"),
        ({"properties": {"a": {"items": {"not": {}}}}}, 'at #/properties/a/items: "not" cannot be followed'),
        (
            {"properties": {"a": {"$ref": "http://x.org/y"}}},
            "at #/properties/a: $ref to http://x.org/y, which is outside",
        ),
        ({"$ref": "other.json#/a"}, "outside of the schema"),
        ({"$ref": "#/$defs/nothing"}, "does not exist"),
        ({"$ref": "#"}, "no text fits it"),
        (False, "Unsatisfiable"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "minimum (5) is greater than maximum (3)"),
        ({"type": "string", "pattern": "(?=a)b"}, "looks ahead"),
        ({"type": "string", "minLength": 10**12}, "too large"),
        ({"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]}, "anyOf can"),
        ({"enum": [f"x{i}" for i in range(50_000)]}, "too large: more than 10,000 values"),
        ({"properties": {f"p{i}": {"type": "null"} for i in range(1500)}, "type": "object"}, "it is too large"),
        ({"const": "x" * 200_001}, "too large: more than 200,000 characters"),
        ({"properties": {"x" * 200_001: {}}}, "too large: more than 200,000 characters"),
        ({"type": "integer", "multipleOf": 99_999_989}, "multipleOf cannot be followed"),
        ({"allOf": [{"type": "integer", "multipleOf": 9973}, {"multipleOf": 9967}]}, "multipleOf cannot be followed"),
        ({"items": [{"multipleOf": 99_991 - i} for i in range(2)]}, "multipleOf cannot be followed"),
        ({"maximum": float("nan")}, "not JSON"),
        ({"a": {1: 2}}, "not JSON"),
        (nested(60), "nested too deep"),
        ('{"type":\n "integer" 1}', "line 2, column 12"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deep"),
        ('{"maximum":' + "9" * 5000 + "}", "not valid JSON"),
        ('{"maximum":NaN}', "NaN"),
        ("[1]", "a schema is an object"),
        ("nowhere.json", "no such file"),
        ({"name": "Tim", "age": 3}, "no word of JSON Schema in it: name, age"),
        ({"name": "answer", "strict": True, "schema": CAT}, "what stands under schema"),
        ({"type": "json_schema", "json_schema": {"schema": CAT}}, "what stands under json_schema"),
        ({"type": "string", "format": "iri"}, "the format iri cannot be followed"),
        ("-", "standard input"),
        (3, "has no JSON"),
    ],
)
def test_schemas_that_are_refused(schema, said):
    with pytest.raises(QcliError) as caught:
        constraint(schema=schema)
    assert said in caught.value.message
    assert len(caught.value.message.splitlines()) == 1
    assert caught.value.hint


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"regex": "["}, "unclosed character class"),
        ({"regex": r"(a)\1"}, "backreferences"),
        ({"regex": r"[^\s\S]"}, "no text fits it"),
        ({"regex": "a" * (1 << 21)}, "too long"),
        ({"regex": "(a{1,1000}){1,1000}"}, "too large"),
        ({"choices": []}, "cannot be empty"),
        ({"choices": ["a", ""]}, "cannot be empty"),
        ({"choices": "ab"}, "no choices"),
        ({"choices": 3}, "no choices"),
        ({"choices": [f"{i}" for i in range(20_000)]}, "too many"),
        ({"grammar": 'start: "a" b\n'}, 'line 1, column 8: unknown name: "b"'),
        ({"grammar": "start: start\n"}, "no text fits it"),
        ({"grammar": "start: <|im_end|>\n"}, "names tokens of a model"),
        ({"grammar": "start: <[12]>\n"}, "names tokens of a model"),
        ({"grammar": 'root ::= "a\n'}, "line"),
        ({"grammar": "\nroot ::= [z-a]\n"}, "the grammar: invalid character class range"),
        ({"grammar": "start: X\nX: /[z-a]/\n"}, "the grammar: line 2, column 4: invalid character class range"),
        ({"grammar": 'root ::= "a" other\n'}, "other"),
        ({"grammar": 'root ::= "\\uD800"\n'}, "no character"),
        ({"grammar": "root ::= " + "(" * 5000 + '"a"' + ")" * 5000}, "nested too deep"),
        ({"grammar": "nowhere.lark"}, "no such file"),
        ({"grammar": ""}, "the grammar is empty"),
        ({"schema": ""}, "the schema is empty"),
        ({"grammar": '{"grammars":\n[]}'}, "is JSON, not a grammar"),
        ({"grammar": 3}, "not a grammar"),
        ({"schema": {}, "regex": "a"}, "a schema and a regular expression cannot be used together"),
    ],
)
def test_others_that_are_refused(given, said):
    with pytest.raises(QcliError) as caught:
        constraint(**given)
    assert said in caught.value.message
    assert len(caught.value.message.splitlines()) == 1


OPEN = {"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {}}}}, "required": ["a"]}


@pytest.mark.parametrize(
    ("schema", "text", "expected"),
    [
        (OPEN, '{"a":{"b":1}}', True),
        (OPEN, '{"a":{"b":1},"c":2}', False),  # nobody has asked for it
        (OPEN, '{"a":{"c":2}}', False),
        (OPEN | {"additionalProperties": True}, '{"a":{},"c":2}', True),
        ({"$defs": {"x": OPEN}, "$ref": "#/$defs/x"}, '{"a":{},"c":2}', False),
        ({"type": "object"}, '{"c":2}', True),
        ({"properties": {"a": {}}, "required": ["a", "c"]}, '{"a":1,"c":2}', True),
        ({"properties": {"a": {}}, "minProperties": 2, "required": ["a"]}, '{"a":1,"c":2}', True),
        ({"allOf": [{"properties": {"a": {}}}, {"properties": {"c": {}}, "required": ["c"]}]}, '{"a":1,"c":2}', True),
        ({"properties": {"a": {}}, "anyOf": [{"required": ["c"], "properties": {"c": {}}}]}, '{"a":1,"c":2}', True),
        ({"properties": {"properties": {}}, "default": {"properties": {"a": 1}}}, '{"properties":{"z":1}}', True),
    ],
)
def test_properties_that_a_schema_does_not_name_are_not_made_up(schema, text, expected):
    assert fits(text, schema=schema) == expected


def test_a_value_that_fits_two_schemas_of_one_of_does_not_come():
    one, other = ({"type": "object", "properties": {name: {"type": "integer"}}} for name in "ab")
    with pytest.raises(UsageError, match="anyOf can"):  # {"a":1} is right for the other one, too, which allows any name
        constraint(schema={"oneOf": [{**one, "required": ["a"]}, other]})


def test_schemas_are_taken_as_they_are_meant():
    assert not fits("1.5", schema={"properties": {"name": {"type": "string"}}})
    assert fits('"x"', schema={"type": "string", "format": "password"})
    number = {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": "(?=1)1"}]}
    assert fits("1", schema=number)
    assert not fits('"1"', schema=number)


def test_there_may_be_many_choices():
    many = [f"choice {i}" for i in range(9000)]
    assert fits(many[-1], choices=many)
    assert fits(f'"{many[5]}"', schema={"enum": many})


def test_names_that_look_like_keywords_are_none():
    assert fits('{"$ref":"a"}', schema={"type": "object", "properties": {"$ref": {"const": "a"}}, "required": ["$ref"]})
    assert fits('{"$ref":"http://x"}', schema={"const": {"$ref": "http://x"}})


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "((a{1,100}){1,100}){1,100}"},
        {"type": "string", "pattern": "(.*a){30}"},
        {"type": "array", "minItems": 10**9},
        {"const": "x" * 100_000},
        {"type": "object", "patternProperties": {f"^{'a' * i}.*": {} for i in range(300)}},
        {
            "anyOf": [
                {"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(100)}} for _ in range(40)
            ]
        },
        {"allOf": [{"anyOf": [{"properties": {f"a{i}{j}": {}}} for j in range(4)]} for i in range(12)]},
    ],
)
def test_hostile_schemas_take_no_time(schema):
    began = process_time()
    with suppress(QcliError):
        wanted = constraint(schema=schema)
        Matcher(BYTES, wanted.grammar).mask()
    assert process_time() - began < 5


def test_multiples():
    assert [fits(text, schema={"multipleOf": 0.01, "type": "number"}) for text in ("1.25", "1.255")] == [True, False]
    assert [fits(text, schema={"multipleOf": 6_000_000, "type": "integer"}) for text in ("18000000", "7")] == [
        True,
        False,
    ]
    each = {"a": {"multipleOf": 7, "type": "integer"}, "b": {"$ref": "#/$defs/n", "title": "b"}}
    schema = {"type": "object", "properties": each, "$defs": {"n": {"type": "integer", "multipleOf": 250}}}
    assert fits('{"a":14,"b":750}', schema=schema)
    assert not fits('{"a":14,"b":751}', schema=schema)


def test_a_number_has_an_end():
    wanted = constraint(schema={"type": "array", "items": {"type": ["number", "string"]}})
    matcher = Matcher(BYTES, wanted.grammar, is_json=True)
    assert matcher.accept_all(list(b'["' + b"7" * 50 + b'",0.' + b"3" * 20))
    mask, may_end = matcher.mask()
    assert not may_end
    assert [chr(byte) for byte in range(256) if BYTES.has(mask, byte)] == [",", "E", "]", "e"]
    exact = constraint(schema={"type": "integer", "minimum": 10**17, "maximum": 10**17 + 1})
    matcher = Matcher(BYTES, exact.grammar, is_json=True)
    assert matcher.accept_all(list(b"10000000000000000"))
    assert matcher.forced() == list(b"0")


def test_a_wrong_type_is_a_mistake_in_use():
    with pytest.raises(UsageError):
        constraint(regex=3)
