"""The study as one page: findings in words, every table and figure, and what they came from."""

import base64
import hashlib
import re
import statistics
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from peft_study.findings.aggregate import METHOD_NAMES
from peft_study.findings.page.papers import (
    GAP,
    MINUS,
    grids,
    median_and_std,
    number,
    score_cells,
    study_methods,
    trained,
)
from peft_study.findings.results import Results

FULL = "full_ft"
LORAS = ("lora", "peft_lora", "loralib_lora")
# With a word beside it: a verdict must not hang on a sign or a colour alone.
SYMBOLS = {"supported": "✔", "contradicted": "✘", "inconclusive": "?", "not measured": "○"}
PHASES = ("forward", "backward", "optimiser", "step")
BUSY = 0.05  # the share of the processors from which on others' work belongs to the findings

# `ast`: expressions are interpreted, since the page's policy forbids to evaluate text as code.
# To those who hear the page, a figure is one image with one description.
DRAW = """
const specs = JSON.parse(document.getElementById("specs").textContent);
const options = {actions: false, renderer: "svg", ast: true};
for (const place of document.querySelectorAll("[data-figure]")) {
  vegaEmbed(place, specs[place.dataset.figure], options)
    .then(() => {
      place.querySelector("svg").setAttribute("aria-hidden", "true");
      place.setAttribute("data-drawn", "");
    })
    .catch((error) => {
      place.textContent = `This figure could not be drawn: ${error.message}`;
      console.error(error);
    });
}
"""


@dataclass(frozen=True)
class Table:
    """A table as shown; the first cell of a row is its heading.

    Attributes:
        name: unique on the page.
        words: the columns besides the first that hold words; the others hold numbers.
        sources: the files that the numbers came from.
    """

    name: str
    caption: str
    head: list[str]
    rows: list[list[str]]
    sources: list[str]
    words: tuple[int, ...] = ()
    notes: list[str] = field(default_factory=list)


def render(
    results: Results,
    claims: list[dict[str, Any]],
    published: list[dict[str, Any]],
    figures: list[dict[str, Any]],
    specs: dict[str, dict[str, Any]],
    ran: dict[str, Any],
) -> str:
    """Return the page, which needs no other file and no network.

    Args:
        results: what the study found.
        claims: `metrics/claims.json`.
        published: `metrics/published.json`.
        figures: `plots/figures.json`.
        specs: the figures' Vega-Lite specifications, by name.
        ran: `commit` (None outside of a repository), `machine` and `packages` (as in
            `metrics/profile.json` and `requirements.lock`), `seconds_of_training`, and `data`, the
            rows of each task's splits and a hash of their ids.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = _script()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rank = list(SYMBOLS).index
    return environment.get_template("report.html.jinja").render(
        study=results.study,
        overview=_overview(results),
        findings=findings(results, claims),
        claims=sorted(claims, key=lambda claim: rank(claim["verdict"])),
        symbols=SYMBOLS,
        scores=_score_tables(results),
        published=_published(published),
        citations=list(dict.fromkeys(row["citation"] for row in published)),
        figures=figures,
        specs={figure["name"]: specs[figure["name"]] for figure in figures},
        costs=_cost_tables(results),
        energy=_energy_words(results.profile),
        parity=_parity_tables(results),
        ran=_ran_tables(ran),
        parameters=_lines(results.study["params"]),
        script=Markup(script),
        digest=digest,
    )


def findings(results: Results, claims: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return what the numbers say, in sentences made by rule, by the question they answer."""
    return {
        "Does LoRA match full fine-tuning?": _match(results),
        "At what cost?": _costs(results),
        "What could not be said": _unsaid(results, claims),
    }


def conclusion(difference: dict[str, Any]) -> tuple[str, str]:
    """Return what a difference between two methods shows.

    Returns:
        `equivalent`, `better`, `worse` or `undecided`, and the same in words. Better and worse
        mean that the 95% interval excludes zero; equivalence within the margin goes first.
    """
    margin = f"±{_percent(difference['margin'])} points"
    if difference["low"] is None:
        return "undecided", "undecided: there is no interval without a second seed"
    other = difference["low"] > 0 or difference["high"] < 0
    if difference["equivalent"]:
        but = ", though not zero" if other else ""
        return "equivalent", f"equivalent within {margin}{but}"
    if other:
        verdict = "better" if difference["mean"] > 0 else "worse"
        return verdict, f"{verdict}: the interval excludes zero"
    needed = difference["detectable"]
    hint = "" if needed is None else f"; {_percent(needed)} points would have been significant"
    return "undecided", f"undecided: neither a difference nor equivalence within {margin}{hint}"


def _match(results: Results) -> list[str]:
    """Compare the study's first LoRA with full fine-tuning, task by task."""
    methods, main = results.study["methods"], results.study["main_metrics"]
    if not methods:
        return ["No method was trained on the tasks: the study is a sweep of LoRA's settings."]
    lora = next((name for name in LORAS if name in methods), None)
    if lora is None or FULL not in methods:
        missing = METHOD_NAMES[FULL] if lora else "LoRA"
        return [f"{missing} is not part of the study, so the two are not compared."]
    found = {
        row["task"]: row
        for row in results.main_differences
        if row["method"] == lora and row["reference"] == FULL
    }
    verdicts: dict[str, list[str]] = {}
    sentences = []
    for task, metric in main.items():
        if task not in found:
            sentences.append(f"{task}: not compared, because results are missing.")
            continue
        row = found[task]
        verdict, words = conclusion(row)
        verdicts.setdefault(verdict, []).append(task)
        seeds = "1 seed" if row["n"] == 1 else f"{row['n']} seeds"
        interval = "" if row["low"] is None else f" (95% interval {_interval(row, _points)})"
        sentences.append(
            f"{task} ({metric}): {METHOD_NAMES[lora]} minus full fine-tuning is "
            f"{_points(row['mean'])} points{interval} over {seeds}; {words}."
        )
    said = {
        "equivalent": "is equivalent to",
        "better": "is better than",
        "worse": "is worse than",
        "undecided": "cannot be told from, nor called equivalent to,",
    }
    summary = [
        f"{METHOD_NAMES[lora]} {words} full fine-tuning on {len(verdicts[verdict])} of "
        f"{len(main)} tasks ({', '.join(verdicts[verdict])})."
        for verdict, words in said.items()
        if verdict in verdicts
    ]
    return summary + sentences


def _costs(results: Results) -> list[str]:
    """Say what the study's first LoRA costs beside full fine-tuning."""
    lora = next((name for name in LORAS if name in results.study["methods"]), None)
    if lora is None:
        return ["LoRA is not part of the study."]
    name, sentences = METHOD_NAMES[lora], []
    ours, all_of_them = trained(results, lora), trained(results, FULL)
    if ours and all_of_them:
        share = f"{100 * max(ours) / max(all_of_them):.2g}%"
        sentences.append(
            f"{name} trains {max(ours):,} parameters besides the head, {share} of the "
            f"{max(all_of_them):,} that full fine-tuning trains."
        )
    profile = results.profile
    if not profile:
        return [*sentences, "Time and memory were not measured."]
    training, memory = profile["training"], profile["memory"]
    if lora in training and FULL in training:
        sentences.append(
            f"A training step of {name} takes {training[lora]['ratio']['median']:.2f} times as "
            f"long as one of full fine-tuning{_range(training[lora]['ratio'])}, on "
            f"{profile['task']} in batches of {profile['batch_size']}."
        )
    if lora in memory and FULL in memory:
        peak, full = memory[lora]["peak"], memory[FULL]["peak"]
        libraries = memory[lora]["parts"]["libraries"]
        of_them = f", {_megabytes(libraries)} MB of either being libraries" if libraries else ""
        sentences.append(
            f"It needs {_megabytes(peak)} MB at its peak against {_megabytes(full)} MB "
            f"({peak / full:.2f} times{of_them}), and stores {_megabytes(memory[lora]['stored'])} "
            f"MB per task against {_megabytes(memory[FULL]['stored'])} MB."
        )
    merged = profile["inference"].get("lora merged")
    if merged:
        ratio = merged["batch_1"]["ratio"]
        sentences.append(
            f"Merged into the weights, it computes one example in {ratio['median']:.2f} times the "
            f"pretrained model's time{_range(ratio)}{_noise(ratio)}."
        )
    return sentences


def _unsaid(results: Results, claims: list[dict[str, Any]]) -> list[str]:
    """Name what is missing, and what makes the numbers weaker than they look."""
    sentences = []
    gaps = results.statistics["gaps"]
    if gaps:
        named = ", ".join(f"{METHOD_NAMES[gap['method']]} on {gap['task']}" for gap in gaps)
        sentences.append(f"Without results, and in no average: {named}.")
    if len(results.study["seeds"]) == 1:
        sentences.append("One seed gives neither a spread nor an interval.")
    for verdict in ("inconclusive", "not measured"):
        of_them = [claim for claim in claims if claim["verdict"] == verdict]
        if of_them:
            sentences.append(
                f"Claims {verdict}: {len(of_them)} of {len(claims)}; see the verdicts."
            )
    if not results.profile:
        return [*sentences, "What the methods cost in time, memory and energy was not measured."]
    share = results.profile["machine"]["other_cpu_share"]
    if share >= BUSY:
        sentences.append(
            f"Other programs used {100 * share:.0f}% of the processors while times were measured: "
            "ratios, whose parts were measured in turns, say more than seconds."
        )
    if results.profile["energy"]["source"] in (None, "estimate"):
        sentences.append(_energy_words(results.profile))
    return sentences or ["Nothing that the study set out to measure is missing."]


def _overview(results: Results) -> dict[str, str]:
    """Say what was studied, by heading."""
    study = results.study
    model, init, sweep = study["model"], study["mnli_init"], study["sweep"]
    revision = f" at revision {model['revision']}" if model["revision"] else ""
    found = {
        "Model": f"{model['name']}{revision}, texts of up to {model['max_length']} tokens",
        "Data": _settings(study["data"]),
        "Tasks": ", ".join(f"{task} ({metric})" for task, metric in study["main_metrics"].items()),
        "Seeds": ", ".join(map(str, study["seeds"])),
        "Result of a run": f"its {study['report']} evaluation",
    }
    for method in study_methods(results):
        settings = _settings(study["adapters"].get(method, {}))
        found[METHOD_NAMES[method]] = "all weights are trained" if method == FULL else settings
    if init["mode"] != "none" and init["tasks"]:
        start = {"per_method": "each method's own weights", "full_ft": "one encoder for all"}
        found["Intermediate task"] = (
            f"{', '.join(init['tasks'])} start from {init['task']}: {start[init['mode']]}"
        )
    if sweep["ranks"]:
        ranks, weights = ", ".join(map(str, sweep["ranks"])), ", ".join(sweep["weights"])
        found["Sweep"] = f"{sweep['task']}: ranks {ranks}; weights {weights}"
    if study["published"]:
        found["Reproduces"] = "; ".join(study["published"])
    return {heading: words for heading, words in found.items() if words}


def _score_tables(results: Results) -> list[Table]:
    main, cells = results.study["main_metrics"], score_cells(results)
    source, shown = "metrics/statistics.json", grids(results)
    tables = []
    if "scores" in shown:
        grid = shown["scores"]
        rows = [
            [heading, count, *_with_seeds(scores, method, main, cells), average]
            for method, (heading, count, *scores, average) in zip(
                study_methods(results), grid.rows, strict=True
            )
        ]
        baseline = [results.summary.get(task, {}).get("baseline", {}) for task in main]
        best = [
            _percent(found[metric]) if metric in found else GAP
            for found, metric in zip(baseline, main.values(), strict=True)
        ]
        rows.append(["Majority class or mean", "0", *best, GAP])
        caption = "Scores times 100: median ± standard deviation over seeds (number of seeds)"
        notes = [
            f"Gap: {METHOD_NAMES[gap['method']]} on {gap['task']} has no results."
            for gap in results.statistics["gaps"]
        ]
        notes.append(
            "Trainable parameters without the head. Avg. is the mean of the tasks' medians, and "
            "absent where one is."
        )
        sources = [source, "metrics/summary.json"]
        tables.append(Table("scores", caption, grid.head, rows, sources, notes=notes))
    rows = [
        [
            f"{row['task']}: {_cell_name(row['method'])} {MINUS} {_cell_name(row['reference'])}",
            _points(row["mean"]),
            _interval(row, _points),
            str(row["n"]),
            _p(row["p"]),
            _p(row["p_equivalence"]),
            conclusion(row)[1],
        ]
        for row in results.main_differences
    ]
    head = ["Difference", "Points", "95% interval", "n", "p", "p of equivalence", "Conclusion"]
    caption = "Differences in points (score times 100), paired by seed"
    notes = ["p: paired t-test. p of equivalence: two one-sided tests at the study's margin."]
    tables.append(Table("differences", caption, head, rows, [source], words=(6,), notes=notes))
    rows = [
        [
            f"{task}: {METHOD_NAMES[method]}",
            metric,
            median_and_std(cell),
            _percent(cell["mean"]),
            _interval(cell, _percent),
            f"{_percent(cell['min'])} to {_percent(cell['max'])}",
            GAP if cell["cv"] is None else f"{cell['cv']:.3f}",
            str(cell["n"]),
        ]
        for (method, task, metric), cell in cells.items()
    ]
    head = ["Cell", "Metric", "Median ± std", "Mean", "95% interval", "Range", "CV", "n"]
    caption = "Every metric of every cell, times 100, with bootstrap intervals of the mean"
    sources = [source, "metrics/stability.json"]
    tables.append(Table("cells", caption, head, rows, sources, words=(1,)))
    if "sweep" in shown:
        caption = (
            "LoRA by weights and rank: scores times 100, median ± standard deviation over seeds"
        )
        grid, sources = shown["sweep"], ["metrics/sweep.json"]
        tables.append(Table("sweep", caption, grid.head, grid.rows, sources))
    return _with_rows(tables)


def _with_seeds(
    scores: list[str],
    method: str,
    main: dict[str, str],
    cells: dict[tuple[str, str, str], dict[str, Any]],
) -> list[str]:
    found = [cells.get((method, task, metric)) for task, metric in main.items()]
    return [
        f"{score} ({cell['n']})" if cell else score
        for score, cell in zip(scores, found, strict=True)
    ]


def _published(published: list[dict[str, Any]]) -> list[Table]:
    rows = [
        [
            f"{row['source']}, table {row['table']}: {row['task']}",
            row["model"],
            METHOD_NAMES.get(row["method"], row["method"]).removesuffix(" (ours)"),
            _adapted(row),
            row["metric"],
            _score(row["published"], row["published_std"], row["is_fraction"]),
            _score(row["ours"], row["ours_std"], row["is_fraction"]),
            _or_gap(row["n"]),
            _change(row["difference"], row["is_fraction"]),
            row["note"] or "",
        ]
        for row in published
    ]
    head = ["Published result", "Model", "Method", "LoRA on", "Metric", "Published", "Ours", "n"]
    caption = "Published results beside ours: scores and coefficients of variation times 100"
    source = ["metrics/published.json"]
    table = Table(
        "published", caption, [*head, "Difference", "Note"], rows, source, words=(1, 2, 3, 4, 9)
    )
    return _with_rows([table])


def _cost_tables(results: Results) -> list[Table]:
    profile, source = results.profile, ["metrics/profile.json"]
    tables = []
    if profile:
        rows = [
            [
                _cell_name(name),
                *(f"{1000 * cell['seconds'][part]:,.1f}" for part in PHASES),
                f"{cell['ratio']['median']:.2f}",
                _interval(cell["ratio"], _two_digits),
                f"{cell['seconds_per_epoch']['mean']:.2f} ± {cell['seconds_per_epoch']['std']:.2f}",
                f"{cell['tokens_per_second']:,.0f}",
            ]
            for name, cell in profile["training"].items()
        ]
        head = ["Training", "Forward, ms", "Backward, ms", "Optimiser, ms", "Step, ms", "Ratio"]
        head += ["95% interval", "Epoch, s", "Tokens/s"]
        caption = f"A training step on {profile['task']}, batches of {profile['batch_size']}"
        notes = ["Ratio: median over rounds of the step's time to the reference's (ratio 1)."]
        tables.append(Table("steps", caption, head, rows, source, notes=notes))
        parts = list(dict.fromkeys(p for cell in profile["memory"].values() for p in cell["parts"]))
        rows = [
            [_cell_name(name), *(_megabytes(cell["parts"].get(part, 0)) for part in parts)]
            + [_megabytes(cell[key]) for key in ("explained", "peak", "mean", "stored")]
            for name, cell in profile["memory"].items()
        ]
        head = ["Memory", *(part.replace("_", " ").capitalize() for part in parts)]
        head += ["Explained", "Peak", "Mean", "Stored per task"]
        notes = [
            "Of activations and gradients only the larger counts as explained, since one grows "
            "while the other shrinks, unless batches are computed in pieces."
        ]
        tables.append(Table("memory", "Memory of training, MB", head, rows, source, notes=notes))
        kinds = {"batch_1": "one by one, ms", "batch_64": "in 64s, ms"}
        rows = [
            [
                _cell_name(name),
                *(text for kind in kinds for text in _latency(cell[kind], 1000.0)),
                *_latency(cell["validation_set"], 1.0),
            ]
            for name, cell in profile["inference"].items()
        ]
        head = ["Inference"]
        for kind in [*kinds.values(), "validation set, s"]:
            head += [kind.capitalize(), "5th to 95th percentile", "Ratio", "95% interval"]
        caption = "Latency: an example alone, an example in a batch of 64, the validation set"
        notes = ["Ratio: median over rounds of the time to that of the pretrained model."]
        tables.append(Table("latency", caption, head, rows, source, notes=notes))
        energy = profile["energy"]
        rows = [
            [
                _cell_name(name),
                f"{cell['joules_per_step']:.2f}",
                f"{cell['joules_per_epoch']:,.1f}",
                f"{cell['watts']:.1f}",
            ]
            for name, cell in (energy["cells"] or {}).items()
        ]
        caption = f"Energy of training ({energy['source']})"
        head = ["Training", "J per step", "J per epoch", "W"]
        tables.append(Table("energy", caption, head, rows, source))
    tables.append(_equal_scores(results.iso_accuracy))
    return _with_rows(tables)


def _equal_scores(iso_accuracy: dict[str, Any]) -> Table:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in iso_accuracy.get("runs", []):
        groups.setdefault((run["task"], run["method"]), []).append(run)
    rows = []
    for (task, method), runs in groups.items():
        reached = [run for run in runs if run["reached"]]
        rows.append(
            [f"{task}: {METHOD_NAMES[method]}", _percent(runs[0]["target"])]
            + [f"{len(reached)} of {len(runs)}"]
            + [
                f"{statistics.median(run[cost] for run in reached):.1f}" if reached else GAP
                for cost in ("epoch", "seconds")
            ]
        )
    head = ["Runs", "Target, times 100", "Reached it", "Epochs", "Seconds"]
    notes = ["Medians of the runs that reached it; the others would have needed longer."]
    if rows:
        margin = _percent(iso_accuracy["margin"])
        notes.append(
            "Target: the lower of LoRA's and full fine-tuning's medians of the best evaluation, "
            f"minus {margin} points."
        )
    caption = "What it takes to reach an equal score"
    sources = ["metrics/iso_accuracy.json"]
    return Table("equal-scores", caption, head, rows, sources, notes=notes)


def _parity_tables(results: Results) -> list[Table]:
    parity, source = results.parity, ["metrics/parity.json"]
    counts = parity.get("counts", {})
    settings = sorted({name for found in counts.values() for name in found}, key=_natural)
    rows = [
        [
            _cell_name(name),
            *(f"{found[name]['adapter']:,}" if name in found else GAP for found in counts.values()),
        ]
        for name in settings
    ]
    caption = "Trainable parameters without the head, equal in all implementations"
    counted = Table("counts", caption, ["Setting", *counts], rows, source)
    rows = [
        [_cell_name(comparison), name.replace("_", " "), f"{value:.1e}" if value else "0"]
        for comparison, values in parity.get("differences", {}).items()
        for name, value in values.items()
    ]
    head = ["Compared with ours", "Of what", "Largest difference"]
    notes = [f"Tolerance: {parity['tolerance']:.0e}." for _ in parity.get("differences", {})][:1]
    caption = f"Largest absolute differences seen on {parity.get('model', 'the model')}"
    compared = Table("parity-differences", caption, head, rows, source, words=(1,), notes=notes)
    return _with_rows([counted, compared])


def _ran_tables(ran: dict[str, Any]) -> list[Table]:
    about = {"commit": ran["commit"], **ran["machine"]}
    if "memory" in about:
        about["memory"] = f"{about['memory'] / 1e9:.1f} GB"
    if "other_cpu_share" in about:
        about["other_cpu_share"] = f"{100 * about['other_cpu_share']:.0f}%"
    about["training, all runs"] = _duration(ran["seconds_of_training"])
    machine = [
        [key.replace("_", " ").capitalize(), "none" if value is None else str(value)]
        for key, value in about.items()
    ]
    data = [
        [f"{task}: {split}", f"{found['rows']:,}", found["sha256_of_ids"]]
        for task, splits in ran["data"].items()
        for split, found in splits.items()
    ]
    packages = [[name, version] for name, version in sorted(ran["packages"].items())]
    measured = ["metrics/profile.json"] if ran["machine"] else []
    head, hashed = ["Of the run", "Value"], ["Split", "Rows", "SHA-256 of their ids"]
    tables = [
        Table("machine", "Commit, machine and time", head, machine, ["dvc.lock", *measured], (1,)),
        Table("data", "Rows used", hashed, data, ["metrics/runs"], (2,)),
        Table(
            "packages", "Versions", ["Package", "Version"], packages, ["requirements.lock"], (1,)
        ),
    ]
    return _with_rows(tables)


def _with_rows(tables: list[Table]) -> list[Table]:
    return [table for table in tables if table.rows]


def _energy_words(profile: dict[str, Any]) -> str:
    energy = profile["energy"] if profile else {"source": None, "reason": "no profile was made"}
    why = f": {energy['reason'].rstrip('.')}" if energy["reason"] else ""
    if energy["source"] is None:
        return f"Energy was not measured{why}."
    if energy["source"] == "estimate":
        return f"Energy is estimated from an assumed power, not measured{why}."
    return f"Energy was measured by {energy['source']}."


def _latency(cell: dict[str, Any], scale: float) -> list[str]:
    median, low, high = (f"{scale * cell['seconds'][key]:.2f}" for key in ("median", "p5", "p95"))
    ratio = cell["ratio"]
    return [median, f"{low} to {high}", _two_digits(ratio["median"]), _interval(ratio, _two_digits)]


def _adapted(row: dict[str, Any]) -> str:
    weights = [row["weights"]] if row["weights"] else []
    return ", ".join(weights + ([f"r = {row['rank']}"] if row["rank"] else [])) or GAP


def _score(value: float | None, std: float | None, is_fraction: bool) -> str:
    if value is None:
        return GAP
    if is_fraction:
        return median_and_std({"median": value, "std": std})
    return f"{value:,.4g}" + ("" if std is None else f" ± {std:,.2g}")


def _change(difference: float | None, is_fraction: bool) -> str:
    if difference is None:
        return GAP
    return _points(difference) if is_fraction else number(difference, "+,.4g")


def _settings(values: dict[str, Any]) -> str:
    """Show a block of parameters on one line, without what is not set."""
    shown = {
        key: "+".join(map(str, value)) if isinstance(value, list) else f"{value}"
        for key, value in values.items()
        if value is not None
    }
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in shown.items())


def _lines(values: Any, indent: str = "") -> list[str]:
    """Show nested parameters, one a line."""
    lines = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{key}:", *_lines(value, indent + "  ")]
        elif isinstance(value, list):
            lines.append(f"{indent}{key}: {', '.join(map(str, value)) or GAP}")
        else:
            lines.append(f"{indent}{key}: {GAP if value in (None, {}) else value}")
    return lines


def _cell_name(name: str) -> str:
    """Replace the method in the name of a cell such as `lora r=1`."""
    method, _, rest = name.partition(" ")
    return f"{METHOD_NAMES.get(method, method.capitalize())} {rest}".strip()


def _natural(text: str) -> list[tuple[int, str]]:
    """Order names by the numbers in them, too."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min {rest:02d} s"


def _interval(value: dict[str, Any], show: Any) -> str:
    return GAP if value["low"] is None else f"{show(value['low'])} to {show(value['high'])}"


def _range(ratio: dict[str, Any]) -> str:
    return "" if ratio["low"] is None else f" (95% interval {_interval(ratio, _two_digits)})"


def _noise(ratio: dict[str, Any]) -> str:
    return ", equal within noise" if ratio["low"] and ratio["low"] <= 1 <= ratio["high"] else ""


def _or_gap(value: Any) -> str:
    return GAP if value is None else str(value)


def _percent(value: float) -> str:
    return number(100 * value)


def _points(value: float) -> str:
    return number(100 * value, "+z.1f")


def _p(value: float | None) -> str:
    return GAP if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _two_digits(value: float) -> str:
    return f"{value:.2f}"


def _megabytes(value: float) -> str:
    return f"{value / 1e6:,.1f}"


@cache
def _script() -> str:
    """Return Vega, Vega-Lite and vega-embed with what draws the page's figures."""
    return vl_convert.javascript_bundle(DRAW)
