"""The page's tables, each with the files that its numbers came from."""

import statistics
from collections.abc import Sequence
from dataclasses import replace

from peft_study.findings import chance, wording
from peft_study.findings.page import papers
from peft_study.findings.page.cost_tables import ISO_ACCURACY, PROFILE, cost_tables, setting
from peft_study.findings.page.differences import difference_tables
from peft_study.findings.page.fronts import front_tables
from peft_study.findings.page.ledger import ledger_tables
from peft_study.findings.page.table import Table
from peft_study.findings.page.tuning import tuning_tables
from peft_study.findings.results import PublishedRow, Results
from peft_study.findings.wording import (
    GAP,
    interval,
    percent,
    points,
    two_digits,
)
from peft_study.records.costs import (
    Parity,
    Recipe,
)
from peft_study.records.scores import Rows
from peft_study.records.study import StudyInfo

STATISTICS, PARITY = "metrics/statistics.json", "metrics/parity.json"
CERTIFICATES = "metrics/certificates.json"
JUDGED = {"cross_fitted": "Cross-fitted mean", "last": "Mean"}
ABOUT_PUBLISHED = ["Published result", "Model", "Method", "LoRA on", "Metric"]
SPREAD = "median ± standard deviation over seeds"


def tables(results: Results, published: Sequence[PublishedRow]) -> dict[str, list[Table]]:
    """Return the tables that have rows, by the section of the page that shows them."""
    study, parity = results.study, results.parity
    found = {
        "scores": [
            _scores(results),
            *difference_tables(results),
            _overall(results),
            *(front_tables(results) if results.cells else ()),
            *(make(results) for make in (_cells, _sweep)),
        ],
        "ledger": ledger_tables(results),
        "tuning": tuning_tables(results),
        "published": [_published(published, study), _without(published, study)],
        "costs": cost_tables(results),
        "certificates": [_certificates(results)],
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
    own += filter(None, [wording.unmeasured(results.study)])
    return Table("scores", caption, grid.head, rows, sources, notes=(*gaps, *own, note))


def _seeds(results: Results) -> str:
    counts = [len(cell.seeds) for cell in results.cells.values()]
    return wording.counted(counts or [0], "seed")


def _overall(results: Results) -> Table:
    rows = []
    for row in sorted(results.statistics.overall, key=lambda of: of.rank):
        found = [f"{row.rank:g}", interval(row.rank_low, row.rank_high, str)]
        if row.iqm is not None:
            better = GAP if row.better is None else two_digits(row.better)
            found += [percent(row.iqm), interval(row.iqm_low, row.iqm_high, percent)]
            found += [better, interval(row.better_low, row.better_high, two_digits)]
        rows.append([results.study.label(row.method), *found])
    head, caption = ["Over all tasks", "Rank", "95% interval"], "ranks, 1 the best"
    notes = [
        "Rank: of the mean over tasks. Its interval leaves out the methods that are told apart by "
        "that mean, corrected (Holm) for all pairs, so that all ranks hold together. They speak of "
        "these tasks: on others, methods may rank otherwise."
    ]
    if rows and len(rows[0]) > len(head):
        head += ["IQM", "95% interval", "Better than full fine-tuning", "95% interval"]
        caption += ", interquartile mean, probability of improvement"
        notes.append(
            "IQM, probability of improvement: Agarwal et al. 2021; intervals stratified by task, "
            "over seeds and held-out rows."
        )
    caption = f"Methods over all tasks: {caption}"
    return Table("overall", caption, head, rows, [STATISTICS], notes=tuple(notes))


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


def _certificates(results: Results) -> Table:
    grid, found = papers.certificates(results), results.certificates
    about = f" on {found.model}, before anything was trained" if found else ""
    notes = (
        "Trained: parameters besides the head. The other numbers are the largest differences of "
        "logits, as fractions of the largest logit: at the start from the encoder; packed from "
        "padded rows; saved and loaded again, by the study and by the library's own loader; merged "
        "from unmerged. All but the first and the last must be within "
        f"{found.tolerance if found else 0:.0e}.",
        f"In {found.steps if found else 0} training steps every tensor of the adapter had a "
        "gradient and moved, no frozen weight changed by a bit, the method's hooks were called, "
        "and two runs of one seed were equal to the bit.",
    )
    caption = f"The certificate of every method{about}"
    return Table("certificates", caption, grid.head, grid.rows, [CERTIFICATES], (9,), notes)


def _counts(parity: Parity, study: StudyInfo) -> Table:
    settings, rows = parity.settings, []
    methods = [recipe.method for recipe in settings.values()]
    order = sorted(
        (methods.index(at.method), at.rank or 0, at.bottleneck or 0, len(at.weights), name)
        for name, at in settings.items()
    )
    for *_, name in order:
        shown = [f"{n[name].adapter:,}" if name in n else GAP for n in parity.counts.values()]
        rows.append([setting(settings[name], study), *shown])
    caption = "Trainable parameters without the head, equal in all implementations"
    return Table("counts", caption, ["Setting", *parity.counts], rows, [PARITY])


def _parity(parity: Parity, study: StudyInfo) -> Table:
    rows, notes = [], (f"Tolerance: {parity.tolerance:.0e}.", *parity.checked)
    for found in parity.differences:
        other = setting(Recipe(found.method, weights=found.weights), study)
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
