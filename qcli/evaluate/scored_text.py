"""A text in chunks of a context, as llama-perplexity cuts it: of each chunk, the second half is scored."""

from __future__ import annotations

from pathlib import Path

from qcli.errors import ModelNotFoundError, PromptError, QcliError, UsageError
from qcli.text.tokenizer import Tokenizer
from qcli.wording import counted

CTX = 512
MAX_TEXT = 1 << 30  # bytes


def read_text(path: Path) -> str:
    """A text file, UTF-8; bytes that are not read as U+FFFD. Raises ModelNotFoundError, QcliError."""
    try:
        if not path.is_file():
            reason = "is not a file" if path.exists() else "no such file"
            raise ModelNotFoundError(f"{path}: {reason}", "give the path of a text file")
        if path.stat().st_size > MAX_TEXT:
            raise UsageError(f"{path}: is larger than {MAX_TEXT >> 30} GiB", "give a part of it")
        return path.read_bytes().decode("utf-8", "replace")
    except OSError as problem:
        raise QcliError(f"{path}: cannot be read: {problem.strerror}", "check its permissions") from None


def chunks(tokenizer: Tokenizer, text: str, ctx: int = CTX, most: int | None = None) -> list[list[int]]:
    """Token ids [ctx] of each whole chunk, at most so many; PromptError when there is none."""
    if ctx < 4:
        raise UsageError(f"a context of {ctx} tokens leaves nothing to score", f"give --ctx {CTX}")
    begin = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []
    ids = [*begin, *tokenizer.encode(text, special=False)]
    count = len(ids) // ctx
    if not count:
        message = f"the text has {counted(len(ids), 'token')}, and a chunk takes {ctx}"
        raise PromptError(message, "give a longer text, or a smaller --ctx")
    cut = [ids[i * ctx : (i + 1) * ctx] for i in range(min(count, most or count))]
    return [[*(begin or part[:1]), *part[1:]] for part in cut]


def scored_from(ctx: int) -> int:
    """The first position of a chunk whose prediction counts; the last one that does is ctx - 2."""
    return ctx // 2
