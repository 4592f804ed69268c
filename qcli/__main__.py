"""Where `qcli` and `python -m qcli` begin: while the rest is imported, Ctrl-C ends them in silence."""

import os


def main() -> None:
    """The script `qcli`; does not return."""
    try:
        import signal

        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a background job may have it ignored
            signal.signal(signal.SIGINT, lambda *_: os._exit(130))
        from qcli.cli import main as run

        run()
    except KeyboardInterrupt:
        os._exit(130)


if __name__ == "__main__":
    main()
