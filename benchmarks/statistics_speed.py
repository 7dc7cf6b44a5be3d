"""How long do the statistics of a large study take, with how much memory, and are they the same?

Eight tasks of GLUE with all their held-out rows, twelve methods and five seeds: predictions are
made up, written as `evaluate` writes them, and summarised twice as `aggregate` does, values read
from their files.

    python benchmarks/statistics_speed.py
"""

import hashlib
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from peft_study.data.tasks import TASKS
from peft_study.errors import run_command
from peft_study.files import as_json, read_record
from peft_study.findings.chance import Values
from peft_study.findings.influence import values
from peft_study.findings.rows import read_rows, write_rows
from peft_study.findings.statistics import summarise
from peft_study.records.scores import Cell, Counts, CrossFitted, Evaluation, Rows, RunScores
from peft_study.records.study import MethodInfo, StudyInfo, TaskInfo

HELD_OUT = {"qqp": 40_430, "mnli": 19_647, "qnli": 5_463, "stsb": 1_500}
HELD_OUT |= {"cola": 1_043, "sst2": 872, "mrpc": 408, "rte": 277}
METHODS, SEEDS = 12, range(1, 6)


def main() -> None:
    # The rest of a study, such as its margins, is that of the study in this folder.
    settings = vars(read_record(Path("configs/report.json"), StudyInfo))
    names = ["full_ft", *(f"method_{number}" for number in range(1, METHODS))]
    families = ["full", "lora", *(f"family_{number}" for number in range(2, METHODS))]
    methods = [
        MethodInfo(name, name, family, family, place, False, {})
        for place, (name, family) in enumerate(zip(names, families, strict=True))
    ]
    tasks = [TaskInfo(name, TASKS[name].metrics[0], TASKS[name].labels) for name in HELD_OUT]
    about = {"methods": tuple(methods), "tasks": tuple(tasks), "seeds": tuple(SEEDS)}
    study = StudyInfo(**settings | about)
    with tempfile.TemporaryDirectory() as scratch:
        folder, generator = Path(scratch), np.random.default_rng(0)
        cells = {
            (name, task): make(name, task, folder, generator) for task in HELD_OUT for name in names
        }
        for _ in range(2):
            clock = time.perf_counter()
            found = summarise(
                study,
                cells,
                [],
                [],
                lambda cell: read_rows(folder / cell.method / f"{cell.task}.parquet", cell),
            )
            text, seconds = as_json(found), time.perf_counter() - clock
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            digest = hashlib.sha256(text.encode()).hexdigest()[:12]
            count = len(found.differences)
            print(f"{seconds:.1f} s, peak {peak:.2f} GB, {count} differences, {digest}")


def make(method: str, task: str, folder: Path, generator: np.random.Generator) -> Cell:
    """Return a cell of made-up predictions, having written the values of their rows."""
    rows, metrics, seeds = HELD_OUT[task], TASKS[task].metrics, {}
    columns: dict[tuple[str, str], Values] = {}
    classes = TASKS[task].labels is not None
    labels = generator.random(rows)
    labels = np.round(labels + 0.1) if classes else 5 * labels
    for seed in map(str, SEEDS):
        noise = generator.normal(0, 0.7, rows)
        wrong = classes * (np.abs(noise) > 1)
        predicted = labels + wrong * (1 - 2 * labels) + (not classes) * noise
        of = {metric: values(metric, predicted, labels) for metric in metrics}
        columns |= {(metric, seed): found for metric, found in of.items()}
        scores = {metric: float(found.mean()) for metric, found in of.items()}
        evaluation, chosen = Evaluation(1, 1.0, scores), dict.fromkeys(metrics, 0.0)
        fitted = CrossFitted(scores, chosen)
        seeds[seed] = RunScores(evaluation, evaluation, evaluation, fitted, learned=True)
    file = folder / method / f"{task}.parquet"
    file.parent.mkdir(exist_ok=True)
    write_rows(file, [str(number) for number in range(rows)], columns)
    data, baseline = {"validation": Rows(rows, "made up")}, dict.fromkeys(metrics, 0.5)
    return Cell(task, method, "best", baseline, data, Counts(1, 1, 2), seeds)


if __name__ == "__main__":
    run_command(main)
