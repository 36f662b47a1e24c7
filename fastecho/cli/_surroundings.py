"""What a command that measures needs of its process: descriptors, and SIGTERM as Ctrl-C.

What lives here: changes to the process that last until it ends. What may not live here: options,
measuring.
"""

from __future__ import annotations

__all__ = ["let_sigterm_end_it", "raise_descriptor_limit"]


def raise_descriptor_limit() -> None:
    """Raise the soft limit of open descriptors to the hard one; what is too few is said later."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            pass


def let_sigterm_end_it() -> None:
    """SIGTERM is what Ctrl-C is: the end of the measurement, with its result."""
    import signal

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, interrupt)
