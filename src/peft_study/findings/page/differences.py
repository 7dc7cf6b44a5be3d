"""The page's tables of differences between methods: question by question, by reference, of pairs.

A long list of questions is shown as a table for each method that others are compared with.
"""

from collections.abc import Sequence

from peft_study.findings import wording
from peft_study.findings.comparisons import ALL_PAIRS
from peft_study.findings.page.conclusions import conclusion, p_shown, settles
from peft_study.findings.page.table import Table
from peft_study.findings.results import Results
from peft_study.findings.wording import GAP, MINUS, interval, points
from peft_study.records.scores import Difference, Family
from peft_study.records.study import StudyInfo

FAMILIES: dict[Family, str] = {
    "lora_full": "LoRA against full fine-tuning, over the tasks",
    "pairs": "all pairs of methods, over the tasks",
    "implementations": "implementations of one method, over the tasks",
}
STATISTICS = "metrics/statistics.json"
LONG = 30  # questions, beyond which a list of them is not readable


def difference_tables(results: Results) -> list[Table]:
    """Return the tables of differences on tasks, then that of all pairs over the tasks."""
    pairs = [row for row in results.main_differences if row.family == "pairs"]
    many = len(pairs) > LONG
    found = [
        _differences(results, family, asked)
        for family, asked in FAMILIES.items()
        if not (many and family == "pairs")
    ]
    if not many:
        return [*found, _pairs(results, pairs, many), _matrix(results)]
    study = results.study
    references = [found for found in (study.full, study.lora) if found]
    found += [_by_reference(results, pairs, reference.computes) for reference in references]
    if not _asks_all(results.study):
        return [*found, _matrix(results)]
    return [*found, _pairs(results, pairs, many), _matrix(results)]


def _asks_all(study: StudyInfo) -> bool:
    return len({method.computes for method in study.methods}) <= ALL_PAIRS


def _differences(results: Results, family: Family, asked: str) -> Table:
    label, rows = results.study.label, []
    for row in results.main_differences:
        if row.family != family:
            continue
        name = f"{row.task}: {label(row.method)} {MINUS} {label(row.reference)}"
        mean = GAP if row.mean is None else points(row.mean)
        found = [mean, interval(row.low, row.high, points), str(row.n)]
        tests = p_shown(row.p), p_shown(row.p_holm), p_shown(row.equivalence_holm)
        rows.append([name, *found, *tests, conclusion(row, results.study)[1]])
    head = ["Difference", "Points", "95% interval", "n", "p", "p (Holm)"]
    head += ["p of equivalence (Holm)", "Conclusion"]
    if family == "pairs" and not _asks_all(results.study):
        asked = "each method against full fine-tuning and LoRA, over the tasks"
    caption = f"Differences in points, paired by seed and row: {asked}"
    notes = (
        "Scores times 100, of rows that chose no evaluation. Intervals, each for itself, and tests "
        "cover seeds and held-out rows. p: no difference. p of equivalence: two one-sided tests at "
        f"the study's margin. Holm: corrected for the {len(rows)} questions of this table.",
    )
    name = f"differences-{family.replace('_', '-')}"
    return Table(name, caption, head, rows, [STATISTICS], (7,), notes)


def _by_reference(results: Results, pairs: Sequence[Difference], computes: str) -> Table:
    """Tell how each method differs from one, task by task."""
    study, tasks, rows = results.study, [task.name for task in results.study.tasks], []
    reference = next(method for method in study.methods if method.computes == computes)
    for method in study.methods:
        both = {method.name, reference.name}
        of = {r.task: r for r in pairs if {r.method, r.reference} == both}
        mine = {t: r if r.method == method.name else r.reversed() for t, r in of.items()}
        if mine:
            verdicts = {task: conclusion(row, study)[0] for task, row in mine.items()}
            cells = [_cell(mine[t], verdicts[t]) if t in mine else GAP for t in tasks]
            rows.append([method.label, *cells, _settled(verdicts), _needed(list(mine.values()))])
    head = [f"Minus {study.label(reference.name)}", *tasks, "Settled", "To settle the others"]
    caption = f"Differences in points from {study.label(reference.name)}, task by task"
    notes = [
        "Points ± half of the 95% interval, paired by seed and row, of rows that chose no "
        "evaluation. The words are by tests at 5%, of no difference and of equivalence at the "
        f"study's margin, corrected (Holm) for all {len(pairs)} questions between methods. "
        f"{STATISTICS} has each p. To settle: the most that a question needs, if all else stays.",
    ]
    notes += _limited(study)
    name, width = f"differences-from-{reference.name.replace('_', '-')}", len(tasks)
    words = (*range(1, width + 1), width + 2)
    return Table(name, caption, head, rows, [STATISTICS], words, tuple(notes))


def _limited(study: StudyInfo) -> list[str]:
    """Say which pairs are not asked about, of many methods."""
    if _asks_all(study):
        return []
    return [
        f"In a study of more than {ALL_PAIRS} different methods each is compared on a task with "
        "full fine-tuning and with LoRA alone: so many pairs would leave little power to each "
        "test. All pairs are compared by the mean over tasks."
    ]


def _cell(row: Difference, verdict: str) -> str:
    if row.mean is None:
        return GAP
    reach = (
        ""
        if row.high is None
        else f"\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{100 * (row.high - row.mean):.1f}"
    )
    return f"{points(row.mean)}{reach} {verdict}"


def _settled(verdicts: dict[str, str]) -> str:
    done = sum(verdict not in ("undecided", "unlearned") for verdict in verdicts.values())
    return f"{done} of {len(verdicts)}"


def _needed(rows: Sequence[Difference]) -> str:
    """Say how many seeds, or rows, would settle the undecided of several questions."""
    opened = [row for row in rows if settles(row) != GAP]
    of = [row for row in opened if not row.unlearned]
    seeds, held_out = [row.seeds_needed for row in of], [row.rows_needed for row in of]
    most = (max(filter(None, n)) if n and all(n) else None for n in (seeds, held_out))
    words = ["learning"] if len(of) < len(opened) else []
    words += [wording.needed(*most).lower() or "more of both, seeds and rows"] if of else []
    return "; ".join(words) or GAP


def _pairs(results: Results, of: Sequence[Difference], many: bool) -> Table:
    """Tell which pairs of methods are settled on which tasks, and what would settle the others."""
    tasks, rows = [task.name for task in results.study.tasks], []
    for method, reference in dict.fromkeys((row.method, row.reference) for row in of):
        mine = {row.task: row for row in of if (row.method, row.reference) == (method, reference)}
        verdicts = {task: conclusion(row, results.study)[0] for task, row in mine.items()}
        opened = [f"{task}: {settles(row)}" for task, row in mine.items() if settles(row) != GAP]
        label = f"{results.study.label(method)} {MINUS} {results.study.label(reference)}"
        shown = [verdicts.get(task, GAP) for task in tasks]
        plan = _needed(list(mine.values())) if many else "; ".join(opened) or GAP
        rows.append([label, *shown, _settled(verdicts), plan])
    head = ["Pair", *tasks, "Settled", "What would settle the others"]
    caption = "Which pairs of methods are settled"
    note = "At 5%, corrected (Holm) for all pairs and tasks. Seeds or rows: if all else stays."
    words = (*range(1, len(tasks) + 1), len(tasks) + 2)
    notes = (note, *_limited(results.study))
    return Table("pairs", caption, head, rows, [STATISTICS], words, notes)


def _matrix(results: Results) -> Table:
    """Tell all pairs by the mean over tasks, the best method first; of a single task none."""
    study, found = results.study, results.statistics.over_tasks
    cells = {(of.method, of.reference): (of, 1) for of in found}
    cells |= {(of.reference, of.method): (of, -1) for of in found}
    names = {name for pair in cells for name in pair}
    total = {
        name: sum(s * of.mean for (m, _), (of, s) in cells.items() if m == name) for name in names
    }
    order = sorted(names, key=lambda name: (-total[name], name)) if len(study.tasks) > 1 else []
    rows = []
    for place, name in enumerate(order, 1):
        shown = []
        for other in order[: place - 1]:
            of, sign = cells[name, other]
            mark = "≈" if of.equivalent else "*" if of.differs else ""
            text = f"{points(sign * of.mean)}{mark}"
            shown.append(f"({text.rstrip('≈*')})" if of.unlearned else text)
        rows.append([f"{place} {study.label(name)}", *shown, *[""] * (len(order) - place)])
    head = ["Row minus column", *map(str, range(1, len(order)))]
    note = "Points, the mean over tasks, of rows that chose no evaluation; columns are numbered as "
    note += "rows. * told apart; ≈ equivalent within the study's margin, whether told apart or "
    note += f"not; without a mark: undecided. At 5%, corrected (Holm) for these {len(found)} "
    note += "pairs. In brackets: one has not learned a task, which decides nothing."
    caption = "All pairs of methods by the mean over tasks"
    return Table("matrix", caption, head, rows, [STATISTICS], (), (note,))
