"""Chat templates: ChatML one can write by hand, published templates, and templates that mean harm."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from places import DATA, ROOT

from qcli.errors import ModelFileError, TemplateError, UsageError
from qcli.gguf.file import GGUFFile
from qcli.text import template_functions, template_sandbox
from qcli.text.chat_template import ChatTemplate
from qcli.text.default_templates import CHATML
from qcli.text.tokenizer import Tokenizer
from qcli.text.user_text import ControlTexts

CONVERSATIONS: dict[str, dict[str, Any]] = json.loads((DATA / "conversations.json").read_text("utf-8"))
RENDERED = sorted(tuple(path.stem.rsplit(".", 1)) for path in (DATA / "templates").glob("*.txt"))
HELLO = [{"role": "user", "content": "Hello"}]


def render(source: str, **variables: Any) -> str:
    return ChatTemplate(source).render(HELLO, **variables)


def test_chatml() -> None:
    assert render(CHATML) == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert render(CHATML, add_generation_prompt=False) == "<|im_start|>user\nHello<|im_end|>\n"


@pytest.mark.parametrize(("template", "conversation"), RENDERED)
def test_published_templates(monkeypatch: pytest.MonkeyPatch, template: str, conversation: str) -> None:
    monkeypatch.setattr(template_functions, "datetime", Noon)
    source = (DATA / "templates" / f"{template}.jinja").read_text("utf-8")
    expected = (DATA / "templates" / f"{template}.{conversation}.txt").read_bytes().decode()
    assert ChatTemplate(source).render(**CONVERSATIONS[conversation]) == expected


class Noon(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> Noon:
        return cls(2026, 11, 23, 12, 30)


def test_a_file_brings_its_template_and_tokens() -> None:
    tokenizer = SimpleNamespace(bos_id=1, eos_id=None, token=lambda id: f"<{id}>")
    file = _file(**{"tokenizer.chat_template": "{{ bos_token }}|{{ eos_token }}|{{ messages[0].content }}"})
    assert ChatTemplate.from_gguf(file, tokenizer).render(HELLO) == "<1>||Hello"


TALK = [*HELLO, {"role": "assistant", "content": "Hi."}, {"role": "user", "content": "Bye"}]
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (
            "",
            "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n",
        ),
        (
            "<start_of_turn>",
            "<B><start_of_turn>user\nHello<end_of_turn>\n<start_of_turn>model\nHi.<end_of_turn>\n"
            "<start_of_turn>user\nBye<end_of_turn>\n",
        ),
        (
            "<|start_header_id|>",
            "<B><|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nHi.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>",
        ),
        (
            "<|start_of_role|>",
            "<|start_of_role|>user<|end_of_role|>Hello<|end_of_text|>\n"
            "<|start_of_role|>assistant<|end_of_role|>Hi.<|end_of_text|>\n"
            "<|start_of_role|>user<|end_of_role|>Bye<|end_of_text|>\n",
        ),
        ("[gMASK]", "[gMASK]<sop><|user|>\nHello<|assistant|>\nHi.<|user|>\nBye"),
        ("<｜User｜>", "<B><｜User｜>Hello<｜Assistant｜>Hi.<E><｜User｜>Bye"),
    ],
)
def test_a_file_without_a_template_gets_that_of_its_tokens(token: str, expected: str) -> None:
    template = _without_template(token)
    assert template.render(TALK, add_generation_prompt=False) == expected
    assert len(template.render(TALK)) > len(expected)
    assert "Be brief." in template.render([SYSTEM, *HELLO])


def test_gpt_oss_without_a_template_gets_the_one_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_functions, "datetime", Noon)
    published = ChatTemplate((DATA / "templates" / "openai-gpt-oss-120b.jinja").read_text("utf-8"))
    for talk in ([SYSTEM, *HELLO], TALK):
        assert _without_template("<|channel|>").render(talk) == published.render(talk)


def _without_template(token: str) -> ChatTemplate:
    tokens = {1: "<B>", 2: "<E>"}
    found = {token: 3}
    tokenizer = SimpleNamespace(bos_id=1, eos_id=2, token=tokens.get, special_id=found.get)
    return ChatTemplate.from_gguf(_file(), tokenizer)


AFTER = {
    "Qwen3.5-4B": "<|im_end|>",
    "GLM-4.6": "",
    "Qwen-QwQ-32B": "<|im_end|>",
    "HuggingFaceTB-SmolLM3-3B": "<|im_end|>",
    "deepseek-ai-DeepSeek-V3.1": "<｜end▁of▁sentence｜>",
    "ibm-granite-granite-4.0": "<|end_of_text|>",
    "mistralai-Mistral-Nemo-Instruct-2407": "<E>",
    "openai-gpt-oss-120b": "",  # whose <|end|> ends a message, not the turn
}


@pytest.mark.parametrize(("name", "token"), AFTER.items())
def test_what_a_template_writes_after_an_answer(name: str, token: str) -> None:
    source = (DATA / "templates" / f"{name}.jinja").read_text("utf-8")
    assert ChatTemplate(source, eos_token="<E>").after_answer().strip() == token


def test_a_template_that_reads_parts_alone_gets_parts() -> None:
    parts = "{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %};{% endfor %}"
    assert ChatTemplate(parts).render(HELLO) == "Hello;"
    both = "{% for m in messages %}{{ m.content if m.content is string else 'PARTS' }};{% endfor %}"
    assert ChatTemplate(both).render(HELLO) == "Hello;"


@pytest.mark.parametrize("role", ["system", "user", "tool"])
def test_a_template_that_leaves_somebody_out_is_told(role: str) -> None:
    deaf = "{% for m in messages %}{% if m.role != '" + role + "' %}{{ m.content }}{% endif %}{% endfor %}"
    talk = [{"role": role, "content": "Mind this."}, *HELLO]
    with pytest.raises(UsageError, match=f"leaves out what the {role} says"):
        ChatTemplate(deaf).prompt(talk, ControlTexts([]))
    assert ChatTemplate(deaf).prompt([{"role": "assistant", "content": "Hm."}], ControlTexts([])).text == "Hm."


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"role": "usr", "content": "a"}, "no role is called 'usr'"),
        ({"content": "a"}, "is no message"),
        ("Hello", "is no message"),
        ({"role": "user", "content": 7}, "the content of a message is 7"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "a part that is no text: 'image_url'"),
    ],
)
def test_what_is_no_message_is_the_users_business(message: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ChatTemplate(CHATML).render([message])


def test_content_may_be_parts_or_nothing() -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    assert ChatTemplate(CHATML).render([{"role": "user", "content": parts}]).count("Hel\nlo<|im_end|>") == 1
    silent = [HELLO[0], {"role": "assistant", "content": None}, {"role": "user"}]
    assert ChatTemplate(CHATML).render(silent).count("\n<|im_end|>") == 2


def test_harmony_leaves_thoughts_out_of_the_history() -> None:
    source = (DATA / "templates" / "openai-gpt-oss-120b.jinja").read_text("utf-8")
    answer = {"role": "assistant", "content": "<think>A greeting.</think>Hi."}
    talk = ChatTemplate(source).render([HELLO[0], answer, TALK[2]])
    assert "<|start|>assistant<|channel|>final<|message|>Hi.<|end|>" in talk
    assert "A greeting." not in talk


def _file(**metadata: Any) -> GGUFFile:
    return SimpleNamespace(path=Path("/home/me/some.gguf"), get_str=lambda key, default: metadata.get(key, default))  # type: ignore[return-value]


def test_the_embedded_model_speaks_chatml() -> None:
    path = ROOT / "qcli" / "assets" / "storyteller-Q4_K_M.gguf"
    with GGUFFile.open(path) as file:
        template = ChatTemplate.from_gguf(file, Tokenizer.from_gguf(file))
    assert template.render(HELLO) == render(CHATML)


def test_blocks_leave_no_lines_behind() -> None:
    assert render("{% if true %}\n  {% set x = 1 %}\n{{ x }}\n{% endif %}\n") == "1\n"


def test_helpers() -> None:
    assert render("{{ {'a': '<é>'} | tojson }}") == '{"a": "<é>"}'
    assert render("{{ [1] | tojson(indent=1) }}") == "[\n 1\n]"
    assert render("{{ strftime_now('%Y') }}") == str(datetime.now().year)
    assert render("{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "012"
    assert render("{{ '-' * 3 }}{{ 2 * 2.5 }}{{ 2 ** 3 }}{{ [0] * 2 }}") == "---5.08[0, 0]"
    assert render("{{ tools is none }}{{ thinking }}", thinking="yes") == "Trueyes"
    assert render("{% if true %}{% generation %}{{ messages[0].content }}{% endgeneration %}{% endif %}!") == "Hello!"
    assert (
        render("{% set ns = namespace(n=0) %}{% for i in range(3) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}")
        == "3"
    )


def test_a_refusal_is_the_users_business() -> None:
    with pytest.raises(UsageError, match="no system messages here"):
        render("{{ raise_exception('no system messages here') }}")


NESTED = f"{{{{ {'(' * 3000}{')' * 3000} }}}}"


def test_the_folder_of_a_file_is_told_to_nobody() -> None:
    tokenizer = SimpleNamespace(bos_id=None, eos_id=None)
    template = ChatTemplate.from_gguf(_file(**{"tokenizer.chat_template": "{{ 1 / 0 }}"}), tokenizer)
    with pytest.raises(TemplateError, match=r"^some\.gguf: the chat template is broken"):
        template.render(HELLO)


@pytest.mark.parametrize("source", ["{% for", "{{ 1 +", "{% nonsense %}", NESTED])
def test_what_does_not_parse_is_refused_at_once(source: str) -> None:
    with pytest.raises(ModelFileError, match=r"some\.gguf: the chat template is broken"):
        ChatTemplate(source, origin="some.gguf")


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[0].missing.deeper }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ 1 / 0 }}",
        "{% include '/etc/passwd' %}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ 10 ** (10 ** 10) }}",
        "{% set ns = namespace(x=3) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
        "{{ 'x' * 10000000000 }}",
        "{{ range(1000000000) | list }}",
    ],
)
def test_harm_ends_in_one_clear_error(source: str) -> None:
    with pytest.raises(TemplateError, match="the chat template is broken"):
        render(source)


def test_endless_templates_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_sandbox, "_SECONDS", 0.05)
    before = sys.gettrace()
    with pytest.raises(ModelFileError, match=r"runs for more than 0\.05 s"):
        render("{% for i in range(99999) %}{% for j in range(99999) %}{% set x = 1 %}" + "{% endfor %}" * 2)
    assert sys.gettrace() is before


def test_endless_output_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_sandbox, "_TEXT", 1000)
    with pytest.raises(ModelFileError, match="makes a huge text"):
        render("{% for i in range(99999) %}some text{% endfor %}")
