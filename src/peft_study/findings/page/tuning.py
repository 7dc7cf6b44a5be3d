"""What the page says of tuning: sentences and tables."""

from collections.abc import Iterable, Mapping

from peft_study.findings.page.conclusions import SAID, conclusion, p_shown
from peft_study.findings.page.table import Table
from peft_study.findings.results import Results
from peft_study.findings.wording import GAP, MINUS, interval, percent, points, two_digits
from peft_study.records.scores import Difference
from peft_study.records.study import StudyInfo
from peft_study.records.tuning import Scored, TunedCell, Tuning, WhoWasTuned

QUESTION = "What did tuning change?"
SOURCES = ["metrics/tuning.json"]
MANY = 12  # cells, beyond which differences are left to their table
# What a cell's tuned score minus its untuned one shows, by a key of `SAID`.
CHANGED = {
    "better": "Tuned is better than untuned",
    "worse": "Tuned is worse than untuned",
    "equivalent": "Tuned is equivalent to untuned",
    "undecided": "Tuned cannot be told from, nor called equivalent to, untuned",
    "unlearned": "Neither tuned nor untuned has learned",
}


def tuning_sentences(results: Results, found: Tuning) -> list[str]:
    """Say what tuning changed: warnings of the grid's edges first, what it rests on last."""
    study = results.study
    return [
        *_warnings(found, study),
        *_changes(found, study),
        *_whose(found, study),
        _protocol(found, study),
        *_intermediate(study),
        _cost(found),
    ]


def tuning_tables(results: Results) -> list[Table]:
    """Return what was chosen and changed, who-was-tuned, and costs; none where nothing was."""
    found = results.tuning
    if not found:
        return []
    return [
        _chosen(found, results.study),
        _who(found, results.study),
        _for_all_tasks(found, results.study),
        _costs(found, results.study),
    ]


def values_words(values: Mapping[str, float]) -> str:
    """Show values of hyperparameters: `learning rate 0.002, alpha 16`."""
    return ", ".join(f"{_name(name)} {_value(value)}" for name, value in values.items())


def _warnings(found: Tuning, study: StudyInfo) -> list[str]:
    at_edge: dict[tuple[str, str], list[TunedCell]] = {}
    for cell in found.cells:
        for name, end in cell.edges.items():
            at_edge.setdefault((name, end), []).append(cell)
    sentences = [
        f"Warning: the chosen {_name(name)} is the {end} of the grid for {_named(cells, study)}. "
        f"A {'higher' if end == 'highest' else 'lower'} one may be better, and should be listed."
        for (name, end), cells in at_edge.items()
    ]
    trials = [trial.scored for cell in found.cells for trial in cell.trials]
    failed, slow = (
        sum(map(test, trials)) for test in (_has_failed, lambda of: of.n and not of.learned)
    )
    if failed:
        sentences.append(
            f"In {failed} of {len(trials)} trials a seed failed, so that they could not be chosen."
        )
    if slow:
        sentences.append(f"{slow} of {len(trials)} trials have not learned.")
    return sentences


def _changes(found: Tuning, study: StudyInfo) -> list[str]:
    compared = [cell for cell in found.cells if cell.difference]
    said: dict[str, list[TunedCell]] = {verdict: [] for verdict in CHANGED}
    for cell in compared:
        assert cell.difference
        said[conclusion(cell.difference, study)[0]].append(cell)
    sentences = [
        f"{CHANGED[verdict]} in {len(cells)} of {len(compared)}: "
        f"{_by_how_much(cells, study) if len(compared) <= MANY else _named(cells, study)}."
        for verdict, cells in said.items()
        if cells
    ]
    rescued = [
        cell
        for cell in found.cells
        if cell.tuned and cell.untuned and cell.tuned.learned and not cell.untuned.learned
    ]
    if rescued:
        sentences.append(f"Untuned had not learned: {_named(rescued, study)}.")
    without: dict[str, list[TunedCell]] = {}
    for cell in found.cells:
        if cell.without:
            without.setdefault(cell.without, []).append(cell)
    return [
        *sentences,
        *(f"Not compared, since {why}: {_named(of, study)}." for why, of in without.items()),
    ]


def _whose(found: Tuning, study: StudyInfo) -> list[str]:
    """Say task by task whether the comparison with full fine-tuning hangs on who was tuned."""
    if not found.who or not study.lora or not study.full:
        return []
    about, sentences = f"{study.lora.label} minus full fine-tuning", []
    for task in dict.fromkeys(of.difference.task for of in found.who):
        who = [of for of in found.who if of.difference.task == task]
        verdicts = [conclusion(of.difference, study)[0] for of in who]
        listed = "; ".join(
            f"{_way(of, study)} {_points(of.difference)}, {verdict}"
            for of, verdict in zip(who, verdicts, strict=True)
        )
        decided = set(verdicts) - {"undecided", "unlearned"}
        if not decided:
            hangs = "nothing is shown, whoever was tuned"
        elif len(decided) > 1:
            hangs = "the conclusion depends on who was tuned"
        elif len(set(verdicts)) > 1:
            hangs = "the conclusion is shown only in some cases of who was tuned"
        else:
            hangs = "the conclusion does not depend on who was tuned: "
            hangs += f"{study.lora.label} {SAID[verdicts[0]]} full fine-tuning each time"
        sentences.append(f"{task}: {hangs}. {about}: {listed}.")
    return [
        *sentences,
        f"These {found.questions} questions are corrected together (Holm), apart from those of the "
        "study itself: what is shown there with both tuned need not be shown here.",
    ]


def _protocol(found: Tuning, study: StudyInfo) -> str:
    counts = sorted({len(cell.trials) for cell in found.cells})
    number = f"the same {counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    tune, rows = study.tune, sorted({cell.rows for cell in found.cells})
    span = f"{rows[0]:,}" if len(rows) == 1 else f"{rows[0]:,} to {rows[-1]:,}"
    return (
        f"Every tuned method had {number} trials on every task ({_grid(study)}), with seeds "
        f"{', '.join(map(str, tune.seeds))}, which the results do not use, and scored on "
        f"{span} of the training rows (about {100 * tune.rows:g}%), which the trials did not train "
        "on. The results are of the winners, trained with the study's seeds on all training rows; "
        "the held-out rows that score them chose nothing."
    )


def _intermediate(study: StudyInfo) -> list[str]:
    init = study.mnli_init
    if init.mode == "none" or not init.tasks:
        return []
    return [f"The intermediate run, on {init.task}, keeps the untuned values of each method."]


def _grid(study: StudyInfo) -> str:
    listed = {name: ", ".join(map(_value, values)) for name, values in study.tune.grid.items()}
    if study.tune.factors and (rates := listed.get("learning_rate")):
        listed["learning_rate"] = f"{rates} times each method's own"
    return "; ".join(f"{_name(name)} {values}" for name, values in listed.items())


def _cost(found: Tuning) -> str:
    runs, failed, steps, final_runs, final_steps = _totals(found)
    words = f"Tuning took {runs:,} runs and {steps:,} optimiser steps"
    if final_steps:
        words += f", {two_digits(steps / final_steps)} times the {final_steps:,} steps of the "
        words += f"{final_runs:,} runs that are reported"
    return f"{words}{f'; the steps of {failed:,} failed runs are not known' if failed else ''}."


def _totals(found: Tuning) -> tuple[int, int, int, int, int]:
    rows = [(of.runs, of.failed, of.steps, of.final_runs, of.final_steps) for of in found.costs]
    runs, failed, steps, final_runs, final_steps = map(sum, zip(*rows, strict=True))
    return runs, failed, steps, final_runs, final_steps


def _chosen(found: Tuning, study: StudyInfo) -> Table:
    rows = []
    for cell in found.cells:
        of = cell.difference
        edges = "; ".join(f"{_name(name)}: {end}" for name, end in cell.edges.items())
        shown = [*_scored(cell.tuned), *_scored(cell.untuned)]
        changed = [GAP, GAP, GAP, cell.without]
        if of:
            mean = GAP if of.mean is None else points(of.mean)
            changed = [mean, interval(of.low, of.high, points), p_shown(of.p_holm)]
            changed.append(conclusion(of, study)[1])
        name, chosen = f"{cell.task}: {study.label(cell.method)}", values_words(cell.chosen)
        about = [name, str(len(cell.trials)), f"{cell.rows:,}", chosen, edges or GAP]
        rows.append([*about, *shown, *changed])
    head = ["Tuned", "Trials", "Rows", "Chosen", "Edge of the grid", "Tuned, times 100"]
    head += ["95% interval", "Untuned", "95% interval", "Difference", "95% interval", "p (Holm)"]
    head += ["Conclusion"]
    questions = sum(cell.difference is not None for cell in found.cells)
    notes = (
        "Chosen: by the mean over seeds of what runs report, on so many rows held out of the "
        "training rows and with seeds that the results do not use. Edge: the lowest or highest "
        "value listed was chosen, so that a better one may lie beyond.",
        "Tuned and untuned: means over the study's seeds on its held-out rows, of rows that chose "
        "no evaluation. Differences in points are paired by seed and row; p is corrected (Holm) "
        f"for the {questions} question{'' if questions == 1 else 's'} of this table.",
        *_intermediate(study),
    )
    caption = "What tuning chose, and what it changed"
    return Table("tuning", caption, head, rows, SOURCES, (3, 4, 12), notes)


def _who(found: Tuning, study: StudyInfo) -> Table:
    rows = []
    for who in found.who:
        of = who.difference
        mean = GAP if of.mean is None else points(of.mean)
        shown = [mean, interval(of.low, of.high, points), str(of.n), p_shown(of.p_holm)]
        name = f"{of.task}: {_way(who, study)}"
        rows.append([name, *shown, p_shown(of.equivalence_holm), conclusion(of, study)[1]])
    lora, full = study.lora, study.full
    pair = f"{lora.label} {MINUS} {full.label}" if lora and full else ""
    head = [pair, "Points", "95% interval", "n", "p (Holm)", "p of equivalence (Holm)"]
    notes = (
        "Paired by seed and row. A method of which tuning chose what the study had is the same "
        "tuned and untuned; of questions that are thereby the same, one is corrected (Holm) for, "
        f"which makes {found.questions}. The study's own comparison is "
        "that with both tuned, corrected there for other questions.",
    )
    caption = "Does the conclusion depend on who was tuned?"
    return Table("who-was-tuned", caption, [*head, "Conclusion"], rows, SOURCES, (6,), notes)


def _for_all_tasks(found: Tuning, study: StudyInfo) -> Table:
    rows = []
    for of in found.for_all_tasks:
        means = [percent(of.best_mean), percent(of.error), values_words(of.values)]
        rows.append([study.label(of.method), values_words(of.best), *means, percent(of.mean)])
    head = ["For all tasks", "Best", "Mean over tasks", "Standard error", "By the rule", "Mean"]
    notes = (
        "Means over tasks of the trials' scores times 100. The rule: of the values whose mean is "
        "not more than one standard error below the best, the lowest (Breiman et al. 1984, section "
        "3.4.3). A study may take them as its own; here each task has its winner.",
    )
    caption = "One choice for all tasks, by the one-standard-error rule"
    return Table("tuning-for-all", caption, head, rows, SOURCES, (1, 4), notes)


def _costs(found: Tuning, study: StudyInfo) -> Table:
    costs = [
        (study.label(of.method), of.runs, of.failed, of.steps, of.final_runs, of.final_steps)
        for of in found.costs
    ]
    rows = []
    for name, *counts in [*costs, ("All methods", *_totals(found))]:
        ratio = two_digits(counts[2] / counts[4]) if counts[4] else GAP
        rows.append([name, *(f"{count:,}" for count in counts), ratio])
    head = ["Cost of tuning", "Trial runs", "Failed", "Steps", "Final runs", "Steps", "Ratio"]
    notes = (
        "Steps: of the optimiser, until a run's last evaluation; those of failed runs are not "
        "known. Ratio: of the steps of trials to those of the final runs. The untuned runs, which "
        "serve the comparison alone, are in neither.",
    )
    caption = "What tuning cost, beside the runs that are reported"
    return Table("tuning-cost", caption, head, rows, SOURCES, (), notes)


def _scored(of: Scored | None) -> list[str]:
    if of is None or of.mean is None:
        return [GAP, GAP]
    return [percent(of.mean), interval(of.low, of.high, percent)]


def _points(of: Difference) -> str:
    mean = GAP if of.mean is None else f"{points(of.mean)} points"
    within = interval(of.low, of.high, points)
    return mean if within == GAP else f"{mean} (95% interval {within})"


def _by_how_much(cells: Iterable[TunedCell], study: StudyInfo) -> str:
    return "; ".join(
        f"{study.label(cell.method)} on {cell.task}, {_points(cell.difference)}"
        for cell in cells
        if cell.difference
    )


def _way(who: WhoWasTuned, study: StudyInfo) -> str:
    if len(who.tuned) == 1:
        return f"only {study.label(who.tuned[0])} tuned"
    return "both tuned" if who.tuned else "neither tuned"


def _named(cells: Iterable[TunedCell], study: StudyInfo) -> str:
    """Name cells by method: `LoRA (ours) on film, rating; AdapterH on film`."""
    tasks: dict[str, list[str]] = {}
    for cell in cells:
        tasks.setdefault(study.label(cell.method), []).append(cell.task)
    return "; ".join(f"{label} on {', '.join(of)}" for label, of in tasks.items())


def _name(hyperparameter: str) -> str:
    return hyperparameter.replace("_", " ")


def _value(value: float) -> str:
    return f"{value:g}"


def _has_failed(of: Scored) -> bool:
    return bool(of.failed) or not of.n
