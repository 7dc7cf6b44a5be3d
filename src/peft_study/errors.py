"""What a user's mistake looks like: one line, exit code 2, no traceback."""

import difflib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


class StudyError(Exception):
    """A mistake in parameters, data or files; the message is the one line that the user reads."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which names are allowed, and which one is close to `name`, if any is."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}known: {', '.join(names)}"


def first_line(error: Exception) -> str:
    """Return the first line of a library's error, or the error's kind where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def system_errors(where: object) -> Iterator[None]:
    """Turn what the system says of a file that cannot be read or written into a StudyError.

    `where` is named where the system names no file.
    """
    try:
        yield
    except OSError as error:
        raise StudyError(
            f"{error.filename or where}: {error.strerror or first_line(error)}"
        ) from None


def run_command(command: Callable[[], None]) -> None:
    """Run a command line's body; a `StudyError` ends the process with its message and code 2."""
    try:
        command()
        sys.stdout.flush()
    except BrokenPipeError:
        # Who reads our output, say `head`, has read enough; Python would complain at its own exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
