"""Rehearse one study, or all of `studies/`: `python -m peft_study.rehearsal [STUDY]`."""

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from peft_study import presets
from peft_study.errors import StudyError, run_command
from peft_study.files import read_json, replacing
from peft_study.records import Record
from peft_study.rehearsal.small import write_small

HOME = Path("rehearsals")
HEAD = ("study", "seconds", "figures", "tables", "published rows with ours", "the real study")


class Outcome(Record):
    """What came out of a rehearsal; `error` is what is wrong with it."""

    study: str
    seconds: float
    figures: int = 0
    tables: int = 0
    published: str = ""
    forecast: str = ""
    error: str | None = None

    def __str__(self) -> str:
        if self.error:
            return f"{self.study}: failed after {self.seconds:.0f} s: {self.error}"
        found = f"{self.figures} figures, {self.tables} tables of papers, {self.published} rows"
        page = HOME / self.study / "plots/report.html"
        return (
            f"{self.study}: rehearsed in {self.seconds:.0f} s: {found} with a counterpart; {page}\n"
            f"{self.study}: the real study takes {self.forecast}"
        )


def rehearse(name: str) -> Outcome:
    """Run a study's small form to its page, in `rehearsals/<name>`, where `log.txt` tells of it."""
    folder, clock = HOME / name, time.perf_counter()
    write_small(name, folder)
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    programs, log = Path(sys.executable).parent, folder / "log.txt"
    first = os.pathsep.join([str(programs), os.environ["PATH"]])
    with log.open("w", encoding="utf-8") as file:
        found = subprocess.run(
            [str(programs / "dvc"), "repro"],
            cwd=folder,
            stdout=file,
            stderr=file,
            env=os.environ | {"PATH": first},
            check=False,
        )
    seconds, printed = time.perf_counter() - clock, log.read_text(encoding="utf-8")
    if found.returncode or "Traceback" in printed:
        named = re.findall("^.*(?:error:|ERROR|Error:).*$", printed, re.MULTILINE)
        errors = named or ["no error is named"]
        return Outcome(name, seconds, error=f"{errors[0]} ({log})")
    published = read_json(folder / "metrics/published.json")
    gaps = read_json(folder / "metrics/statistics.json")["gaps"]
    gaps += [row for row in published if row["ours"] is None and not row["note"]]
    # In a process of its own: its models would stay in the memory of this one.
    command = [sys.executable, "-m", "peft_study.rehearsal.forecast", name, str(folder)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    ours = sum(row["ours"] is not None for row in published)
    return Outcome(
        name,
        seconds,
        figures=len(read_json(folder / "plots/figures.json")),
        tables=len(list((folder / "metrics/tables").glob("*.md"))),
        published=f"{ours} of {len(published)}",
        forecast=told.stdout.strip(),
        error=f"a gap without a reason: {gaps[0]}" if gaps else told.stderr.strip() or None,
    )


def summary(outcomes: list[Outcome]) -> str:
    """Return what came out as a table in Markdown."""
    rows = [
        (
            of.study,
            f"{of.seconds:.0f}",
            *((of.figures, of.tables, of.published, of.forecast) if not of.error else (of.error,)),
        )
        for of in outcomes
    ]
    rules = ["---"] * len(HEAD)
    return "".join(f"| {' | '.join(map(str, row))} |\n" for row in (HEAD, rules, *rows))


def main() -> None:
    (name,) = sys.argv[1:]
    names = [name] if name else presets.names()
    presets.load(names[0])
    outcomes = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for outcome in pool.map(rehearse, names):
            print(outcome, flush=True)
            outcomes.append(outcome)
    with replacing(HOME / "summary.md") as temporary:
        temporary.write_text(summary(outcomes), encoding="utf-8")
    if failed := [outcome.study for outcome in outcomes if outcome.error]:
        raise StudyError(f"rehearse: {', '.join(failed)} did not come to a whole page")
    print(f"rehearse: wrote {HOME / 'summary.md'}; nothing in {HOME}/ is a result")


if __name__ == "__main__":
    run_command(main)
