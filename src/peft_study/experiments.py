"""DVC's experiments as a table that fits a terminal: `make experiments`.

Rows are experiments; columns are the parameters, and the main scores, that differ between them.
"""

import json
import subprocess
import sys
from collections.abc import Iterator

import pandas as pd

from peft_study.errors import StudyError, run_command
from peft_study.findings.wording import GAP, median_and_std


def shown() -> str:
    """Return the table, or a sentence without experiments; raise StudyError if DVC lists none."""
    command = [sys.executable, "-m", "dvc", "exp", "show", "--json"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise StudyError(found.stderr.strip().splitlines()[-1])
    rows = {}
    for baseline in json.loads(found.stdout):
        rows[baseline.get("name") or baseline["rev"][:7]] = _columns(baseline)
        for experiment in baseline.get("experiments") or ():
            (newest, *_) = experiment["revs"]
            rows[experiment["name"]] = _columns(newest)
    table = pd.DataFrame.from_dict(rows, orient="index").fillna(GAP)
    differing = [column for column in table if table[column].nunique() > 1]
    return table[differing].to_string() if differing else "no experiment differs from the workspace"


def _columns(state: dict[str, object]) -> dict[str, str]:
    """Return the parameters and main scores of one state of the project, as shown."""
    data = state.get("data")
    if not isinstance(data, dict):
        return {}
    files = (("params", "params.yaml"), ("metrics", "metrics/summary.json"))
    params, metrics = (data.get(k, {}).get(path, {}).get("data") or {} for k, path in files)
    columns = {key: str(value) for key, value in leaves(params) if value != {}}
    for task, methods in metrics.items():
        for method, score in methods.items():
            columns[f"{task} {method}"] = median_and_std(score["median"], score["std"])
    return columns


def leaves(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Yield the dotted path of everything in nested mappings, and what is there; {} is a leaf."""
    if isinstance(value, dict) and value:
        for name, part in value.items():
            yield from leaves(part, f"{key}.{name}" if key else name)
    else:
        yield key, value


if __name__ == "__main__":
    run_command(lambda: print(shown()))
