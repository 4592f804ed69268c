"""Cuts a text into chunks as llama-perplexity does: the second half of each chunk is scored, the first half is context."""

from __future__ import annotations

from qcli.errors import PromptError, UsageError
from qcli.text.tokenizer import Tokenizer
from qcli.wording import counted

CTX = 512  # tokens of a chunk, unless told otherwise


def chunks(tokenizer: Tokenizer, text: str, ctx: int = CTX, most: int | None = None) -> list[list[int]]:
    """Token ids [ctx] of each whole chunk, at most `most` chunks. Raises PromptError if the text is shorter than one."""
    if ctx < 4:
        raise UsageError(f"a context of {ctx} tokens leaves nothing to score", f"give --ctx {CTX}")
    begin = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []
    ids = list(begin)
    for piece in tokenizer.encode_in_pieces(text, special=False):
        ids += piece
        if most and len(ids) >= most * ctx:
            break
    count = len(ids) // ctx
    if not count:
        message = f"the text has {counted(len(ids), 'token')}, and a chunk takes {ctx}"
        raise PromptError(message, "give a longer text, or a smaller --ctx")
    cut = [ids[i * ctx : (i + 1) * ctx] for i in range(min(count, most or count))]
    return [[*(begin or part[:1]), *part[1:]] for part in cut]


def scored_from(ctx: int) -> int:
    """The first position of a chunk whose prediction is scored; the last one is ctx - 2."""
    return ctx // 2
