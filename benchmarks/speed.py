"""Wall seconds of one cell with all its seeds: our stage beside `transformers.Trainer` with PEFT.

Every contestant is timed from the start of its first process to the metrics on disk, and its steps
alone once they are warm: in seconds of a core, since ours take one and the peer's all of them. A
round runs them all, the next one in the opposite order. Ours runs in a fresh copy of the files that
it needs, so that nothing of an earlier run can be used again.

    python benchmarks/speed.py --config configs/train/lora-movie_polarity.json \
        --data data/prepared/movie_polarity --rounds 3 --output speed.json

A model that is a folder must be named by its whole path. The intermediate task is left out: all
start from the pretrained encoder. Run it on an idle machine.
"""

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from peft_study.files import read_json, write_json

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("params.yaml", "src", "stages")  # by our stage, beside its configuration and data
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Contestant(NamedTuple):
    """What the table says, and a function of configuration, data and an empty folder."""

    what: str
    run: Callable[[dict[str, Any], Path, Path], dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--config", type=Path, required=True, help="a file of configs/train/")
    parser.add_argument("--data", type=Path, required=True, help="a folder of data/prepared/")
    parser.add_argument("--seeds", type=int, help="take the first so many seeds of the config")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--output", type=Path, required=True, help="receives all figures, as JSON")
    arguments = parser.parse_args()
    config = read_json(arguments.config)
    config["seeds"] = config["seeds"][: arguments.seeds]
    if config["train"]["epochs"] * config["train"]["evaluations_per_epoch"] < 2:
        parser.error("--config must evaluate more than once: steps are warm after the first time")

    rounds: list[dict[str, Any]] = []
    for number in range(arguments.rounds):
        results: dict[str, dict[str, Any]] = {}
        for name in arguments.only if number % 2 == 0 else reversed(arguments.only):
            # Threads that wait for each other suffer most from other work: say how much there is.
            load = os.getloadavg()[0]
            with tempfile.TemporaryDirectory() as folder:
                results[name] = CONTESTANTS[name].run(
                    config, arguments.data.resolve(), Path(folder)
                )
            results[name]["load_before"] = load
            seconds = results[name]["seconds"]
            print(f"round {number + 1}: {name}: {seconds:.1f} s, load {load:.1f}", file=sys.stderr)
        rounds.append(results)
        # After every round, so that an interrupted benchmark keeps what it measured.
        machine = describe_machine()
        write_json(arguments.output, {"machine": machine, "config": config, "rounds": rounds})
    metric = config["task_definition"]["metrics"][0]
    title = f"{config['method']} on {config['task']}, {len(config['seeds'])} seed(s)"
    print(f"{title}; {machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}\n")
    print(table(rounds, arguments.only, metric))


def run_ours(config: dict[str, Any], data: Path, folder: Path) -> dict[str, Any]:
    """Run `stages/train.py`: a single-threaded process a seed, as many at once as there are cores.

    Its `history.csv` holds the metrics of every evaluation.
    """
    method, task = config["method"], config["task"]
    lay_out(config, data, folder)
    clock = time.perf_counter()
    run(["stages/train.py", method, task], folder)
    seconds = time.perf_counter() - clock
    metric, report = config["task_definition"]["metrics"][0], config["train"]["report"]
    runs = [folder / f"runs/{method}/{task}/seed-{seed}" for seed in config["seeds"]]
    found = [pd.read_csv(run / "history.csv")[metric] for run in runs]
    values = [float(series.max() if report == "best" else series.iloc[-1]) for series in found]
    steps = [steady_seconds(run / "timings.csv") for run in runs]
    return {"seconds": seconds, "values": values, "core_seconds_per_step": steps}


def steady_seconds(timings: Path) -> float:
    """Return the seconds of the processor that a step took after the first evaluation."""
    evaluations = pd.read_csv(timings)
    later = evaluations.iloc[-1] - evaluations.iloc[0]
    return float(later["train_seconds"] / later["step"])


def lay_out(config: dict[str, Any], data: Path, folder: Path) -> None:
    """Copy into an empty `folder` what our stage needs to train the cell of `config`."""
    for name in NEEDED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    shutil.copytree(data, folder / "data/prepared" / config["task"])
    write_json(folder / f"configs/train/{config['method']}-{config['task']}.json", config)


def run_peer(
    padding: str, at_once: int, config: dict[str, Any], data: Path, folder: Path
) -> dict[str, Any]:
    """Run `trainer_peft.py` once per seed, `at_once` processes side by side.

    A process that is alone has torch's default threads, one per core; side by side each has one.
    """
    write_json(folder / "config.json", config)

    def train(seed: int) -> None:
        script = str(Path(__file__).with_name("trainer_peft.py"))
        options = ["--seed", str(seed), "--padding", padding, "--output", f"{seed}.json"]
        run([script, "config.json", str(data), *options], folder, 1 if at_once > 1 else None)

    clock = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(train, config["seeds"]))
    seconds = time.perf_counter() - clock
    results = [read_json(folder / f"{seed}.json") for seed in config["seeds"]]
    values = [result["chosen"][result["metric"]] for result in results]
    steps = [result["seconds_per_step"] * result["threads"] for result in results]
    return {
        "seconds": seconds,
        "values": values,
        "core_seconds_per_step": steps,
        "runs": results,
    }


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


def environment(folder: Path, threads: int | None = None) -> dict[str, str]:
    """Return the environment of a script in `folder`, whose runs no other run store may hold."""
    dropped = {*THREADS, "PEFT_STUDY_STORE"}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    if threads:
        kept |= dict.fromkeys(THREADS, str(threads))
    # Ours takes its own copy of the sources, the peer the only one there is.
    source = folder / "src" if (folder / "src").is_dir() else ROOT / "src"
    return kept | {"PYTHONPATH": str(source), "HF_HUB_OFFLINE": "1"}


def describe_machine() -> dict[str, Any]:
    """Return what the figures depend on besides the code."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": CORES,
        "torch": torch.__version__,
        "default_threads": torch.get_num_threads(),
    }


def table(rounds: list[dict[str, Any]], names: list[str], metric: str) -> str:
    """Return a Markdown table: seconds, ratio to ours within a round, steps, metric over seeds."""
    lines = [
        "| what | wall seconds: median (range) | times ours | core-milliseconds a step "
        f"| {metric} times 100 |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name in names:
        seconds = [results[name]["seconds"] for results in rounds]
        ratios = "–"
        if "ours" in names:
            ratios = spread([r[name]["seconds"] / r["ours"]["seconds"] for r in rounds], ".2f")
        warm = [statistics.median(results[name]["core_seconds_per_step"]) for results in rounds]
        # Every round trains the same seeds; the first one's values stand for all.
        values = [100 * value for value in rounds[0][name]["values"]]
        scatter = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        score = f"{statistics.median(values):.1f}{scatter}"
        what = CONTESTANTS[name].what
        lines.append(
            f"| {what} | {spread(seconds, '.1f')} | {ratios} "
            f"| {spread([1000 * step for step in warm], '.0f')} | {score} |"
        )
    return "\n".join(lines)


def spread(values: list[float], form: str) -> str:
    """Format the median and the range."""
    least, middle, most = min(values), statistics.median(values), max(values)
    return f"{middle:{form}} ({least:{form}}–{most:{form}})"


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
    main()
