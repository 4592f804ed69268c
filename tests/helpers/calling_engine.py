"""An engine that gives one answer after the other, and the template of a model that calls tools."""

from __future__ import annotations

from fake_engine import TellingEngine

TEMPLATE = """\
{% if tools %}{{ '<|im_start|>system\\n' }}{% for t in tools %}{{ t | tojson + '\\n' }}{% endfor %}{{ '<|im_end|>\\n' }}
{%- endif %}
{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}
{%- for c in m.tool_calls or [] %}{{ '\\n' if m.content or not loop.first }}{{ '<tool_call>\\n{"name": "' + c.function.name }}
{{- '", "arguments": ' + c.function.arguments | tojson + '}\\n</tool_call>' }}{% endfor %}{{ '<|im_end|>\\n' }}
{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

CLOCK = '''
import pathlib

def now(zone: str = "UTC") -> str:
    """Read the clock.

    Args:
        zone: of the time
    """
    with open(__file__ + ".log", "a") as log:
        log.write(zone + "\\n")
    return f"noon in {zone}"

def fail() -> str:
    """Fail."""
    raise ValueError("no")
'''
CALL = '<tool_call>\n{"name": "now", "arguments": {"zone": "Zürich"}}\n</tool_call>'


class CallingEngine(TellingEngine):
    """Gives its answers in turn, the last one again and again; `prompts` has the ids before each of them."""

    def __init__(self, vocab_size, ctx, answers):
        super().__init__(vocab_size, ctx, answers[0])
        self._answers = [*answers]
        self.prompts = []

    def prefill(self, ids, progress=None):
        self._answer = self._answers[min(len(self.prompts), len(self._answers) - 1)]
        logits = super().prefill(ids, progress)
        self.prompts.append(self.ids)
        return logits
