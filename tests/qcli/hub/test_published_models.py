"""Files as publishers name them, and the one that a person means with a few words: names from public texts."""

from __future__ import annotations

import re
from itertools import product

import pytest

from qcli.errors import ModelNotFoundError, UsageError
from qcli.hub.address import parse
from qcli.hub.repo_files import RepoFile, choose, variants


def spelled(pattern: str) -> list[str]:
    """The names that "m-{Q4_0,Q8_0}.gguf" stands for; {1of3} is each part of three."""
    texts = re.split(r"\{(.*?)\}", pattern)
    choices = [parts(text) or text.split(",") if i % 2 else [text] for i, text in enumerate(texts)]
    return ["".join(name) for name in product(*choices)]


def parts(text: str) -> list[str]:
    first, of, count = text.partition("of")
    return [f"{i + 1:05d}-of-{int(count):05d}" for i in range(int(count))] if first == "1" and of else []


QWEN_NEXT = "Qwen3-Next-80B-A3B-Thinking"
REPOS = {
    "Qwen/Qwen3-Next-80B-A3B-Thinking-GGUF": [
        f"{QWEN_NEXT}-{{1of4}}.gguf",  # BF16, which no name tells
        f"{QWEN_NEXT}-{{Q4_K_M,Q5_0,Q5_K_M,Q6_K,Q8_0}}.gguf",
    ],
    "unsloth/Qwen3-Coder-Next-GGUF": [
        "BF16/Qwen3-Coder-Next-BF16-{1of4}.gguf",
        "Q8_0/Qwen3-Coder-Next-Q8_0-{1of3}.gguf",
        "UD-Q6_K_XL/Qwen3-Coder-Next-UD-Q6_K_XL-{1of2}.gguf",
        "Qwen3-Coder-Next-{MXFP4_MOE,Q4_0,Q4_K_S,UD-IQ3_XXS,UD-Q4_K_M,UD-Q4_K_XL}.gguf",
        "imatrix_unsloth.gguf_file",
    ],
    "Qwen/Qwen3-Coder-Next-GGUF": ["Qwen3-Coder-Next-Q4_K_M/Qwen3-Coder-Next-Q4_K_M-{1of4}.gguf"],
    "unsloth/Qwen3.6-35B-A3B-GGUF": [
        "Qwen3.6-35B-A3B-{UD-IQ2_XXS,UD-IQ2_M,UD-IQ4_XS,MXFP4_MOE,UD-Q4_K_M,UD-Q4_K_XL,Q8_0}.gguf",
        "BF16/Qwen3.6-35B-A3B-BF16-{1of2}.gguf",
        "mmproj-{F16,BF16,F32}.gguf",
        "imatrix_unsloth.gguf",
    ],
    "unsloth/Qwen3-30B-A3B-Instruct-2507-GGUF": [
        "Qwen3-30B-A3B-Instruct-2507-{IQ4_NL,IQ4_XS,Q2_K,Q2_K_L,Q3_K_M,Q4_0,Q4_1,Q4_K_M,Q4_K_S,Q5_K_M,Q6_K,Q8_0}.gguf",
        "Qwen3-30B-A3B-Instruct-2507-UD-{IQ1_S,Q2_K_XL,Q3_K_XL,Q4_K_XL,Q8_K_XL,TQ1_0}.gguf",
        "BF16/Qwen3-30B-A3B-Instruct-2507-BF16-{1of2}.gguf",
    ],
    "byteshape/Qwen3-30B-A3B-Instruct-2507-GGUF": [
        "Qwen3-30B-A3B-Instruct-2507-{Q3_K_S-2.66bpw,Q3_K_S-2.70bpw,Q3_K_S-3.25bpw,IQ4_XS-3.87bpw,IQ4_XS-4.67bpw}.gguf"
    ],
    "bartowski/Qwen_Qwen3-30B-A3B-Thinking-2507-GGUF": [
        "Qwen_Qwen3-30B-A3B-Thinking-2507-{IQ2_XXS,IQ4_XS,Q3_K_XL,Q4_K_L,Q4_K_M,Q4_K_S,Q6_K_L,Q8_0}.gguf",
        "Qwen_Qwen3-30B-A3B-Thinking-2507-bf16/Qwen_Qwen3-30B-A3B-Thinking-2507-bf16-{1of2}.gguf",
    ],
    "mradermacher/Qwen3.6-27B-i1-GGUF": [
        "Qwen3.6-27B.i1-{IQ1_M,IQ4_XS,Q4_0,Q4_K_M,Q4_K_S,Q6_K}.gguf",
        "Qwen3.6-27B.imatrix.gguf",
    ],
    "mradermacher/Qwen3-VL-8B-Instruct-abliterated-GGUF": [
        "Qwen3-VL-8B-Instruct-abliterated.{IQ4_XS,Q2_K,Q4_K_M,Q8_0,f16,mmproj-Q8_0,mmproj-f16}.gguf"
    ],
    "mradermacher/Qwen3-235B-A22B-i1-GGUF": [
        "Qwen3-235B-A22B.i1-IQ2_M.gguf.{part1of2,part2of2}",
        "Qwen3-235B-A22B.i1-IQ1_S.gguf",
    ],
    "TheBloke/Llama-2-70B-Chat-GGUF": [
        "llama-2-70b-chat.{Q2_K,Q4_K_M,Q5_K_M}.gguf",
        "llama-2-70b-chat.Q8_0.gguf-split-{a,b}",
    ],
    "ggml-org/gpt-oss-20b-GGUF": ["gpt-oss-20b-mxfp4.gguf"],
    "ggml-org/gpt-oss-120b-GGUF": ["gpt-oss-120b-mxfp4-{1of3}.gguf"],
    "unsloth/gpt-oss-20b-GGUF": ["gpt-oss-20b-{F16,Q2_K,Q4_K_M,Q8_0,UD-Q4_K_XL,UD-Q8_K_XL}.gguf"],
    "unsloth/gpt-oss-120b-GGUF": [
        "gpt-oss-120b-F16.gguf",
        "Q4_K_M/gpt-oss-120b-Q4_K_M-{1of2}.gguf",
        "UD-Q8_K_XL/gpt-oss-120b-UD-Q8_K_XL-{1of2}.gguf",
    ],
    "unsloth/GLM-4.5-Air-GGUF": [
        "GLM-4.5-Air-{Q2_K,UD-IQ2_XXS}.gguf",
        "IQ4_XS/GLM-4.5-Air-IQ4_XS-{1of2}.gguf",
        "Q4_K_M/GLM-4.5-Air-Q4_K_M-{1of2}.gguf",
        "Q8_0/GLM-4.5-Air-Q8_0-{1of3}.gguf",
        "UD-Q4_K_XL/GLM-4.5-Air-UD-Q4_K_XL-{1of2}.gguf",
    ],
    "unsloth/Qwen3.8-Flash-Next-GGUF": [
        "UD-IQ1_S/Qwen3.8-Flash-Next-UD-IQ1_S-{1of3}.gguf",
        "UD-IQ4_XS/Qwen3.8-Flash-Next-UD-IQ4_XS-{1of3}.gguf",
        "UD-Q4_K_XL/Qwen3.8-Flash-Next-UD-Q4_K_XL-{1of4}.gguf",
        "MTP/mtp-Qwen3.8-Flash-Next-shared-Q8_0.gguf",
        "mmproj-BF16.gguf",
    ],
    "Qwen/Qwen2.5-7B-Instruct-GGUF": [
        "qwen2.5-7b-instruct-{q2_k,q3_k_m}.gguf",
        "qwen2.5-7b-instruct-q4_k_m-{1of2}.gguf",
        "qwen2.5-7b-instruct-fp16-{1of4}.gguf",
    ],
    "Qwen/Qwen2-0.5B-Instruct-GGUF": ["qwen2-0_5b-instruct-{fp16,q2_k,q4_0,q4_k_m,q8_0}.gguf"],
    "mudler/LFM2.5-8B-A1B-APEX-GGUF": [
        "LFM2.5-8B-A1B-APEX-{I-Quality,Quality,I-Balanced,Balanced,I-Compact,Compact,I-Mini}.gguf"
    ],
    "LiquidAI/LFM2.5-8B-A1B-GGUF": ["LFM2.5-8B-A1B-{BF16,F16,Q4_0,Q4_K_M,Q5_K_M,Q6_K,Q8_0}.gguf"],
    "noctrex/gemma-4-26B-A4B-it-MXFP4_MOE-GGUF": ["gemma-4-26B-A4B-it-MXFP4_MOE.gguf", "mmproj-F16.gguf"],
    "steampunque/Qwen3-Coder-Next-Hybrid-GGUF": ["Qwen3-Coder-Next.Q4_K_H.gguf", "Qwen3-Coder-Next.Q4_K_M.gguf"],
    "sliderforthewin/lfm2.5-8b-a1b-ft-GGUF": ["lfm2.5-8b-a1b-ft.{Q3_K_M,imx.IQ3_XS}.gguf"],
    "google/gemma-3-4b-it-qat-q4_0-gguf": ["gemma-3-4b-it-q4_0.gguf", "mmproj-model-f16-4B.gguf"],
    "DavidAU/Qwen3-8B-Hivemind-GGUF": ["Qwen3-8B-Hivemind-Inst-Hrtic-Ablit-Uncensored-{Q4_K_M,Q8_0}-imat.gguf"],
    "prism-ml/Ternary-Bonsai-2-27B-gguf": ["Ternary-Bonsai-2-27B-{PTQ1_0,TQ1_0}.gguf"],
}

MEANT = [
    ("Qwen/Qwen3-Next-80B-A3B-Thinking-GGUF", f"{QWEN_NEXT}-Q4_K_M.gguf", 1),
    ("Qwen/Qwen3-Next-80B-A3B-Thinking-GGUF:Q8_0", f"{QWEN_NEXT}-Q8_0.gguf", 1),
    ("Qwen/Qwen3-Next-80B-A3B-Thinking-GGUF:q5-k-m", f"{QWEN_NEXT}-Q5_K_M.gguf", 1),
    (f"Qwen/Qwen3-Next-80B-A3B-Thinking-GGUF:{QWEN_NEXT}-00001-of-00004.gguf", f"{QWEN_NEXT}-00001-of-00004.gguf", 4),
    (f"Qwen/Qwen3-Next-80B-A3B-Thinking-GGUF/{QWEN_NEXT}-00003-of-00004.gguf", f"{QWEN_NEXT}-00001-of-00004.gguf", 4),
    (f"Qwen/Qwen3-Next-80B-A3B-Thinking-GGUF:{QWEN_NEXT}.gguf", f"{QWEN_NEXT}-00001-of-00004.gguf", 4),
    ("unsloth/Qwen3-Coder-Next-GGUF", "Qwen3-Coder-Next-UD-Q4_K_M.gguf", 1),
    ("unsloth/Qwen3-Coder-Next-GGUF:Q4_K_M", "Qwen3-Coder-Next-UD-Q4_K_M.gguf", 1),
    ("unsloth/Qwen3-Coder-Next-GGUF:Q4_K_XL", "Qwen3-Coder-Next-UD-Q4_K_XL.gguf", 1),
    ("unsloth/Qwen3-Coder-Next-GGUF:UD-IQ3_XXS", "Qwen3-Coder-Next-UD-IQ3_XXS.gguf", 1),
    ("unsloth/Qwen3-Coder-Next-GGUF:MXFP4", "Qwen3-Coder-Next-MXFP4_MOE.gguf", 1),
    ("unsloth/Qwen3-Coder-Next-GGUF:BF16", "BF16/Qwen3-Coder-Next-BF16-00001-of-00004.gguf", 4),
    ("unsloth/Qwen3-Coder-Next-GGUF:q8_0", "Q8_0/Qwen3-Coder-Next-Q8_0-00001-of-00003.gguf", 3),
    ("hf.co/unsloth/Qwen3-Coder-Next-GGUF:Qwen3-Coder-Next-Q4_K_S", "Qwen3-Coder-Next-Q4_K_S.gguf", 1),
    (
        "https://huggingface.co/unsloth/Qwen3-Coder-Next-GGUF/tree/main/UD-Q6_K_XL",
        "UD-Q6_K_XL/Qwen3-Coder-Next-UD-Q6_K_XL-00001-of-00002.gguf",
        2,
    ),
    ("Qwen/Qwen3-Coder-Next-GGUF:Q4_K_M", "Qwen3-Coder-Next-Q4_K_M/Qwen3-Coder-Next-Q4_K_M-00001-of-00004.gguf", 4),
    ("unsloth/Qwen3.6-35B-A3B-GGUF", "Qwen3.6-35B-A3B-UD-Q4_K_M.gguf", 1),
    ("unsloth/Qwen3.6-35B-A3B-GGUF:UD-Q4_K_XL", "Qwen3.6-35B-A3B-UD-Q4_K_XL.gguf", 1),
    ("unsloth/Qwen3.6-35B-A3B-GGUF:MXFP4_MOE", "Qwen3.6-35B-A3B-MXFP4_MOE.gguf", 1),
    ("unsloth/Qwen3.6-35B-A3B-GGUF:IQ4_XS", "Qwen3.6-35B-A3B-UD-IQ4_XS.gguf", 1),
    ("unsloth/Qwen3.6-35B-A3B-GGUF:BF16", "BF16/Qwen3.6-35B-A3B-BF16-00001-of-00002.gguf", 2),
    ("unsloth/Qwen3-30B-A3B-Instruct-2507-GGUF", "Qwen3-30B-A3B-Instruct-2507-Q4_K_M.gguf", 1),
    ("unsloth/Qwen3-30B-A3B-Instruct-2507-GGUF:Q4_K_XL", "Qwen3-30B-A3B-Instruct-2507-UD-Q4_K_XL.gguf", 1),
    ("unsloth/Qwen3-30B-A3B-Instruct-2507-GGUF:Q2_K", "Qwen3-30B-A3B-Instruct-2507-Q2_K.gguf", 1),
    ("unsloth/Qwen3-30B-A3B-Instruct-2507-GGUF:TQ1_0", "Qwen3-30B-A3B-Instruct-2507-UD-TQ1_0.gguf", 1),
    (
        "https://huggingface.co/unsloth/Qwen3-30B-A3B-Instruct-2507-GGUF/blob/main/Qwen3-30B-A3B-Instruct-2507-UD-Q2_K_XL.gguf",
        "Qwen3-30B-A3B-Instruct-2507-UD-Q2_K_XL.gguf",
        1,
    ),
    ("byteshape/Qwen3-30B-A3B-Instruct-2507-GGUF:IQ4_XS-4.67bpw", "Qwen3-30B-A3B-Instruct-2507-IQ4_XS-4.67bpw.gguf", 1),
    ("byteshape/Qwen3-30B-A3B-Instruct-2507-GGUF:2.70bpw", "Qwen3-30B-A3B-Instruct-2507-Q3_K_S-2.70bpw.gguf", 1),
    (
        "byteshape/Qwen3-30B-A3B-Instruct-2507-GGUF:Qwen3-30B-A3B-Instruct-2507-IQ4_XS-3.87bpw.gguf",
        "Qwen3-30B-A3B-Instruct-2507-IQ4_XS-3.87bpw.gguf",
        1,
    ),
    ("bartowski/Qwen_Qwen3-30B-A3B-Thinking-2507-GGUF", "Qwen_Qwen3-30B-A3B-Thinking-2507-Q4_K_M.gguf", 1),
    ("bartowski/Qwen_Qwen3-30B-A3B-Thinking-2507-GGUF:q4_k_l", "Qwen_Qwen3-30B-A3B-Thinking-2507-Q4_K_L.gguf", 1),
    (
        "bartowski/Qwen_Qwen3-30B-A3B-Thinking-2507-GGUF:BF16",
        "Qwen_Qwen3-30B-A3B-Thinking-2507-bf16/Qwen_Qwen3-30B-A3B-Thinking-2507-bf16-00001-of-00002.gguf",
        2,
    ),
    ("mradermacher/Qwen3.6-27B-i1-GGUF:Q4_K_M", "Qwen3.6-27B.i1-Q4_K_M.gguf", 1),
    ("mradermacher/Qwen3.6-27B-i1-GGUF:i1-Q4_K_S", "Qwen3.6-27B.i1-Q4_K_S.gguf", 1),
    ("mradermacher/Qwen3.6-27B-i1-GGUF", "Qwen3.6-27B.i1-Q4_K_M.gguf", 1),
    (
        "https://huggingface.co/mradermacher/Qwen3.6-27B-i1-GGUF/resolve/main/Qwen3.6-27B.i1-Q6_K.gguf?download=true",
        "Qwen3.6-27B.i1-Q6_K.gguf",
        1,
    ),
    ("mradermacher/Qwen3-VL-8B-Instruct-abliterated-GGUF", "Qwen3-VL-8B-Instruct-abliterated.Q4_K_M.gguf", 1),
    ("mradermacher/Qwen3-VL-8B-Instruct-abliterated-GGUF:Q8_0", "Qwen3-VL-8B-Instruct-abliterated.Q8_0.gguf", 1),
    ("mradermacher/Qwen3-VL-8B-Instruct-abliterated-GGUF:FP16", "Qwen3-VL-8B-Instruct-abliterated.f16.gguf", 1),
    ("mradermacher/Qwen3-235B-A22B-i1-GGUF", "Qwen3-235B-A22B.i1-IQ1_S.gguf", 1),
    ("TheBloke/Llama-2-70B-Chat-GGUF", "llama-2-70b-chat.Q4_K_M.gguf", 1),
    ("TheBloke/Llama-2-70B-Chat-GGUF:q5_k_m", "llama-2-70b-chat.Q5_K_M.gguf", 1),
    ("ggml-org/gpt-oss-20b-GGUF", "gpt-oss-20b-mxfp4.gguf", 1),
    ("ggml-org/gpt-oss-20b-GGUF:MXFP4", "gpt-oss-20b-mxfp4.gguf", 1),
    ("ggml-org/gpt-oss-120b-GGUF", "gpt-oss-120b-mxfp4-00001-of-00003.gguf", 3),
    ("ggml-org/gpt-oss-120b-GGUF/gpt-oss-120b-mxfp4-00002-of-00003.gguf", "gpt-oss-120b-mxfp4-00001-of-00003.gguf", 3),
    ("unsloth/gpt-oss-20b-GGUF:F16", "gpt-oss-20b-F16.gguf", 1),
    ("unsloth/gpt-oss-20b-GGUF:Q8_K_XL", "gpt-oss-20b-UD-Q8_K_XL.gguf", 1),
    ("unsloth/gpt-oss-120b-GGUF", "Q4_K_M/gpt-oss-120b-Q4_K_M-00001-of-00002.gguf", 2),
    ("unsloth/GLM-4.5-Air-GGUF:Q4_K_M", "Q4_K_M/GLM-4.5-Air-Q4_K_M-00001-of-00002.gguf", 2),
    (
        "unsloth/GLM-4.5-Air-GGUF:UD-Q4_K_XL/GLM-4.5-Air-UD-Q4_K_XL-00001-of-00002.gguf",
        "UD-Q4_K_XL/GLM-4.5-Air-UD-Q4_K_XL-00001-of-00002.gguf",
        2,
    ),
    ("unsloth/GLM-4.5-Air-GGUF:glm-4.5-air-q8_0-00001-of-00003.gguf", "Q8_0/GLM-4.5-Air-Q8_0-00001-of-00003.gguf", 3),
    ("unsloth/GLM-4.5-Air-GGUF:IQ2_XXS", "GLM-4.5-Air-UD-IQ2_XXS.gguf", 1),
    ("unsloth/Qwen3.8-Flash-Next-GGUF", "UD-Q4_K_XL/Qwen3.8-Flash-Next-UD-Q4_K_XL-00001-of-00004.gguf", 4),
    ("unsloth/Qwen3.8-Flash-Next-GGUF:IQ4_XS", "UD-IQ4_XS/Qwen3.8-Flash-Next-UD-IQ4_XS-00001-of-00003.gguf", 3),
    ("Qwen/Qwen2.5-7B-Instruct-GGUF:Q4_K_M", "qwen2.5-7b-instruct-q4_k_m-00001-of-00002.gguf", 2),
    ("Qwen/Qwen2.5-7B-Instruct-GGUF:F16", "qwen2.5-7b-instruct-fp16-00001-of-00004.gguf", 4),
    ("Qwen/Qwen2-0.5B-Instruct-GGUF", "qwen2-0_5b-instruct-q4_k_m.gguf", 1),
    ("mudler/LFM2.5-8B-A1B-APEX-GGUF:I-Quality", "LFM2.5-8B-A1B-APEX-I-Quality.gguf", 1),
    ("LiquidAI/LFM2.5-8B-A1B-GGUF", "LFM2.5-8B-A1B-Q4_K_M.gguf", 1),
    (
        "hf.co/noctrex/gemma-4-26B-A4B-it-MXFP4_MOE-GGUF:gemma-4-26B-A4B-it-MXFP4_MOE.gguf",
        "gemma-4-26B-A4B-it-MXFP4_MOE.gguf",
        1,
    ),
    ("noctrex/gemma-4-26B-A4B-it-MXFP4_MOE-GGUF:latest", "gemma-4-26B-A4B-it-MXFP4_MOE.gguf", 1),
    ("steampunque/Qwen3-Coder-Next-Hybrid-GGUF:Q4_K_H", "Qwen3-Coder-Next.Q4_K_H.gguf", 1),
    ("sliderforthewin/lfm2.5-8b-a1b-ft-GGUF:IQ3_XS", "lfm2.5-8b-a1b-ft.imx.IQ3_XS.gguf", 1),
    ("google/gemma-3-4b-it-qat-q4_0-gguf", "gemma-3-4b-it-q4_0.gguf", 1),
    ("DavidAU/Qwen3-8B-Hivemind-GGUF:Q4_K_M", "Qwen3-8B-Hivemind-Inst-Hrtic-Ablit-Uncensored-Q4_K_M-imat.gguf", 1),
    ("prism-ml/Ternary-Bonsai-2-27B-gguf:TQ1_0", "Ternary-Bonsai-2-27B-TQ1_0.gguf", 1),
]


def files_of(repo: str) -> list[RepoFile]:
    names = [name for pattern in REPOS[repo] for name in spelled(pattern)]
    return [RepoFile(name, 1000) for name in ["README.md", ".gitattributes", "config.json", *names]]


@pytest.mark.parametrize(("typed", "first", "count"), MEANT)
def test_what_a_person_means(typed: str, first: str, count: int) -> None:
    address = parse(typed)
    assert address is not None
    found = choose(files_of(address.repo), address)
    assert (found.name, len(found.files), found.bytes) == (first, count, 1000 * count)
    assert [file.name for file in found.files] == sorted(file.name for file in found.files)


def test_the_table_is_long() -> None:
    assert len(MEANT) >= 60


@pytest.mark.parametrize(
    ("typed", "kind", "said"),
    [
        (
            "byteshape/Qwen3-30B-A3B-Instruct-2507-GGUF:IQ4_XS",
            UsageError,
            "could be IQ4_XS-3.87bpw, IQ4_XS-4.67bpw",
        ),
        ("byteshape/Qwen3-30B-A3B-Instruct-2507-GGUF:Q3_K_S", UsageError, "Q3_K_S-2.66bpw"),
        ("mudler/LFM2.5-8B-A1B-APEX-GGUF", UsageError, "APEX-Balanced.gguf"),
        ("unsloth/Qwen3-30B-A3B-Instruct-2507-GGUF:Q4", UsageError, "could be Q4_0, Q4_1, Q4_K_M"),
        ("mudler/LFM2.5-8B-A1B-APEX-GGUF:Q4_K_M", ModelNotFoundError, "there are LFM2.5-8B-A1B-APEX-Balanced"),
        ("unsloth/Qwen3.6-35B-A3B-GGUF:Q9_K", ModelNotFoundError, "has no Q9_K (there are MXFP4_MOE, Q8_0"),
        ("unsloth/Qwen3.6-35B-A3B-GGUF:mmproj-F16.gguf", ModelNotFoundError, "has no file mmproj-F16.gguf"),
        ("unsloth/Qwen3.6-35B-A3B-GGUF:F16", ModelNotFoundError, "has no F16"),
        ("unsloth/Qwen3.8-Flash-Next-GGUF:Q8_0", ModelNotFoundError, "has no Q8_0 (there are UD-"),
        ("TheBloke/Llama-2-70B-Chat-GGUF:Q8_0", ModelNotFoundError, "an old kind of parts"),
        ("mradermacher/Qwen3-235B-A22B-i1-GGUF:IQ2_M", ModelNotFoundError, "an old kind of parts"),
    ],
)
def test_what_nobody_can_know(typed: str, kind: type[Exception], said: str) -> None:
    address = parse(typed)
    assert address is not None
    with pytest.raises(kind) as caught:
        choose(files_of(address.repo), address)
    assert said in str(caught.value)


def test_the_models_of_a_repository() -> None:
    labels = [one.label for one in variants(files_of("unsloth/GLM-4.5-Air-GGUF"))]
    assert sorted(labels) == ["IQ4_XS", "Q2_K", "Q4_K_M", "Q8_0", "UD-IQ2_XXS", "UD-Q4_K_XL"]
    [mixed] = [one for one in variants(files_of("byteshape/Qwen3-30B-A3B-Instruct-2507-GGUF")) if "4.67" in one.label]
    assert (mixed.quant, mixed.bits_per_weight) == ("IQ4_XS-4.67bpw", 4.67)
    assert "Qwen3-Next-80B-A3B-Thinking" in [
        one.label for one in variants(files_of("Qwen/Qwen3-Next-80B-A3B-Thinking-GGUF"))
    ]
