"""qcli serve: a model behind the protocols of OpenAI's and Anthropic's clients."""

from __future__ import annotations

from contextlib import ExitStack
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcli import console, interrupt
from qcli.commands import options
from qcli.commands.examples import examples
from qcli.errors import UsageError
from qcli.host.packages import how_to_install
from qcli.runtime import gap_setting
from qcli.runtime.gap_setting import MAX_GAP
from qcli.settings.key_setting import key_setting

if TYPE_CHECKING:
    import socket

    from qcli.llm import LLM

_NEEDED = ("starlette", "uvicorn", "prometheus_client")


@examples(
    ("qcli serve", "Serves the small model that comes with qcli, to programs of this machine."),
    ("qcli serve model.gguf --host 0.0.0.0 --api-key SECRET", "Serves the network, to whoever knows the key."),
)
def serve(
    named: options.GivenModel = None,
    model: options.Model = None,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            metavar="ADDRESS",
            show_default=False,
            help="Where to listen: 127.0.0.1 for this machine alone, 0.0.0.0 for all that reach it (default: 127.0.0.1).",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option("--port", metavar="N", min=0, max=65535, show_default=False, help="The port (default: 8080)."),
    ] = 8080,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            metavar="KEY",
            help="Answer only who sends this key (or set QCLI_API_KEY).",
            callback=lambda value: None if value is None else key_setting("--api-key", value),
        ),
    ] = None,
    queue: Annotated[
        int | None,
        typer.Option("--queue", metavar="N", min=1, max=10_000, help="Let at most N questions wait (default: 64)."),
    ] = None,
    grace: Annotated[
        int,
        typer.Option(
            "--grace",
            metavar="SECONDS",
            min=0,
            max=3600,
            show_default=False,
            help="When the server ends, what is being answered has so long (default: 30).",
        ),
    ] = 30,
    no_reasoning: Annotated[
        bool, options.flag("--no-reasoning", help="Leave out what the model thinks before it answers.")
    ] = False,
    parallel: options.Parallel = 4,
    max_gap: Annotated[
        float | None,
        typer.Option(
            "--max-gap",
            metavar="SECONDS",
            help=f"{gap_setting.HELP[:-1]} (default: {MAX_GAP}).",
            callback=lambda value: None if value is None else gap_setting.gap_setting("--max-gap", value),
        ),
    ] = None,
    quiet: options.Quiet = False,
    ram: options.Ram = None,
    threads: options.Threads = None,
    ctx: options.Ctx = None,
    kv_type: options.KvType = None,
) -> int:
    """Serve a model to programs: editors, chats, scripts.

    They talk to it as to OpenAI's server (http://127.0.0.1:8080/v1) or Anthropic's (http://127.0.0.1:8080). Ctrl-C
    ends the server.
    """
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise UsageError(f"the server needs {', '.join(missing)}", how_to_install("serve"))
    model = options.named_model(model, named)
    tell = (lambda text: None) if quiet else console.info
    with ExitStack() as stack:
        bar = stack.enter_context(console.status("loading", quiet))
        with interrupt.ends_all(bar):
            from qcli.serving import listener
            from qcli.serving.answers import MOST_WAITING
            from qcli.serving.app import Server
            from qcli.serving.guard import is_local
            from qcli.serving.known_models import KnownModels
            from qcli.serving.several_at_a_time import SeveralAtATime

            at = listener.listening(host, port)
            stack.callback(at.close)
            known: list[KnownModels] = []

            def load(name: str | None, progress: Any) -> LLM:
                from qcli.llm import LLM

                typed = known[0].typed(name) if known else model
                return LLM(typed, threads, ctx, kv_type=kv_type, ram=ram, progress=progress)

            answers = SeveralAtATime(load, queue or MOST_WAITING, parallel, max_gap or MAX_GAP)
            stack.callback(answers.close)
            llm = answers.start(progress=bar.update)
            known.append(KnownModels(llm.name, model))
        bar.close()
        server = Server(answers, known[0], tell, api_key, host, reasoning=not no_reasoning)
        stack.callback(server.close)
        _tell_where(llm.name, host, at, quiet)
        if not (is_local(host) or api_key):
            console.info(f"anyone who reaches {host} can use this server: --api-key KEY asks for a key")
        listener.serve(server.app, at, grace, interrupt.asks, tell)
    return 0


def _tell_where(name: str, host: str, at: socket.socket, quiet: bool) -> None:
    if not quiet:
        place = f"http://{f'[{host}]' if ':' in host else host}:{at.getsockname()[1]}"
        console.info(f"{name} is served at {place}/v1 (OpenAI) and {place} (Anthropic) · Ctrl-C ends")
