"""Typed records: what stages leave in JSON files, a field under its own name.

Scores are fractions, times seconds, sizes bytes; `n` counts what a number is drawn from, `std` is
a standard deviation (ddof 1), `cv` is std / mean, `low` and `high` end a 95% interval. Of a single
value these are None, and a cv also unless the mean is positive. `peft_study.findings.results` reads
the files.
"""

from dataclasses import dataclass
from typing import dataclass_transform


@dataclass_transform(frozen_default=True)
@dataclass(frozen=True)
class Record:
    """Whose subclasses are frozen dataclasses, without saying so."""

    def __init_subclass__(cls, kw_only: bool = False) -> None:
        dataclass(frozen=True, kw_only=kw_only)(cls)
