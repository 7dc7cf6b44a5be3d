"""Sources: where a task's rows come from. A source knows nothing of models.

A source is a module of this package with two functions:

- `locate(name, task, folder, files) -> dict`: what decides the rows of a task, as plain values that
  go into its stage's configuration (a revision, a file's hash), checked without reading the rows;
- `read_rows(name, task, location) -> Iterator[Row]`: the rows, in the source's own order.
"""

from collections.abc import Iterator
from importlib import import_module
from typing import Literal, Protocol, cast

from peft_study.data.tasks import Task
from peft_study.records import Record

Side = Literal["train", "validation"]


class Row(Record):
    """One example as its source gives it: one or two texts, in the order of the task's columns.

    Attributes:
        id: names the row within its task, for tracing a prediction back to its text.
        group: rows of one group (say, sentences of one article) never straddle a split.
        label: a class index, a score, or None where the source gives no label.
        split: on which side the source puts the row; None leaves it to `peft_study.data.prepare`.
    """

    id: str
    group: str
    texts: tuple[str, ...]
    label: int | float | None
    split: Side | None = None


class Source(Protocol):
    """The shape of a source's module."""

    def locate(
        self, name: str, task: Task, folder: str | None, files: dict[str, object] | None
    ) -> dict[str, object]: ...
    def read_rows(self, name: str, task: Task, location: dict[str, object]) -> Iterator[Row]: ...


def load_source(name: str) -> Source:
    """Import the module of a source; `name` has been checked by `peft_study.study`."""
    module = "tables" if name == "files" else name
    return cast(Source, import_module(f"{__name__}.{module}"))
