"""What few seeds can say: spread, intervals, and differences paired by seed."""

import math
import statistics
from typing import Any

import numpy as np
from scipy import stats

Cells = dict[tuple[str, str], dict[str, Any]]

LEVEL = 0.95
RESAMPLES = 9999
EVALUATIONS = ("best", "last")
LORA_REFERENCES = ("peft_lora", "loralib_lora")


def describe_cells(cells: Cells) -> list[dict[str, Any]]:
    """Describe every metric of every cell, at the best and at the last evaluation of its runs.

    Args:
        cells: by method and task, what `peft_study.findings.evaluate` found.

    Returns:
        Rows of task, method, metric, evaluation, n, median, std (ddof 1), mean, cv (std / mean, if
        the mean is positive), min, max, and `low` and `high`, the 95% bootstrap interval of the
        mean; std, cv and the interval are None for a single seed.
    """
    rows = []
    for (method, task), cell in cells.items():
        for metric in metrics_of(cell):
            for evaluation in EVALUATIONS:
                values = list(scores(cell, metric, evaluation).values())
                several, mean = len(values) > 1, statistics.fmean(values)
                std = statistics.stdev(values) if several else None
                low, high = bootstrap_interval(values)
                rows.append(
                    {"task": task, "method": method, "metric": metric, "evaluation": evaluation}
                    | {"n": len(values), "median": statistics.median(values), "std": std}
                    | {"mean": mean, "cv": std / mean if std is not None and mean > 0 else None}
                    | {"min": min(values), "max": max(values), "low": low, "high": high}
                )
    return rows


def bootstrap_interval(values: list[float]) -> tuple[float | None, float | None]:
    """Return the 95% BCa bootstrap interval of the mean, always the same for the same values.

    Source: Efron 1987, Better Bootstrap Confidence Intervals.
    """
    if len(values) < 2:
        return None, None
    if min(values) == max(values):
        return values[0], values[0]
    found = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="BCa",
        rng=np.random.default_rng(0),
    )
    low, high = found.confidence_interval
    return float(low), float(high)


def compare_cells(cells: Cells, margin: float) -> list[dict[str, Any]]:
    """Compare methods on every task, paired by seed: each with full fine-tuning, ours with others'.

    Returns:
        Rows of task, metric, evaluation, method, reference and what `paired_difference` returns.
    """
    rows = []
    for method, task in cells:
        references = ["full_ft"] if method != "full_ft" else []
        references += LORA_REFERENCES if method == "lora" else ()
        for reference in references:
            if (reference, task) in cells:
                ours, theirs = cells[method, task], cells[reference, task]
                for metric in metrics_of(ours):
                    for evaluation in EVALUATIONS:
                        values = scores(ours, metric, evaluation)
                        others = scores(theirs, metric, evaluation)
                        rows.append(
                            {"task": task, "metric": metric, "evaluation": evaluation}
                            | {"method": method, "reference": reference}
                            | paired_difference(values, others, margin)
                        )
    return rows


def paired_difference(
    values: dict[str, float], reference: dict[str, float], margin: float
) -> dict[str, Any]:
    """Compare two methods over the seeds that both have.

    Args:
        values: a score per seed.
        reference: likewise, of what to compare with.
        margin: a difference that would not matter.

    Returns:
        n, `mean` of the differences with its 95% t interval `low` to `high`; `p` of the paired
        t-test; `p_equivalence` of two one-sided t-tests against ±margin (Schuirmann 1987), and
        `equivalent`, whether that is below 5%; `detectable`, the smallest mean difference that this
        spread and n would have shown at 5%. For fewer than two seeds all but n and mean are None;
        so is p where no seed differs from another.
    """
    differences = by_seed(values, reference)
    n = len(differences)
    found: dict[str, Any] = {"n": n, "mean": statistics.fmean(differences) if n else None}
    found |= {"margin": margin}
    reach = t_reach(differences)
    if reach is None:
        keys = ("low", "high", "p", "p_equivalence", "equivalent", "detectable")
        return found | dict.fromkeys(keys)
    mean = found["mean"]
    if reach == 0:
        p, p_equivalence = None, 0.0 if abs(mean) < margin else 1.0
    else:
        p = float(stats.ttest_1samp(differences, 0).pvalue)
        above = stats.ttest_1samp(differences, -margin, alternative="greater")
        below = stats.ttest_1samp(differences, margin, alternative="less")
        p_equivalence = float(max(above.pvalue, below.pvalue))
    return found | {
        "low": mean - reach,
        "high": mean + reach,
        "p": p,
        "p_equivalence": p_equivalence,
        "equivalent": p_equivalence < 1 - LEVEL,
        "detectable": reach,
    }


def by_seed(values: dict[str, float], reference: dict[str, float]) -> list[float]:
    """Return `values` minus `reference` for every seed that both have."""
    return [values[seed] - reference[seed] for seed in values if seed in reference]


def t_reach(differences: list[float]) -> float | None:
    """Return how far the 95% t interval of the mean reaches to either side; None below two."""
    n = len(differences)
    if n < 2:
        return None
    error = statistics.stdev(differences) / math.sqrt(n)
    return float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * error


def averages(
    cells: Cells, methods: list[str], main_metrics: dict[str, str]
) -> list[dict[str, Any]]:
    """Average each method's medians of the main metrics over the study's tasks, as the papers do.

    Returns:
        Rows of method, evaluation, the number of `tasks`, `gaps` (tasks without results), and
        `mean_of_medians`, None where there is a gap.
    """
    rows = []
    for method in methods:
        gaps = [task for task in main_metrics if (method, task) not in cells]
        for evaluation in EVALUATIONS:
            medians = [
                statistics.median(scores(cells[method, task], metric, evaluation).values())
                for task, metric in main_metrics.items()
                if task not in gaps
            ]
            rows.append(
                {"method": method, "evaluation": evaluation, "tasks": len(main_metrics)}
                | {"gaps": gaps, "mean_of_medians": None if gaps else statistics.fmean(medians)}
            )
    return rows


def metrics_of(cell: dict[str, Any]) -> list[str]:
    """Return the metrics of a cell."""
    run = next(iter(cell["seeds"].values()))
    return [key for key in run["best"] if key not in ("step", "epoch")]


def scores(cell: dict[str, Any], metric: str, evaluation: str) -> dict[str, float]:
    """Return a cell's score for each seed, at the `best` or the `last` evaluation of its run."""
    return {seed: run[evaluation][metric] for seed, run in cell["seeds"].items()}
