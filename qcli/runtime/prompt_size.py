"""Prompts that do not fit: of a very long one that is told before it is cut into tokens, as that takes seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from qcli.errors import ContextOverflowError
from qcli.text.content import checked

if TYPE_CHECKING:
    from qcli.runtime.chat_prompts import Message
    from qcli.runtime.engine import Engine
    from qcli.text.tokenizer import Tokenizer

_SHORT = 16  # characters a token: texts of fewer are not looked at

Prompt = TypeVar("Prompt", bound="str | Sequence[Message]")


def sized(prompt: Prompt, tokenizer: Tokenizer, engine: Engine) -> Prompt:
    """The prompt; ContextOverflowError for one of more characters than a context of the longest tokens holds.

    UsageError for a message that is none.
    """
    size = len(prompt) if isinstance(prompt, str) else sum(len(checked(m)["content"]) for m in prompt)
    if size > _SHORT * engine.ctx and size > tokenizer.longest_token * engine.ctx:
        message = f"the prompt has {size:,} characters, and the context holds {engine.ctx:,} tokens"
        fits = size <= tokenizer.longest_token * engine.longest
        larger = ("give a larger --ctx (ctx= in Python) if memory allows", "give a shorter prompt")
        raise ContextOverflowError(message, larger if fits else _shorter(engine.longest))
    return prompt


def check_tokens(tokens: int, ctx: int, longest: int) -> None:
    """Raise ContextOverflowError for a prompt of more than ctx tokens; longest: what the model was made for."""
    if tokens <= ctx:
        return
    message = f"the prompt has {tokens:,} tokens, and the context holds {ctx:,}"
    if tokens > longest:
        raise ContextOverflowError(message, _shorter(longest))
    wanted = min(tokens + 512, longest)
    hint = (f"give --ctx {wanted} or more (ctx= in Python) if memory allows", "give a shorter prompt")
    raise ContextOverflowError(message, hint)


def _shorter(longest: int) -> str:
    return f"give a shorter prompt: the model was made for {longest:,} tokens"
