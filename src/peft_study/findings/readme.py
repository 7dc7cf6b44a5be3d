"""Write the last run's results into README.md, between its markers: `make readme`."""

from pathlib import Path
from typing import Any

from peft_study.errors import StudyError, run_command
from peft_study.files import read_json, replacing
from peft_study.findings.aggregate import markdown_table
from peft_study.study import load_study

BEGIN = "<!-- results: written by make readme from metrics/ and plots/ -->"
END = "<!-- end of results -->"


def shown_results(
    summary: dict[str, Any],
    main_metrics: dict[str, str],
    claims: list[dict[str, Any]],
    figures: list[dict[str, Any]],
) -> str:
    """Return the table of scores, the figure of scores and the table of verdicts, in Markdown.

    Args:
        summary: `metrics/summary.json`.
        main_metrics: the metric to show of each task.
        claims: `metrics/claims.json`.
        figures: `plots/figures.json`.
    """
    parts = [markdown_table(summary, main_metrics)]
    parts += [f"![{f['alt']}]({f['svg']})" for f in figures if f["name"] == "scores"]
    rows = [f"| {claim['title']} | {claim['source']} | {claim['verdict']} |" for claim in claims]
    parts.append("\n".join(["| claim | source | verdict here |", "| --- | --- | --- |", *rows]))
    return "\n\n".join(parts)


def with_results(readme: str, results: str) -> str:
    """Return the text of a README with `results` between the markers.

    Raises:
        StudyError: a marker is missing.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise StudyError(f"README.md: the markers '{BEGIN}' and '{END}' are missing")
    return f"{before}{BEGIN}\n{results}\n{END}{after}"


def main() -> None:
    path = Path("README.md")
    results = shown_results(
        read_json(Path("metrics/summary.json")),
        load_study().main_metrics,
        read_json(Path("metrics/claims.json")),
        read_json(Path("plots/figures.json")),
    )
    with replacing(path) as temporary:
        temporary.write_text(with_results(path.read_text(encoding="utf-8"), results))
    print("readme: wrote the results into README.md")


if __name__ == "__main__":
    run_command(main)
