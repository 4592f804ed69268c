"""How a model is told to think or not, and how its thoughts are closed, by templates as they are published and made up."""

from __future__ import annotations

from pathlib import Path

import pytest
from places import DATA

from qcli.errors import UsageError
from qcli.text.chat_template import ChatTemplate
from qcli.text.default_templates import CHATML
from qcli.text.think_setting import WORDS, think_setting
from qcli.text.think_tags import ThinkTags
from qcli.text.thinking import Thinking
from qcli.text.user_text import ControlTexts

TAGS = [ThinkTags("<think>", "</think>", None, None)]
CHANNEL = [ThinkTags("<|channel>thought", "<channel|>", 1, 2, "thought")]
EMPTY = "<think>\n\n</think>\n\n"
OPENS = "{{ messages[-1].content }}{% if add_generation_prompt %}<think>\n{% endif %}"
QWEN3 = "Considering the limited time by the user, I have to give the solution based on the thinking directly now.\n"


def thinking(template: str, tags=TAGS, harmony: bool = False, architecture: str = "") -> Thinking:
    return Thinking(ChatTemplate(template), tags, harmony, architecture)


def published(name: str, **known) -> Thinking:
    harmony = "gpt-oss" in name
    source = Path(DATA / "templates" / f"{name}.jinja").read_text("utf-8")
    return thinking(source, [] if harmony else CHANNEL if "gemma-4" in name else TAGS, harmony, **known)


def asked(how: Thinking, think: str | int) -> str:
    """The prompt for the answer to a question."""
    return how._template.prompt([{"role": "user", "content": "a"}], ControlTexts([]), manner=how.manner(think)).text


@pytest.mark.parametrize(
    ("name", "on", "off", "efforts"),
    [
        ("Qwen-Qwen3-0.6B", "assistant\n", f"assistant\n{EMPTY}", ()),
        ("Qwen3.5-4B", "assistant\n<think>\n", f"assistant\n{EMPTY}", ()),
        ("Qwen-QwQ-32B", "assistant\n<think>\n", "assistant\n<think>\n</think>", ()),
        ("deepseek-ai-DeepSeek-V3.1", "<｜Assistant｜><think>", "<｜Assistant｜><think></think>", ()),
        ("GLM-4.6", "a<|assistant|>", "a/nothink<|assistant|>\n<think></think>", ()),
        ("HuggingFaceTB-SmolLM3-3B", "assistant\n", "assistant\n<think>\n\n</think>\n", ()),
        ("google-gemma-4", "<|turn>model\n", "<|turn>model\n<|channel>thought\n<channel|>", ()),
        ("Qwen3-Coder", "assistant\n", "assistant\n", ()),  # its vocabulary has tags, and it does not think
        (
            "openai-gpt-oss-120b",
            "<|start|>assistant",
            "<|start|>assistant<|channel|>final<|message|>",
            ("low", "medium", "high"),
        ),
    ],
)
def test_what_published_templates_offer(name, on, off, efforts):
    how = published(name)
    assert how.efforts == efforts
    assert asked(how, "off").endswith(off)
    for think in ("on", "hide", 100, *efforts):
        assert asked(how, think).endswith(on)
    for effort in efforts:
        assert f"Reasoning: {effort}" in asked(how, effort)
    assert how.manner(None) == how.manner("default")
    assert asked(how, "default") == how._template.render([{"role": "user", "content": "a"}])


def test_an_empty_thought_is_written_as_the_template_writes_thoughts():
    history = "{% for m in messages %}{{ '<think> ' + m.reasoning_content + ' </think>\\n' if m.reasoning_content }}"
    tight = f"{history}{{{{ m.content }}}}{{% endfor %}}{{% if add_generation_prompt %}}A:{{% endif %}}"
    assert asked(thinking(tight), "off") == "aA:<think>  </think>\n"
    assert asked(thinking(CHATML), "off").endswith("assistant\n")
    assert asked(thinking(OPENS), "off") == f"a{EMPTY}"
    assert asked(thinking(OPENS.replace("<think>\n", "<think>")), "off") == f"a{EMPTY}"
    assert asked(thinking(OPENS.replace("<think>\n", "<think></think>")), "off") == "a<think></think>"


def test_tags_of_the_vocabulary_and_of_the_template_are_found():
    pairs = [ThinkTags("<think>", "</think>", 1, 2), ThinkTags("[THINK]", "[/THINK]", 3, 4)]
    assert asked(thinking("{{ messages[0].content }}[THINK]", pairs), "off") == "a[THINK]\n\n[/THINK]\n\n"
    spelled = [ThinkTags("<a:think>", "</a:think>", None, None), pairs[0]]
    assert asked(thinking("<think>{{ messages[0].content }}", spelled), "off") == f"<think>a{EMPTY}"


def test_closing_words():
    assert published("Qwen-Qwen3-0.6B", architecture="qwen3moe").closing_words == f"\n\n{QWEN3}</think>\n\n"
    assert published("GLM-4.6").closing_words.endswith("now.</think>\n")
    assert published("openai-gpt-oss-120b").closing_words == "<|end|><|start|>assistant<|channel|>final<|message|>"
    assert thinking(CHATML, []).closing_words == ""


@pytest.mark.parametrize(
    ("source", "efforts"),
    [
        ("{{ reasoning_effort }}a", ("low", "medium", "high")),
        ("{% if reasoning_effort == 'high' %}!{% endif %}a", ("low", "medium", "high")),
        ("{% if reasoning_effort == 'max' %}!{% endif %}a", ()),
        ("{% if reasoning_effort is defined and reasoning_effort != 'high' %}{{ raise_exception('') }}{% endif %}", ()),
        (
            "{% if reasoning_effort == 'low' %}{{ raise_exception('') }}{% endif %}{{ reasoning_effort }}",
            ("medium", "high"),
        ),
        ("{% if thinking %}T{{ reasoning_effort }}{% endif %}a", ("low", "medium", "high")),
    ],
)
def test_efforts_are_those_that_make_a_difference(source, efforts):
    how = thinking(source)
    assert how.efforts == efforts
    for effort in {"low", "medium", "high"} - {*efforts}:
        with pytest.raises(UsageError, match=f"^think cannot be {effort} with this model") as problem:
            how.manner(effort)
        assert problem.value.hint == f"give {', '.join(how.words)}, or a number of tokens"


def test_a_model_that_does_not_think():
    how = thinking("a", [])
    assert {how.manner(think) for think in ("default", "off", "hide", 5)} == {how.manner(None)}
    for think in ("on", "low"):
        with pytest.raises(UsageError, match=r"think cannot be .*: this model does not think"):
            how.manner(think)


def test_a_template_that_refuses_everything_offers_nothing():
    how = thinking("{{ raise_exception('no') }} enable_thinking reasoning_effort", [])
    assert (how.thinks, how.efforts) == (False, ())
    assert thinking("{{ raise_exception('no') }}").manner("off").ending == ""
    assert thinking("{{ raise_exception('</think>') }}").manner("off").ending == EMPTY


@pytest.mark.parametrize("typed", [*WORDS, "OFF", " on ", "200", 200, 1])
def test_what_can_be_said(typed):
    assert think_setting("think", typed) == (int(typed) if str(typed).isdigit() else typed.strip().lower())


def test_other_words_for_on_and_off():
    assert {think_setting("think", off) for off in (0, "0", "000", False)} == {"off"}
    assert think_setting("think", True) == "on"


@pytest.mark.parametrize("typed", ["", "maybe", "-1", -1, 1.5, "1.5", None, [], "²", "9" * 10, "x" * 5000])
def test_what_cannot_be_said(typed):
    with pytest.raises(UsageError, match=r"^--think cannot be ") as problem:
        think_setting("--think", typed)
    assert "on, off, hide, low, medium, high, or a number of tokens" in problem.value.hint
    assert len(problem.value.message) < 100
