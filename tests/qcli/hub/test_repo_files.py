"""Lists of files that break the rules, or are cut: what is made of them, and what is said."""

from __future__ import annotations

from contextlib import suppress
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcli.errors import ModelNotFoundError, QcliError, UsageError
from qcli.hub.address import Address, is_safe
from qcli.hub.quant_names import bits_of, quant_of, type_of
from qcli.hub.repo_files import MAX_BYTES, RepoFile, choose, default, variants


def listed(*names: str, size: int | None = 1) -> list[RepoFile]:
    return [RepoFile(name, size) for name in names]


def chosen(files: list[RepoFile], quant: str | None = None, file: str | None = None) -> str:
    return choose(files, Address("o/r", quant, file)).name


@pytest.mark.parametrize(
    ("name", "quant", "kind"),
    [
        ("Model-Q4_K_M.gguf", "Q4_K_M", "q4-k-m"),
        ("UD-Q4_K_XL/Model-UD-Q4_K_XL-00001-of-00002.gguf", "UD-Q4_K_XL", "q4-k-xl"),
        ("Q8_0/Model-00001-of-00002.gguf", "Q8_0", "q8-0"),
        ("Model.i1-IQ4_XS.gguf", "i1-IQ4_XS", "iq4-xs"),
        ("Model-IQ4_XS-4.67bpw.gguf", "IQ4_XS-4.67bpw", "iq4-xs"),
        ("smol-IQ2_KS/Model-smol-IQ2_KS-00001-of-00009.gguf", "smol-IQ2_KS", "iq2-ks"),
        ("model-q4_0_4_4.gguf", "q4_0_4_4", "q4-0-4-4"),
        ("model.f16.q6_k.gguf", "q6_k", "q6-k"),
        ("Model-fp16.gguf", "fp16", "f16"),
        ("Model-F16-7B.gguf", "F16", "f16"),
        ("Q6_K.gguf", "Q6_K", "q6-k"),
        ("IQ-Test-7B.gguf", "", ""),
        ("Model-00001-of-00004.gguf", "", ""),
    ],
)
def test_what_a_name_tells(name: str, quant: str, kind: str) -> None:
    assert (quant_of(name), type_of(quant)) == (quant, kind)
    assert bits_of(quant) == (4.67 if "bpw" in quant else None)


@pytest.mark.parametrize(
    "name",
    [
        *("mmproj-F16.gguf", "Model.mmproj-Q8_0.gguf", "imatrix.gguf", "Model.imatrix.gguf", "mtp-Model-Q8_0.gguf"),
        *("MTP/mtp-Model-Q8_0.gguf", "eagle3-Model.gguf", "Model-eagle3.gguf", "Model-draft-Q8_0.gguf", "draft/m.gguf"),
        *("Model-Q4_0.safetensors", "Model-Q4_0.gguf.json", "gguf", "Model-chunk-001-of-018.gguf"),
    ],
)
def test_what_is_no_model(name: str) -> None:
    assert variants(listed(name)) == []
    with pytest.raises(ModelNotFoundError, match=r"o/r: none of its files is a model as a \.gguf file"):
        chosen(listed(name))


@pytest.mark.parametrize("name", ["Model-MTP-Q4_0.gguf", "Draftsman-Q4_0.gguf", "Eagle-7B-Q4_0.gguf", "Q4_0.GGUF"])
def test_what_only_looks_like_none(name: str) -> None:
    assert chosen(listed(name), "Q4_0") == name


def test_parts_are_put_in_order_and_cut_sets_are_told() -> None:
    names = [f"m-Q8_0-{i:05d}-of-00011.gguf" for i in (11, 2, 1, 10, 3, 4, 5, 6, 7, 8, 9)]
    [whole] = variants(listed(*names, size=7))
    assert ([file.name for file in whole.files], whole.bytes) == (sorted(names), 77)
    [unknown] = variants([*listed(*names[1:], size=7), RepoFile(names[0])])
    assert unknown.bytes is None
    cut = listed(*names[:-2], "m-Q4_0.gguf")
    assert [one.quant for one in variants(cut)] == ["Q4_0"]
    for quant, file in (("Q8_0", None), (None, names[0])):
        with pytest.raises(ModelNotFoundError, match=r"2 files of 11 of Q8_0 are not there \(there is Q4_0\)"):
            chosen(cut, quant, file)
    with pytest.raises(ModelNotFoundError, match=r"1 file of 2 of Q8_0 is not there"):
        chosen(listed("m-Q8_0-00002-of-00002.gguf"))


def test_one_model_in_two_ways_is_one() -> None:
    whole_and_split = listed("m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf", "m-Q8_0.gguf")
    assert [one.name for one in variants(whole_and_split)] == ["m-Q8_0.gguf"]
    assert chosen(whole_and_split, file="m-Q8_0-00002-of-00002.gguf") == "m-Q8_0-00001-of-00002.gguf"
    assert [one.name for one in variants(listed("Q8_0/m-Q8_0.gguf", "m-Q8_0.gguf"))] == ["m-Q8_0.gguf"]
    assert len(variants(listed("chat/m-Q8_0.gguf", "base/m-Q8_0.gguf", "Q4_0/m.gguf", "Q8_0/m.gguf"))) == 4


def test_the_plainer_of_two_is_meant_and_of_others_none() -> None:
    assert chosen(listed("m-Q4_0.gguf", "m-MTP-Q4_0.gguf", "m-Q4_0-imat.gguf"), "Q4_0") == "m-Q4_0.gguf"
    assert chosen(listed("m-Q4_K_M.gguf", "m-UD-Q4_K_M.gguf"), "Q4_K_M") == "m-Q4_K_M.gguf"
    assert chosen(listed("m-Q4_K_M.gguf", "m-UD-Q4_K_M.gguf")) == "m-Q4_K_M.gguf"
    with pytest.raises(
        UsageError, match=r"could be m-1B-Q4_0.gguf, m-3B-Q4_0.gguf \(name one, as in o/r:m-1B-Q4_0.gguf"
    ):
        chosen(listed("m-3B-Q4_0.gguf", "m-1B-Q4_0.gguf"), "Q4_0")
    assert chosen(listed("m-3B-Q4_0.gguf", "m-1B-Q4_0.gguf"), "3B-Q4_0") == "m-3B-Q4_0.gguf"
    with pytest.raises(UsageError, match=r"could be a/m\.gguf, b/m\.gguf"):
        chosen(listed("a/m.gguf", "b/m.gguf"), file="m.gguf")


def test_what_is_taken_where_nothing_is_said() -> None:
    assert chosen(listed("m-Q8_0.gguf", "m-Q4_K_S.gguf", "m-IQ4_XS.gguf", "m-BF16.gguf")) == "m-IQ4_XS.gguf"
    assert chosen(listed("m-BF16.gguf", "m-Q8_0.gguf")) == "m-Q8_0.gguf"
    assert default([]) == []


HOSTILE = ("../m-Q4_0.gguf", "/etc/m-Q4_0.gguf", "a/../../m.gguf", "C:\\m-Q4_0.gguf", "m\n-Q4_0.gguf", "a//m.gguf")


def test_hostile_lists_name_no_file() -> None:
    assert variants(listed(*HOSTILE)) == []
    assert variants([RepoFile("m-Q4_0.gguf", -1), RepoFile("m-Q8_0.gguf", MAX_BYTES + 1)]) == []
    with pytest.raises(ModelNotFoundError, match="its list of files cannot be true: 6 names or sizes") as caught:
        chosen(listed(*HOSTILE), "Q4_0")
    assert str(caught.value).isprintable()
    assert chosen(listed(*HOSTILE, "m-Q8_0.gguf")) == "m-Q8_0.gguf"
    for odd in ("m-00003-of-00002.gguf", "m-00000-of-00002.gguf", "m-00001-of-99999.gguf"):
        assert variants(listed(odd)) == []
    twice = [RepoFile("m.gguf", 1), RepoFile("m.gguf", 2)]
    assert [one.bytes for one in variants(twice)] == [1]


def test_long_lists_take_no_time() -> None:
    many = [RepoFile(f"data/{i}.parquet", 1) for i in range(100_000)] + listed("m-Q4_0.gguf")
    began = process_time()
    assert chosen(many) == "m-Q4_0.gguf"
    with pytest.raises(QcliError, match="more than 10,000 model files"):
        variants(RepoFile(f"m{i}-Q4_0.gguf", 1) for i in range(100_000))
    with pytest.raises(UsageError, match=r"and 488 more") as caught:
        chosen(listed(*(f"v{i}-{'x' * 200}-Q4_0.gguf" for i in range(500))), "Q4_0")
    assert len(caught.value.message) < 1000
    assert process_time() - began < 3


NAMES = st.text(st.sampled_from("mQ4_0-K./\\\x1bé"), max_size=12).map(lambda stem: f"{stem}.gguf")
NUMBERED = st.builds(lambda i, n: f"m-Q4_0-{i:05d}-of-{n:05d}.gguf", st.integers(0, 4), st.integers(0, 4))
SIZES = st.none() | st.integers(-5, 5) | st.integers(MAX_BYTES - 1, MAX_BYTES + 1)


@given(
    st.lists(st.builds(RepoFile, NAMES | NUMBERED, SIZES), max_size=12),
    st.none() | NAMES,
    st.none() | st.text(max_size=5),
)
def test_only_what_is_listed_is_ever_chosen(files: list[RepoFile], file: str | None, quant: str | None) -> None:
    for one in variants(files):
        assert set(one.files) <= set(files)
        assert all(is_safe(each.name) and 0 <= (each.bytes or 0) <= MAX_BYTES for each in one.files)
    with suppress(QcliError):
        assert set(choose(files, Address("o/r", quant, file)).files) <= set(files)
