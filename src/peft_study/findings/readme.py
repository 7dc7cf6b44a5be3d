"""Write the last run's results into README.md, between its markers: `make readme`."""

from collections.abc import Sequence
from pathlib import Path

from peft_study.errors import StudyError, run_command
from peft_study.files import read_record, replacing
from peft_study.findings.page.papers import readme_table
from peft_study.findings.results import METRICS, Claim, FigureInfo, Results, load_results

BEGIN = "<!-- results: written by make readme from metrics/ and plots/ -->"
END = "<!-- end of results -->"


def shown_results(results: Results, claims: Sequence[Claim], figures: Sequence[FigureInfo]) -> str:
    """Return the table of scores, the figure of scores and the table of verdicts, in Markdown."""
    parts = [readme_table(results)]
    parts += [f"![{figure.alt}]({figure.svg})" for figure in figures if figure.name == "scores"]
    rows = [f"| {claim.title} | {claim.source} | {claim.verdict} |" for claim in claims]
    parts.append("\n".join(["| claim | source | verdict here |", "| --- | --- | --- |", *rows]))
    return "\n\n".join(parts)


def with_results(readme: str, results: str) -> str:
    """Return a README's text with `results` between the markers; StudyError if one is missing."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise StudyError(f"README.md: the markers '{BEGIN}' and '{END}' are missing")
    return f"{before}{BEGIN}\n{results}\n{END}{after}"


def main() -> None:
    path, results = Path("README.md"), load_results()
    claims = read_record(METRICS / "claims.json", tuple[Claim, ...])
    figures = read_record(Path("plots/figures.json"), tuple[FigureInfo, ...])
    shown = shown_results(results, claims, figures)
    with replacing(path) as temporary:
        temporary.write_text(with_results(path.read_text(encoding="utf-8"), shown))
    print("readme: wrote the results into README.md")


if __name__ == "__main__":
    run_command(main)
