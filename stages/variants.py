"""Stage `variants`: train and score the study's variants: the sweep's cells, and the ledger's."""

from collections.abc import Mapping
from pathlib import Path

from peft_study.errors import run_command
from peft_study.files import read_record, write_json
from peft_study.findings.evaluate import evaluate_variants, say_unlearned, write_swept_histories
from peft_study.records.scores import Cell
from peft_study.records.variants import VariantRuns
from peft_study.running.jobs import run_variants
from peft_study.stage_configs import Start, VariantCell, VariantsConfig
from peft_study.study import RunnerParams, load_study
from peft_study.variants import RUNS, differing

FOLDER, METRICS, ROWS = Path(RUNS), Path("metrics"), Path("metrics/rows/variants")


def main() -> None:
    config, study = read_record(Path("configs/variants.json"), VariantsConfig), load_study()
    cells = differing(config.cells)
    found = run(cells, config.starts, study.runner)
    entries = config.ledger
    if entries:
        from peft_study.data.prepare import prepare_apart
        from peft_study.findings.combinations import combinations
        from peft_study.findings.results import load_ids, load_values
        from peft_study.resolver import Resolver, encoder_of
        from peft_study.variants import resolve_combinations, together

        resolver = Resolver.of(study, encoder_of(study))
        runs = [cell.config.run for cell in cells.values()]
        metrics = {run.task: run.definition.metrics[0] for run in runs}
        scored = entries, found, load_values, load_ids, metrics
        chosen = combinations(*scored, config.together, together(resolver))
        more, apart = resolve_combinations(resolver, config.rows, chosen)
        prepare_apart(apart)
        found |= run(more.cells, more.starts, study.runner)
        cells, entries = cells | more.cells, (*entries, *more.ledger)
    # Folders that git and DVC keep although there is no variant.
    for folder in (FOLDER, ROWS):
        write_json(folder / "cells.json", sorted(cells))
    write_json(METRICS / "runs/variants.json", VariantRuns(found, entries))
    write_swept_histories(cells, FOLDER, METRICS / "histories/sweep.csv")
    print(f"variants: wrote metrics/runs/variants.json ({len(cells)} cells)")


def run(
    cells: Mapping[str, VariantCell], starts: Mapping[str, Start], runner: RunnerParams
) -> dict[str, Cell]:
    """Train the starts, then the cells, each in one pool; return the scores of the cells."""
    if not cells:
        return {}
    run_variants(starts, cells, FOLDER, runner)
    found = evaluate_variants(cells, FOLDER, ROWS)
    for cell in found.values():
        say_unlearned(cell)
    return found


if __name__ == "__main__":
    run_command(main)
