"""qcli as it is typed, with an engine that answers by script: python scripted_chat.py chat --plain.

What it answers depends on a word of the message; a word that stands in none gets "A cat sat.".
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from time import sleep

from fake_engine import FakeEngine

from qcli.catalog.resolve import resolve
from qcli.runtime.engine import Engine
from qcli.text.tokenizer import Tokenizer

ANSWERS = {
    "table": """# Cats of the house

| Name | Born | Likes |
|:-----|-----:|-------|
| Mia  | 2019 | **fish** and `milk` |
| 虎太郎 | 2021 | 昼寝 |

1. Feed *Mia* first.
   - She eats slowly, and she does not like to be watched while she does so.
   - 🐟 is her favourite.
2. Then 虎太郎.

> A quote of a long and winding line that has to be wrapped at words wherever the terminal ends.
""",
    "code": """This greets:

```python
def greet(name: str) -> str:
    \"\"\"Say hello to somebody, in a line that is longer than a narrow terminal.\"\"\"
    return f"Hello, {name}!"
```

That is `greet`. An escape: \x1b[31mred\x1b[0m.
""",
    "count": " ".join(f"word{i}" for i in range(30)) + "\n",
    "slow": " ".join(f"word{i}" for i in range(30)) + "\n",
}
WAITS = "waits-for-ctrl-c"  # a file in the folder that the program works in
_ELSE = "A cat sat."


class ScriptedEngine(FakeEngine):
    """Answers the last message of a prompt as ANSWERS says."""

    chunk = 512

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer.vocab_size, 4096, self._next)
        self._tokenizer, self._prompt_size, self._pause, self._counts = tokenizer, 0, 0.0, False
        self._answer: list[int] = []
        self._waits = True  # for Ctrl-C, in the midst of the first time that it counts

    def prefill(self, ids, progress=None):
        self._prompt_size = self.position + len(ids)
        asked = self._tokenizer.decode(list(self.ids) + list(ids)).rpartition("user")[2]
        word = next((word for word in ANSWERS if word in asked), "")
        self._answer = [*self._tokenizer.encode(ANSWERS.get(word, _ELSE)), min(self._tokenizer.end_ids)]
        self._pause = 0.004 if word == "slow" else 0.0
        self._counts = word == "count"
        return super().prefill(ids, progress)

    def step(self, token):
        said = self.position - self._prompt_size
        sleep(self._pause * (said >= 0))
        if self._counts and self._waits and said == 17:
            self._waits = False
            wait_for_interrupt()
        return super().step(token)

    def _next(self, ids):
        return self._answer[min(max(len(ids) - self._prompt_size, 0), len(self._answer) - 1)]


def wait_for_interrupt() -> None:
    """Wait for Ctrl-C, which then does what it does otherwise; a file says that it is waited for."""
    came: list[int] = []
    usual = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    Path(WAITS).touch()
    while not came:
        sleep(0.002)
    signal.signal(signal.SIGINT, usual)
    signal.raise_signal(signal.SIGINT)


def main() -> None:
    engine = ScriptedEngine(Tokenizer.from_gguf(resolve(None)[0]))
    Engine.load = lambda *_, **__: engine.open()  # type: ignore[method-assign]
    from qcli.cli import main as qcli

    sys.argv[0] = "qcli"
    qcli()


if __name__ == "__main__":
    main()
