"""The study's tables in the papers' form: Markdown for reading, LaTeX with booktabs for setting."""

import math
from collections.abc import Sequence

from peft_study.findings.page.conclusions import p_shown
from peft_study.findings.results import PublishedRow, Results
from peft_study.findings.wording import (
    GAP,
    MINUS,
    REHEARSAL,
    interval,
    median_and_std,
    millions,
    number,
    percent,
    points,
)
from peft_study.records import Record
from peft_study.records.scores import CellStatistics, SweepRow
from peft_study.records.study import StudyInfo

# As the papers write the weights that LoRA adapts.
LETTERS = {"query": "W_q", "key": "W_k", "value": "W_v", "output": "W_o"}
LEARNED = {
    (): "",
    ("study",): "the study as it stands has not learned",
    ("variant",): "has not learned: the effect ends at the baseline",
    ("study", "variant"): "decides nothing: neither has learned",
}
UNKNOWN = "not known"  # how many parameters somebody else has trained
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {"±": r"$\pm$", GAP: "--", MINUS: "$-$"} | {sign: f"\\{sign}" for sign in "_%&#${}"}


class Grid(Record):
    """A table as shown: the first column names the rows, in LaTeX `formulas` if there are any.

    The last `words` columns hold words, those between numbers.
    """

    head: list[str]
    rows: list[list[str]]
    formulas: tuple[str, ...] = ()
    words: int = 0


def papers_tables(results: Results, rows: Sequence[PublishedRow]) -> dict[str, str]:
    """Return texts by file, `.md` and `.tex` for booktabs, of the tables that have data.

    These are `scores`, `sweep`, `certificates`, `published`, which are the published numbers, ours
    and the difference, and the ledger's `ledger` and `ledger_gaps`.
    """
    texts: dict[str, str] = {}
    opening = f"{REHEARSAL}.\n\n" if results.study.rehearsal else ""
    grids = {"scores": scores(results), "sweep": sweep(results)}
    grids |= {"published": published(rows, results.study), "certificates": certificates(results)}
    grids |= {"ledger": ledger(results), "ledger_gaps": ledger_gaps(results)}
    for name, grid in grids.items():
        if grid.rows:
            found = {".md": _markdown(grid), ".tex": _latex(grid)}
            texts |= {name + suffix: opening + text for suffix, text in found.items()}
    return texts


def readme_table(results: Results) -> str:
    """Return the README's table in Markdown, from the study, its cells and statistics alone."""
    study, rows = results.study, []
    for method in study.methods:
        mine = [cell for (name, _), cell in results.cells.items() if name == method.name]
        found = [cell.trainable for cell in mine if cell.trainable]
        if mine:
            parts = {counts.adapter for counts in found}, {counts.head for counts in found}
            counts = " + ".join(GAP.join(f"{n:,}" for n in sorted(part)) for part in parts)
            counts = counts if method.trained_here else UNKNOWN
            rows.append([study.cited(method.name), counts, *_shown(results, method.name)])
    rows.append(["majority class or mean", "0", *baselines(results)])
    return _markdown(Grid(["method", "trained: adapter + head", *_tasks(results)], rows)).rstrip()


def scores(results: Results) -> Grid:
    """Return a row per method: what it trains besides the head, its scores, their mean."""
    study, rows = results.study, []
    found = [row for row in results.statistics.averages if row.evaluation == study.report]
    averages = {row.method: row.mean_of_medians for row in found}
    for method in study.methods if study.tasks else ():
        name, average = method.name, averages.get(method.name)
        count = millions(trained(results, name)) if method.trained_here else UNKNOWN
        shown = _shown(results, name)
        mean = GAP if average is None else percent(average)
        rows.append([study.cited(name), count, *shown, mean])
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


def published(rows: Sequence[PublishedRow], study: StudyInfo) -> Grid:
    """Return the published numbers beside ours, an unlike difference in brackets, with its note."""
    shown = []
    for row in rows:
        if row.ours is not None:
            of = f": {row.task} ({row.metric})" if row.task else f": {row.metric}"
            setting = settings(row)
            method = study.label(row.method).removesuffix(" (ours)")
            name = f"{row.citation}{of}, {method}{f' ({setting})' if setting else ''}"
            shown.append([name, *amounts(row), row.note or ""])
    head = ["Published result", "Published", "Ours", "Difference", "Note"]
    return Grid(head, shown, words=1)


def certificates(results: Results) -> Grid:
    """Return a row per method: what was found of it before anything was trained."""
    certified = results.certificates.methods if results.certificates else ()
    found, rows = {one.method: one for one in certified}, []
    for method in results.study.methods:
        if not (one := found.get(method.name)):
            continue
        form = GAP if one.closed_form is None else f"{one.closed_form:,}"
        merged = [one.merging.float32, one.merging.bfloat16] if one.merging else [None, None]
        compared = [one.start, one.packed, one.files, one.library_files, *merged]
        shown = [GAP if value is None else f"{value:.1e}" if value else "0" for value in compared]
        ranks = f"ranks fell from {one.ranks[0]} to {one.ranks[1]}" if one.ranks else None
        own = "trained through its own forward" if one.own_forward else None
        notes = filter(None, (ranks, own, one.unmerged and f"not merged: {one.unmerged}"))
        row = [method.label, f"{one.trainable.adapter:,}", form, *shown, "; ".join(notes)]
        rows.append(row)
    head = ["Method", "Trained", "Closed form", "Start", "Packed", "Files", "Library's loader"]
    return Grid([*head, "Merged", "Merged, bfloat16", "Note"], rows, words=1)


def ledger(results: Results) -> Grid:
    """Return a row per variant: what it changes, and of a combination what does not add up."""
    found, label, rows = results.ledger, results.study.label, []
    for of in found.effects if found else ():
        name = f"{of.task}, {label(of.method)}: {' + '.join(of.settings)}"
        mean = GAP if of.mean is None else points(of.mean)
        beyond = of.beyond
        more = GAP if beyond is None or beyond.mean is None else points(beyond.mean)
        ends = interval(beyond.low, beyond.high, points) if beyond else GAP
        shown = [mean, interval(of.low, of.high, points), str(of.n), p_shown(of.p_holm), more, ends]
        rows.append([name, *shown, LEARNED[of.unlearned]])
    gap = [GAP] * 6
    for entry in found.nothing if found else ():
        name = f"{entry.task}, {label(entry.method)}: {' + '.join(entry.settings)}"
        rows.append([name, *gap, "changes nothing here"])
    for lost in found.missing if found else ():
        name = f"{lost.task}, {label(lost.method)}: "
        name += " + ".join(lost.settings) or "the study as it stands"
        rows.append([name, *gap, f"no results: {lost.reason}"])
    head = ["Changed from the study", "Points", "95% interval", "n", "p (Holm)"]
    return Grid([*head, "Beyond the sum", "95% interval", "Note"], rows, words=1)


def ledger_gaps(results: Results) -> Grid:
    """Return, of each gap to a published number, a row per variant, and what is unexplained."""
    found, label, rows = results.ledger, results.study.label, []
    for gap in found.gaps if found else ():
        name = f"{gap.citation}: {gap.task}, {label(gap.method)}"
        said = [gap.note or ""]
        within = interval(gap.low, gap.high, points)
        rows.append([f"{name}: the gap", points(gap.gap), within, GAP, GAP, *said])
        for of in gap.shares:
            part = GAP if of.share is None else _whole(of.share)
            shown = [points(of.points), interval(of.low, of.high, points), part]
            named = "explains it" if of.settings in [(name,) for name in gap.names] else ""
            ends = interval(of.share_low, of.share_high, _whole)
            rows.append([f"{name}: {' + '.join(of.settings)}", *shown, ends, named])
        left = interval(gap.unexplained_low, gap.unexplained_high, points)
        after = f"after {' + '.join(gap.best)}" if gap.best else "no setting goes that way"
        rows.append([f"{name}: unexplained", points(gap.unexplained), left, GAP, GAP, after])
    head = ["Published minus ours", "Points", "95% interval", "Share of the gap, %"]
    return Grid([*head, "95% interval", "Note"], rows, words=1)


def _whole(share: float) -> str:
    return number(100 * share, "z.0f")


def settings(row: PublishedRow) -> str:
    """Name the weights that LoRA adapts, and at which rank; "" where neither is printed."""
    return ", ".join(filter(None, ("+".join(row.weights), f"r = {row.rank}" if row.rank else "")))


def amounts(row: PublishedRow) -> list[str]:
    """Show a published number, ours and the difference, fractions times 100, all else as it is."""
    change = _amount(row.difference, row, sign="+")
    return [
        _amount(row.published, row, row.published_std),
        _amount(row.ours, row, row.ours_std),
        change if row.like or row.difference is None else f"({change})",
    ]


def _amount(
    value: float | None, row: PublishedRow, std: float | None = None, sign: str = ""
) -> str:
    """Show one of a row's numbers; a fraction to as many decimals as are printed, one or two."""
    if value is None:
        return GAP
    decimals = 1 if math.isclose(1000 * row.published, round(1000 * row.published)) else 2
    fraction = (100, f"z.{decimals}f", f".{decimals}f")
    scale, form, of_std = fraction if row.is_fraction else (1, ",.4g", ",.2g")
    spread = "" if std is None else f" ± {scale * std:{of_std}}"
    return number(scale * value, sign + form) + spread


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
    mine = (cell.trainable for (name, _), cell in results.cells.items() if name == method)
    return [counts.adapter for counts in mine if counts]


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
    numbers = len(grid.head) - 1 - grid.words
    rules = ["---", *["---:"] * numbers, *["---"] * grid.words]
    rows = [[cell.replace("|", r"\|") for cell in row] for row in [grid.head, *grid.rows]]
    return "".join(f"| {' | '.join(row)} |\n" for row in [rows[0], rules, *rows[1:]])


def _latex(grid: Grid) -> str:
    table = str.maketrans(_LATEX)
    head, *rows = ([cell.translate(table) for cell in row] for row in (grid.head, *grid.rows))
    names = grid.formulas or [row[0] for row in rows]
    rows = [[name, *row[1:]] for name, row in zip(names, rows, strict=True)]
    first, *others = (rf"{' & '.join(row)} \\" for row in (head, *rows))
    columns = "l" + "r" * (len(head) - 1 - grid.words) + r"p{0.3\linewidth}" * grid.words
    begin = rf"\begin{{tabular}}{{{columns}}}"
    lines = [begin, r"\toprule", first, r"\midrule", *others, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"
