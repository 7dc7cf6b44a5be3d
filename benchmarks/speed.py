"""Wall seconds of one cell with all its seeds: our stage beside `transformers.Trainer` with PEFT.

Every contestant is timed from the start of its first process to the metrics on disk, and its steps
alone once they are warm: in seconds of a core, since ours take one and the peer's all of them. A
round runs them all, the next one in the opposite order. Each has a fresh copy of the
files that it needs, so that nothing of an earlier run can be used again.

    python benchmarks/speed.py --method lora --task movie_polarity --rounds 3 --output speed.json

A model that is a folder must be named by its whole path. The intermediate task is left out: all
start from the pretrained encoder. Run it on an idle machine.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd

from cells import PeerRun, environment, lay_out, options, read_cell, spread
from peft_study.errors import run_command
from peft_study.files import read_json, read_record, write_json
from peft_study.profiling.profile import describe_machine
from peft_study.run_config import CellConfig

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Outcome:
    """What a contestant did in one round; values and steps are by seed."""

    seconds: float
    values: list[float]
    core_seconds_per_step: list[float]
    peers: tuple[PeerRun, ...] = ()
    load_before: float = 0.0


@dataclass(frozen=True)
class Contestant:
    """What the table says, and a function of a cell and a folder with all that it needs."""

    what: str
    run: Callable[[CellConfig, Path], Outcome]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--method", default="lora")
    parser.add_argument("--seeds", type=int, help="take the first so many seeds of the cell")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--output", type=Path, required=True, help="receives all figures, as JSON")
    arguments = parser.parse_args()
    cell = read_cell(arguments.method, arguments.task)
    cell = replace(cell, seeds=cell.seeds[: arguments.seeds], starts=False)
    if cell.run.train.epochs * cell.run.train.evaluations_per_epoch < 2:
        parser.error("the cell must evaluate more than once: steps are warm after the first time")

    machine = describe_machine(other_cpu_share=0)
    about = asdict(machine) | {"other_cpu_share": None}  # every outcome has the load before it
    rounds: list[dict[str, Outcome]] = []
    for number in range(arguments.rounds):
        outcomes: dict[str, Outcome] = {}
        for name in arguments.only if number % 2 == 0 else reversed(arguments.only):
            # Threads that wait for each other suffer most from other work: say how much there is.
            load = os.getloadavg()[0]
            with tempfile.TemporaryDirectory() as folder:
                lay_out(cell, Path(folder))
                outcome = CONTESTANTS[name].run(cell, Path(folder))
            outcomes[name] = replace(outcome, load_before=load)
            seconds = f"{outcome.seconds:.1f} s, load {load:.1f}"
            print(f"round {number + 1}: {name}: {seconds}", file=sys.stderr)
        rounds.append(outcomes)
        # After every round, so that an interrupted benchmark keeps what it measured.
        write_json(arguments.output, {"machine": about, "config": cell, "rounds": rounds})
    title = f"{cell.run.method} on {cell.run.task}, {len(cell.seeds)} seed(s)"
    print(f"{title}; {machine.name}, torch {machine.torch}\n")
    print(table(rounds, arguments.only, cell.run.definition.metrics[0]))


def run_ours(cell: CellConfig, folder: Path) -> Outcome:
    """Run `stages/train.py`: a process of one thread a seed, as many at once as cores."""
    clock = time.perf_counter()
    run(["stages/train.py", cell.run.method], folder)
    seconds = time.perf_counter() - clock
    place = folder / "runs" / cell.run.method / cell.run.task
    runs = [place / f"seed-{seed}" for seed in cell.seeds]
    steps = [steady_seconds(run / "timings.csv") for run in runs]
    values = [read_json(run / "manifest.json")["result"]["value"] for run in runs]
    return Outcome(seconds, values, steps)


def steady_seconds(timings: Path) -> float:
    """Return the seconds of the processor that a step took after the first evaluation."""
    evaluations = pd.read_csv(timings)
    later = evaluations.iloc[-1] - evaluations.iloc[0]
    return float(later["train_seconds"] / later["step"])


def run_peer(padding: str, at_once: int, cell: CellConfig, folder: Path) -> Outcome:
    """Run `trainer_peft.py` once per seed, `at_once` processes side by side.

    A process that is alone has torch's default threads, one per core; side by side each has one.
    """
    names = ["--method", cell.run.method, "--task", cell.run.task]

    def train(seed: int) -> None:
        script = str(Path(__file__).with_name("trainer_peft.py"))
        chosen = ["--seed", str(seed), "--padding", padding, "--output", f"{seed}.json"]
        run([script, *names, *chosen], folder, 1 if at_once > 1 else None)

    clock = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(train, cell.seeds))
    seconds = time.perf_counter() - clock
    peers = tuple(read_record(folder / f"{seed}.json", PeerRun) for seed in cell.seeds)
    values = [peer.chosen[cell.run.definition.metrics[0]] for peer in peers]
    steps = [peer.seconds_per_step * peer.threads for peer in peers]
    return Outcome(seconds, values, steps, peers)


def run(arguments: list[str], folder: Path, threads: int | None = None) -> None:
    """Run a Python script in `folder`; without `threads`, torch chooses their number."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(folder, threads),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{arguments[0]} failed:\n{done.stdout}\n{done.stderr}")


def table(rounds: list[dict[str, Outcome]], names: list[str], metric: str) -> str:
    """Return a Markdown table: seconds, ratio to ours within a round, steps, metric over seeds."""
    lines = [
        "| what | wall seconds: median (range) | times ours | core-milliseconds a step "
        f"| {metric} times 100 |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name in names:
        seconds = [outcomes[name].seconds for outcomes in rounds]
        ratios = "–"
        if "ours" in names:
            ratios = spread([r[name].seconds / r["ours"].seconds for r in rounds], ".2f")
        warm = [statistics.median(r[name].core_seconds_per_step) for r in rounds]
        # Every round trains the same seeds; the first one's values stand for all.
        values = [100 * value for value in rounds[0][name].values]
        scatter = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        score = f"{statistics.median(values):.1f}{scatter}"
        what = CONTESTANTS[name].what
        lines.append(
            f"| {what} | {spread(seconds, '.1f')} | {ratios} "
            f"| {spread([1000 * step for step in warm], '.0f')} | {score} |"
        )
    return "\n".join(lines)


CONTESTANTS = {
    "ours": Contestant("ours: all seeds, a core each, side by side", run_ours),
    "longest": Contestant(
        "Trainer + PEFT, rows padded to the longest: seeds in turn, all cores each",
        partial(run_peer, "longest", 1),
    ),
    "longest-side-by-side": Contestant(
        f"Trainer + PEFT, rows padded to the longest: {CORES} seeds side by side, a core each",
        partial(run_peer, "longest", CORES),
    ),
    "128": Contestant(
        "Trainer + PEFT, rows padded to 128: seeds in turn, all cores each",
        partial(run_peer, "128", 1),
    ),
}

if __name__ == "__main__":
    run_command(main)
