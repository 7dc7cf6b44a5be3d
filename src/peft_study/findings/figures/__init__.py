"""The study's figures, in the order of the page. A new one is a module here and a line below."""

from collections.abc import Sequence
from dataclasses import replace

from peft_study.findings.figures import (
    costs,
    curves,
    equal_scores,
    fronts,
    ledger,
    scores,
    sweep,
    tuning,
)
from peft_study.findings.figures.figure import Figure
from peft_study.findings.results import PublishedRow, Results
from peft_study.findings.wording import marked, sentences, unmeasured

COSTS = (costs.step_time, costs.memory, costs.latency)


def figures(results: Results, published: Sequence[PublishedRow]) -> list[Figure]:
    """Return the figures whose data are there; any part of the results may be missing."""
    profile, study, iso = results.profile, results.study, results.iso_accuracy
    cells = scores.main_cells(results)
    counted = [
        cell
        for cell in cells
        if (runs := results.cells.get((cell.method, cell.task))) and runs.trainable
    ]
    defined = [point for point in results.stability if point.cv is not None]
    ranks = {cell.rank for cell in results.main_sweep}
    found = [
        scores.scores(results, cells, published) if cells else None,
        scores.parameters(results, counted) if counted else None,
        fronts.front(results) if results.cells else None,
        fronts.ranks(results) if results.cells else None,
        curves.curves(results) if results.curves else None,
        curves.stability(results, defined) if defined else None,
        ledger.ledger(results, results.ledger) if results.ledger else None,
        tuning.tuning(results, results.tuning) if results.tuning else None,
        tuning.trials(results, results.tuning) if results.tuning else None,
        sweep.rank_weights(results) if ranks else None,
        sweep.rank_curves(results) if len(ranks) > 1 else None,
        sweep.rank_learning_curves(results) if results.sweep_curves else None,
        *([make(profile, study) for make in COSTS] if profile else []),
        equal_scores.equal_scores(results, iso) if iso and iso.runs else None,
    ]
    return [
        replace(
            figure,
            title=marked(figure.title, study),
            caption=sentences(
                figure.caption,
                "" if figure.name.startswith(("scores", "rank", "ledger")) else unmeasured(study),
            ),
        )
        for figure in found
        if figure is not None
    ]
