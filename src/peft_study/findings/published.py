"""What the published tables say, row by row, beside what this study found.

`published.csv` holds the rows of the sources, in their own form: scores in hundredths (`liu`:
correlations, as fractions), coefficients of variation in percent, everything else in the unit that
its metric names. A row without a counterpart here is kept, with `ours` empty and the reason noted.
"""

import csv
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft_study.errors import nearest
from peft_study.findings.results import Results

METHODS = {
    "full_ft": "full_ft",
    "lora": "lora",
    "lora_restricted": "lora",
    "loralib": "loralib_lora",
    "adapter_h": "adapter_h",
}
CITATIONS = {
    "hu2021": "Hu et al. 2021",
    "chu": "Chu et al.",
    "liu": "Liu et al.",
    "keyquery": "Bölöni-Turgut et al. 2025",
    "tiny": '"Tiny Reproduction: LoRA"',
}
WEIGHTS = ("query", "key", "value", "output")
SCORES = ("accuracy", "accuracy_overall", "matthews", "pearson")
VARIATIONS = ("cv_first_epoch_percent", "cv_last_epoch_percent")
SAME_SIZE = 0.15  # by how much the printed size of a method may differ from ours, as a share


@dataclass(frozen=True)
class Ours:
    """What this study found for a row; `like` says that the difference means something."""

    value: float | None
    std: float | None = None
    n: int | None = None
    note: str = ""
    like: bool = True


def published(results: Results) -> list[dict[str, Any]]:
    """Return the published rows that this study reproduces, with what it found.

    Returns:
        For every row that `study["published"]` names, of this study's tasks: `source`, `table`,
        `citation`, `model`, `method` (ours, where there is one), `weights` (as "query+value"),
        `rank`, `task`, `metric`;
        `published` and `published_std`; `ours` (median over seeds), `ours_std` (ddof 1) and `n`;
        `difference`, ours minus published, where like is compared with like; `note`; `is_fraction`,
        as scores and coefficients of variation are: parameters are millions, and the names of
        other metrics have their units.
    """
    chosen = [
        row
        for row in _rows()
        if not _names(row).isdisjoint(results.study["published"])
        and row["task"] in ("", *results.study["main_metrics"])
    ]
    return [_beside(row, chosen, results) for row in chosen]


def check_published(names: list[str]) -> list[str]:
    """Return a problem for each name that no published row has."""
    known = set().union(*map(_names, _rows()))
    return [f"published: got '{n}'; {nearest(n, known)}" for n in names if n not in known]


def first_epoch(results: Results, task: str, method: str) -> dict[str, Any] | None:
    """Return the row of `stability` of the last evaluation within the first epoch, if there is."""
    rows = [row for row in results.stability if (row["task"], row["method"]) == (task, method)]
    return max((r for r in rows if r["epoch"] <= 1), key=lambda r: r["epoch"], default=None)


def _rows() -> list[dict[str, str]]:
    with Path(__file__).with_name("published.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _names(row: dict[str, str]) -> set[str]:
    """Return what a row is selected by: its table, and its table with the model."""
    table = f"{row['source']} table {row['table']}"
    return {table, f"{table} {row['model']}"}


def _beside(row: dict[str, str], table: list[dict[str, str]], results: Results) -> dict[str, Any]:
    """Return one row of `published`."""
    ours = _ours(row, table, results)
    value = _fraction(row, row["value"])
    difference = None
    if ours.like and ours.value is not None and value is not None:
        difference = ours.value - value
    difference = None
    if ours.like and ours.value is not None and value is not None:
        difference = ours.value - value
    sizes = _sizes(row, table)
    size = f"{row['trainable_params_m']}M parameters" if len(sizes) > 1 else ""
    return {
        "source": row["source"],
        "table": row["table"],
        "citation": f"{CITATIONS[row['source']]}, {_place(row)}",
        "model": row["model"],
        "method": METHODS.get(row["method"], row["method"]),
        "weights": "+".join(_weights(row)) or None,
        "rank": int(row["rank"]) if row["rank"] else None,
        "task": row["task"] or None,
        "metric": row["metric"].removesuffix("_percent").removesuffix("_overall"),
        "is_fraction": row["metric"] in SCORES + VARIATIONS,
        "published": value,
        "published_std": _fraction(row, row["std"]),
        "ours": ours.value,
        "ours_std": ours.std,
        "n": ours.n,
        "difference": difference,
        "note": "; ".join(filter(None, (size, row["note"], ours.note))) or None,
    }


def _ours(row: dict[str, str], table: list[dict[str, str]], results: Results) -> Ours:
    """Find what this study has for a row, or say why it has nothing."""
    study, metric = results.study, row["metric"]
    method = METHODS.get(row["method"])
    if method is None:
        return Ours(None, note="no method of this project")
    problem = "not part of this study"
    if method in study["methods"]:
        problem = _set_up_otherwise(row, method, table, results)
    swept = _swept(row, results) if problem and metric in SCORES else None
    if swept is not None:
        found = swept
    elif problem:
        return Ours(None, note=problem)
    elif metric in SCORES:
        cell = results.summary.get(row["task"], {}).get(method)
        found = _score(row, cell) if cell else Ours(None, note="this cell has no results")
    elif metric in VARIATIONS:
        found = _variation(row, method, results)
    elif metric == "trainable_params_m":
        found = _parameters(method, results)
    elif metric.startswith("iso_accuracy_"):
        found = _iso_accuracy(row, method, results)
    else:
        found = _cost(row, method, results)
    model = study["model"]["name"].rpartition("/")[-1].lower()
    if found.value is None or model == row["model"]:
        return found
    note = f"ours is of another model, {model}: levels are not comparable"
    return Ours(found.value, found.std, found.n, "; ".join(filter(None, (found.note, note))), False)


def _swept(row: dict[str, str], results: Results) -> Ours | None:
    """Return what the sweep has for a row; None where the row is none of the sweep's."""
    rows = [
        cell
        for cell in results.sweep
        if METHODS[row["method"]] == "lora"
        and "MNLI-adapted" not in row["note"]  # a sweep starts from the encoder
        and cell["task"] == row["task"]
        and set(cell["weights"].split("+")) == set(_weights(row))
        and row["rank"] in ("", str(cell["rank"]))
    ]
    if not rows:
        return None
    cells: dict[int, dict[str, Any]] = {}
    for cell in rows:
        cells.setdefault(cell["rank"], {})[cell["metric"]] = cell
    found = [_score(row, by_metric) for by_metric in cells.values()]
    if row["rank"]:
        return found[0]
    values = [ours.value for ours in found if ours.value is not None]
    ranks = ", ".join(str(rank) for rank in sorted(cells))
    note = f"of which rank is not said: ours is the mean and deviation over ranks {ranks}"
    spread = statistics.stdev(values) if len(values) > 1 else None
    return Ours(statistics.fmean(values), spread, len(values), note, False)


def _set_up_otherwise(
    row: dict[str, str], method: str, table: list[dict[str, str]], results: Results
) -> str:
    """Say in what our method is set up otherwise than the row's; "" if in nothing that is known."""
    study = results.study
    adapter = study.get("adapters", {}).get(method, {})
    for name in ("r", "bottleneck"):
        if row["rank"] and name in adapter and adapter[name] != int(row["rank"]):
            return f"ours has {name} {adapter[name]}"
    targets = adapter.get("targets")
    if row["weights"] and targets is not None and set(targets) != set(_weights(row)):
        return f"ours adapts {'+'.join(targets)}"
    started = study["mnli_init"]["mode"] != "none" and bool(study["mnli_init"]["tasks"])
    if "MNLI-adapted" in row["note"] and not started:
        return "ours does not start from an intermediate task"
    if ("restricted setup" in row["note"] or "no MNLI start" in row["note"]) and started:
        return "ours starts from an intermediate task"
    millions = _parameters(method, results).value
    if len(_sizes(row, table)) > 1 and millions is not None:
        printed = float(row["trainable_params_m"])
        if abs(millions - printed) > SAME_SIZE * printed:
            return f"ours has {millions:.1f}M parameters"
    return ""


def _score(row: dict[str, str], cell: dict[str, Any]) -> Ours:
    """Return a cell's score by a row's metric; `cell` holds what is known by metric."""
    metric, note = row["metric"].removesuffix("_overall"), ""
    if (row["task"], row["metric"]) == ("mnli", "accuracy"):
        # Such rows are of the matched part (Hu et al., table 15; the script of Chu et al.).
        if "accuracy_matched" in cell:
            metric, note = "accuracy_matched", "ours is of the matched rows, as theirs"
        else:
            note = "ours is of all rows, theirs of the matched ones"
    if metric not in cell:
        return Ours(None, note=f"ours has no {metric}")
    found = cell[metric]
    return Ours(found["median"], found["std"], found["n"], note)


def _variation(row: dict[str, str], method: str, results: Results) -> Ours:
    """Return the coefficient of variation at the end of the first or the last epoch."""
    if row["metric"] == "cv_first_epoch_percent":
        found = first_epoch(results, row["task"], method)
    else:
        key = row["task"], method
        rows = [r for r in results.stability if (r["task"], r["method"]) == key]
        found = max(rows, key=lambda r: r["epoch"], default=None)
    if found is None or found["cv"] is None:
        return Ours(None, note="ours has no coefficient of variation")
    return Ours(found["cv"], n=found["n"])


def _parameters(method: str, results: Results) -> Ours:
    """Return the millions of trained parameters, the head only of full fine-tuning."""
    counts = [cells[method]["trainable"] for cells in results.summary.values() if method in cells]
    if not counts:
        return Ours(None, note="this study has no results of it")
    part = "total" if method == "full_ft" else "adapter"
    return Ours(max(count[part] for count in counts) / 1e6)


def _iso_accuracy(row: dict[str, str], method: str, results: Results) -> Ours:
    """Return what it took until the equal score: the median over seeds, if all reached it."""
    cost, scale = {
        "iso_accuracy_epochs": ("epoch", 1.0),
        "iso_accuracy_seconds": ("seconds", 1.0),
        "iso_accuracy_energy_kj": ("joules", 1e-3),
    }[row["metric"]]
    key = row["task"], method
    runs = results.iso_accuracy.get("runs", [])
    runs = [run for run in runs if (run["task"], run["method"]) == key]
    values = [scale * run[cost] for run in runs if run[cost] is not None]
    if cost == "joules" and not _measured(results):
        return Ours(None, note="no energy was measured")
    if not values or len(values) < len(runs):
        reached = sum(run["reached"] for run in runs)
        why = "no energy was measured on this task" if runs and reached == len(runs) else ""
        return Ours(None, note=why or f"{reached} of {len(runs)} runs reach the equal score")
    std = statistics.stdev(values) if len(values) > 1 else None
    other = "" if cost == "epoch" else "other hardware"
    return Ours(statistics.median(values), std, len(values), other, cost == "epoch")


def _cost(row: dict[str, str], method: str, results: Results) -> Ours:
    """Return a cost from the profile: of its task alone, and of this machine."""
    profile = results.profile
    if profile.get("task") != row["task"]:
        return Ours(None, note="not measured on this task")
    value: float | None = None
    std = None
    if row["metric"] == "seconds_per_epoch":
        seconds = profile.get("training", {}).get(method, {}).get("seconds_per_epoch", {})
        value, std = seconds.get("mean"), seconds.get("std")
    elif row["metric"] == "inference_seconds":
        # The source's LoRA is merged.
        model = "lora merged" if method == "lora" else method
        found = profile.get("inference", {}).get(model, {}).get("validation_set")
        value = found["seconds"]["median"] if found else None
    elif row["metric"] == "gpu_memory_mean_mb":
        if not profile.get("machine", {}).get("gpu"):
            return Ours(None, note="not measured on a GPU")
        value = profile.get("memory", {}).get(method, {}).get("mean")
        value = None if value is None else value / 1e6
    elif row["metric"] == "power_mean_w":
        if not _measured(results):
            return Ours(None, note="no energy was measured")
        value = profile["energy"]["cells"].get(method, {}).get("watts")
    if value is None:
        return Ours(None, note="not measured")
    return Ours(value, std, note="other hardware", like=False)


def _measured(results: Results) -> bool:
    """Say whether the profile's energy was measured, not estimated."""
    source = results.profile.get("energy", {}).get("source")
    return source is not None and "estimate" not in source


def _fraction(row: dict[str, str], text: str) -> float | None:
    """Return a number of a row, scores and coefficients of variation as fractions."""
    if not text:
        return None
    in_hundredths = row["metric"] in VARIATIONS or (
        row["metric"] in SCORES and row["source"] != "liu"
    )
    # Rounded, or 87.6 / 100 would be 0.8759999999999999.
    return round(float(text) / 100, 6) if in_hundredths else float(text)


def _sizes(row: dict[str, str], table: list[dict[str, str]]) -> set[str]:
    """Return in how many sizes a row's table has its method."""
    keys = ("source", "table", "model", "method")
    same = [other for other in table if all(other[key] == row[key] for key in keys)]
    return {other["trainable_params_m"] for other in same if other["trainable_params_m"]}


def _weights(row: dict[str, str]) -> list[str]:
    """Return the weights that a row adapts, in the order of this project."""
    return [name for name in WEIGHTS if name in row["weights"].split(",")]


def _place(row: dict[str, str]) -> str:
    """Say where in its source a row is."""
    if row["source"] == "liu":
        return f"section III.{row['table']}"
    if row["table"].startswith("Figure"):
        return row["table"].lower()
    if "/" in row["table"]:
        return f"tables {row['table'].replace('/', ' and ')}"
    return f"table {row['table']}"
