"""Stage `claims`: verdicts, published numbers beside the study's own, and what these hang on."""

from peft_study.errors import run_command
from peft_study.files import write_json
from peft_study.findings.claims import claims
from peft_study.findings.ledger import ledger
from peft_study.findings.published import published
from peft_study.findings.results import METRICS, load_ids, load_results, load_values, load_variants


def main() -> None:
    results, variants = load_results(), load_variants()
    verdicts, rows = claims(results), published(results)
    found = None
    if variants.ledger:
        cells = variants.cells, load_values, load_ids
        found = ledger(results.study, variants.ledger, *cells, rows)
    write_json(METRICS / "claims.json", verdicts)
    write_json(METRICS / "published.json", rows)
    write_json(METRICS / "ledger.json", found)
    for claim in verdicts:
        print(f"{claim.verdict:>13}  {claim.id}")
    print("claims: wrote metrics/claims.json, metrics/published.json, metrics/ledger.json")


if __name__ == "__main__":
    run_command(main)
