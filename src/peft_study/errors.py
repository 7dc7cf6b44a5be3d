"""What a user's mistake looks like: one line, exit code 2, no traceback."""

import difflib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

# What a library's words have around those of the system, such as "No space left on device".
SYSTEMS = re.compile(r"^.*(I/O error: |Detail: \[errno \d+\] )| \(os error \d+\).*$")
MEMORY = re.compile("out of memory|can't allocate memory", re.IGNORECASE)


class StudyError(Exception):
    """A mistake in parameters, data or files; the message is the one line that the user reads."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which names are allowed, and which one is close to `name`, if any is."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}known: {', '.join(names)}"


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error, or the error's kind where it says nothing."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


def system_says(error: BaseException) -> str | None:
    """Return in a line what the system refused, and of which file; None if it refused nothing.

    Not only Python's own errors tell it: a full disk or memory is met in libraries as well.
    """
    if isinstance(error, shutil.Error):  # of a folder that was copied: a list
        (_, path, reason), *_ = error.args[0]
        return f"{path}: {_reason(str(reason)).partition(': ')[0]}"
    if isinstance(error, OSError):
        reason = _reason(error.strerror or first_line(error))
        path = error.filename2 or error.filename  # of two, what was to be written
        return f"{path}: {reason}" if path else reason
    if isinstance(error, MemoryError):
        return "not enough memory"
    if SYSTEMS.search(said := first_line(error)):
        return _reason(said)
    return "not enough memory: " + said if MEMORY.search(said) else None


def _reason(said: str) -> str:
    return SYSTEMS.sub("", re.sub(r"^\[Errno \d+\] ", "", said))


@contextmanager
def system_errors(where: object) -> Iterator[None]:
    """Turn what the system says of a file that cannot be read or written into a StudyError.

    `where` is named where the system names no file.
    """
    try:
        yield
    except OSError as error:
        said = system_says(error)
        raise StudyError(said if error.filename else f"{where}: {said}") from None


def run_command(command: Callable[[], None]) -> None:
    """Run a command line's body; a mistake ends the process with one line and code 2.

    That is what a `StudyError` says, or the system: of a file that cannot be read, of a full disk.
    """
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
    except Exception as error:
        if (said := system_says(error)) is None:
            raise
        print(f"error: {said}", file=sys.stderr)
        sys.exit(2)
