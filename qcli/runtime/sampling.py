"""The sampling options: each is declared once, as a field of SamplingOptions.

From its field follow the option of `qcli run` and `qcli chat`, the keyword of LLM.generate and LLM.chat, what models.toml
and a GGUF file may recommend, the default and every check. What it does to the logits is in sampler.py.
"""

from __future__ import annotations

import sys
from operator import index
from types import SimpleNamespace
from typing import Annotated, Any, Final, NamedTuple, TypedDict, Unpack, get_type_hints

from qcli.errors import UsageError
from qcli.wording import shortened

_FINITE: Final = sys.float_info.max
_PENALTY: Final = 1e30  # beyond it, logits would leave float32


class Option(NamedTuple):
    """What is to know of one sampling option."""

    flags: tuple[str, ...]  # on the command line; the first names it in errors; none: for Python only
    help: str
    default: float | None  # where neither the user nor the model says anything
    off: float | None = None  # where the model recommends other options and not this one; None: the default
    minimum: float = -_FINITE
    maximum: float = _FINITE
    whole: bool = False  # whether it is a whole number, of any length where there is no maximum
    gguf_key: str | None = None  # what a file recommends

    def accepts(self, value: float) -> bool:
        """Whether a value lies in the range; NaN and infinities never do."""
        if self.maximum == _FINITE and self.whole and isinstance(value, int):
            return self.minimum <= value
        return self.minimum <= value <= self.maximum

    def check(self, name: str, value: Any) -> Any:
        """The value as a number of Python; name: of the option, as the user has typed it.

        Raises UsageError for a value outside the range, and for what is no number, or no whole one where it must be.
        """
        number = self._number(value)
        if number is None or not self.accepts(number):
            kind = "whole number" if self.whole else "number"
            raise UsageError(
                f"{name} cannot be {shortened(str(value).removesuffix('.0'))}", f"give a {kind} {self._range()}"
            )
        return number

    def _number(self, value: Any) -> float | None:
        """Of a number of any class, NumPy's too, the int or float; None of anything else."""
        if isinstance(value, str | bytes | bool):
            return None
        try:
            if self.whole:
                return index(value) if not isinstance(value, float) else int(value) if value.is_integer() else None
            return float(value)
        except (TypeError, ValueError, OverflowError):
            return None

    def _range(self) -> str:
        if self.minimum == -_FINITE:
            return "of ordinary size"
        return f"of {self.minimum} or more" if self.maximum == _FINITE else f"from {self.minimum} to {self.maximum}"


class SamplingOptions(TypedDict, total=False):
    """How to draw a token; what is left out, or None, is the model's own default. In the order of llama.cpp:

    1. Penalties, over the last `penalty_last_n` tokens, prompt included (0: none, -1: all of them): a logit
       above 0 is divided by `repeat_penalty`, another multiplied by it; then `frequency_penalty` times the
       token's count and `presence_penalty` are subtracted.
    2. `top_k` keeps the k highest (0: all; of equal logits the lowest id).
    3. `top_p` keeps the shortest prefix of the rest, most probable first, that holds at least this share.
    4. `min_p` keeps those at least this fraction as probable as the best.
    5. `temperature` divides the logits that are left; 0 takes the highest (of equal ones the lowest id).
    6. One draw from their softmax; the same `seed` gives the same numbers everywhere (None: new ones).
    """

    temperature: Annotated[
        float | None,
        Option(
            flags=("--temperature", "--temp"),
            help="Higher: more varied and surprising; 0: always the most likely word.",
            default=0.7,
            minimum=0,
            gguf_key="general.sampling.temp",
        ),
    ]
    top_k: Annotated[
        int | None,
        Option(
            flags=("--top-k",),
            help="Choose among the N most likely tokens; 0: among all.",
            default=40,
            off=0,
            minimum=0,
            whole=True,
            gguf_key="general.sampling.top_k",
        ),
    ]
    top_p: Annotated[
        float | None,
        Option(
            flags=("--top-p",),
            help="Choose among the most likely ones that together make up this share, from 0 to 1.",
            default=0.95,
            off=1.0,
            minimum=0,
            maximum=1,
            gguf_key="general.sampling.top_p",
        ),
    ]
    min_p: Annotated[
        float | None,
        Option(
            flags=("--min-p",),
            help="Leave out those less likely than this share of the most likely one, from 0 to 1.",
            default=0.05,
            off=0.0,
            minimum=0,
            maximum=1,
            gguf_key="general.sampling.min_p",
        ),
    ]
    repeat_penalty: Annotated[
        float | None,
        Option(
            flags=("--repeat-penalty",),
            help="Above 1: the answer repeats itself less.",
            default=1.0,
            minimum=1e-30,
            maximum=_PENALTY,
            gguf_key="general.sampling.penalty_repeat",
        ),
    ]
    frequency_penalty: Annotated[
        float | None,
        Option(
            flags=("--frequency-penalty",),
            help="Above 0: the more often a word was used, the less likely it comes again.",
            default=0.0,
            minimum=-_PENALTY,
            maximum=_PENALTY,
        ),
    ]
    presence_penalty: Annotated[
        float | None,
        Option(
            flags=("--presence-penalty",),
            help="Above 0: a word that was used once is less likely to come again.",
            default=0.0,
            minimum=-_PENALTY,
            maximum=_PENALTY,
        ),
    ]
    penalty_last_n: Annotated[
        int | None,
        Option(
            flags=(),
            help="How many tokens back the penalties look; -1: all.",
            default=64,
            minimum=-1,
            whole=True,
        ),
    ]
    seed: Annotated[
        int | None,
        Option(
            flags=("--seed",),
            help="The same number gives the same answer again (default: a new one each time).",
            default=None,
            minimum=0,
            maximum=2**64 - 1,
            whole=True,
        ),
    ]


OPTIONS: Final[dict[str, Option]] = {
    name: hint.__metadata__[0] for name, hint in get_type_hints(SamplingOptions, include_extras=True).items()
}


class Sampling(SimpleNamespace):
    """A value for every option, as an attribute of its name; UsageError if one is out of range or there is none such."""

    def __init__(self, **given: Unpack[SamplingOptions]) -> None:
        super().__init__(**{name: option.default for name, option in OPTIONS.items()})
        for name, value in dict[str, Any](given).items():
            if name not in OPTIONS:
                raise UsageError(f"there is no sampling option {name}", f"there are: {', '.join(OPTIONS)}")
            if value is not None:
                setattr(self, name, OPTIONS[name].check(name, value))

    @property
    def penalizes(self) -> bool:
        """Whether any penalty changes a logit."""
        neutral = self.repeat_penalty == 1 and self.frequency_penalty == 0 and self.presence_penalty == 0
        return bool(self.penalty_last_n != 0 and not neutral)
