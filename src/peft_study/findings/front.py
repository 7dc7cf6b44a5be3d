"""Pareto fronts: which methods no other beats in both score and cost, and how sure that is.

The score is the median over seeds on a task, or the mean over tasks of a method's medians, of rows
that chose no evaluation. What has not learned decides nothing, so it is on no front and beats none.
"""

from collections.abc import Callable, Mapping
from statistics import fmean

from peft_study.findings import wording
from peft_study.findings.results import Results
from peft_study.records import Record
from peft_study.records.costs import Profile, Recipe, TaskProfile

COSTS = {
    "parameters": "trained parameters",
    "memory": "peak of memory",
    "seconds": "time of a training step",
}
BY = {"parameters": "By trained parameters", "memory": "By the peak of memory"}
BY["seconds"] = "By the time of a training step"


class Point(Record):
    """A method's score and cost, and which others no test tells it apart from, the cheapest first.

    `alike` are, of a method on the front, those that cost less; of one that is beaten, those that
    beat it, if it is told apart from none of them. It is None if no tests tell: with a single seed,
    or on a task.
    """

    method: str
    score: float
    cost: float
    on_front: bool
    alike: tuple[str, ...] | None = None


class Front(Record):
    """The methods that have a score and a cost, the cheapest first, on a task or over all."""

    task: str | None
    cost: str  # of `COSTS`
    points: tuple[Point, ...]

    @property
    def members(self) -> list[Point]:
        return [point for point in self.points if point.on_front]


def fronts(results: Results, task: str | None = None) -> list[Front]:
    """Return the fronts by every cost that is known, of a task or, without one, over all tasks."""
    scores, apart = _scores(results, task), None if task else _apart(results)
    found = [(cost, costs_of(results, cost, task)) for cost in COSTS]
    made = [Front(task, cost, _points(scores, of, apart)) for cost, of in found]
    return [front for front in made if front.points]


def costs_of(results: Results, cost: str, task: str | None = None) -> dict[str, float]:
    """Return what methods cost, by name: bytes or seconds are means over the profile's tasks."""
    if cost == "parameters":
        counts: dict[str, float] = {}
        for (name, at), cell in results.cells.items():
            if task in (None, at) and cell.trainable:
                counts[name] = max(counts.get(name, 0), cell.trainable.adapter)
        return counts
    profile = results.profile
    tasks = [of for of in (profile.tasks if profile else ()) if task in (None, of.task)]
    found = {}
    for name in results.study.labels if profile else ():
        values = [value for of in tasks if (value := _measured(profile, of, name, cost))]
        if values and len(values) == len(tasks):
            found[name] = fmean(values)
    return found


def measured(results: Results, method: str) -> Recipe | None:
    """Return at which settings a method's costs were measured."""
    tasks = results.profile.tasks if results.profile else ()
    return next((step.recipe for of in tasks if (step := of.step_of(method))), None)


def left_out(results: Results) -> dict[str, str]:
    """Return why methods have no place on the fronts over all tasks, by name."""
    scores, slow = _means(results), _failed(results, None)
    return {
        name: "has not learned every task" if name in slow else "does not have every task"
        for name in results.study.labels
        if name in slow or name not in scores
    }


def front_words(results: Results, front: Front) -> list[str]:
    """Name the methods on a front, then those that no test tells from one that costs less."""
    label = results.study.label
    named = [f"{label(of.method)} ({shown(front.cost, of.cost)})" for of in front.members]
    found = [f"{BY[front.cost]}: {'; '.join(named)}."]
    alike = [f"{label(of.method)} from {label(of.alike[0])}" for of in front.members if of.alike]
    if alike:
        found.append(f"Not told apart from what costs less: {'; '.join(alike)}.")
    near = [label(of.method) for of in front.points if of.alike and not of.on_front]
    if near:
        found.append(f"Beaten, but told apart from none that beats it: {', '.join(near)}.")
    return found


def unmeasured(results: Results) -> str:
    """Say which costs were not measured, and which otherwise than trained; "" of none."""
    if not results.profile:
        return "Memory and time were not measured: the study has no profile."
    study, tasks = results.study, ", ".join(of.task for of in results.profile.tasks)
    costs = [costs_of(results, cost) for cost in ("memory", "seconds")]
    lacking = [study.label(name) for name in study.labels if any(name not in of for of in costs)]
    told = [f"Memory and time are those of {tasks}."]
    if lacking:
        told.append(f"Not measured: {', '.join(lacking)}.")
    apart = {name: at for name in study.labels if (at := measured(results, name))}
    words = {name: wording.measured_with(at, study) for name, at in apart.items()}
    told += [f"{study.label(name)} is {of.removeprefix(', ')}." for name, of in words.items() if of]
    return " ".join(told)


def shown(cost: str, value: float) -> str:
    """Show a cost with its unit."""
    if cost == "parameters":
        return f"{value:,.0f}"
    return f"{wording.megabytes(value)} MB" if cost == "memory" else f"{1000 * value:,.0f} ms"


def _measured(profile: Profile | None, of: TaskProfile, name: str, cost: str) -> float | None:
    if cost == "seconds":
        step = of.step_of(name)
        return step.seconds.step if step else None
    memory = of.memory_of(name)
    if memory is None:
        return None
    use = memory.beyond_libraries if profile and profile.machine.gpu else memory.as_measured
    return use.peak.bytes


def _scores(results: Results, task: str | None) -> dict[str, float]:
    study = results.study
    scores = _means(results)
    if task:
        cells = results.statistics.at(study.judged)
        keys = {name: (name, task, study.main_metrics[task]) for name in study.labels}
        scores = {name: cells[key].median for name, key in keys.items() if key in cells}
    failed = _failed(results, task)
    return {name: score for name, score in scores.items() if name not in failed}


def _means(results: Results) -> dict[str, float]:
    rows = [r for r in results.statistics.averages if r.evaluation == results.study.judged]
    return {r.method: r.mean_of_medians for r in rows if r.mean_of_medians is not None}


def _failed(results: Results, task: str | None) -> set[str]:
    rows = [of for of in results.statistics.unlearned if of.whole and of.rank is None]
    return {of.method for of in rows if task in (None, of.task)}


def _apart(results: Results) -> Callable[[str, str], bool] | None:
    """Return what tells whether two methods are told apart over all tasks; None without tests."""
    rows = results.statistics.over_tasks
    known = {frozenset((row.method, row.reference)): row.differs for row in rows}
    return (lambda one, other: known.get(frozenset((one, other)), False)) if known else None


def _points(
    scores: Mapping[str, float],
    costs: Mapping[str, float],
    apart: Callable[[str, str], bool] | None,
) -> tuple[Point, ...]:
    both = sorted((costs[name], -score, name) for name, score in scores.items() if name in costs)
    found = []
    for cost, minus, name in both:
        beaters = [
            one
            for of, other, one in both
            if of <= cost and other <= minus and (of, other) != (cost, minus)
        ]
        alike: tuple[str, ...] | None = None
        if apart:
            cheaper = [one for of, _, one in both if of < cost]
            alike = tuple(one for one in beaters or cheaper if not apart(name, one))
            alike = () if len(alike) < len(beaters) else alike
        found.append(Point(name, -minus, cost, not beaters, alike))
    return tuple(found)
