"""What a table of the page is."""

from peft_study.records import Record


class Table(Record):
    """A table as shown; besides the first, columns at `words` hold words, the others numbers."""

    name: str
    caption: str
    head: list[str]
    rows: list[list[str]]
    sources: list[str]
    words: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
