"""The study's tables in the papers' form: Markdown for reading, LaTeX with booktabs for setting."""

from peft_study.findings.results import Results
from peft_study.findings.wording import GAP, MINUS, REHEARSAL, median_and_std, millions, percent
from peft_study.records import Record
from peft_study.records.scores import CellStatistics, SweepRow
from peft_study.records.study import StudyInfo

# As the papers write the weights that LoRA adapts.
LETTERS = {"query": "W_q", "key": "W_k", "value": "W_v", "output": "W_o"}
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {"±": r"$\pm$", GAP: "--", MINUS: "$-$"} | {sign: f"\\{sign}" for sign in "_%&#${}"}


class Grid(Record):
    """A table as shown: the first column names the rows, in LaTeX `formulas` if there are any."""

    head: list[str]
    rows: list[list[str]]
    formulas: tuple[str, ...] = ()


def papers_tables(results: Results) -> dict[str, str]:
    """Return texts by file, `scores` and `sweep` if they have data: `.md`, `.tex` for booktabs."""
    texts: dict[str, str] = {}
    opening = f"{REHEARSAL}.\n\n" if results.study.rehearsal else ""
    for name, grid in (("scores", scores(results)), ("sweep", sweep(results))):
        if grid.rows:
            found = {".md": _markdown(grid), ".tex": _latex(grid)}
            texts |= {name + suffix: opening + text for suffix, text in found.items()}
    return texts


def readme_table(results: Results) -> str:
    """Return the README's table in Markdown, from the study, its cells and statistics alone."""
    rows = []
    for method in results.study.methods:
        found = [cell.trainable for (name, _), cell in results.cells.items() if name == method.name]
        if found:
            parts = {counts.adapter for counts in found}, {counts.head for counts in found}
            counts = " + ".join(GAP.join(f"{n:,}" for n in sorted(part)) for part in parts)
            rows.append([method.label, counts, *_shown(results, method.name)])
    rows.append(["majority class or mean", "0", *baselines(results)])
    return _markdown(Grid(["method", "trained: adapter + head", *_tasks(results)], rows)).rstrip()


def scores(results: Results) -> Grid:
    """Return a row per method: what it trains besides the head, its scores, their mean."""
    study, rows = results.study, []
    found = [row for row in results.statistics.averages if row.evaluation == study.report]
    averages = {row.method: row.mean_of_medians for row in found}
    for method in study.methods if study.tasks else ():
        name, average = method.name, averages.get(method.name)
        count, shown = millions(trained(results, name)), _shown(results, name)
        mean = GAP if average is None else percent(average)
        rows.append([method.label, count, *shown, mean])
    return Grid(["Method", "Trainable parameters (M)", *_tasks(results), "Avg."], rows)


def parentheses(study: StudyInfo) -> str:
    """Say what numbers in parentheses are, if there are any."""
    told = " (cross-fitted median: scored on rows that did not choose the evaluation)"
    return told if study.judged != study.report else ""


def sweep(results: Results) -> Grid:
    """Return the sweep's scores by weights and rank, as table 6 of Hu et al. 2021 has them."""
    found = results.main_sweep
    cells = {(row.weights, row.rank): row for row in found}
    sets, ranks = dict.fromkeys(row.weights for row in found), sorted({row.rank for row in found})
    rows = [["+".join(w), *(_swept(results, cells.get((w, rank))) for rank in ranks)] for w in sets]
    formulas = (f"${', '.join(LETTERS[weight] for weight in weights)}$" for weights in sets)
    about = f"Weights: {found[0].task} ({found[0].metric})" if found else "Weights"
    return Grid([about, *(f"r = {rank}" for rank in ranks)], rows, tuple(formulas))


def score(cell: CellStatistics | SweepRow | None, judged: float | None = None) -> str:
    """Show a median and a standard deviation over seeds, times 100, and the median `judged`."""
    if cell is None:
        return GAP
    fitted = "" if judged is None else f" ({percent(judged)})"
    return median_and_std(cell.median, cell.std) + fitted


def baselines(results: Results) -> list[str]:
    """Return the score of the majority class or the mean on each task, times 100."""
    known = results.statistics.baselines
    found = [known.get(task.name, {}).get(task.metric) for task in results.study.tasks]
    return [GAP if score is None else percent(score) for score in found]


def trained(results: Results, method: str) -> list[int]:
    """Return how many parameters a method trains besides the head, in each task with results."""
    return [cell.trainable.adapter for (name, _), cell in results.cells.items() if name == method]


def _shown(results: Results, method: str) -> list[str]:
    study, at = results.study, results.statistics.at
    cells, judged = at(study.report), at(study.judged) if study.judged != study.report else {}
    keys = [(method, task.name, task.metric) for task in study.tasks]
    return [score(cells.get(k), judged[k].median if k in judged else None) for k in keys]


def _swept(results: Results, cell: SweepRow | None) -> str:
    fitted = results.study.judged != results.study.report
    return score(cell, cell.judged if cell and fitted else None)


def _tasks(results: Results) -> list[str]:
    return [f"{task.name} ({task.metric})" for task in results.study.tasks]


def _markdown(grid: Grid) -> str:
    rules = ["---", *("---:" for _ in grid.head[1:])]
    rows = [[cell.replace("|", r"\|") for cell in row] for row in [grid.head, *grid.rows]]
    return "".join(f"| {' | '.join(row)} |\n" for row in [rows[0], rules, *rows[1:]])


def _latex(grid: Grid) -> str:
    table = str.maketrans(_LATEX)
    head, *rows = ([cell.translate(table) for cell in row] for row in (grid.head, *grid.rows))
    names = grid.formulas or [row[0] for row in rows]
    rows = [[name, *row[1:]] for name, row in zip(names, rows, strict=True)]
    first, *others = (rf"{' & '.join(row)} \\" for row in (head, *rows))
    begin = rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}"
    lines = [begin, r"\toprule", first, r"\midrule", *others, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"
