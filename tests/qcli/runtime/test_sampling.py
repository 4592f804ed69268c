"""The declaration of the sampling options: what follows from it, and what it refuses."""

from __future__ import annotations

import inspect
import math
import warnings
from fractions import Fraction

import numpy as np
import pytest

from qcli.commands.chat import chat
from qcli.commands.run import run
from qcli.errors import UsageError
from qcli.runtime.answer_options import Options
from qcli.runtime.sampler import Sampler
from qcli.runtime.sampling import OPTIONS, Sampling


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1}, {"temperature": math.nan}, {"temperature": math.inf}, {"top_k": -1},
        {"top_p": 1.5}, {"top_p": -0.1}, {"min_p": 2}, {"repeat_penalty": 0}, {"presence_penalty": math.inf},
        {"frequency_penalty": math.nan}, {"penalty_last_n": -2}, {"seed": -1}, {"seed": 2**64},
    ],
)  # fmt: skip
def test_values_that_cannot_be_meant(wrong):
    with pytest.raises(UsageError) as caught:
        Sampling(**wrong)
    assert caught.value.hint


def test_an_option_that_does_not_exist():
    with pytest.raises(UsageError, match="temprature") as caught:
        Sampling(temprature=0.5)
    assert "temperature" in caught.value.hint


def test_an_error_names_the_option_as_python_does():
    with pytest.raises(UsageError, match="repeat_penalty cannot be 0") as caught:
        Sampling(repeat_penalty=0)
    assert caught.value.hint == "give a number from 1e-30 to 1e+30"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("top_p", "from 0 to 1"),
        ("top_k", "of 0 or more"),
        ("penalty_last_n", "of -1 or more"),
        ("seed", f"to {2**64 - 1}"),
    ],
)
def test_a_hint_tells_the_range(name, hint):
    with pytest.raises(UsageError) as caught:
        OPTIONS[name].check(name, -2)
    assert caught.value.hint.endswith(hint)


def test_none_is_the_default():
    assert vars(Sampling(**dict.fromkeys(OPTIONS))) == vars(Sampling())
    assert vars(Sampling()) == {name: option.default for name, option in OPTIONS.items()}


@pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)
def test_defaults_lie_in_the_range(option):
    assert all(option.accepts(value) for value in (option.default, option.off) if value is not None)


def test_every_option_is_a_keyword_of_python():
    assert set(OPTIONS) < set(Options.__annotations__)


@pytest.mark.parametrize("command", [run, chat])
def test_every_option_with_a_flag_is_one_of_the_command(command):
    given = inspect.signature(command).parameters
    assert [name for name in given if name in OPTIONS] == [name for name, option in OPTIONS.items() if option.flags]
    assert "sampling" not in given


@pytest.mark.parametrize("command", ["run", "chat"])
@pytest.mark.parametrize("option", [option for option in OPTIONS.values() if option.flags], ids=lambda o: o.flags[0])
def test_help_and_range_of_an_option_are_those_declared(type_line, command, option):
    shown = " ".join(type_line(command, "--help")[1].split())
    assert option.help in shown
    assert all(flag in shown for flag in option.flags)
    refused = [value for value in ("nan", option.minimum - 1, option.maximum + 1) if not option.accepts(float(value))]
    code, _, err = type_line(command, option.flags[-1], str(refused[-1]))
    assert code == 2
    assert option.flags[0] in err


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("temperature", np.float32(0.5), 0.5),
        ("temperature", Fraction(1, 2), 0.5),
        ("temperature", np.int64(2), 2.0),
        ("top_k", np.uint8(7), 7),
        ("top_k", 7.0, 7),
        ("top_k", 10**400, 10**400),
        ("penalty_last_n", np.int16(-1), -1),
        ("seed", np.uint64(2**64 - 1), 2**64 - 1),
        ("repeat_penalty", np.float16(2), 2.0),
    ],
)
def test_a_number_of_any_class_is_one_of_python(name, given, value):
    found = getattr(Sampling(**{name: given}), name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize(
    "given", ["1", b"1", True, [1], object(), float("nan"), np.inf, -(10**400), 1e300j, np.zeros(2)]
)
def test_what_is_no_number_in_the_range_is_a_usage_error(name, given):
    with pytest.raises(UsageError, match=f"^{name} cannot be"):
        Sampling(**{name: given})


@pytest.mark.parametrize("name", ["top_k", "penalty_last_n", "seed"])
def test_half_a_number_is_refused_where_it_is_a_whole_one(name):
    with pytest.raises(UsageError, match="give a whole number"):
        Sampling(**{name: 1.5})


def test_a_long_number_is_shortened_in_the_message():
    with pytest.raises(UsageError, match=r"seed cannot be 9{30}… \(400 characters\)"):
        Sampling(seed=int("9" * 400))


@pytest.mark.parametrize("penalty", ["repeat_penalty", "frequency_penalty", "presence_penalty"])
@pytest.mark.parametrize("value", [1e-30, 1.0, 1e30, -1e30])
def test_penalties_never_leave_finite_logits(penalty, value):
    if not OPTIONS[penalty].accepts(value):
        return
    sampler = Sampler(Sampling(temperature=0, **{penalty: value}), 8)
    for token in [0, 1, 1, 2, 3] * 9:
        sampler.accept(token)
    with warnings.catch_warnings(action="error"):
        chosen = sampler.sample(np.array([3e38, -3e38, 0, -np.inf, 5, 4, 3, 2], np.float32))
    assert chosen == 0
