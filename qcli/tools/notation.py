"""How a family of models writes calls: the markers around them, and what is between these.

Which one a model writes is learned from its chat template and its vocabulary, as that of thoughts is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any, Final, Literal

from qcli.tools.bodies import Body, JsonBody, NamedJsonBody, PairsBody, PythonBody, XmlBody
from qcli.tools.call import ToolCall
from qcli.tools.gemma_calls import GemmaBody
from qcli.tools.gemma_calls import written as written_by_gemma
from qcli.tools.tool import Tools

Family = Literal["json", "xml", "pairs", "python", "mistral", "mistral list", "json list", "harmony", "gemma"]

HARMONY_CALL: Final = "<|channel|>commentary to=functions."  # the header of a message that is a call
_AFTER_NAME: Final = " <|constrain|>json<|message|>"


@dataclass(frozen=True)
class Notation:
    """A way to write calls. All of them but harmony's, which are messages of their own, stand between two markers."""

    family: Family
    begin: str
    end: str = ""  # "" where nothing follows
    gap: str = ""  # between the parts of a call, where templates of a family differ

    def bodies(self, first: str) -> Callable[[Tools], Body] | None:
        """The reader of what follows the marker, as its first character shows; None if no call begins so.

        Between <tool_call> and </tool_call>, JSON and XML are both read, as models that were trained further mix them up.
        """
        match self.family:
            case "python":
                return PythonBody
            case "gemma":
                return GemmaBody
            case "mistral" | "mistral list":
                return JsonBody if first in "[{" else NamedJsonBody
            case "json list":
                return JsonBody if first in "[{" else None
            case _:
                if first in "{[":
                    return JsonBody
                if first == "<":
                    return XmlBody
                return PairsBody if self.family == "pairs" else None

    def triggers(self, tools: Tools) -> dict[str, str]:
        """Texts that begin a call, and how much of each belongs to its inside.

        Qwen3-Coder leaves <tool_call> out at times: the whole <function=NAME> of a tool then begins a call, nothing less.
        """
        found = {self.begin: ""}
        if self.family == "xml":
            found |= {f"<function={name}>": f"<function={name}>" for name in tools.names}
        return found

    def written(self, calls: list[ToolCall]) -> str:
        """Calls as the model writes them, for templates that leave them out of the history."""
        match self.family:
            case "python":
                return f"{self.begin}[{', '.join(map(_python, calls))}]{self.end}"
            case "json list":
                return self.begin + json.dumps([_table(call) for call in calls], ensure_ascii=False) + self.end
            case "mistral list":
                tables = [{**_table(call), "id": call.id} for call in calls]
                return self.begin + json.dumps(tables, ensure_ascii=False)
            case "mistral":
                return "".join(f"{self.begin}{call.name}[ARGS]{_json(call.arguments)}" for call in calls)
            case "harmony":
                return "".join(f"{self.begin}{call.name}{_AFTER_NAME}{_json(call.arguments)}<|call|>" for call in calls)
            case "gemma":
                return "".join(f"{self.begin}{written_by_gemma(call)}{self.end}" for call in calls)
        return "\n".join(f"{self.begin}{self._inside(call)}{self.end}" for call in calls)

    def _inside(self, call: ToolCall) -> str:
        if self.family == "json":
            return f"\n{_json(_table(call))}\n"
        if self.family == "pairs":
            pairs = (
                f"<arg_key>{key}</arg_key>{self.gap}<arg_value>{_bare(value)}</arg_value>{self.gap}"
                for key, value in call.arguments.items()
            )
            return call.name + self.gap + "".join(pairs)
        values = (f"<parameter={key}>\n{_bare(value)}\n</parameter>\n" for key, value in call.arguments.items())
        return f"\n<function={call.name}>\n{''.join(values)}</function>\n"


def find_notation(special: Container[str], template: str) -> Notation | None:
    """How a model writes calls; None if nothing tells. special: texts of special tokens of its vocabulary."""
    if "<|channel|>" in special and "<|message|>" in special:
        return Notation("harmony", HARMONY_CALL)
    if _GEMMA.begin in special or _GEMMA.begin in template:
        return _GEMMA
    if "<arg_key>" in template:
        return Notation("pairs", "<tool_call>", "</tool_call>", "\n" if "</arg_key>\n" in template else "")
    if "<function=" in template:
        return Notation("xml", "<tool_call>", "</tool_call>")
    if "<tool_call>" in template:
        return Notation("json", "<tool_call>", "</tool_call>")
    for begin, end, family in _OTHERS:
        if begin in special or begin in template:
            newer = family == "mistral list" and ("[ARGS]" in special or "[ARGS]" in template)
            return Notation("mistral" if newer else family, begin, end)
    if "<tool_call>" in special and "</tool_call>" in special:
        return Notation("json", "<tool_call>", "</tool_call>")
    return None


_GEMMA: Final = Notation("gemma", "<|tool_call>", "<tool_call|>")
_OTHERS: Final[tuple[tuple[str, str, Family], ...]] = (
    ("<|tool_call_start|>", "<|tool_call_end|>", "python"),  # LFM2
    ("[TOOL_CALLS]", "", "mistral list"),
    ("<|tool_call|>", "", "json list"),  # Granite 3
    ("<TOOLCALL>", "</TOOLCALL>", "json list"),  # Nemotron Nano 2
)


def _table(call: ToolCall) -> dict[str, Any]:
    return {"name": call.name, "arguments": call.arguments}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _bare(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _python(call: ToolCall) -> str:
    return f"{call.name}({', '.join(f'{key}={value!r}' for key, value in call.arguments.items())})"
