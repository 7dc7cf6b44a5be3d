"""The study's tables in the papers' form: Markdown for reading, LaTeX with booktabs for setting."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from peft_study.findings.aggregate import METHOD_NAMES
from peft_study.findings.results import Results

GAP = "–"
MINUS = "\N{MINUS SIGN}"
# As the papers write the weights that LoRA adapts.
LETTERS = {"query": "W_q", "key": "W_k", "value": "W_v", "output": "W_o"}
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    MINUS: "$-$",
} | {character: f"\\{character}" for character in "_%&#${}"}


@dataclass(frozen=True)
class Grid:
    """A table of words and numbers as shown; the first column names the rows."""

    head: list[str]
    rows: list[list[str]]


def markdown_tables(results: Results) -> dict[str, str]:
    """Return the tables in Markdown, by name: `scores` and `sweep`, those that have data."""
    return {name: _markdown(grid) for name, grid in grids(results).items()}


def latex_tables(results: Results) -> dict[str, str]:
    """Return the same tables as LaTeX `tabular`s, which need the package booktabs."""
    return {name: _latex(name, grid) for name, grid in grids(results).items()}


def grids(results: Results) -> dict[str, Grid]:
    """Return the tables that have data, as shown.

    Returns:
        `scores`: a row per method, the parameters that it trains (head excluded, as in the papers)
        in millions, a column per task and the average of the tasks' medians; `sweep`: a row per
        set of weights and a column per rank (table 6 of Hu et al. 2021). Scores are medians ±
        standard deviations over seeds, times 100; what has no result is "–".
    """
    found = {"scores": _scores(results), "sweep": _sweep(results)}
    return {name: grid for name, grid in found.items() if grid.rows}


def median_and_std(value: dict[str, Any]) -> str:
    """Show a median and a standard deviation, if there is one, times 100."""
    spread = "" if value["std"] is None else f" ± {number(100 * value['std'])}"
    return number(100 * value["median"]) + spread


def number(value: float, form: str = "z.1f") -> str:
    """Show a number with a true minus sign; `form` is a format specification."""
    return format(value, form).replace("-", MINUS)


def millions(counts: list[int]) -> str:
    """Show a number of parameters, or the range of several, in millions."""
    shown = [f"{n / 1e6:.1f}" if n >= 1e7 else f"{n / 1e6:.2g}" for n in sorted(set(counts))]
    return GAP.join(dict.fromkeys([shown[0], shown[-1]])) if shown else GAP


def study_methods(results: Results) -> list[str]:
    """Return the study's methods in the order of `METHOD_NAMES`."""
    return [name for name in METHOD_NAMES if name in results.study["methods"]]


def score_cells(results: Results) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return the statistics of the evaluation that the study reports, by method, task, metric."""
    return {
        (cell["method"], cell["task"], cell["metric"]): cell
        for cell in results.statistics["cells"]
        if cell["evaluation"] == results.study["report"]
    }


def trained(results: Results, method: str) -> list[int]:
    """Return how many parameters a method trains besides the head, in each task with results."""
    return [c["trainable"]["adapter"] for (name, _), c in results.cells.items() if name == method]


def _scores(results: Results) -> Grid:
    main, cells = results.study["main_metrics"], score_cells(results)
    averages = {
        row["method"]: row["mean_of_medians"]
        for row in results.statistics["averages"]
        if row["evaluation"] == results.study["report"]
    }
    rows = []
    for method in study_methods(results):
        found = [cells.get((method, task, metric)) for task, metric in main.items()]
        scores = [median_and_std(cell) if cell else GAP for cell in found]
        average = averages.get(method)
        shown = GAP if average is None else number(100 * average)
        rows.append([METHOD_NAMES[method], millions(trained(results, method)), *scores, shown])
    tasks = [f"{task} ({metric})" for task, metric in main.items()]
    return Grid(["Method", "Trainable parameters (M)", *tasks, "Avg."], rows if main else [])


def _sweep(results: Results) -> Grid:
    if not results.sweep:
        return Grid([], [])
    measured = results.main_sweep
    metric, task = measured[0]["metric"], measured[0]["task"]
    cells = {(row["weights"], row["rank"]): row for row in measured}
    weights = list(dict.fromkeys(name for name, _ in cells))
    ranks = sorted({rank for _, rank in cells})
    found = [[cells.get((name, rank)) for rank in ranks] for name in weights]
    rows = [
        [name, *(median_and_std(cell) if cell else GAP for cell in row)]
        for name, row in zip(weights, found, strict=True)
    ]
    return Grid([f"Weights: {task} ({metric})", *(f"r = {rank}" for rank in ranks)], rows)


def _markdown(grid: Grid) -> str:
    rules = ["---", *("---:" for _ in grid.head[1:])]
    rows = [[cell.replace("|", r"\|") for cell in row] for row in [grid.head, *grid.rows]]
    return "".join(f"| {' | '.join(row)} |\n" for row in [rows[0], rules, *rows[1:]])


def _latex(name: str, grid: Grid) -> str:
    first: Callable[[str], str] = _weights if name == "sweep" else _escaped
    body = [[first(row[0]), *map(_escaped, row[1:])] for row in grid.rows]
    head = [_escaped(cell) for cell in grid.head]
    lines = [
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        rf"{' & '.join(head)} \\",
        r"\midrule",
        *(rf"{' & '.join(row)} \\" for row in body),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _weights(name: str) -> str:
    return f"${', '.join(LETTERS[weight] for weight in name.split('+'))}$"


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
