"""The sampling options: each is declared once, as a field of SamplingOptions.

From its field follow the option of `qcli run` and `qcli chat`, the keyword of LLM.generate and LLM.chat, what models.toml
and a GGUF file may recommend, the default and every check. What it does to the logits is in sampler.py.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Annotated, Any, Final, NamedTuple, TypedDict, Unpack, get_type_hints

from qcli.errors import UsageError

_FINITE: Final = sys.float_info.max


class Option(NamedTuple):
    """What is to know of one sampling option."""

    flags: tuple[str, ...]  # on the command line; the first names it in errors; none: for Python only
    help: str
    default: float | None  # where neither the user nor the model says anything
    off: float | None = None  # where the model recommends other options and not this one; None: the default
    minimum: float = -_FINITE
    exclusive: bool = False  # whether the minimum itself is refused
    maximum: float = _FINITE
    gguf_key: str | None = None  # what a file recommends

    def accepts(self, value: float) -> bool:
        """Whether a value lies in the range; NaN and infinities never do."""
        return self.minimum <= value <= self.maximum and not (self.exclusive and value == self.minimum)

    def check(self, name: str, value: float) -> None:
        """Raise UsageError for a value outside the range; name: of the option, as the user has typed it."""
        if not self.accepts(value):
            raise UsageError(f"{name} cannot be {value}", f"give a number {self._range()}")

    def _range(self) -> str:
        if self.minimum == -_FINITE:
            return "that is finite"
        least = f"above {self.minimum}" if self.exclusive else f"from {self.minimum}"
        if self.maximum < _FINITE:
            return f"{least} to {self.maximum}"
        return least if self.exclusive else f"{least} up"


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
            help="Higher: more daring; 0: always the likeliest token.",
            default=0.7,
            minimum=0,
            gguf_key="general.sampling.temp",
        ),
    ]
    top_k: Annotated[
        int | None,
        Option(
            flags=("--top-k",),
            help="Draw from the k likeliest; 0: from all.",
            default=40,
            off=0,
            minimum=0,
            gguf_key="general.sampling.top_k",
        ),
    ]
    top_p: Annotated[
        float | None,
        Option(
            flags=("--top-p",),
            help="Draw from the likeliest that together hold this share, from 0 to 1.",
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
            help="Draw from those with this share, from 0 to 1, of the likeliest's probability.",
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
            help="Above 1: fewer repeated tokens.",
            default=1.0,
            minimum=0,
            exclusive=True,
            gguf_key="general.sampling.penalty_repeat",
        ),
    ]
    frequency_penalty: Annotated[
        float | None,
        Option(
            flags=("--frequency-penalty",),
            help="Taken off a logit each time its token occurs.",
            default=0.0,
        ),
    ]
    presence_penalty: Annotated[
        float | None,
        Option(
            flags=("--presence-penalty",),
            help="Taken off a logit once its token has occurred.",
            default=0.0,
        ),
    ]
    penalty_last_n: Annotated[
        int | None,
        Option(
            flags=(),
            help="Tokens that penalties look back on; -1: all.",
            default=64,
            minimum=-1,
        ),
    ]
    seed: Annotated[
        int | None,
        Option(
            flags=("--seed",),
            help="The same seed draws the same text.",
            default=None,
            minimum=0,
            maximum=2**64 - 1,
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
                OPTIONS[name].check(name, value)
                setattr(self, name, value)

    @property
    def penalizes(self) -> bool:
        """Whether any penalty changes a logit."""
        neutral = self.repeat_penalty == 1 and self.frequency_penalty == 0 and self.presence_penalty == 0
        return bool(self.penalty_last_n != 0 and not neutral)
