"""Files: written whole or not at all, and their hashes."""

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from peft_study.errors import StudyError, system_says

T = TypeVar("T")
_dumps = partial(json.dumps, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed to `path` if the block succeeds.

    The file has the mode that the user's umask leaves it, whatever the block does. Raises OSError
    with the name of `path` where the system refuses, in libraries too.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)
        temporary.replace(path)
    except Exception as error:
        own = getattr(error, "filename", None) or temporary
        if (said := system_says(error)) is None or Path(own) != temporary:
            raise
        reason = said.removeprefix(f"{temporary}: ")
        raise OSError(getattr(error, "errno", None), reason, str(path)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def as_json(value: object) -> str:
    """Return sorted, indented JSON, records by their fields; a ValueError refuses NaN, infinity."""
    return _dumps(value, default=_plain)


def write_json(path: Path, value: object) -> None:
    """Write `as_json(value)` to a file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(as_json(value) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_record(path: Path, kind: type[T]) -> T:
    """Read a JSON file that `write_json` wrote of a value of type `kind`.

    Raises StudyError if it holds something else, as one that an older version wrote.
    """
    from pydantic import TypeAdapter, ValidationError  # slow, and not needed in a run

    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        fault = f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}"
        raise StudyError(f"{fault}; run 'dvc repro' to write it anew") from None


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder's files into `target`; their mode is not the source's but as of new files."""
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(value: object) -> dict[str, object]:
    return dict(value.plain() if hasattr(value, "plain") else vars(value))
