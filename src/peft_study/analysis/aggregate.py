"""From the scores of all cells to the study's summary and its table."""

import statistics
from collections.abc import Callable
from typing import Any

from peft_study.tasks import TASKS

METHOD_NAMES = {
    "lora": "LoRA (ours)",
    "peft_lora": "LoRA (PEFT)",
    "loralib_lora": "LoRA (loralib)",
    "adapter_h": "AdapterH",
    "full_ft": "Full fine-tuning",
}


def aggregate(
    config: dict[str, Any], cell: Callable[[str, str], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Summarise every cell by median and standard deviation over seeds.

    Args:
        config: `configs/aggregate.json`: the methods and tasks of the study.
        cell: maps a method and a task to what `evaluate` found.

    Returns:
        `{task: {method: {metric: {median, std, n}, trainable: {adapter, head, total}}}}`, and under
        each task's `baseline` the metrics of the majority class, or of the mean for regression.
        Std has ddof = 1 and is None for a single seed.
    """
    summary: dict[str, dict[str, Any]] = {}
    for task in config["tasks"]:
        summary[task] = {}
        for method in config["methods"]:
            found = cell(method, task)
            summary[task]["baseline"] = found["baseline"]
            summary[task][method] = {"trainable": found["trainable"]}
            for metric in TASKS[task].metrics:
                values = [run[found["report"]][metric] for run in found["seeds"].values()]
                summary[task][method][metric] = {
                    "median": statistics.median(values),
                    "std": statistics.stdev(values) if len(values) > 1 else None,
                    "n": len(values),
                }
    return summary


def markdown_table(summary: dict[str, dict[str, Any]]) -> str:
    """Render a summary: a row per method, a column per task; median ± std of 100 times the metric.

    Methods and tasks stand in the order of their tables in the code, the baseline last.
    """
    main = {name: task.metrics[0] for name, task in TASKS.items() if name in summary}
    methods = [name for name in METHOD_NAMES if any(name in cells for cells in summary.values())]
    rows = [["method", "trained: adapter + head", *(f"{t} ({m})" for t, m in main.items())]]
    rows.append(["---", "---:", *("---:" for _ in main)])
    for method in methods:
        trainable = [cells[method]["trainable"] for cells in summary.values()]
        counts = " + ".join(
            "–".join(f"{n:,}" for n in sorted({count[part] for count in trainable}))
            for part in ("adapter", "head")
        )
        scores = [_percent(summary[task][method][metric]) for task, metric in main.items()]
        rows.append([METHOD_NAMES[method], counts, *scores])
    baseline = [f"{100 * summary[task]['baseline'][metric]:.1f}" for task, metric in main.items()]
    rows.append(["majority class or mean", "0", *baseline])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _percent(value: dict[str, Any]) -> str:
    spread = "" if value["std"] is None else f" ± {100 * value['std']:.1f}"
    return f"{100 * value['median']:.1f}{spread}"
