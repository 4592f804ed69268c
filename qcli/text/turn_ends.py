"""The tokens that end a turn, by their texts: files of one family name now one, now another as their eos_token_id.

A converter may even type them as ordinary text; spelled like this they never are.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final

_ENDS: Final = (
    *("<|im_end|>", "<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"),  # Qwen, LFM2, SmolLM
    *("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"),  # Llama 3, Granite
    *("<end_of_turn>", "<eos>", "<turn|>", "<|tool_response>"),  # Gemma
    *("<|user|>", "<|observation|>"),  # GLM: the next turn begins
    *("<|return|>", "<|call|>"),  # gpt-oss
    *("<｜end▁of▁sentence｜>", "<|EOT|>"),  # DeepSeek
    *("[EOS]", "[EOT]"),  # Kimi
    *("</s>", "<EOT>", "_<EOT>", "<end_of_utterance>"),  # Llama 2, Mistral, Code Llama, SmolVLM
    *("<|flush|>", "<|calls|>"),  # Solar
    *("<|role_end|>", "[e~[", "<|endofturn|>", "[|endofturn|]", "<|endofresponse|>"),  # Ling, MiniMax, EXAONE, dots
)
_PLAIN_WHERE_HARMONY: Final = "<|end|>"  # Phi and others; with channels it ends a message of the turn
_HARMONY: Final = "<|channel|>"
USER_DEFINED_ENDS: Final = frozenset({"<|tool_response>"})  # that files type so, as markers of text
_NEXT_TURN: Final = (
    *USER_DEFINED_ENDS,
    "<|user|>",
    "<|observation|>",
    "<eos>",
    "</s>",
    "_<EOT>",
)  # that may be ordinary text elsewhere

# Besides, what begins a turn: typed as text, it would be cut into pieces that no model has seen.
_BEGINS: Final = (
    "<|im_start|>",
    "<start_of_turn>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|start_of_role|>",
    "<|turn>",
)


def turn_ends(special: Container[str]) -> tuple[str, ...]:
    """The texts that end a turn where the vocabulary has them as special tokens."""
    return _ENDS if _HARMONY in special else (*_ENDS, _PLAIN_WHERE_HARMONY)


def never_text() -> frozenset[str]:
    """Texts that are control tokens whatever type a file gives them."""
    return frozenset({*_ENDS, *_BEGINS}.difference(_NEXT_TURN))
