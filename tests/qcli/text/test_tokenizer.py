"""The tokenizer: words one can merge on paper, a real vocabulary, streams of bytes, damaged metadata."""

from __future__ import annotations

import gzip
import json
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vocabularies
from hypothesis import given, settings
from hypothesis import strategies as st
from places import DATA

from qcli.errors import ModelFileError, UnsupportedModelError, UsageError
from qcli.host.signals import hearing_interrupts
from qcli.text import byte_level
from qcli.text.tokenizer import Tokenizer

# ids 0 to 255 are bytes, then: "he" "ll" "hell" "hello", é and half of it, and special ones
LETTERS = [chr(b) for b in [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]]
LETTERS += [chr(256 + i) for i in range(68)]
WORDS = ["he", "ll", "hell", "hello", "Ã©", "<|im_start|>", "<|im_end|>", "<tool>", "[PAD]"]
MERGES = ["h e", "l l", "he ll", "hell o", "Ã ©"]
HELLO, E_ACUTE, START, END, TOOL, PAD = 259, 260, 261, 262, 263, 264
TYPES = [1] * 261 + [3, 3, 4, 5]


def write_vocabulary(path: Path, architecture: str = "qwen2", **changes: Any) -> Path:
    """A vocabulary-only file of 265 tokens; a change of None leaves a key out."""
    keys: dict[str, Any] = {"model": "gpt2", "pre": "qwen2", "tokens": LETTERS + WORDS, "merges": MERGES}
    return vocabularies.write(path, keys | {"token_type": TYPES, "eos_token_id": END} | changes, architecture)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_gguf(write_vocabulary(tmp_path_factory.mktemp("small") / "vocab.gguf"))


@pytest.fixture(scope="module")
def qwen2_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qwen2") / "vocab.gguf"
    path.write_bytes(gzip.decompress((DATA / "qwen2-vocab.gguf.gz").read_bytes()))
    return path


@pytest.fixture(scope="module")
def qwen2(qwen2_file: Path) -> Tokenizer:
    return Tokenizer.from_gguf(qwen2_file)


@pytest.fixture(scope="module")
def qwen35(qwen2_file: Path) -> Tokenizer:
    path = qwen2_file.with_name("qwen35.gguf")
    rule, name = b"tokenizer.ggml.pre\x08\0\0\0", b"\0\0\0\0\0\0\0qwen"
    old, new = rule + b"\x05" + name + b"2", rule + b"\x06" + name + b"35"
    path.write_bytes(qwen2_file.read_bytes().replace(old, new))
    return Tokenizer.from_gguf(path)


def test_merges_in_order_of_rank(small: Tokenizer) -> None:
    assert small.encode("hello") == [HELLO]
    assert small.encode("hel") == [256, LETTERS.index("l")]
    assert small.encode("é") == [E_ACUTE]
    assert small.encode("") == []


def test_special_tokens(small: Tokenizer) -> None:
    assert small.encode("<|im_start|>hello<|im_end|>") == [START, HELLO, END]
    assert small.encode("hello<tool>hello", special=False) == [HELLO, TOOL, HELLO]
    assert START not in small.encode("<|im_start|>", special=False)
    assert PAD not in small.encode("[PAD]")


def test_decode_hides_control_tokens_unless_asked(small: Tokenizer) -> None:
    ids = [START, HELLO, TOOL, PAD, END]
    assert small.decode(ids) == "hello<tool>"
    assert small.decode(ids, special=True) == "<|im_start|>hello<tool><|im_end|>"
    assert small.decode(np.array(ids)) == "hello<tool>"


def test_ids_of_the_ends(small: Tokenizer) -> None:
    assert (small.vocab_size, small.bos_id, small.eos_id, small.end_ids) == (265, None, END, frozenset({END}))
    assert small.token(HELLO) == "hello"


@pytest.mark.parametrize("id", [-1, 265, 2**40])
def test_unknown_ids_are_refused(small: Tokenizer, id: int) -> None:
    for use in (small.token, small.stream().push, lambda id: small.decode([id])):
        with pytest.raises(UsageError, match=f"no token has the id {id}"):
            use(id)


def test_undecodable_input_becomes_a_replacement_character(small: Tokenizer) -> None:
    assert small.encode("a\udc80b") == small.encode("a\ufffdb")


def test_stream_waits_for_the_rest_of_a_character(small: Tokenizer) -> None:
    stream = small.stream()
    first, second = (LETTERS.index(letter) for letter in "Ã©")
    assert [stream.push(first), stream.push(second), stream.push(first), stream.push(HELLO)] == [
        "",
        "é",
        "",
        "\ufffdhello",
    ]
    assert stream.push(first) == ""
    assert stream.flush() == "\ufffd"
    assert stream.push(HELLO) == "hello"


@given(st.lists(st.integers(0, 264)))
def test_streaming_any_ids_is_decoding_them(small: Tokenizer, ids: list[int]) -> None:
    stream, shown = small.stream(), ""
    for count, id in enumerate(ids, 1):
        shown += stream.push(id)
        waiting = [shown + "\ufffd" * broken for broken in range(4)]  # at most the bytes of one character
        assert small.decode(ids[:count]) in waiting
    assert shown + stream.flush() == small.decode(ids)


@given(st.text())
def test_any_text_comes_back(small: Tokenizer, text: str) -> None:
    assert small.decode(small.encode(text), special=True) == text
    assert small.decode(small.encode(text, special=False), special=False) == text


@pytest.mark.parametrize("name", ["qwen2", "qwen35"])
def test_ids_are_those_of_llama_cpp(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    for case in json.loads((DATA / f"{name}-cases.json").read_text("utf-8")):
        assert tokenizer.encode(case["text"]) == case["ids"], case["text"]
        assert tokenizer.encode(case["text"], special=False) == case["ids_plain"], case["text"]
        assert tokenizer.decode(case["ids"], special=True) == case["text"]


def test_the_rules_differ_where_marks_are_letters(qwen2: Tokenizer, qwen35: Tokenizer) -> None:
    assert qwen2.encode("ก็") != qwen35.encode("ก็")
    assert qwen2.encode("I'll go") == qwen35.encode("I'll go")


def test_ends_of_a_real_vocabulary(qwen2: Tokenizer) -> None:
    assert {qwen2.token(id) for id in qwen2.end_ids} == {
        *("<|endoftext|>", "<|im_end|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>")
    }
    assert (qwen2.bos_id, qwen2.eos_id, qwen2.vocab_size) == (151643, 151645, 151936)


def test_a_real_vocabulary_opens_at_once(qwen2_file: Path) -> None:
    def seconds() -> float:
        start = time.process_time()
        Tokenizer.from_gguf(qwen2_file)
        return time.process_time() - start

    assert min(seconds() for _ in range(3)) < 1.0  # 0.3 to 0.45 on two cores; element by element it takes 4


DAMAGED: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({"model": None}, "tokenizer.ggml.model"),
    "no pre-tokenizer": ({"pre": None, "architecture": "llama"}, "tokenizer.ggml.pre is missing"),
    "no tokens": ({"tokens": None}, "tokens must be an array of strings"),
    "tokens are numbers": ({"tokens": [1, 2]}, "tokens must be an array of strings"),
    "no merges": ({"merges": None}, "merges must be an array of strings"),
    "merge of an unknown token": ({"merges": ["x zz"]}, "zz"),
    "merge into an unknown token": ({"merges": ["x y"]}, "xy"),
    "merge longer than any token": ({"merges": ["<tool> <|im_start|>"]}, "not in tokenizer.ggml.tokens"),
    "merge without a space": ({"merges": ["hello"]}, "with a space between"),
    "too few types": ({"token_type": [1, 1]}, "2 entries for 265 tokens"),
    "types are text": ({"token_type": ["1"] * 265}, "array of integers"),
    "unknown type": ({"token_type": [9] * 265}, "type outside 0 to 6"),
}


@pytest.mark.parametrize(("changes", "message"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_metadata(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write_vocabulary(tmp_path / "vocab.gguf", **changes)
    with pytest.raises(ModelFileError, match=message) as caught:
        Tokenizer.from_gguf(path)
    assert str(path) in caught.value.message


@pytest.mark.parametrize("id", [265, 2**32 - 1])
@pytest.mark.parametrize("name", ["bos", "eos", "eot"])
def test_special_ids_beyond_the_vocabulary_are_told_and_left_out(tmp_path: Path, name: str, id: int) -> None:
    path = write_vocabulary(tmp_path / "vocab.gguf", **{f"{name}_token_id": id})
    with pytest.warns(UserWarning, match=f"{name}_token_id is {id}, and there are 265 tokens: it is left out"):
        tokenizer = Tokenizer.from_gguf(path)
    assert id not in {tokenizer.bos_id, tokenizer.eos_id, *tokenizer.end_ids}


@pytest.mark.parametrize("text", ["<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end_of_text|>", "<end_of_utterance>"])
@pytest.mark.parametrize("kind", [1, 3, 4])
def test_ends_of_turns_end_them_whatever_their_type(tmp_path: Path, text: str, kind: int) -> None:
    letters = [token for token in vocabularies.real("smollm")["tokens"] if len(token) == 1]
    keys = {"model": "gpt2", "pre": "smollm", "tokens": [*letters, "qz", text], "merges": ["q z"]}
    keys["token_type"] = [1] * (len(letters) + 1) + [kind]
    tokenizer = Tokenizer.from_gguf(vocabularies.write(tmp_path / "vocab.gguf", keys))
    assert tokenizer.end_ids == {len(letters) + 1}
    assert tokenizer.encode(text) == [len(letters) + 1]
    assert len(tokenizer.encode(text, special=False)) == len(text)


@pytest.mark.parametrize(("kind", "ends"), [(3, 1), (4, 0), (1, 0)])
def test_a_tag_of_html_that_looks_like_an_end_is_one_only_as_a_control_token(
    tmp_path: Path, kind: int, ends: int
) -> None:
    """Gemma's vocabulary has </s> as a user-defined token: struck-out text ends there."""
    letters = [token for token in vocabularies.real("smollm")["tokens"] if len(token) == 1]
    keys = {"model": "gpt2", "pre": "smollm", "tokens": [*letters, "qz", "</s>"], "merges": ["q z"]}
    keys["token_type"] = [1] * (len(letters) + 1) + [kind]
    tokenizer = Tokenizer.from_gguf(vocabularies.write(tmp_path / "vocab.gguf", keys))
    assert len(tokenizer.end_ids) == ends


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    path = write_vocabulary(tmp_path / "vocab.gguf")
    path.write_bytes(path.read_bytes().replace(b"hello", b"hell\xff"))
    with pytest.raises(ModelFileError, match=r"tokens is not UTF-8"):
        Tokenizer.from_gguf(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "bert"}, "qcli reads gpt2, that is byte-level BPE, llama, that is SentencePiece's BPE, and gemma4"),
        ({"pre": "starcodr"}, "the closest in name is starcoder"),
        ({"pre": "no such rule at all"}, "the closest in name is"),
    ],
)
def test_unsupported_kinds_name_the_supported(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        Tokenizer.from_gguf(write_vocabulary(tmp_path / "vocab.gguf", **changes))


def test_files_of_qwen_need_not_name_their_rule(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_gguf(write_vocabulary(tmp_path / "vocab.gguf", pre=None))
    assert tokenizer.encode("hello") == [HELLO]


def test_a_prompt_begins_with_bos_once_where_the_file_wants_it(tmp_path: Path) -> None:
    def of(**changes: Any) -> Tokenizer:
        return Tokenizer.from_gguf(write_vocabulary(tmp_path / "vocab.gguf", bos_token_id=START, **changes))

    assert of().prompt("hello") == [HELLO]
    assert of(add_bos_token=True).prompt("hello") == [START, HELLO]
    assert of(add_bos_token=True).prompt("<|im_start|>hello") == [START, HELLO]
    assert of(add_bos_token=True).encode("hello") == [HELLO]
    assert of(add_bos_token=True, add_eos_token=True).prompt("hello") == [START, HELLO]
    assert of(pre="llama-bpe").prompt("hello") == [START, HELLO]
    assert of(pre="llama-bpe", add_bos_token=False).prompt("hello") == [HELLO]
    assert of(add_bos_token=True).prompt("") == [START]


def test_a_prompt_without_a_bos_to_add(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_gguf(write_vocabulary(tmp_path / "vocab.gguf", add_bos_token=True))
    assert tokenizer.prompt("hello") == [HELLO]


@pytest.mark.parametrize(
    ("special", "ends"),
    [
        (["<|start_header_id|>", "<|eot_id|>", "<|eom_id|>"], {"<|eot_id|>", "<|eom_id|>"}),
        (["<start_of_turn>", "<end_of_turn>"], {"<end_of_turn>"}),
        (["<|end|>", "<|assistant|>"], {"<|end|>"}),
        (["<|start|>", "<|channel|>", "<|end|>", "<|return|>", "<|call|>"], {"<|return|>", "<|call|>"}),
        (["<|user|>", "<|observation|>", "<|assistant|>"], {"<|user|>", "<|observation|>"}),
        (["<｜User｜>", "<｜end▁of▁sentence｜>"], {"<｜end▁of▁sentence｜>"}),
    ],
)
def test_ends_of_each_family(tmp_path: Path, special: list[str], ends: set[str]) -> None:
    changes = {"tokens": LETTERS + WORDS + special, "token_type": TYPES + [3] * len(special)}
    tokenizer = Tokenizer.from_gguf(write_vocabulary(tmp_path / "vocab.gguf", **changes))
    assert {tokenizer.token(id) for id in tokenizer.end_ids} == ends | {"<|im_end|>"}


def test_other_kinds_of_end_come_by_key(tmp_path: Path) -> None:
    path = write_vocabulary(tmp_path / "vocab.gguf", eot_token_id=TOOL, eom_token_id=PAD)
    assert Tokenizer.from_gguf(path).end_ids == {END, TOOL, PAD}


def test_types_may_be_missing(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_gguf(write_vocabulary(tmp_path / "vocab.gguf", token_type=None))
    assert tokenizer.encode("hello") == [HELLO]
    assert tokenizer.end_ids == {END}


_word = st.sampled_from(["h", "he", "l", "ll", "", " ", "zz", "hello", "é", "h e", "x" * 40])


@settings(deadline=None)
@given(merges=st.lists(st.lists(_word, max_size=3).map(" ".join), min_size=1, max_size=4))
def test_no_merge_list_escapes_the_error_tree(tmp_path_factory: pytest.TempPathFactory, merges: list[str]) -> None:
    path = write_vocabulary(tmp_path_factory.mktemp("fuzz") / "vocab.gguf", merges=merges)
    with suppress(ModelFileError):
        Tokenizer.from_gguf(path).encode("hello")


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_is_heard_while_a_long_text_without_a_border_is_encoded(storyteller_tokenizer, monkeypatch):
    """A timer of the system presses it in the midst of the library's call."""

    def pressed_later(call):
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        return hearing_interrupts(call)

    monkeypatch.setattr(byte_level, "hearing_interrupts", pressed_later)
    usual = signal.signal(signal.SIGALRM, signal.default_int_handler)
    text = "[1,2,3]" * 100_000
    try:
        with pytest.raises(KeyboardInterrupt):
            storyteller_tokenizer.encode(text)
        going_on = "foreign call" in [thread.name for thread in threading.enumerate()]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)
    assert going_on


def test_a_long_part_of_a_prompt_is_encoded_once(storyteller_tokenizer, monkeypatch):
    part = "A fox sang to the crow. " * 2000
    asked = f"<|im_start|>user\n{part}<|im_end|>\n"
    texts = [asked, f"{asked}<|im_start|>assistant\n"]
    expected = [storyteller_tokenizer.encode(text) for text in texts]
    encoded = []
    encode = Tokenizer.encode

    def noted(self, text, special=True):
        encoded.append(len(text))
        return encode(self, text, special)

    monkeypatch.setattr(Tokenizer, "encode", noted)
    assert [storyteller_tokenizer.prompt(text, "\ufdd0") for text in texts] == expected
    assert sum(length > len(part) for length in encoded) == 1
