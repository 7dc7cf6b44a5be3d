"""How the parameters describe a task in files of one's own."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from peft_study.data.texts import canonical, is_empty
from peft_study.errors import nearest

Name = Annotated[str, Field(min_length=1, max_length=200)]
Column = Name | Annotated[int, Field(ge=1)]  # its name, or its number in a file without names


class FilesParams(BaseModel):
    """`tasks.<name>.files`: a task in files of one's own, and what its columns are called.

    Of files without a header, `columns` gives the names of all columns, or numbers say which.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    train: Name
    validation: Name
    columns: Annotated[list[Name], Field(min_length=2)] | None = None
    texts: Annotated[list[Column], Field(min_length=1, max_length=2)]
    label: Column
    labels: Annotated[list[Name], Field(min_length=2)] | None = None

    @property
    def header(self) -> list[str] | None:
        """Names or numbers of columns, as far as they are known, of files that do not name them."""
        numbers = [column for column in (*self.texts, self.label) if isinstance(column, int)]
        counted = [str(number + 1) for number in range(max(numbers, default=0))]
        return self.columns or counted or None

    def problems(self) -> list[str]:
        """Return a line, without its key, for each thing that its columns contradict."""
        wanted, found = [*self.texts, self.label], []
        numbers = [column for column in wanted if isinstance(column, int)]
        names = [column for column in wanted if isinstance(column, str)]
        if canonical(self.label) in map(canonical, self.texts):
            found.append(f"label: got {self.label!r}, which is a text too; name another column")
        if numbers and names:
            found.append(f"texts, label: got {wanted}; must be all names, or all numbers")
        elif numbers and self.columns:
            found.append("columns: must be left out where texts and label are numbers")
        elif self.columns:
            known = list(map(canonical, self.columns))
            missing = [column for column in names if canonical(column) not in known]
            found += [
                f"columns: have no '{column}'; {nearest(column, known)}" for column in missing
            ]
        blank = [label for label in self.labels or () if is_empty(label)]
        return found + [f"labels: got {label!r}; must not be blank" for label in blank]
