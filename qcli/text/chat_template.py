"""The chat template of a model file: messages in, the prompt text out; in the dialect Hugging Face renders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Final, Literal

from jinja2.exceptions import TemplateSyntaxError

from qcli.errors import ModelFileError, QcliError, TemplateError, UsageError
from qcli.gguf.file import GGUFFile
from qcli.text import template_sandbox
from qcli.text.call_messages import OTHER_TOOL, PROBE, PROBE_TALK, PROBE_TOOL, with_answered_calls, with_calls
from qcli.text.content import checked
from qcli.text.default_templates import default_template
from qcli.text.template_functions import RefusalError
from qcli.text.thoughts import without_thoughts
from qcli.text.tokenizer import Tokenizer
from qcli.text.user_text import ControlTexts, free_mark, sealed_message, sealed_value

_ITSELF: Final = "`qcli run --raw` prompts without the template"
_PROBE: Final = "Zq7wordX"  # a word that no template writes itself

Form = Literal["text", "parts", "left out"]  # how a template reads the content of a message


@dataclass(frozen=True)
class Prompt:
    """A rendered conversation; `mark` stands in what looks like a control token and is people's text."""

    text: str
    mark: str


@dataclass(frozen=True)
class Manner:
    """How a template is asked to write the prompt for an answer: variables of its own, and what follows its text."""

    variables: tuple[tuple[str, Any], ...] = ()
    ending: str = ""


PLAIN: Final = Manner()  # what the template does by itself


class ChatTemplate:
    """A compiled chat template. Raises ModelFileError if it does not parse."""

    def __init__(self, source: str, *, bos_token: str = "", eos_token: str = "", origin: str = "model") -> None:
        self.source, self._origin = source, origin
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._harmony = "<|channel|>final<|message|>" in source
        self._form = cache(self._probed)
        try:
            self._template = template_sandbox.compiled(source)
        except TemplateSyntaxError as error:
            raise self._broken(f"line {error.lineno}: {error.message}") from error
        except (RecursionError, MemoryError, SyntaxError) as error:
            raise self._broken("too deep or too large to compile") from error

    @classmethod
    def from_gguf(cls, file: GGUFFile, tokenizer: Tokenizer) -> ChatTemplate:
        """The file's own template, or when it has none what its vocabulary suggests."""
        bos, eos = ("" if id is None else tokenizer.token(id) for id in (tokenizer.bos_id, tokenizer.eos_id))
        source = file.get_str("tokenizer.chat_template", "") or default_template(tokenizer)
        return cls(source, bos_token=bos, eos_token=eos, origin=file.path.name)

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True, **variables: Any
    ) -> str:
        """The prompt for a conversation of {"role": …, "content": …}, as plain text; `variables` are the template's own.

        Raises UsageError when the template refuses the conversation, TemplateError when it fails.
        """
        return self._written([self._formed(m) for m in self._known(messages)], add_generation_prompt, variables)

    def prompt(
        self,
        messages: Sequence[Mapping[str, Any]],
        control: ControlTexts,
        kept: frozenset[str] = frozenset(),
        manner: Manner = PLAIN,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> Prompt:
        """The prompt for the next answer, in which no message can spell a control token (see qcli.text.user_text).

        kept: control tokens that an assistant's own messages may hold, as the template looks for them: marks of thoughts.
        tools: that the model may call, in OpenAI's form; nothing that they say can spell a control token, either.
        Raises UsageError, as well, when the template leaves out what somebody says.
        """
        known = self._known(messages)
        for message in known:
            if message["content"] and self._form(message["role"]) == "left out":
                hint = "put it into the message itself" if message["role"] in ("system", "developer") else _ITSELF
                raise UsageError(f"the model's chat template leaves out what the {message['role']} says", hint)
        readable = [self._formed(message) for message in known]
        mark = free_mark([*readable, *tools])
        variables = dict(manner.variables)
        if tools:
            variables["tools"] = sealed_value(tools, control, mark)
        sealed = [sealed_message(m, control, mark, kept if m["role"] == "assistant" else frozenset()) for m in readable]
        return Prompt(self._written(sealed, True, variables) + manner.ending, mark)

    @cached_property
    def takes_tools(self) -> bool:
        """Whether the template tells the model of tools."""
        return self._shows_probe(PROBE_TALK[:1], {"tools": [PROBE_TOOL]})

    @cached_property
    def shows_calls(self) -> bool:
        """Whether the template writes the calls of messages."""
        return self._shows_probe(PROBE_TALK[:2], {}) or self._shows_probe(PROBE_TALK, {"tools": [OTHER_TOOL]})

    def _shows_probe(self, messages: list[dict[str, Any]], variables: dict[str, Any]) -> bool:
        try:
            return PROBE in self._written(messages, True, variables)
        except QcliError:
            return False

    def after_answer(self) -> str:
        """What the template writes behind an answer: the token there ends a turn; "" where it cannot be known."""
        talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _PROBE}]
        try:
            written = "" if self._harmony else self.render(talk, add_generation_prompt=False)
        except QcliError:
            return ""
        return written.rpartition(_PROBE)[2] if _PROBE in written else ""

    def _known(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        known = with_answered_calls(with_calls(checked(message), self._harmony) for message in messages)
        return [without_thoughts(message) if self._harmony else message for message in known]

    def _formed(self, message: dict[str, Any]) -> dict[str, Any]:
        """A message whose content has the form that this template reads."""
        if not message["content"] or self._form(message["role"]) != "parts":
            return message
        return {**message, "content": [{"type": "text", "text": message["content"]}]}

    def _probed(self, role: str) -> Form:
        """How the template reads such a message: tried with a word that must come out again."""
        before: list[dict[str, Any]] = (
            [] if role in ("system", "developer", "user") else [{"role": "user", "content": "a"}]
        )
        after = [] if role == "user" else [{"role": "user", "content": "b"}]
        if role in ("tool", "function"):
            call = {"type": "function", "id": "call_1", "function": {"name": "f", "arguments": {}}}
            before.append({"role": "assistant", "content": "", "tool_calls": [call]})
        forms: dict[Form, Any] = {"text": _PROBE, "parts": [{"type": "text", "text": _PROBE}]}
        for form, content in forms.items():
            try:
                if _PROBE in self._written([*before, {"role": role, "content": content}, *after], True, {}):
                    return form
            except QcliError:
                if form == "text":  # it refuses such a message, or such a conversation: let it say so of the real one
                    return form
        return "left out"

    def _written(self, messages: list[dict[str, Any]], add_generation_prompt: bool, variables: dict[str, Any]) -> str:
        given: dict[str, Any] = {"tools": None, "documents": None, **self._tokens, **variables}
        given |= {"messages": messages, "add_generation_prompt": add_generation_prompt}
        try:
            return template_sandbox.render(self._template, given)
        except RefusalError as refusal:
            raise UsageError(f"the model's chat template says: {refusal}", _ITSELF) from refusal
        except Exception as error:  # whatever the program of a stranger may raise
            raise self._broken(str(error) or type(error).__name__, TemplateError) from error

    def _broken(self, reason: str, kind: type[ModelFileError] = ModelFileError) -> ModelFileError:
        return kind(f"{self._origin}: the chat template is broken: {reason}", _ITSELF)
