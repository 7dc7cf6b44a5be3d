"""What a study found, in sentences made by rule, and what was studied."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from peft_study.findings import chance
from peft_study.findings.page.conclusions import SAID, conclusion, settles
from peft_study.findings.page.fronts import front_sentences
from peft_study.findings.page.ledger import HANGS, ledger_sentences
from peft_study.findings.page.papers import trained
from peft_study.findings.page.tuning import QUESTION, tuning_sentences
from peft_study.findings.results import Claim, Results
from peft_study.findings.wording import (
    BUSY,
    GAP,
    TRY,
    batches_of,
    cell_name,
    interval,
    megabytes,
    of_its_own,
    percent,
    points,
    unlearned_words,
    unmeasured,
)
from peft_study.findings.wording import two_digits as times
from peft_study.records.costs import EnergySource, Profile, Ratio, Recipe, TaskProfile
from peft_study.records.scores import Difference, Paired
from peft_study.records.study import MethodInfo, StudyInfo

FRONT = "Which methods does no other beat in both score and cost?"
MANY = 4  # cells that have not learned, beyond which they are named task by task
STARTS = {"per_method": "each method's own weights", "full_ft": "one encoder for all"}


def findings(results: Results, claims: Sequence[Claim]) -> dict[str, list[str]]:
    """Return what the numbers say, in sentences made by rule, by the question they answer."""
    lora, full = results.study.lora, results.study.full
    return {
        "Does LoRA match full fine-tuning?": _match(results, lora, full),
        **({QUESTION: tuning_sentences(results, results.tuning)} if results.tuning else {}),
        "At what cost?": _costs(results, lora, full)
        if lora
        else ["LoRA is not part of the study."],
        **({FRONT: front_sentences(results)} if len(results.study.methods) > 1 else {}),
        **({HANGS: ledger_sentences(results)} if results.ledger else {}),
        "What could not be said": _unsaid(results, claims),
    }


def overview(study: StudyInfo) -> dict[str, str]:
    """Return what was studied, by heading."""
    model, init, sweep = study.model, study.mnli_init, study.sweep
    revision = f" at revision {model.revision}" if model.revision else ""
    own = ", ".join(f"{task.name} {task.max_length}" for task in study.tasks if task.max_length)
    lengths = f"{model.max_length} tokens" + f" ({own})" * bool(own)
    found = {
        "Model": f"{model.name}{revision}, texts of up to {lengths}",
        "Data": _settings(asdict(study.data)),
        "Tasks": ", ".join(f"{task.name} ({task.metric})" for task in study.tasks),
        "Seeds": ", ".join(map(str, study.seeds)),
        "Result of a run": f"its {study.report} evaluation",
    }
    for method in study.methods:
        everything = "all weights are trained" if method.family == "full" else ""
        if not method.trained_here:
            everything = f"trained elsewhere, predictions of {method.settings['folder']}"
        about = everything or _settings(method.settings), of_its_own(method), method.citation
        found[method.label] = "; ".join(filter(None, about))
    if init.mode != "none" and init.tasks:
        start = f"{', '.join(init.tasks)} start from {init.task}: {STARTS[init.mode]}"
        found["Intermediate task"] = start
    if sweep.ranks:
        ranks, weights = ", ".join(map(str, sweep.ranks)), ", ".join(map("+".join, sweep.weights))
        found["Sweep"] = f"{sweep.task}: ranks {ranks}; weights {weights}"
    found["Reproduces"] = "; ".join(study.published)
    return {heading: words for heading, words in found.items() if words}


def parameters(values: Mapping[str, object], indent: str = "") -> list[str]:
    """Return nested parameters, one a line."""
    lines = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{key}:", *parameters(value, indent + "  ")]
        else:
            shown = ", ".join(map(str, value)) or GAP if isinstance(value, list) else value
            lines.append(f"{indent}{key}: {GAP if shown in (None, {}) else shown}")
    return lines


def energy_words(profile: Profile | None) -> str:
    """Return how energy was measured, or why it was not."""
    energy = profile.energy if profile else EnergySource(None, "no profile was made")
    why = f": {energy.reason.rstrip('.')}" if energy.reason else ""
    if energy.measured:
        return f"Energy was measured by {energy.source}."
    estimated = "is estimated from an assumed power, not measured"
    return f"Energy {estimated if energy.source else 'was not measured'}{why}."


def _match(results: Results, lora: MethodInfo | None, full: MethodInfo | None) -> list[str]:
    """Compare the study's first LoRA with full fine-tuning, task by task."""
    if not results.study.methods:
        return ["No method was trained on the tasks: the study is a sweep of LoRA's settings."]
    if lora is None or full is None:
        missing = "Full fine-tuning" if lora else "LoRA"
        return [f"{missing} is not part of the study, so the two are not compared."]
    rows = {row.task: row for row in results.main_differences_of(lora.name, full.name)}
    sentences: list[str] = []
    verdicts: dict[str, list[str]] = {verdict: [] for verdict in SAID}
    tasks = []
    for task in results.study.tasks:
        absent = [m.label for m in (lora, full) if not results.study.trains(m.name, task.name)]
        if absent:
            sentences.append(
                f"{task.name}: not compared, by design without {' and '.join(absent)}."
            )
            continue
        tasks.append(task)
        row = rows.get(task.name)
        if row is None or row.mean is None:
            why = "for want of a seed that both have" if row else "because results are missing"
            sentences.append(f"{task.name}: not compared, {why}.")
            continue
        verdict, words = conclusion(row, results.study)
        verdicts[verdict].append(task.name)
        held_out = f" and {row.chance.rows:,} held-out rows" if row.chance else ""
        sentences.append(
            f"{task.name} ({task.metric}): {lora.label} minus full fine-tuning is "
            f"{points(row.mean)} points{_within(row, points)} over {row.n} "
            f"seed{'' if row.n == 1 else 's'}{held_out}; {words}.{_planning(row)}"
        )
    summary = [
        f"{lora.label} {SAID[verdict]} full fine-tuning on {len(names)} of {len(tasks)} tasks "
        f"({', '.join(names)})."
        for verdict, names in verdicts.items()
        if names
    ]
    slow = unlearned_sentences(results)
    advice = [f"What has not learned decides nothing: {TRY}."] if slow else []
    return [*slow, *advice, *summary, *sentences, *_meaning(results.study, list(rows.values()))]


def unlearned_sentences(results: Results) -> list[str]:
    """Name what has not learned: cell by cell, or the methods task by task if there are many."""
    study, found = results.study, results.statistics.unlearned
    whole: dict[str, list[str]] = {}
    for of in found:
        if of.whole and of.rank is None:
            whole.setdefault(of.task, []).append(study.label(of.method))
    if sum(map(len, whole.values())) <= MANY:
        return [f"{unlearned_words(of, study)}." for of in found]
    rest = [of for of in found if not of.whole or of.rank is not None]
    return [
        *(f"On {task} have not learned: {', '.join(names)}." for task, names in whole.items()),
        *(f"{unlearned_words(of, study)}." for of in rest),
    ]


def _planning(row: Difference) -> str:
    """Say what a difference rests on, what would settle it, and what would have been shown."""
    if row.chance is None or row.detectable is None or row.equivalent or row.differs:
        return ""
    words = f" A difference of {percent(row.detectable)} points would have been shown in 80% of"
    words += " such studies"
    if of := chance.shares(row.chance):
        words += f"; {100 * of[0]:.0f}% of the variance is of the seeds, {100 * of[1]:.0f}% of the"
        words += " rows"
    return f"{words}. What would settle it: {settles(row)}."


def _meaning(study: StudyInfo, rows: Sequence[Difference]) -> list[str]:
    """Say what the intervals cover, and what they do not."""
    found = [row.chance for row in rows if row.chance]
    if not found:
        return []
    words = "Intervals and tests cover the chance of seeds and of held-out rows"
    if any(of.seeds < 5 or of.rows < 256 for of in found):
        words += ", approximately: there are fewer than 5 seeds or 256 rows"
    if study.judged == "cross_fitted":
        words += ". They are of cross-fitted scores: no row scores the evaluation that it chose"
    starts = study.mnli_init.mode != "none" and study.mnli_init.tasks
    if study.data.resample == "none":
        also = " and one intermediate run" if starts else ""
        drawn = (
            f"They hold for these training rows: all seeds share one draw of training rows{also}"
        )
    else:
        drawn = "Each seed has training rows of its own"
        drawn += ", and all share one intermediate run" if starts else ""
    words += f". {drawn}"
    return [f"{words}. The {len(found)} tests are corrected together (Holm)."]


def _costs(results: Results, lora: MethodInfo, full: MethodInfo | None) -> list[str]:
    """Say what the study's first LoRA costs beside full fine-tuning."""
    sentences, profile = [], results.profile
    ours, everything = (trained(results, m.name) if m else [] for m in (lora, full))
    if ours and everything:
        part, whole_model = max(ours), max(everything)
        sentences.append(
            f"{lora.label} trains {part:,} parameters besides the head, "
            f"{100 * part / whole_model:.2g}% of the {whole_model:,} that full fine-tuning trains."
        )
    if not profile:
        return [*sentences, "Time and memory were not measured."]
    return sentences + [
        sentence
        for costs in profile.tasks
        for sentence in (
            _step_words(costs, results.study, lora, full),
            _memory_words(costs, lora, full),
            _merged_words(costs, lora),
        )
        if sentence
    ]


def _step_words(
    costs: TaskProfile, study: StudyInfo, lora: MethodInfo, full: MethodInfo | None
) -> str:
    step = costs.step_of(lora.name)
    if not step or not full or not costs.step_of(full.name):
        return ""
    compared = {name: costs.batches[name] for name in (lora.name, full.name)}
    return (
        f"An epoch of {lora.label} takes {times(step.ratio.value)} times as long as one of full "
        f"fine-tuning{_within(step.ratio, times)}, on {costs.task} in "
        f"{batches_of(compared, study)}{_measured(step.recipe, lora)}."
    )


def _memory_words(costs: TaskProfile, lora: MethodInfo, full: MethodInfo | None) -> str:
    memory, whole = costs.memory_of(lora.name), full and costs.memory_of(full.name)
    if not memory or not whole:
        return ""
    ours, beyond = memory.as_measured.peak, memory.beyond_libraries.peak.ratio
    return (
        f"It needs {megabytes(ours.bytes)} MB at its peak against "
        f"{megabytes(whole.as_measured.peak.bytes)} MB on {costs.task}: {times(ours.ratio.value)} "
        f"times as much{_within(ours.ratio, times)}, and {times(beyond.value)} times beyond what "
        f"the libraries need{_within(beyond, times)}. It stores {megabytes(memory.stored)} MB per "
        f"task against {megabytes(whole.stored)} MB{_measured(memory.recipe, lora)}."
    )


def _merged_words(costs: TaskProfile, lora: MethodInfo) -> str:
    merged, copy = costs.inference_of(lora.name, merged=True), costs.second_copy
    if not merged:
        return ""
    alone, whole = merged.one_by_one.ratio, merged.validation_set.ratio
    floor = copy.one_by_one.ratio, copy.validation_set.ratio
    return (
        f"Merged into the weights, it takes {times(alone.value)} times the base model's time for "
        f"one example{_within(alone, times)} and {times(whole.value)} times for the validation set "
        f"of {costs.task}{_within(whole, times)}; a second copy of the base model takes "
        f"{times(floor[0].value)} times{_within(floor[0], times)} and {times(floor[1].value)} "
        f"times{_within(floor[1], times)}{_measured(merged.recipe, lora)}."
    )


def _unsaid(results: Results, claims: Sequence[Claim]) -> list[str]:
    """Name what is missing, and what makes the numbers weaker than they look."""
    sentences, profile = [], results.profile
    if gaps := results.statistics.gaps:
        named = ", ".join(cell_name(gap, results.study) for gap in gaps)
        sentences.append(f"Without results, and in no average: {named}.")
    if said := unmeasured(results.study):
        sentences.append(said)
    if len(results.study.seeds) == 1:
        sentences.append("One seed gives neither a spread nor an interval.")
    for verdict in ("inconclusive", "not measured"):
        if n := sum(claim.verdict == verdict for claim in claims):
            sentences.append(f"Claims {verdict}: {n} of {len(claims)}; see the verdicts.")
    if not profile:
        return [*sentences, "What the methods cost in time, memory and energy was not measured."]
    if (share := profile.machine.other_cpu_share) >= BUSY:
        sentences.append(
            f"Other programs used {100 * share:.0f}% of the processors while times were measured: "
            "ratios, whose parts were measured in turns, say more than seconds."
        )
    if not profile.energy.measured:
        sentences.append(energy_words(profile))
    return sentences or ["Nothing that the study set out to measure is missing."]


def _within(value: Paired | Ratio, show: Callable[[float], str]) -> str:
    shown = interval(value.low, value.high, show)
    return "" if shown == GAP else f" (95% interval {shown})"


def _measured(recipe: Recipe, lora: MethodInfo) -> str:
    """Say what a cost of LoRA was measured at, where that is not what the study trains."""
    rank = [f"r = {recipe.rank}"] if recipe.rank != lora.rank else []
    weights = ["+".join(recipe.weights)] if recipe.weights != lora.weights else []
    return f", measured at {', '.join(rank + weights)}" if rank + weights else ""


def _settings(values: Mapping[str, object]) -> str:
    """Show a block of parameters on one line, without what is not set; of blocks within it too."""
    shown = []
    for name, value in values.items():
        key = name.replace("_", " ")
        if isinstance(value, Mapping):
            shown.append(_settings(value))
        elif isinstance(value, (list, tuple)):
            shown += [f"{key} {'+'.join(map(str, value))}"] if value else []
        elif value is not None:
            shown.append(f"{key} {value}")
    return ", ".join(shown)
