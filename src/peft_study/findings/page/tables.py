"""The page's tables, each with the files that its numbers came from."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace

from peft_study.findings import chance, wording
from peft_study.findings.page import papers
from peft_study.findings.page.words import conclusion, settles
from peft_study.findings.results import PublishedRow, Results
from peft_study.findings.wording import (
    GAP,
    MINUS,
    batches_of,
    interval,
    percent,
    points,
    two_digits,
)
from peft_study.records import Record
from peft_study.records.costs import (
    IsoAccuracy,
    MemoryParts,
    MemoryUse,
    Parity,
    Profile,
    Ratio,
    Recipe,
    TaskProfile,
)
from peft_study.records.scores import Family, Rows
from peft_study.records.study import StudyInfo

STATISTICS, PROFILE = "metrics/statistics.json", "metrics/profile.json"
ISO_ACCURACY, PARITY = "metrics/iso_accuracy.json", "metrics/parity.json"
FAMILIES: dict[Family, str] = {
    "lora_full": "LoRA against full fine-tuning, over the tasks",
    "pairs": "all pairs of methods, over the tasks",
    "implementations": "implementations of one method, over the tasks",
}
JUDGED = {"cross_fitted": "Cross-fitted mean", "last": "Mean"}
ABOUT_PUBLISHED = ["Published result", "Model", "Method", "LoRA on", "Metric"]
SPREAD = "median ± standard deviation over seeds"


class Table(Record):
    """A table as shown; besides the first, columns at `words` hold words, the others numbers."""

    name: str
    caption: str
    head: list[str]
    rows: list[list[str]]
    sources: list[str]
    words: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def tables(results: Results, published: Sequence[PublishedRow]) -> dict[str, list[Table]]:
    """Return the tables that have rows, by the section of the page that shows them."""
    study, profile, parity = results.study, results.profile, results.parity
    equal = [_equal_scores(results.iso_accuracy, study)] if results.iso_accuracy else []
    made = (_steps, _memory, _memory_parts, _latency, _energy)
    costs = [make(of, profile, study) for of in profile.tasks for make in made] if profile else []
    found = {
        "scores": [
            _scores(results),
            *(_differences(results, family, asked) for family, asked in FAMILIES.items()),
            *(make(results) for make in (_pairs, _overall, _cells, _sweep)),
        ],
        "published": [_published(published, study), _without(published, study)],
        "costs": costs + equal,
        "parity": [_counts(parity, study), _parity(parity, study)] if parity else [],
        "ran": [make(results) for make in (_machine, _data, _packages)],
    }
    return {
        name: [replace(t, caption=wording.marked(t.caption, study)) for t in section if t.rows]
        for name, section in found.items()
    }


def _scores(results: Results) -> Table:
    grid = papers.scores(results)
    last = ["Majority class or mean", "0", *papers.baselines(results), GAP]
    rows, sources = [*grid.rows, last] if grid.rows else [], [STATISTICS, "metrics/runs"]
    named = [(wording.cell_name(gap, results.study), gap.reason) for gap in results.statistics.gaps]
    gaps = [f"Gap: {name} has no results: {reason.rstrip('.')}." for name, reason in named]
    own = [
        f"By design: {method.label} is trained {words}."
        for method in results.study.methods
        if (words := wording.of_its_own(method))
    ]
    note = "Trainable parameters without the head. "
    note += "Avg. is the mean of the tasks' medians, and absent where one is."
    caption = f"Scores times 100: {SPREAD}{papers.parentheses(results.study)}; {_seeds(results)}"
    return Table("scores", caption, grid.head, rows, sources, notes=(*gaps, *own, note))


def _seeds(results: Results) -> str:
    counts = [len(cell.seeds) for cell in results.cells.values()]
    return wording.counted(counts or [0], "seed")


def _differences(results: Results, family: Family, asked: str) -> Table:
    label, rows = results.study.label, []
    for row in results.main_differences:
        if row.family != family:
            continue
        name = f"{row.task}: {label(row.method)} {MINUS} {label(row.reference)}"
        mean = GAP if row.mean is None else points(row.mean)
        found = [mean, interval(row.low, row.high, points), str(row.n)]
        tests = _p(row.p), _p(row.p_holm), _p(row.equivalence_holm)
        rows.append([name, *found, *tests, conclusion(row, results.study)[1]])
    head = ["Difference", "Points", "95% interval", "n", "p", "p (Holm)"]
    head += ["p of equivalence (Holm)", "Conclusion"]
    caption = f"Differences in points, paired by seed and row: {asked}"
    notes = (
        "Scores times 100, of rows that chose no evaluation. Intervals, each for itself, and tests "
        "cover seeds and held-out rows. p: no difference. p of equivalence: two one-sided tests at "
        f"the study's margin. Holm: corrected for the {len(rows)} questions of this table.",
    )
    name = f"differences-{family.replace('_', '-')}"
    return Table(name, caption, head, rows, [STATISTICS], (7,), notes)


def _pairs(results: Results) -> Table:
    """Tell which pairs of methods are settled on which tasks, and what would settle the others."""
    tasks, rows = [task.name for task in results.study.tasks], []
    of = [row for row in results.main_differences if row.family == "pairs"]
    for method, reference in dict.fromkeys((row.method, row.reference) for row in of):
        mine = {row.task: row for row in of if (row.method, row.reference) == (method, reference)}
        verdicts = {task: conclusion(row, results.study)[0] for task, row in mine.items()}
        settled = sum(verdict not in ("undecided", "unlearned") for verdict in verdicts.values())
        opened = [f"{task}: {settles(row)}" for task, row in mine.items() if settles(row) != GAP]
        label = f"{results.study.label(method)} {MINUS} {results.study.label(reference)}"
        shown = [verdicts.get(task, GAP) for task in tasks]
        rows.append([label, *shown, f"{settled} of {len(mine)}", "; ".join(opened) or GAP])
    head = ["Pair", *tasks, "Settled", "What would settle the others"]
    caption = "Which pairs of methods are settled"
    note = "At 5%, corrected (Holm) for all pairs and tasks. Seeds or rows: if all else stays."
    words = (*range(1, len(tasks) + 1), len(tasks) + 2)
    return Table("pairs", caption, head, rows, [STATISTICS], words, (note,))


def _overall(results: Results) -> Table:
    rows = []
    for row in results.statistics.overall:
        better = GAP if row.better is None else two_digits(row.better)
        found = [percent(row.iqm), interval(row.iqm_low, row.iqm_high, percent)]
        found += [two_digits(row.rank), interval(row.rank_low, row.rank_high, two_digits)]
        found += [better, interval(row.better_low, row.better_high, two_digits)]
        rows.append([results.study.label(row.method), *found])
    head = ["Over all tasks", "IQM", "95% interval", "Mean rank", "95% interval"]
    head += ["Better than full fine-tuning", "95% interval"]
    caption = "Methods over all tasks: interquartile mean, ranks, probability of improvement"
    note = "Agarwal et al. 2021; intervals stratified by task, over seeds and held-out rows."
    return Table("overall", caption, head, rows, [STATISTICS], notes=(note,))


def _cells(results: Results) -> Table:
    study, rows = results.study, []
    judged_cells = results.statistics.at(study.judged)
    for (method, task, metric), cell in results.statistics.at(study.report).items():
        judged = judged_cells.get((method, task, metric), cell)
        name, runs = f"{task}: {study.label(method)}", results.cells.get((method, task))
        within, span = (
            interval(judged.low, judged.high, percent),
            interval(cell.min, cell.max, percent),
        )
        fitted = (
            [run.cross_fitted for run in runs.seeds.values() if run.cross_fitted] if runs else []
        )
        optimism = [of.optimism[metric] for of in fitted]
        bias = points(statistics.fmean(optimism)) if optimism else GAP
        of = chance.shares(judged.chance) if judged.chance else None
        shares = [GAP, GAP] if of is None else [f"{100 * share:.0f}%" for share in of]
        cv = GAP if cell.cv is None else f"{cell.cv:.3f}"
        found = [papers.score(cell), span, percent(judged.mean), within, bias, *shares, cv]
        rows.append([name, metric, *found, str(cell.n)])
    reported = f"{study.report.capitalize()}: median ± std"
    head = ["Cell", "Metric", reported, "Range", JUDGED[study.judged], "95% interval"]
    head += ["Optimism", "Variance of seeds", "of rows", "CV", "n"]
    caption = "Every metric of every cell, times 100"
    note = "The interval is of the mean over seeds and held-out rows. Optimism: what choosing the "
    note += "best evaluation adds, both as averages over halves of the rows. Variance: the parts "
    note += "that only more seeds, or only more rows, make smaller; the rest shrinks with either."
    return Table("cells", caption, head, rows, [STATISTICS, "metrics/runs"], (1,), (note,))


def _sweep(results: Results) -> Table:
    grid, caption = papers.sweep(results), f"LoRA by weights and rank: scores times 100, {SPREAD}"
    caption += papers.parentheses(results.study)
    return Table("sweep", caption, grid.head, grid.rows, ["metrics/sweep.json"])


def _published(published: Sequence[PublishedRow], study: StudyInfo) -> Table:
    rows = []
    for row in published:
        if row.ours is not None:
            n = GAP if row.n is None else str(row.n)
            rows.append([*_about(row, study), *papers.amounts(row), n, row.note or ""])
    head = [*ABOUT_PUBLISHED, "Published", "Ours", "Difference", "n", "Note"]
    caption = "Published results beside ours: scores and percentages times 100"
    note = "A difference in brackets is of unlike results, as its note says, and decides nothing."
    sources, words = ["metrics/published.json"], (1, 2, 3, 4, 9)
    return Table("published", caption, head, rows, sources, words, (note,))


def _without(published: Sequence[PublishedRow], study: StudyInfo) -> Table:
    rows = [
        [*_about(row, study), papers.amounts(row)[0], row.note or ""]
        for row in published
        if row.ours is None
    ]
    head = [*ABOUT_PUBLISHED, "Published", "Why there is nothing of ours"]
    caption = "Published results of the same tables without a counterpart here"
    sources, words = ["metrics/published.json"], (1, 2, 3, 4, 6)
    return Table("published-alone", caption, head, rows, sources, words)


def _about(row: PublishedRow, study: StudyInfo) -> list[str]:
    name = row.citation + (f": {row.task}" if row.task else "")
    method = study.label(row.method).removesuffix(" (ours)")
    return [name, row.model, method, papers.settings(row) or GAP, row.metric]


def _steps(costs: TaskProfile, profile: Profile, study: StudyInfo) -> Table:
    rows = []
    for cost in costs.training:
        phases = [f"{1000 * seconds:,.1f}" for seconds in vars(cost.seconds).values()]
        epoch = f"{cost.seconds_per_epoch.mean:.2f} ± {cost.seconds_per_epoch.std:.2f}"
        found = [*phases, epoch, *_ratio(cost.ratio), f"{cost.tokens_per_second:,.0f}"]
        batch = str(costs.batches[str(cost.recipe.method)])
        rows.append([_measured(cost.recipe, study), batch, *found])
    head = ["Training", "Batch", "Forward, ms", "Backward, ms", "Optimiser, ms", "Step, ms"]
    head += ["Epoch, s", "Ratio", "95% interval", "Tokens/s"]
    notes = ("Ratio: median over rounds of an epoch's time to the reference's (ratio 1).",)
    name, caption = f"steps-{costs.task}", f"A training step on {costs.task}"
    return Table(name, caption, head, rows, [PROFILE], notes=notes)


def _memory(costs: TaskProfile, profile: Profile, study: StudyInfo) -> Table:
    rows = []
    for cost in costs.memory:
        for counted in ("as_measured", "beyond_libraries"):
            use: MemoryUse = getattr(cost, counted)
            row = [_measured(cost.recipe, study), counted.replace("_", " ")]
            for found in (use.peak, use.mean):
                row += [wording.megabytes(found.bytes)]
                row += [interval(found.low, found.high, wording.megabytes), *_ratio(found.ratio)]
            rows.append(row)
    head = ["Memory", "Counted"]
    for heading in ("Peak, MB", "Mean, MB"):
        head += [heading, "95% interval", "Ratio", "95% interval"]
    n = max((cost.n for cost in costs.memory), default=0)
    caption = f"Memory of training on {costs.task}, {batches_of(costs.batches, study)}"
    notes = (
        f"{wording.memory_words(profile.machine)} Means of n = {n} processes each, and ratios to "
        "the reference's (ratio 1).",
    )
    return Table(f"memory-{costs.task}", caption, head, rows, [PROFILE], (1,), notes)


def _memory_parts(costs: TaskProfile, profile: Profile, study: StudyInfo) -> Table:
    rows = []
    for cost in costs.memory:
        peak = cost.beyond_libraries if profile.machine.gpu else cost.as_measured
        sizes = [*vars(cost.parts).values(), cost.explained, peak.peak.bytes, cost.stored]
        rows.append([_measured(cost.recipe, study), *map(wording.megabytes, sizes)])
    parts = [part.name.replace("_", " ").capitalize() for part in fields(MemoryParts)]
    head = ["Memory", *parts, "Explained", "Peak", "Stored per task"]
    note = "Of activations and gradients only the larger counts as explained, since one grows "
    note += "while the other shrinks, unless batches are computed in pieces."
    name, caption = f"memory-parts-{costs.task}", f"What explains the peak on {costs.task}, MB"
    return Table(name, caption, head, rows, [PROFILE], notes=(note,))


def _latency(costs: TaskProfile, profile: Profile, study: StudyInfo) -> Table:
    head, rows = ["Inference"], []
    for heading in ("One by one, ms", "Validation set, s"):
        head += [heading, "5th to 95th percentile", "Ratio", "95% interval"]
    named = [(_measured(cost.recipe, study), cost) for cost in costs.inference]
    for label, cost in [
        *named,
        (f"{_measured(Recipe(), study)}, a second copy", costs.second_copy),
    ]:
        row = [label]
        for kind, scale in ((cost.one_by_one, 1000), (cost.validation_set, 1)):
            low, high = scale * kind.seconds.p5, scale * kind.seconds.p95
            row += [two_digits(scale * kind.seconds.median), interval(low, high, two_digits)]
            row += _ratio(kind.ratio)
        rows.append(row)
    caption = f"Latency on {costs.task}: an example alone, the validation set in batches of 64"
    notes = (
        "Ratio: median over rounds of the time to that of the base model, which is also what full "
        "fine-tuning leaves. A second copy of it says which ratios cannot be told from 1.",
    )
    return Table(f"latency-{costs.task}", caption, head, rows, [PROFILE], notes=notes)


def _energy(costs: TaskProfile, profile: Profile, study: StudyInfo) -> Table:
    head, rows = ["Training", "J per step", "J per epoch", "W"], []
    for cost in costs.energy:
        joules = f"{cost.joules_per_step:.2f}", f"{cost.joules_per_epoch:,.1f}"
        rows.append([_measured(cost.recipe, study), *joules, f"{cost.watts:.1f}"])
    caption = f"Energy of training on {costs.task} ({profile.energy.source})"
    return Table(f"energy-{costs.task}", caption, head, rows, [PROFILE])


def _equal_scores(found: IsoAccuracy, study: StudyInfo) -> Table:
    head, rows = ["Runs", "Target, times 100", "Reached it", "Epochs", "Seconds"], []
    for of in dict.fromkeys((run.task, run.method) for run in found.runs):
        runs = [run for run in found.runs if (run.task, run.method) == of]
        reached = f"{sum(run.reached for run in runs)} of {len(runs)}"
        spent = _median(run.epoch for run in runs), _median(run.seconds for run in runs)
        name = f"{of[0]}: {study.label(of[1])}"
        rows.append([name, percent(runs[0].target), reached, *spent])
    note = "Target: the lower of LoRA's and full fine-tuning's medians of the best evaluation, "
    note += f"minus {percent(found.margin)} points."
    notes = "Medians of the runs that reached it; the others would have needed longer.", note
    caption = "What it takes to reach an equal score"
    return Table("equal-scores", caption, head, rows, [ISO_ACCURACY], notes=notes)


def _counts(parity: Parity, study: StudyInfo) -> Table:
    settings, rows = parity.settings, []
    methods = [recipe.method for recipe in settings.values()]
    order = sorted(
        (methods.index(at.method), at.rank or 0, at.bottleneck or 0, len(at.weights), name)
        for name, at in settings.items()
    )
    for *_, name in order:
        shown = [f"{n[name].adapter:,}" if name in n else GAP for n in parity.counts.values()]
        rows.append([_setting(settings[name], study), *shown])
    caption = "Trainable parameters without the head, equal in all implementations"
    return Table("counts", caption, ["Setting", *parity.counts], rows, [PARITY])


def _parity(parity: Parity, study: StudyInfo) -> Table:
    rows, notes = [], (f"Tolerance: {parity.tolerance:.0e}.", *parity.checked)
    for found in parity.differences:
        other = _setting(Recipe(found.method, weights=found.weights), study)
        how = f", {found.what}" if found.what else ""
        compared = other + how if found.method else found.what.capitalize()
        at = f"r = {found.rank}, alpha = {found.alpha:g}, dropout {found.dropout:g}"
        for name, value in found.largest.items():
            shown = f"{value:.1e}" if value else "0"
            rows.append([compared, at, name.replace("_", " "), shown])
    caption = f"Largest absolute differences seen on {parity.model}"
    head = ["Compared with ours", "LoRA at", "Of what", "Largest difference"]
    return Table("parity-differences", caption, head, rows, [PARITY], (1, 2), notes)


def _machine(results: Results) -> Table:
    about: dict[str, object] = {}
    if profile := results.profile:
        memory, share = profile.machine.memory / 1e9, 100 * profile.machine.other_cpu_share
        shown = {"memory": f"{memory:.1f} GB", "other_cpu_share": f"{share:.0f}%"}
        about = vars(profile.machine) | shown
    if iso_accuracy := results.iso_accuracy:
        spent = sum(row.n * row.mean for row in iso_accuracy.seconds_per_epoch)
        minutes, seconds = divmod(round(spent), 60)
        about["training, all runs"] = f"{minutes // 60} h {minutes % 60:02d} min {seconds:02d} s"
    named = {key.replace("_", " ").capitalize(): value for key, value in about.items()}
    rows = [[name, "none" if value is None else str(value)] for name, value in named.items()]
    sources = [PROFILE] * bool(profile) + [ISO_ACCURACY] * bool(iso_accuracy)
    return Table("machine", "Machine and time", ["Of the run", "Value"], rows, sources, (1,))


def _data(results: Results) -> Table:
    used: dict[str, dict[str, Rows]] = {}
    for (_, task), cell in results.cells.items():
        used.setdefault(task, {}).update(cell.data)  # a method may have seeds of its own
    rows = [
        [f"{task}: {split}", f"{rows.rows:,}", rows.sha256_of_ids]
        for task, splits in used.items()
        for split, rows in splits.items()
    ]
    head = ["Split", "Rows", "SHA-256 of their ids"]
    return Table("data", "Rows used", head, rows, ["metrics/runs"], (2,))


def _packages(results: Results) -> Table:
    rows, head = [[*of] for of in sorted(results.study.packages.items())], ["Package", "Version"]
    return Table("packages", "Versions", head, rows, ["requirements.lock"], (1,))


def _measured(recipe: Recipe, study: StudyInfo) -> str:
    label = wording.recipe_label(recipe, study)
    return label[:1].upper() + label[1:]


def _setting(recipe: Recipe, study: StudyInfo) -> str:
    weights = ["+".join(recipe.weights)] if recipe.weights else []
    return ", ".join([wording.recipe_label(recipe, study), *weights])


def _ratio(ratio: Ratio) -> list[str]:
    return [two_digits(ratio.value), interval(ratio.low, ratio.high, two_digits)]


def _median(values: Iterable[float | None]) -> str:
    """Show the median of what is not None: a run that never reached its target has none."""
    found = [value for value in values if value is not None]
    return f"{statistics.median(found):.1f}" if found else GAP


def _p(value: float | None) -> str:
    return GAP if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
