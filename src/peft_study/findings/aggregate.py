"""From the scores of all cells to the study's summary and its table."""

import statistics
from collections.abc import Callable
from typing import Any

METHOD_NAMES = {
    "lora": "LoRA (ours)",
    "peft_lora": "LoRA (PEFT)",
    "loralib_lora": "LoRA (loralib)",
    "adapter_h": "AdapterH",
    "full_ft": "Full fine-tuning",
}


def aggregate(
    config: dict[str, Any], cells: dict[tuple[str, str], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Summarise every cell by median and standard deviation over seeds.

    Args:
        config: `configs/aggregate.json`: the methods and tasks of the study.
        cells: by method and task, what `evaluate` found. One without results is left out.

    Returns:
        `{task: {method: {metric: {median, std, n, cv_first, cv_last}, trainable: {adapter, head,
        total}}}}`, and under each task's `baseline` the metrics of the majority class, or of the
        mean for regression. Std has ddof = 1 and is None for a single seed. The coefficients of
        variation are those of the first and the last evaluation.
    """
    summary: dict[str, dict[str, Any]] = {}
    for task in config["tasks"]:
        summary[task] = {}
        for method in config["methods"]:
            if (method, task) not in cells:
                continue
            found = cells[method, task]
            summary[task]["baseline"] = found["baseline"]
            summary[task][method] = {"trainable": found["trainable"]}
            summary[task][method] |= _over_seeds(found)
    return summary


def sweep_table(names: list[str], cell: Callable[[str], dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row per metric and cell of a grid of ranks and weights (Hu et al. 2021, table 6).

    Args:
        names: the cells, such as `query+value-r8`.
        cell: maps a name to what `evaluate` found.

    Returns:
        Rows of task, weights, rank, metric, what `aggregate` says of a metric, and the trainable
        parameters.
    """
    rows = []
    for name in names:
        weights, _, rank = name.rpartition("-r")
        found = cell(name)
        for metric, values in _over_seeds(found).items():
            rows.append(
                {"task": found["task"], "weights": weights, "rank": int(rank), "metric": metric}
                | values
                | {f"trainable_{part}": count for part, count in found["trainable"].items()}
            )
    return rows


def _over_seeds(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Describe the evaluation that each run of a cell reports, by metric; see `aggregate`."""
    runs = list(found["seeds"].values())
    described = {}
    for metric in (key for key in runs[0][found["report"]] if key not in ("step", "epoch")):
        reported, first, last = (
            [run[which][metric] for run in runs] for which in (found["report"], "first", "last")
        )
        described[metric] = {
            "median": statistics.median(reported),
            "std": statistics.stdev(reported) if len(reported) > 1 else None,
            "n": len(reported),
            "cv_first": coefficient_of_variation(first),
            "cv_last": coefficient_of_variation(last),
        }
    return described


def coefficient_of_variation(values: list[float]) -> float | None:
    """Return std / mean with ddof = 1; None for a single value, or unless the mean is positive."""
    mean = statistics.fmean(values)
    return statistics.stdev(values) / mean if len(values) > 1 and mean > 0 else None


def markdown_table(summary: dict[str, dict[str, Any]], main: dict[str, str]) -> str:
    """Render a summary: a row per method, a column per task; median ± std of 100 times the metric.

    Args:
        summary: what `aggregate` returned.
        main: the metric to show of each task, in the order of the columns.

    Methods stand in the order of their table in the code, the baseline last; a cell without results
    is a dash.
    """
    methods = [name for name in METHOD_NAMES if any(name in cells for cells in summary.values())]
    rows = [["method", "trained: adapter + head", *(f"{t} ({m})" for t, m in main.items())]]
    rows.append(["---", "---:", *("---:" for _ in main)])
    for method in methods:
        trainable = [cells[method]["trainable"] for cells in summary.values() if method in cells]
        counts = " + ".join(
            "–".join(f"{n:,}" for n in sorted({count[part] for count in trainable}))
            for part in ("adapter", "head")
        )
        scores = [_percent(summary[task].get(method, {}).get(main[task])) for task in main]
        rows.append([METHOD_NAMES[method], counts, *scores])
    baseline = [_percent(_alone(summary[task].get("baseline"), main[task])) for task in main]
    rows.append(["majority class or mean", "0", *baseline])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _alone(baseline: dict[str, float] | None, metric: str) -> dict[str, Any] | None:
    return {"median": baseline[metric], "std": None} if baseline else None


def _percent(value: dict[str, Any] | None) -> str:
    if value is None:
        return "–"
    spread = "" if value["std"] is None else f" ± {100 * value['std']:.1f}"
    return f"{100 * value['median']:.1f}{spread}"
