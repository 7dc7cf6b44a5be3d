"""The numbers that the sources print: the rows of `published.csv`, in their own form.

Scores are in hundredths (`liu`: correlations, as fractions), everything else in the unit that its
metric names. `start` is what a cell was trained from: `encoder`, the pretrained weights, or `mnli`,
those adapted to MNLI; it is empty where nothing was trained. The numbers of `keyquery`'s Figures 1,
2 and 4, which its report only draws, are from the logs of that study, results/ of
github.com/denizbt/lora-cs4782.
"""

import csv
from pathlib import Path

from peft_study.records import Record

OUR_NAMES = {"lora_restricted": "lora", "loralib": "loralib_lora"}  # of methods named otherwise
CITATIONS = {"hu2021": "Hu et al. 2021", "chu": "Chu et al.", "liu": "Liu et al."}
CITATIONS |= {"keyquery": "Bölöni-Turgut et al. 2025", "tiny": '"Tiny Reproduction: LoRA"'}
WEIGHTS = ("query", "key", "value", "output")
SCORES = ("accuracy", "accuracy_overall", "matthews", "pearson")


class Printed(Record):
    """A row of `published.csv`, as printed; what it lacks is ""."""

    source: str
    table: str
    model: str
    method: str
    trainable_params_m: str
    weights: str
    rank: str
    task: str
    start: str
    metric: str
    value: str
    std: str
    seeds: str
    note: str

    @property
    def name(self) -> str:
        """Its method as this project names it."""
        return OUR_NAMES.get(self.method, self.method)

    @property
    def names(self) -> set[str]:
        """What it is selected by: its table, and its table with the model."""
        table = f"{self.source} table {self.table}"
        return {table, f"{table} {self.model}"}

    @property
    def adapted(self) -> tuple[str, ...]:
        """The weights that it adapts, in the order of this project."""
        return tuple(name for name in WEIGHTS if name in self.weights.split(","))

    @property
    def place(self) -> str:
        """Where in its source it is."""
        if self.source == "liu":
            return f"section III.{self.table}"
        if self.table.startswith("Figure"):
            return self.table.lower()
        tables = self.table.replace("/", " and ")
        return f"{'table' if tables == self.table else 'tables'} {tables}"

    @property
    def is_fraction(self) -> bool:
        return self.metric in (*SCORES, "average") or self.metric.endswith("_percent")

    def number(self, text: str) -> float:
        """Return a number of it, scores and percentages as fractions."""
        as_printed = not self.is_fraction or (self.source == "liu" and self.metric in SCORES)
        # Rounded, or 87.6 / 100 would be 0.8759999999999999.
        return float(text) if as_printed else round(float(text) / 100, 6)


def printed_rows() -> list[Printed]:
    """Return all rows, in the order of the file."""
    with Path(__file__).with_name("published.csv").open(encoding="utf-8", newline="") as file:
        return [Printed(**row) for row in csv.DictReader(file)]
