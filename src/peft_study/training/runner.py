"""Many runs: the seeds of a cell, as single-threaded processes side by side."""

import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from tqdm import tqdm

from peft_study.errors import StudyError


def run_seeds(
    config: dict[str, Any],
    seeds: list[int],
    data: Path,
    start: Path | None,
    directory: Path,
    workers: int | str,
) -> None:
    """Train a run per seed below `directory/seed-<seed>/` and print a line for each.

    Args:
        config: as for `peft_study.training.loop.train_run`; so are `data` and `start`.
        seeds: one run each.
        directory: receives a folder per seed.
        workers: processes at once, or "auto" for one per core.

    Raises:
        StudyError: a run failed for a reason that the user can mend, or its process was killed.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processes = min(len(seeds), (cores or 1) if workers == "auto" else int(workers))
    name = f"{config['method']} {config['task']}"
    # Forked from a server that has imported everything once, yet holds no threads of its own.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload(
            ["peft_study.training.loop", f"peft_study.methods.{config['method']}"]
        )
    clock = time.perf_counter()
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures = [
            pool.submit(_train_run, config, seed, data, start, directory / f"seed-{seed}")
            for seed in seeds
        ]
        try:
            progress = tqdm(as_completed(futures), total=len(seeds), desc=name, disable=None)
            for future in progress:
                r = future.result()
                progress.write(
                    f"{name} seed {r.seed}: {r.metric} {r.value:.4f} at step {r.step} of "
                    f"{r.steps}, {r.seconds:.0f} s of training",
                    file=sys.stdout,
                )
        except BrokenProcessPool:
            raise StudyError(
                f"{name}: a training process was killed, perhaps for want of memory; "
                "lower runner.workers"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)
    print(f"{name}: wrote {len(seeds)} run(s) to {directory}/, {time.perf_counter() - clock:.0f} s")


def _train_run(*arguments: Any) -> Any:
    from peft_study.training.loop import train_run

    return train_run(*arguments)
