"""The page's tables of costs: what training, memory, latency and energy take, task by task."""

import statistics
from collections.abc import Iterable
from dataclasses import fields, replace

from peft_study.findings import wording
from peft_study.findings.page.table import Table
from peft_study.findings.results import Results
from peft_study.findings.wording import GAP, batches_of, interval, percent, two_digits
from peft_study.records.costs import (
    IsoAccuracy,
    MemoryParts,
    MemoryUse,
    Profile,
    Ratio,
    Recipe,
    TaskProfile,
)
from peft_study.records.study import StudyInfo

PROFILE, ISO_ACCURACY = "metrics/profile.json", "metrics/iso_accuracy.json"


def cost_tables(results: Results) -> list[Table]:
    """Return a table of each kind of cost on each task that was measured, and of equal scores."""
    study, profile = results.study, results.profile
    equal = [_equal_scores(results.iso_accuracy, study)] if results.iso_accuracy else []
    made = (_steps, _memory, _memory_parts, _latency, _energy)
    costs = [make(of, profile, study) for of in profile.tasks for make in made] if profile else []
    said = tuple(filter(None, [wording.unmeasured(study)]))
    return [replace(table, notes=(*table.notes, *said)) for table in costs + equal]


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


def _measured(recipe: Recipe, study: StudyInfo) -> str:
    label = wording.recipe_label(recipe, study)
    return label[:1].upper() + label[1:]


def setting(recipe: Recipe, study: StudyInfo) -> str:
    weights = ["+".join(recipe.weights)] if recipe.weights else []
    return ", ".join([wording.recipe_label(recipe, study), *weights])


def _ratio(ratio: Ratio) -> list[str]:
    return [two_digits(ratio.value), interval(ratio.low, ratio.high, two_digits)]


def _median(values: Iterable[float | None]) -> str:
    """Show the median of what is not None: a run that never reached its target has none."""
    found = [value for value in values if value is not None]
    return f"{statistics.median(found):.1f}" if found else GAP
