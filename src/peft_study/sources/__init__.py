"""Sources: where a task's rows come from. A source knows nothing of models."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Row:
    """One example as its source gives it.

    Attributes:
        id: names the row within its source, for tracing a prediction back to its text.
        group: rows of one group (say, sentences of one article) never straddle a split.
        texts: one or two texts, in the order of the task's text columns.
        label: a class index, a score, or None where the source gives no label.
    """

    id: str
    group: str
    texts: tuple[str, ...]
    label: int | float | None


def read_rows(source: str, task: str) -> Iterator[Row]:
    """Yield every row that `source` (a module of this package) has for `task`, in its own order."""
    module: Any = import_module(f"{__name__}.{source}")
    return module.read_rows(task)
