"""What the study found, read from the files that its stages wrote."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft_study.files import read_json


@dataclass(frozen=True)
class Results:
    """Everything that findings are drawn from; a cell without results is absent from `cells`.

    Attributes:
        study: `configs/report.json`.
        cells: by method and task, what `peft_study.findings.evaluate` found.
        sweep_runs: the same by the name of a cell of the sweep.

    The others are the files of `metrics/` that bear their names.
    """

    study: dict[str, Any]
    summary: dict[str, Any]
    statistics: dict[str, Any]
    profile: dict[str, Any]
    iso_accuracy: dict[str, Any]
    stability: list[dict[str, Any]]
    curves: list[dict[str, Any]]
    sweep: list[dict[str, Any]]
    sweep_curves: list[dict[str, Any]]
    sweep_runs: dict[str, Any]
    cells: dict[tuple[str, str], dict[str, Any]]
    parity: dict[str, Any]

    @property
    def main_differences(self) -> list[dict[str, Any]]:
        """The differences in each task's main metric, at the evaluation that is reported."""
        main, report = self.study["main_metrics"], self.study["report"]
        return [
            row
            for row in self.statistics.get("differences", [])
            if row["evaluation"] == report and row["metric"] == main.get(row["task"])
        ]

    @property
    def main_sweep(self) -> list[dict[str, Any]]:
        """The sweep's rows of its task's main metric, or else of its first."""
        if not self.sweep:
            return []
        metric = self.study["main_metrics"].get(self.sweep[0]["task"], self.sweep[0]["metric"])
        return [row for row in self.sweep if row["metric"] == metric]


def load_results(metrics: Path = Path("metrics"), configs: Path = Path("configs")) -> Results:
    """Read all files of a study's results."""
    study = read_json(configs / "report.json")
    # Files are sorted by key; the study's own order is that of its list of tasks.
    study["main_metrics"] = {task: study["main_metrics"][task] for task in study["tasks"]}
    parts = [
        *("summary", "statistics", "profile", "iso_accuracy", "stability", "curves"),
        *("sweep", "sweep_curves"),
    ]
    return Results(
        study=study,
        **{part: read_json(metrics / f"{part}.json") for part in parts},
        sweep_runs=read_json(metrics / "runs/sweep.json"),
        cells=load_cells(study, metrics),
        parity=read_json(metrics / "parity.json"),
    )


def load_cells(study: dict[str, Any], metrics: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Read the scores of the cells that have any."""
    found = {}
    for method in study["methods"]:
        for task in study["main_metrics"]:
            path = metrics / "runs" / method / f"{task}.json"
            if path.is_file():
                found[method, task] = read_json(path)
    return found
