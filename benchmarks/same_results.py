"""Are the results of two checkouts of the project equal, byte for byte?

Compared are the prepared data, the runs, their scores, and the counts of parameters in
`metrics/parity.json`; not what holds seconds or lists runs, nor the copies that tasks start from.

    python benchmarks/same_results.py OLD NEW
"""

import argparse
import filecmp
import sys
from pathlib import Path

from peft_study.files import read_json

GROUPS = ("data/intermediate", "data/prepared", "init", "runs", "metrics/runs")
PARITY = Path("metrics/parity.json")
LEFT_OUT = {"timings.csv", "manifest.json", "seeds.json"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("old", type=Path, metavar="OLD")
    parser.add_argument("new", type=Path, metavar="NEW")
    arguments = parser.parse_args()
    old, new, problems = arguments.old, arguments.new, []
    for group in GROUPS:
        before, after = results(old, group), results(new, group)
        for name in sorted(before ^ after):
            problems.append(f"missing in {new if name in before else old}: {name}")
        for name in sorted(before & after):
            if not filecmp.cmp(old / name, new / name, shallow=False):
                problems.append(f"differs: {name}")
        print(f"{group}: compared {len(before & after)} files")
    counts = [
        read_json(checkout / PARITY)["counts"] if (checkout / PARITY).is_file() else None
        for checkout in (old, new)
    ]
    if None in counts or counts[0] != counts[1]:
        problems.append(f"differs or is missing: counts in {PARITY}")
    print("\n".join(problems) or "all are equal")
    sys.exit(bool(problems))


def results(checkout: Path, group: str) -> set[Path]:
    """Return the places of the files below `group` that are compared."""
    places = {p.relative_to(checkout) for p in (checkout / group).rglob("*") if p.is_file()}
    return {p for p in places if p.name not in LEFT_OUT and not p.match("init/*/start/*")}


if __name__ == "__main__":
    main()
