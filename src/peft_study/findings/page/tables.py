"""The page's tables, each with the files that its numbers came from."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import fields

from peft_study.findings import wording
from peft_study.findings.page import papers
from peft_study.findings.page.words import conclusion
from peft_study.findings.results import PublishedRow, Results
from peft_study.findings.wording import GAP, MINUS, interval, percent, points, two_digits
from peft_study.records import Record
from peft_study.records.costs import IsoAccuracy, MemoryParts, Parity, Profile, Ratio, Recipe
from peft_study.records.study import StudyInfo

STATISTICS, PROFILE = "metrics/statistics.json", "metrics/profile.json"
ISO_ACCURACY, PARITY = "metrics/iso_accuracy.json", "metrics/parity.json"
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
    costs = [make(profile, study) for make in (_steps, _memory, _latency, _energy) if profile]
    found = {
        "scores": [make(results) for make in (_scores, _differences, _cells, _sweep)],
        "published": [_published(published, study)],
        "costs": costs + equal,
        "parity": [_counts(parity, study), _parity(parity, study)] if parity else [],
        "ran": [make(results) for make in (_machine, _data, _packages)],
    }
    return {name: [table for table in section if table.rows] for name, section in found.items()}


def _scores(results: Results) -> Table:
    grid = papers.scores(results, counted=True)
    last = ["Majority class or mean", "0", *papers.baselines(results), GAP]
    rows, sources = [*grid.rows, last] if grid.rows else [], [STATISTICS, "metrics/runs"]
    named = [(wording.cell_name(gap, results.study), gap.reason) for gap in results.statistics.gaps]
    gaps = [f"Gap: {name} has no results: {reason.rstrip('.')}." for name, reason in named]
    note = "Trainable parameters without the head. "
    note += "Avg. is the mean of the tasks' medians, and absent where one is."
    caption = f"Scores times 100: {SPREAD} (number of seeds)"
    return Table("scores", caption, grid.head, rows, sources, notes=(*gaps, note))


def _differences(results: Results) -> Table:
    label, rows = results.study.label, []
    for row in results.main_differences:
        name = f"{row.task}: {label(row.method)} {MINUS} {label(row.reference)}"
        mean = GAP if row.mean is None else points(row.mean)
        found = [mean, interval(row.low, row.high, points), str(row.n)]
        rows.append([name, *found, _p(row.p), _p(row.p_equivalence), conclusion(row)[1]])
    head = ["Difference", "Points", "95% interval", "n", "p", "p of equivalence", "Conclusion"]
    caption = "Differences in points (score times 100), paired by seed"
    notes = ("p: paired t-test. p of equivalence: two one-sided tests at the study's margin.",)
    return Table("differences", caption, head, rows, [STATISTICS], (6,), notes)


def _cells(results: Results) -> Table:
    head, rows = ["Cell", "Metric", "Median ± std", "Mean", "95% interval", "Range", "CV", "n"], []
    for cell in papers.reported(results).values():
        name = f"{cell.task}: {results.study.label(cell.method)}"
        within, span = interval(cell.low, cell.high, percent), interval(cell.min, cell.max, percent)
        found = [papers.score(cell), percent(cell.mean), within, span]
        cv = GAP if cell.cv is None else f"{cell.cv:.3f}"
        rows.append([name, cell.metric, *found, cv, str(cell.n)])
    caption = "Every metric of every cell, times 100, with bootstrap intervals of the mean"
    return Table("cells", caption, head, rows, [STATISTICS], (1,))


def _sweep(results: Results) -> Table:
    grid, caption = papers.sweep(results), f"LoRA by weights and rank: scores times 100, {SPREAD}"
    return Table("sweep", caption, grid.head, grid.rows, ["metrics/sweep.json"])


def _published(published: Sequence[PublishedRow], study: StudyInfo) -> Table:
    rows = []
    for row in published:
        name = f"{row.source}, table {row.table}" + (f": {row.task}" if row.task else "")
        method = study.label(row.method).removesuffix(" (ours)")
        adapted = filter(None, ("+".join(row.weights), f"r = {row.rank}" if row.rank else ""))
        about = [name, row.model, method, ", ".join(adapted) or GAP, row.metric]
        theirs = _score(row.published, row.is_fraction, row.published_std)
        ours = _score(row.ours, row.is_fraction, row.ours_std)
        change = _score(row.difference, row.is_fraction, sign="+")
        n = GAP if row.n is None else str(row.n)
        rows.append([*about, theirs, ours, n, change, row.note or ""])
    head = ["Published result", "Model", "Method", "LoRA on", "Metric", "Published", "Ours", "n"]
    head += ["Difference", "Note"]
    caption = "Published results beside ours: scores and coefficients of variation times 100"
    source, words = ["metrics/published.json"], (1, 2, 3, 4, 9)
    return Table("published", caption, head, rows, source, words)


def _steps(profile: Profile, study: StudyInfo) -> Table:
    rows = []
    for cost in profile.training:
        phases = [f"{1000 * seconds:,.1f}" for seconds in vars(cost.seconds).values()]
        epoch = f"{cost.seconds_per_epoch.mean:.2f} ± {cost.seconds_per_epoch.std:.2f}"
        found = [*phases, *_ratio(cost.ratio), epoch, f"{cost.tokens_per_second:,.0f}"]
        rows.append([_measured(cost.recipe, study), *found])
    head = ["Training", "Forward, ms", "Backward, ms", "Optimiser, ms", "Step, ms", "Ratio"]
    head += ["95% interval", "Epoch, s", "Tokens/s"]
    caption = f"A training step on {profile.task}, batches of {profile.batch_size}"
    notes = ("Ratio: median over rounds of the step's time to the reference's (ratio 1).",)
    return Table("steps", caption, head, rows, [PROFILE], notes=notes)


def _memory(profile: Profile, study: StudyInfo) -> Table:
    rows = []
    for cost in profile.memory:
        sizes = [*vars(cost.parts).values(), cost.explained, cost.peak, cost.mean, cost.stored]
        rows.append([_measured(cost.recipe, study), *map(wording.megabytes, sizes)])
    parts = [part.name.replace("_", " ").capitalize() for part in fields(MemoryParts)]
    head = ["Memory", *parts, "Explained", "Peak", "Mean", "Stored per task"]
    note = "Of activations and gradients only the larger counts as explained, since one grows "
    note += "while the other shrinks, unless batches are computed in pieces."
    return Table("memory", "Memory of training, MB", head, rows, [PROFILE], notes=(note,))


def _latency(profile: Profile, study: StudyInfo) -> Table:
    head, rows = ["Inference"], []
    for heading in ("One by one, ms", "In 64s, ms", "Validation set, s"):
        head += [heading, "5th to 95th percentile", "Ratio", "95% interval"]
    for cost in profile.inference:
        row = [_measured(cost.recipe, study)]
        for kind, scale in ((cost.batch_1, 1000), (cost.batch_64, 1000), (cost.validation_set, 1)):
            low, high = scale * kind.seconds.p5, scale * kind.seconds.p95
            row += [two_digits(scale * kind.seconds.median), interval(low, high, two_digits)]
            row += _ratio(kind.ratio)
        rows.append(row)
    caption = "Latency: an example alone, an example in a batch of 64, the validation set"
    notes = ("Ratio: median over rounds of the time to that of the pretrained model.",)
    return Table("latency", caption, head, rows, [PROFILE], notes=notes)


def _energy(profile: Profile, study: StudyInfo) -> Table:
    head, rows = ["Training", "J per step", "J per epoch", "W"], []
    for cost in profile.energy.cells:
        joules = f"{cost.joules_per_step:.2f}", f"{cost.joules_per_epoch:,.1f}"
        rows.append([_measured(cost.recipe, study), *joules, f"{cost.watts:.1f}"])
    return Table("energy", f"Energy of training ({profile.energy.source})", head, rows, [PROFILE])


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
    rows = [
        [f"{task}: {split}", f"{rows.rows:,}", rows.sha256_of_ids]
        for task, splits in {task: cell.data for (_, task), cell in results.cells.items()}.items()
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
    return [two_digits(ratio.median), interval(ratio.low, ratio.high, two_digits)]


def _score(value: float | None, is_fraction: bool, std: float | None = None, sign: str = "") -> str:
    """Show a score times 100, or what is no fraction as it is."""
    if value is None:
        return GAP
    scale, form, of_std = (100, "z.1f", ".1f") if is_fraction else (1, ",.4g", ",.2g")
    spread = "" if std is None else f" ± {scale * std:{of_std}}"
    return wording.number(scale * value, sign + form) + spread


def _median(values: Iterable[float | None]) -> str:
    """Show the median of what is not None: a run that never reached its target has none."""
    found = [value for value in values if value is not None]
    return f"{statistics.median(found):.1f}" if found else GAP


def _p(value: float | None) -> str:
    return GAP if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
