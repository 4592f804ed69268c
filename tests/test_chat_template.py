"""Chat templates: ChatML one can write by hand, published templates, and templates that mean harm."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qcli import chat_template
from qcli.chat_template import CHATML, ChatTemplate
from qcli.errors import ModelFileError, UsageError
from qcli.gguf_file import GGUFFile
from qcli.tokenizer import Tokenizer

DATA = Path(__file__).parent / "data"
CONVERSATIONS: dict[str, dict[str, Any]] = json.loads((DATA / "conversations.json").read_text("utf-8"))
TEMPLATES = sorted(path.stem for path in (DATA / "templates").glob("*.jinja"))
HELLO = [{"role": "user", "content": "Hello"}]


def render(source: str, **variables: Any) -> str:
    return ChatTemplate(source).render(HELLO, **variables)


def test_chatml() -> None:
    assert render(CHATML) == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert render(CHATML, add_generation_prompt=False) == "<|im_start|>user\nHello<|im_end|>\n"


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_published_templates(template: str, conversation: str) -> None:
    source = (DATA / "templates" / f"{template}.jinja").read_text("utf-8")
    expected = (DATA / "templates" / f"{template}.{conversation}.txt").read_bytes().decode()
    assert ChatTemplate(source).render(**CONVERSATIONS[conversation]) == expected


def test_a_file_brings_its_template_and_tokens() -> None:
    tokenizer = SimpleNamespace(bos_id=1, eos_id=None, token=lambda id: f"<{id}>")
    file = _file(**{"tokenizer.chat_template": "{{ bos_token }}|{{ eos_token }}|{{ messages[0].content }}"})
    assert ChatTemplate.from_gguf(file, tokenizer).render(HELLO) == "<1>||Hello"  # type: ignore[arg-type]


def test_a_file_without_a_template_means_chatml() -> None:
    tokenizer = SimpleNamespace(bos_id=None, eos_id=None)
    assert ChatTemplate.from_gguf(_file(), tokenizer).render(HELLO) == render(CHATML)  # type: ignore[arg-type]


def _file(**metadata: Any) -> GGUFFile:
    return SimpleNamespace(path=Path("some.gguf"), get_str=metadata.get)  # type: ignore[return-value]


def test_the_embedded_model_speaks_chatml() -> None:
    path = Path(chat_template.__file__).parent / "assets" / "storyteller-Q4_K_M.gguf"
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


def test_a_refusal_is_the_users_business() -> None:
    with pytest.raises(UsageError, match="no system messages here"):
        render("{{ raise_exception('no system messages here') }}")


NESTED = f"{{{{ {'(' * 3000}{')' * 3000} }}}}"


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
    with pytest.raises(ModelFileError, match="the chat template is broken"):
        render(source)


def test_endless_templates_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "_SECONDS", 0.05)
    before = sys.gettrace()
    with pytest.raises(ModelFileError, match=r"runs for more than 0\.05 s"):
        render("{% for i in range(99999) %}{% for j in range(99999) %}{% set x = 1 %}" + "{% endfor %}" * 2)
    assert sys.gettrace() is before


def test_endless_output_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "_CHARACTERS", 1000)
    with pytest.raises(ModelFileError, match="writes more than 1000 characters"):
        render("{% for i in range(99999) %}some text{% endfor %}")
