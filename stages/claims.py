"""Stage `claims`: verdicts on published claims, and published numbers beside the study's own."""

from pathlib import Path

from peft_study.errors import run_command
from peft_study.files import write_json
from peft_study.findings.claims import claims
from peft_study.findings.published import published
from peft_study.findings.results import load_results


def main() -> None:
    results = load_results()
    verdicts = claims(results)
    write_json(Path("metrics/claims.json"), verdicts)
    write_json(Path("metrics/published.json"), published(results))
    for claim in verdicts:
        print(f"{claim.verdict:>13}  {claim.id}")
    print("claims: wrote metrics/claims.json, metrics/published.json")


if __name__ == "__main__":
    run_command(main)
