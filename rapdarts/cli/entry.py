"""Entry point of the command `rapdarts` and of `python -m rapdarts`."""

import signal


def main() -> int:
    """Run the command line in `sys.argv` and return its exit code.

    Until the command line has loaded and handles signals itself, Ctrl-C ends the process at once, without a traceback.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not if the parent ignores it, as nohup does
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from rapdarts.cli.main import main as run

    return run()
