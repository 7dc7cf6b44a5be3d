"""What the page says of Pareto fronts: sentences and tables."""

from peft_study.findings.front import (
    COSTS,
    Point,
    costs_of,
    front_words,
    fronts,
    left_out,
    shown,
    unmeasured,
)
from peft_study.findings.page.table import Table
from peft_study.findings.results import Results
from peft_study.findings.wording import GAP, percent


def front_sentences(results: Results) -> list[str]:
    """Say which methods no other beats in both score and cost, over all tasks."""
    found, label = fronts(results), results.study.label
    if not found:
        return ["No method has learned all tasks of the study: none is compared by score and cost."]
    tested = results.statistics.over_tasks
    chance = "One seed does not tell by how much chance decides who is on a front."
    if tested:
        chance = "Who is on a front is by medians, so that chance has a part in it. Methods are "
        chance += f"told apart by the mean over tasks, at 5%, corrected (Holm) for {len(tested)} "
        chance += f"pair{'' if len(tested) == 1 else 's'}."
    out = [f"{label(name)} {why}" for name, why in left_out(results).items()]
    without = [f"On no front: {'; '.join(out)}."] if out else []
    sentences = [" ".join(front_words(results, front)) for front in found]
    return [*sentences, *filter(None, [unmeasured(results)]), *without, chance]


def front_tables(results: Results) -> list[Table]:
    """Return each method's score and costs with the fronts that it is on, and the fronts by task.

    A single task has no table by task.
    """
    study, found = results.study, fronts(results)
    costs = [front.cost for front in found]
    of_method: dict[str, dict[str, Point]] = {}
    for front in found:
        for point in front.points:
            of_method.setdefault(point.method, {})[front.cost] = point
    order = sorted(of_method.items(), key=lambda item: -next(iter(item[1].values())).score)
    rows = []
    for name, points in order:
        values = [shown(cost, points[cost].cost) if cost in points else GAP for cost in costs]
        score = percent(next(iter(points.values())).score)
        on = [cost for cost, point in points.items() if point.on_front]
        alike = {cost: point.alike for cost, point in points.items() if point.alike}
        doubts = [f"{cost}: {study.label(of[0])}" for cost, of in alike.items()]
        of = [study.cited(name), score, *values, ", ".join(on) or GAP, "; ".join(doubts) or GAP]
        rows.append(of)
    head = ["Method", "Score", *(COSTS[cost].capitalize() for cost in costs)]
    head += ["On the front by", "Not told apart from"]
    sources = ["metrics/statistics.json", "metrics/runs", "metrics/profile.json"]
    notes = (
        "Score: the mean of the tasks' medians, of rows that chose no evaluation. On the front: no "
        "other method has as good a score at a lower cost, or a better one at no higher cost; what "
        f"has not learned is left out. {unmeasured(results)}",
        "Not told apart, by the mean over tasks, corrected (Holm) for all pairs: of what is on a "
        "front, the cheapest that costs less; of what is not, the cheapest that beats it, if none "
        "of those is told apart.",
    )
    caption, words = "Score and cost, and what no other method beats in both", len(head)
    whole = Table("front", caption, head, rows, sources, (words - 2, words - 1), notes)
    return [whole, _by_task(results)] if len(study.tasks) > 1 else [whole]


def _by_task(results: Results) -> Table:
    rows, label = [], results.study.label
    for task in results.study.main_metrics:
        by_cost = {front.cost: front.members for front in fronts(results, task)}
        known = [cost for cost in COSTS if costs_of(results, cost, task)]
        cells = dict.fromkeys(known, "none has learned")
        cells |= {
            cost: "; ".join(f"{label(of.method)} {percent(of.score)}" for of in members)
            for cost, members in by_cost.items()
        }
        rows.append([task, *(cells.get(cost, "not measured on it") for cost in COSTS)])
    head = ["Front of the task", *(f"By {words}" for words in COSTS.values())]
    note = "By medians alone, the cheapest first: of single tasks no test tells who is on a front "
    note += "by chance. Costs are those of the task itself."
    caption = "What no other method beats in both score and cost, task by task"
    sources = ["metrics/statistics.json", "metrics/runs", "metrics/profile.json"]
    return Table("front-by-task", caption, head, rows, sources, (1, 2, 3), (note,))
