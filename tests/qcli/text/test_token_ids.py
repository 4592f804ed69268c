"""Token ids from Python: whole numbers of any class, within the vocabulary."""

from __future__ import annotations

import numpy as np
import pytest

from qcli.errors import UsageError
from qcli.llm import LLM
from qcli.text.token_ids import token_ids


@pytest.mark.parametrize("given", [[1, 2], (1, 2), np.array([1, 2], np.uint8), [np.int64(1), 2], iter([1, 2])])
def test_ids_of_any_class_are_ints(given):
    found = token_ids(given, 3)
    assert found == [1, 2]
    assert {type(id) for id in found} == {int}


@pytest.mark.parametrize("wrong", [1.5, 1.0, np.float32(1), True, "1", None, float("nan"), [1]])
def test_what_is_no_whole_number_is_refused(wrong):
    with pytest.raises(UsageError, match="is no id of a token"):
        token_ids([0, wrong], 3)


@pytest.mark.parametrize("wrong", [-1, 3, 10**400, np.int64(-1), 2**64])
def test_an_id_that_no_token_has_is_refused(wrong):
    with pytest.raises(UsageError, match="no token has the id") as caught:
        token_ids([0, wrong], 3)
    assert caught.value.hint == "ids go from 0 to 2"


def test_a_model_takes_numpy_ids_and_refuses_others(storyteller):
    with LLM(storyteller, ctx=64) as llm:
        ids = llm.tokenize("Once upon a time")
        assert np.array_equal(llm.logits(np.array(ids, np.int32)), llm.logits(ids))
        assert llm.detokenize(np.array(ids, np.uint32)) == llm.detokenize(ids)
        assert llm.detokenize([]) == ""
        for wrong in ([1.5], [True], [-1], [10**9]):
            with pytest.raises(UsageError):
                llm.logits(wrong)
            with pytest.raises(UsageError):
                llm.detokenize(wrong)
