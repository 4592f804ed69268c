"""Prompts that cannot fit, told before they are cut into tokens: of some megabytes, that takes half a minute."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from qcli.errors import ContextOverflowError
from qcli.protocol.question import Question

if TYPE_CHECKING:
    from qcli.llm import LLM
    from qcli.text.tokenizer import Tokenizer

_SHORT = 16  # characters a token: texts of fewer are not looked at
_longest: WeakKeyDictionary[Tokenizer, int] = WeakKeyDictionary()  # bytes of a token


def check_size(llm: LLM, question: Question) -> None:
    """Raise ContextOverflowError for a text that has more characters than so many of the longest tokens hold."""
    prompt = question.prompt
    size = len(prompt) if isinstance(prompt, str) else sum(len(str(message["content"])) for message in prompt)
    if size <= _SHORT * llm.engine.ctx:
        return
    tokenizer = llm.tokenizer
    if tokenizer not in _longest:
        _longest[tokenizer] = max(len(tokenizer.token_bytes(id)) for id in range(tokenizer.vocab_size))
    if size > _longest[tokenizer] * llm.engine.ctx:
        message = f"the prompt has {size:,} characters, and the context holds {llm.engine.ctx:,} tokens"
        raise ContextOverflowError(message, "give a shorter prompt")
