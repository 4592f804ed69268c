"""The official JSON-Schema-Test-Suite: what a schema forbids does not come, or the schema is refused.

    git clone https://github.com/json-schema-org/JSON-Schema-Test-Suite
    QCLI_SCHEMA_SUITE=JSON-Schema-Test-Suite python -m pytest -n0 -s tests/fuzz/fuzz_schema_suite.py

What a schema allows need not come: properties come in the order of the schema, and none that it does not name.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from qcli.constraints.constraint import constraint
from qcli.constraints.matcher import Matcher
from qcli.constraints.vocabulary import Vocabulary
from qcli.errors import UsageError

SUITE = os.environ.get("QCLI_SCHEMA_SUITE")
BYTES = Vocabulary([bytes([byte]) for byte in range(256)], lambda text: list(text.encode()))

pytestmark = pytest.mark.skipif(not SUITE, reason="QCLI_SCHEMA_SUITE names no folder")


def may_come(grammar: str, value: object) -> bool:
    """Whether a value can be an answer."""
    matcher = Matcher(BYTES, grammar, is_json=True)
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return matcher.accept_all(list(text.encode())) and matcher.is_whole


@pytest.mark.parametrize("optional", [False, True])
def test_what_a_schema_forbids_does_not_come(optional):
    told: Counter[str] = Counter()
    wrong = []
    folder = Path(SUITE or "") / "tests" / "draft2020-12"
    files = sorted(folder.glob("optional/**/*.json" if optional else "*.json"))
    assert files
    for path in files:
        for group in json.loads(path.read_text("utf-8")):
            try:
                wanted = constraint(schema=group["schema"])
            except UsageError as problem:
                told["schemas refused"] += 1
                assert problem.hint  # noqa: PT017
                continue
            assert wanted
            told["schemas held"] += 1
            for case in group["tests"]:
                comes = may_come(wanted.grammar, case["data"])
                told[f"{'valid' if case['valid'] else 'invalid'}, {'may come' if comes else 'cannot'}"] += 1
                if comes and not case["valid"]:
                    wrong.append(f"{path.name}: {group['description']}: {case['description']}")
    print(f"\n{dict(told)}")
    if optional:  # calendars and international names, which no grammar knows
        assert {entry.partition(":")[0] for entry in wrong} <= {
            "date.json", "date-time.json", "time.json", "hostname.json", "ecmascript-regex.json",
        }  # fmt: skip
    else:
        assert wrong == []
