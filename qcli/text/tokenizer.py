"""Text to token ids and back, as a GGUF file describes it (keys tokenizer.ggml.*).

Control tokens (<|im_start|>) are found in a text only on request; user-defined ones (<tool_call>) always are.
"""

from __future__ import annotations

import codecs
import gc
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np

from qcli.errors import ModelFileError, UnsupportedModelError
from qcli.gguf.file import GGUFFile
from qcli.text.byte_level import ByteLevel
from qcli.text.listed_merges import ListedMerges
from qcli.text.pieces import Cutter
from qcli.text.sentencepiece import SentencePiece
from qcli.text.token_ids import check_id
from qcli.text.turn_ends import USER_DEFINED_ENDS, turn_ends
from qcli.text.vocabulary import KEY, SpecialTokens, TokenType, Vocabulary, token_id

_LONG_PART: Final = 1 << 14  # characters of a prompt's part whose ids are kept
_LONG_PARTS: Final = 1 << 20  # ids of such parts together: 4 MB, or one part


class Tokenizer:
    """A vocabulary, its merges and its special tokens, read from a GGUF file; raises ModelFileError."""

    def __init__(self, file: GGUFFile) -> None:
        method = _method(file)
        self._vocabulary = vocabulary = Vocabulary.read(file)
        self._method = method(file, vocabulary)
        self.space_prefix = self._method.space_prefix.encode()
        self._long_parts: OrderedDict[bytes, array[int]] = OrderedDict()  # their ids, by what stands for their texts
        self.vocab_size = count = len(vocabulary.tokens)
        sentencepiece = method is SentencePiece
        self.bos_id = token_id(file, "bos", count, 1 if sentencepiece else None)
        self.eos_id = token_id(file, "eos", count, 2 if sentencepiece else None)
        self.add_bos = self.bos_id is not None and file.get_bool(f"{KEY}add_bos_token", self._method.add_bos)
        named = [token_id(file, name, count) for name in ("eot", "eom")]
        known = [text for text in turn_ends(vocabulary.special) if text in vocabulary.special]
        user_defined = vocabulary.user_defined.keys() - USER_DEFINED_ENDS
        ends = {self.eos_id, *named, *(vocabulary.special[text] for text in known if text not in user_defined)}
        self.end_ids = frozenset(id for id in ends if id is not None)

    def __repr__(self) -> str:
        return f"<Tokenizer: {type(self._method).__name__}, {self.vocab_size} tokens>"

    @classmethod
    def from_gguf(cls, source: str | Path | GGUFFile) -> Tokenizer:
        """Read a model's tokenizer, or that of a vocabulary-only file. Raises ModelFileError."""
        opened = nullcontext(source) if isinstance(source, GGUFFile) else GGUFFile.open(source)
        with opened as file, _collector_paused():
            return cls(file)

    def checked(self, file: GGUFFile, embeddings: int) -> Tokenizer:
        """This one, of a model with so many embeddings. Raises ModelFileError if it has more tokens."""
        if self.vocab_size > embeddings:
            message = f"{file.path}: {self.vocab_size} tokens, {embeddings} embeddings"
            raise ModelFileError(message, "the file contradicts itself: download or convert it again")
        return self

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Token ids of a text; with `special`, control tokens written in it count as such: not for text of other people."""
        return [id for ids in self.encode_in_pieces(text, special) for id in ids]

    def encode_in_pieces(self, text: str, special: bool = True) -> Iterator[list[int]]:
        """As `encode`, some of the ids after the other: for long texts, of which not all may be needed."""
        for i, piece in enumerate(self._cutter.pieces(text)):
            yield self._encode_piece(piece.removeprefix(self._method.space_prefix) if i else piece, special)

    def encode_after(self, text: str) -> list[int]:
        """Token ids of a text that goes on from another one, without control tokens and without a space before it."""
        return self._encode_piece(text, special=False, begins=False)

    def encode_marker(self, text: str) -> list[int]:
        """Token ids of a text that goes on from another one, with the control tokens that it names."""
        return self._encode_piece(text, special=True, begins=False)

    def _encode_piece(self, text: str, special: bool, begins: bool = True) -> list[int]:
        try:
            return self._method.encode(text, special, begins)
        except (TypeError, UnicodeEncodeError):  # lone surrogates, as Python reads undecodable bytes: U+FFFD
            readable = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
            return self._method.encode(readable, special, begins)

    @cached_property
    def _cutter(self) -> Cutter:
        return Cutter(self._vocabulary.special, self._method.may_cut)

    def prompt(self, text: str, mark: str = "", first: bool = True) -> list[int]:
        """Token ids of a prompt: as `encode`, with BOS before them where the model wants it and the text has none.

        mark: what keeps control tokens that a user's text spells from being read as such (see qcli.text.user_text).
        first: whether the prompt begins with this text. No EOS at the end, whatever add_eos_token says: that one is for
        texts that are complete.
        """
        ids = self._encode_sealed(text, mark) if mark else self.encode(text)
        wanted = first and self.bos_id is not None and self.add_bos and ids[:1] != [self.bos_id]
        return [self.bos_id, *ids] if wanted and self.bos_id is not None else ids

    def _encode_sealed(self, text: str, mark: str) -> list[int]:
        """Ids of a text whose control tokens count unless a mark is in them."""
        ids: list[int] = []
        for part in self._special_tokens.split(text):
            ids += [part] if isinstance(part, int) else self._encode_part(part.replace(mark, ""))
        return ids

    def _encode_part(self, text: str) -> Iterable[int]:
        """Ids of a text between special tokens: long ones are looked up, as prompts of a conversation have them again."""
        if len(text) < _LONG_PART:
            return self.encode(text, special=False)
        key = sha256(text.encode("utf-8", "surrogatepass")).digest()
        if key not in self._long_parts:
            self._long_parts[key] = array("i", self.encode(text, special=False))
            while len(self._long_parts) > 1 and sum(map(len, self._long_parts.values())) > _LONG_PARTS:
                self._long_parts.popitem(last=False)
        self._long_parts.move_to_end(key)
        return self._long_parts[key]

    @cached_property
    def _special_tokens(self) -> SpecialTokens:
        return SpecialTokens(self._vocabulary.special)

    @property
    def control_texts(self) -> list[str]:
        """The texts of control tokens: what no user's text may spell."""
        return [text for text, _ in self._vocabulary.of_type(TokenType.CONTROL, TokenType.UNKNOWN)]

    @property
    def mistyped(self) -> list[str]:
        """Control tokens that the file calls ordinary text; they are read as control tokens all the same."""
        return self._vocabulary.mistyped

    @property
    def special_texts(self) -> list[str]:
        """The texts of control and user-defined tokens."""
        return list(self._vocabulary.special)

    def first_special(self, text: str) -> int | None:
        """The control or user-defined token that a text begins with, white space aside."""
        first = next(self._special_tokens.split(text.lstrip()), None)
        return first if isinstance(first, int) else None

    def find(self, text: str) -> int | None:
        """The id of a token of any type by its text, as the vocabulary spells it."""
        return self._ids.get(text)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {text: id for id, text in enumerate(self._vocabulary.tokens)}

    def decode(self, ids: Iterable[int], special: bool = False) -> str:
        """The text of some ids, U+FFFD for bytes that make no character; `special`: control tokens too."""
        stream = StreamDecoder(self, special, from_start=True)
        return "".join([*map(stream.push, ids), stream.flush()])

    def stream(self, special: bool = False) -> StreamDecoder:
        """A decoder to feed one id at a time."""
        return StreamDecoder(self, special)

    def token(self, id: int) -> str:
        """A token as the vocabulary spells it. Raises UsageError for an id that it lacks."""
        check_id(id, self.vocab_size)
        return self._vocabulary.tokens[id]

    def special_id(self, text: str) -> int | None:
        """The id of a control or user-defined token."""
        return self._vocabulary.special.get(text)

    def is_special(self, id: int) -> bool:
        """Whether this is a control or a user-defined token."""
        return self.token(id) in self._vocabulary.special

    def text_bytes(self) -> list[bytes]:
        """The bytes of text that each token stands for; none for control tokens, paddings and markers.

        A marker is a user-defined token of more than white space, such as <tool_call>.
        """
        vocabulary, normal = self._vocabulary, (TokenType.NORMAL, TokenType.UNDEFINED)
        found = [*map(self._method.token_bytes, vocabulary.tokens)]
        for id in np.flatnonzero(np.isin(vocabulary.types, normal, invert=True)).tolist():
            marker = vocabulary.types[id] == TokenType.USER_DEFINED and vocabulary.tokens[id].strip()
            found[id] = b"" if marker else self._bytes(id, special=False)
        return found

    def token_bytes(self, id: int) -> bytes:
        """The bytes of a token's text; of a control token, its name."""
        return self._bytes(id, special=True)

    @cached_property
    def longest_token(self) -> int:
        """The bytes of the longest token: a text of so many characters has one token at least."""
        return max(map(len, map(self.token_bytes, range(self.vocab_size))))

    def _bytes(self, id: int, special: bool) -> bytes:
        text = self.token(id)
        match self._vocabulary.types[id]:
            case TokenType.NORMAL | TokenType.UNDEFINED:
                return self._method.token_bytes(text)
            case TokenType.BYTE:
                return self._method.byte_token_bytes(text)
            case TokenType.USER_DEFINED:
                return text.encode()
            case TokenType.CONTROL | TokenType.UNKNOWN:
                return text.encode() if special else b""
            case _:
                return b""


class StreamDecoder:
    """Text from ids that come one by one: a character shows once it is whole, or surely broken (U+FFFD).

    from_start: the first id begins a text, so the space that encoding put before it is left out again.
    """

    def __init__(self, tokenizer: Tokenizer, special: bool = False, from_start: bool = False) -> None:
        self._tokenizer = tokenizer
        self._special = special
        self._at_start = from_start  # whether the next id follows the start of a text or a special token
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, id: int) -> str:
        """The text that this id completes, possibly none."""
        text, at_start = self._tokenizer._bytes(id, self._special), self._at_start
        self._at_start = self._tokenizer.is_special(id)
        if at_start and not self._at_start:
            text = text.removeprefix(self._tokenizer.space_prefix)
        return self._decoder.decode(text)

    @property
    def is_whole(self) -> bool:
        """Whether the ids so far end with a whole character."""
        return not self._decoder.getstate()[0]

    def flush(self) -> str:
        """U+FFFD if the ids have ended within a character, else nothing; the decoder can be used again."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Spare the garbage collector 300,000 new pairs and texts: 35 ms, far more in a large program."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _method(file: GGUFFile) -> type[ByteLevel] | type[SentencePiece]:
    """The class for the file's tokenizer.ggml.model. Raises UnsupportedModelError."""
    model = file.get_str(f"{KEY}model")
    methods: dict[str, type[ByteLevel] | type[SentencePiece]] = {
        "gpt2": ByteLevel,
        "llama": SentencePiece,
        "gemma4": ListedMerges,
    }
    if model not in methods:
        raise UnsupportedModelError(
            f"{file.path}: no support for the tokenizer {model!r}",
            "qcli reads gpt2, that is byte-level BPE, llama, that is SentencePiece's BPE, and gemma4",
        )
    return methods[model]
