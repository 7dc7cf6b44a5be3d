"""What published studies claim, and whether this study supports or contradicts it.

`claims.yaml` has the words of a claim: what its source says, how that is read and what is compared.
`rules.py` has a rule for each, `estimates.py` how intervals decide.
"""

from pathlib import Path

from pydantic import TypeAdapter
from ruamel.yaml import YAML

from peft_study.findings.claims.estimates import INCONCLUSIVE, NOT_MEASURED
from peft_study.findings.claims.rules import RULES
from peft_study.findings.results import Claim, Results
from peft_study.records import Record


class Entry(Record):
    """An entry of `claims.yaml`, which says what each key is."""

    id: str
    title: str
    source: str
    statement: str
    quantity: str
    supports: str
    contradicts: str
    settles: str
    claimed_on: dict[str, list[str]]


def load_claims() -> list[Entry]:
    """Return the entries of `claims.yaml`."""
    text = Path(__file__).with_name("claims.yaml").read_text(encoding="utf-8")
    return TypeAdapter(list[Entry]).validate_python(YAML(typ="safe", pure=True).load(text))


def claims(results: Results) -> list[Claim]:
    """Judge every entry of `claims.yaml` by a study's results, in its order.

    `settles` says what would decide an open claim, `differs` what the source had otherwise.
    """
    judged = []
    for entry in load_claims():
        rule, files = RULES[entry.id]
        found = rule(results)
        is_open = found.verdict in (INCONCLUSIVE, NOT_MEASURED)
        settles = f"{found.needs} {entry.settles}".strip() if is_open else None
        differs = _differs(entry.claimed_on, results, found.tasks)
        said = entry.id, entry.title, entry.source, entry.statement, entry.quantity
        judged.append(Claim(*said, found.verdict, found.finding, settles, differs, files))
    return judged


def _differs(claimed: dict[str, list[str]], results: Results, tasks: tuple[str, ...]) -> str | None:
    """Say how model, data and hardware differ from the claim's, where the claim names them."""
    model, here = results.study.model.short, tasks or tuple(results.study.main_metrics)
    hardware = results.profile.machine.name if results.profile else ""
    texts = [
        f"{kind} {ours} (the source: {', '.join(theirs)})"
        for kind, ours, theirs, same in (
            ("model", model, claimed["models"], model in claimed["models"]),
            ("data", ", ".join(here), claimed["tasks"], set(here) == set(claimed["tasks"])),
            ("hardware", hardware, claimed["hardware"], hardware in claimed["hardware"]),
        )
        if ours and theirs and not same
    ]
    return f"Here {'; '.join(texts)}." if texts else None
