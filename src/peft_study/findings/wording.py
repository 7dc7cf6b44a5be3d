"""The words that figures, tables, claims and the page share: numbers, ranges, names of models."""

from collections.abc import Callable, Iterable, Mapping

from peft_study.records.costs import Batch, Machine, Recipe
from peft_study.records.scores import Gap, Unlearned
from peft_study.records.study import MethodInfo, StudyInfo

GAP = "–"
MINUS = "\N{MINUS SIGN}"
BASE = "base model"
TRY = "try more epochs, more training rows or another learning rate"
REHEARSAL = "Rehearsal with a tiny random model, no result"
BUSY = 0.05  # the share of the processors from which on others' work is told of


def number(value: float, form: str = "z.1f") -> str:
    """Show a number with a true minus sign; `form` is a format specification."""
    return format(value, form).replace("-", MINUS)


def percent(value: float) -> str:
    """Show a fraction times 100."""
    return number(100 * value)


def points(value: float) -> str:
    """Show a difference of fractions times 100, with its sign."""
    return number(100 * value, "+z.1f")


def two_digits(value: float) -> str:
    return number(value, ".2f")


def megabytes(value: float) -> str:
    """Show bytes in millions."""
    return number(value / 1e6, ",.1f")


def median_and_std(median: float, std: float | None) -> str:
    """Show a median and a standard deviation, if there is one, times 100."""
    return percent(median) + ("" if std is None else f" ± {percent(std)}")


def interval(low: float | None, high: float | None, show: Callable[[float], str]) -> str:
    """Show the ends of an interval, or a gap where there is none."""
    return GAP if low is None or high is None else f"{show(low)} to {show(high)}"


def millions(counts: Iterable[int]) -> str:
    """Show a number of parameters, or the range of several, in millions."""
    shown = [f"{n / 1e6:.1f}" if n >= 1e7 else f"{n / 1e6:.2g}" for n in sorted(set(counts))]
    return GAP.join(dict.fromkeys([shown[0], shown[-1]])) if shown else GAP


def counted(counts: Iterable[int], unit: str) -> str:
    """Say how many there are of each mean: `n = 5 seeds`, or `n = 3 to 5 seeds`."""
    found = sorted(set(counts))
    span = f"{found[0]}" if len(found) == 1 else f"{found[0]} to {found[-1]}"
    return f"n = {span} {unit}{'' if span == '1' else 's'}"


def sentences(*parts: str) -> str:
    """Join the sentences that are not empty."""
    return " ".join(part for part in parts if part)


def needed(seeds: int | None, rows: int | None) -> str:
    """Say how many seeds, or held-out rows, would be needed; "" where neither number would do."""
    ways = [f"{n:,} {what}" for n, what in ((seeds, "seeds"), (rows, "held-out rows")) if n]
    return f"About {' or '.join(ways)}" if ways else ""


def marked(text: str, study: StudyInfo) -> str:
    """Return a title or a caption; that of a rehearsal opens by saying that it is one."""
    return f"{REHEARSAL}: {text}" if study.rehearsal else text


def recipe_label(recipe: Recipe, study: StudyInfo) -> str:
    """Name a model that was measured or counted: `LoRA (ours), r = 8, merged`."""
    if recipe.method is None:
        return BASE
    sizes = _sizes(recipe.rank, recipe.bottleneck)
    return ", ".join([study.label(recipe.method), *sizes, *["merged"] * recipe.merged])


def _sizes(rank: int | None, bottleneck: int | None) -> list[str]:
    named = (("r = ", rank), ("bottleneck ", bottleneck))
    return [f"{name}{size}" for name, size in named if size is not None]


def cell_name(gap: Gap, study: StudyInfo) -> str:
    return f"{study.label(gap.method)} on {gap.task}"


def missing(gaps: Iterable[Gap], study: StudyInfo) -> str:
    """Name the cells without results, and why they have none; "" where there are none."""
    named = [f"{cell_name(gap, study)} ({gap.reason})" for gap in gaps]
    return f"Without results: {', '.join(named)}." if named else ""


def unmeasured(study: StudyInfo) -> str:
    """Say of which methods there are predictions alone; "" where there are none such."""
    named = [method.label for method in study.methods if not method.trained_here]
    said = "trained elsewhere, so that costs and learning curves are not measured here"
    return f"{', '.join(named)}: {said}." if named else ""


def of_its_own(method: MethodInfo) -> str:
    """Say what tasks and seeds a method has of its own; "" where it has the study's."""
    tasks = f"on {', '.join(method.tasks)} alone" if method.tasks else ""
    seeds = f"with seeds {', '.join(map(str, method.seeds))}" if method.seeds else ""
    return " ".join(filter(None, (tasks, seeds)))


def unlearned_words(found: Unlearned, study: StudyInfo) -> str:
    """Say that a cell, or some of its runs, has not learned."""
    sweep = f" ({'+'.join(found.weights)} at rank {found.rank})" if found.rank else ""
    cell = f"{study.label(found.method)} on {found.task}{sweep}"
    if found.whole:
        return f"{cell} has not learned: its score does not lie above the baseline"
    several = "s" if len(found.seeds) > 1 else ""
    return f"{cell} has not learned with seed{several} {', '.join(found.seeds)}"


def measured_with(recipe: Recipe, study: StudyInfo) -> str:
    """Say `, measured with r = 4` of a recipe that is not what the study trains; "" if it is."""
    trained = study.method(recipe.method or "")
    if trained is None:
        return ""
    usual = _sizes(trained.rank, trained.bottleneck)
    apart = [size for size in _sizes(recipe.rank, recipe.bottleneck) if size not in usual]
    if recipe.weights and set(recipe.weights) != set(trained.weights):
        apart.append("+".join(recipe.weights))
    return f", measured with {', '.join(apart)}" if apart else ""


def batches_of(batches: Mapping[str, Batch], study: StudyInfo) -> str:
    """Say `batches of 16`, or of which size with which methods where they differ."""
    by_size: dict[str, list[str]] = {}
    for method, batch in batches.items():
        by_size.setdefault(str(batch), []).append(study.label(method))
    sizes = [f"{size} ({', '.join(labels)})" for size, labels in by_size.items()]
    return f"batches of {', '.join(sizes if len(sizes) > 1 else by_size)}"


def busy(machine: Machine) -> str:
    """Say what share of the processors others used, if it is worth saying."""
    share = machine.other_cpu_share
    return f"; other programs used {100 * share:.0f}% of the processors" if share >= BUSY else ""


def machine_words(machine: Machine) -> str:
    """Say where costs were measured, and what share of it others used, if it is worth saying."""
    return f"Measured on {machine.name}{busy(machine)}."


def memory_words(machine: Machine) -> str:
    """Say what memory is as measured, and what it is beyond the libraries."""
    if machine.gpu:
        return (
            "As measured: what NVML says is used of the device. Beyond the libraries: what PyTorch "
            "has allocated."
        )
    return (
        "As measured: the process's resident set. Beyond the libraries: without that of a process "
        "that only imports them."
    )
