"""Addresses of models of huggingface.co, as people type or copy them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcli.errors import UsageError
from qcli.hub.address import Address, is_safe, parse

REPO = "Owner/Name-GGUF"
COMMIT = "d103b2733ec1012a52d01edda66b7e5c24ae5050"


@pytest.fixture(autouse=True)
def mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://Mirror.example/hf/")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (REPO, Address(REPO)),
        (f" {REPO}\n", Address(REPO)),
        (f"{REPO}/", Address(REPO)),
        (f"{REPO}:", Address(REPO)),
        (f"{REPO}:latest", Address(REPO)),
        (f"{REPO}:UD-Q4_K_XL", Address(REPO, "UD-Q4_K_XL")),
        (f"{REPO}:IQ4_XS-4.67bpw", Address(REPO, "IQ4_XS-4.67bpw")),
        (f"{REPO}:a.gguf", Address(REPO, None, "a.gguf")),
        (f"{REPO}:BF16/a-00001-of-00002.GGUF", Address(REPO, None, "BF16/a-00001-of-00002.GGUF")),
        (f"{REPO}/a.gguf", Address(REPO, None, "a.gguf")),
        (f"{REPO}/BF16/a b.gguf", Address(REPO, None, "BF16/a b.gguf")),
        (f"{REPO}@v2", Address(REPO, None, None, "v2")),
        (f"{REPO}@v2:Q8_0", Address(REPO, "Q8_0", None, "v2")),
        (f"{REPO}@refs%2Fpr%2F3:a.gguf", Address(REPO, None, "a.gguf", "refs/pr/3")),
        (f"hf:{REPO}", Address(REPO)),
        (f"hf:/{REPO}/a.gguf", Address(REPO, None, "a.gguf")),
        (f"hf://{REPO}@{COMMIT}/a.gguf", Address(REPO, None, "a.gguf", COMMIT)),
        (f"hf://models/{REPO}/a.gguf", Address(REPO, None, "a.gguf")),
        (f"hf.co/{REPO}:Q4_K_M", Address(REPO, "Q4_K_M")),
        (f"HuggingFace.co/{REPO}", Address(REPO)),
        (f"https://huggingface.co/{REPO}", Address(REPO)),
        (f"http://www.huggingface.co/{REPO}/", Address(REPO)),
        (f"HTTPS://hf.co/{REPO}:Q4_K_M", Address(REPO, "Q4_K_M")),
        (f"https://huggingface.co/{REPO}/tree/main", Address(REPO)),
        (f"https://huggingface.co/{REPO}/tree/v2/UD-Q4_K_XL", Address(REPO, "UD-Q4_K_XL", None, "v2")),
        (f"https://huggingface.co/{REPO}/blob/main/BF16/a.gguf", Address(REPO, None, "BF16/a.gguf")),
        (f"https://huggingface.co/{REPO}/resolve/main/a.gguf?download=true", Address(REPO, None, "a.gguf")),
        (f"https://huggingface.co/{REPO}/resolve/{COMMIT}/a%20b.gguf", Address(REPO, None, "a b.gguf", COMMIT)),
        (f"https://huggingface.co/{REPO}/blob/refs%2Fpr%2F3/a.gguf", Address(REPO, None, "a.gguf", "refs/pr/3")),
        (f"https://huggingface.co/{REPO}/blob/refs/pr/3/a.gguf#L1", Address(REPO, None, "a.gguf", "refs/pr/3")),
        (f"https://huggingface.co/{REPO}?show_file_info=Q8_0%2Fa.gguf", Address(REPO, None, "Q8_0/a.gguf")),
        (f"https://mirror.example/hf/{REPO}/resolve/main/a.gguf", Address(REPO, None, "a.gguf")),
        (f"mirror.example/hf/{REPO}/a.gguf", Address(REPO, None, "a.gguf")),
    ],
)
def test_an_address(typed: str, meant: Address) -> None:
    assert parse(typed) == meant
    assert parse(str(meant)) == meant


@pytest.mark.parametrize(
    "typed",
    [
        *("", "storyteller", "a.gguf", "./owner/name", "../name", "/owner/name", "~/owner/name.gguf", "folder/a.gguf"),
        *("C:/models/a.gguf", "C:\\models\\a.gguf", "folder\\a.gguf", "qwen3:30b-a3b", "a/b/c", "a/b/../c.gguf"),
        *("a/b:c d", "a b/c", "owner/name--x", "owner/na..me", "-owner/name", "owner/name.git", "x/" + 200 * "y"),
    ],
)
def test_what_is_no_address(typed: str) -> None:
    assert parse(typed) is None


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("https://example.org/a.gguf", "is not an address on huggingface.co"),
        ("ftp://huggingface.co/owner/name", "is not an address on huggingface.co"),
        ("https://huggingface.co.example.org/owner/name", "is not an address on huggingface.co"),
        ("https://huggingface.co@example.org/owner/name", "is not an address on huggingface.co"),
        ("https://you:secret@huggingface.co/owner/name", "is not an address on huggingface.co"),
        ("https://mirror.example/owner/name/hf", "is not an address on huggingface.co"),
        ("https://huggingface.co", "names no model"),
        ("https://huggingface.co/owner", "names no model"),
        ("https://huggingface.co/datasets/owner/name", "names no model"),
        ("https://huggingface.co/owner/name/discussions/3", "names no model"),
        ("https://huggingface.co/owner/name/blob/main/README.md", "names no model"),
        ("https://huggingface.co/owner/name/resolve/main/..%2F..%2Fa.gguf", "names no model"),
        ("https://huggingface.co/owner/name/resolve/main/a%5Cb.gguf", "names no model"),
        ("https://huggingface.co/owner/name/resolve/main/a%00.gguf", "names no model"),
        ("hf://owner/name/x/../../a.gguf", "names no model"),
        ("owner/name:../a.gguf", "names no model"),
        ("owner/name:a/../../b.gguf", "names no model"),
    ],
)
def test_an_address_that_cannot_be_meant(typed: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        parse(typed)
    assert caught.value.hint
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    "name",
    [
        *("", "/a", "a/", "a//b", "..", "../a", "a/..", "a/../b", ".", "./a", "a\\b", "C:a", "a:b", "a\n", "a\x00", "a\x7f"),
        *("a\u202eb", "con", "NUL.gguf", "x/aux.gguf", "com1", "a.", "a /b", "a?", "a*", "<a>", "a|b", 'a"b', 300 * "a"),
    ],
)  # fmt: skip
def test_names_that_could_lead_elsewhere(name: str) -> None:
    assert not is_safe(name)


@pytest.mark.parametrize(
    "name", ["a.gguf", "UD-Q4_K_XL/m-00001-of-00002.gguf", "Modell größer.gguf", ".a", "console.gguf"]
)
def test_names_of_files(name: str) -> None:
    assert is_safe(name)


@given(st.text(st.sampled_from("ab/:@.%\\-#? \x00é2Ff"), max_size=30), st.sampled_from(["", "hf:", "https://hf.co/"]))
def test_whatever_is_typed_leads_nowhere_else(text: str, before: str) -> None:
    try:
        found = parse(before + text)
    except UsageError:
        return
    if found is not None:
        assert found.repo.count("/") == 1
        assert all(is_safe(name) for name in (found.repo, found.file, found.revision) if name is not None)
        assert parse(str(found)) == found
