"""A seed's own draw of training rows: what it holds, and that only its own run depends on it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import datasets
import pytest

from conftest import make_config, run_files
from peft_study.data.draws import rows_of
from peft_study.data.prepare import clean, prepare, split
from peft_study.data.sources import Row, opinions
from peft_study.data.tasks import TASKS
from peft_study.encoders.architectures import ARCHITECTURES
from peft_study.errors import StudyError
from peft_study.files import read_json, sha256
from peft_study.findings.evaluate import evaluate
from peft_study.run_config import CellConfig, Encoder
from peft_study.running.jobs import Cell, run_cells
from peft_study.running.store import fingerprint
from peft_study.stage_configs import PrepareConfig
from peft_study.study import RayParams, RunnerParams
from peft_study.training.loop import train_run

TASK = "movie_polarity"
SEEDS = (1, 2, 3)
RUNNER = RunnerParams(
    backend="local",
    workers=2,
    checkpoint_seconds=60.0,
    store_gigabytes=1.0,
    ray=RayParams(num_cpus=1, num_gpus=0, memory_gigabytes=0.5),
)


def rows(official: bool) -> list[Row]:
    """Return 400 rows in groups of four; if `official`, their source holds out a fifth of them."""
    found = [Row(str(n), f"group {n // 4}", (f"text number {n}",), n % 2) for n in range(400)]
    if not official:
        return found
    return [replace(r, split="validation" if int(r.id) % 5 == 0 else "train") for r in found]


@pytest.fixture(params=[False, True], ids=["placed by hash", "placed by the source"])
def config(
    request: pytest.FixtureRequest, model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> PrepareConfig:
    """Return the configuration of a task of which each seed draws 60 of some 320 rows."""

    def read_rows(*_: object) -> Iterator[Row]:
        return iter(rows(request.param))

    monkeypatch.setattr(opinions, "read_rows", read_rows)
    model = Encoder(str(model_path), None, None, ARCHITECTURES["bert"])
    key, task = f"tasks.{TASK}", TASKS[TASK]
    return PrepareConfig(key, TASK, task, "opinions", {}, 0, 60, 40, model, {}, 16, SEEDS)


def ids(folder: Path, name: str = "train") -> list[str]:
    return list(datasets.load_from_disk(str(folder))[name]["id"])


def test_each_seed_draws_its_own_rows_and_holds_out_the_same(
    config: PrepareConfig, tmp_path: Path
) -> None:
    """The draws are those of the hash, every time; without seeds the folder is as it was."""
    summary = prepare(config, tmp_path / "drawn")
    prepare(config, tmp_path / "again")
    without = prepare(replace(config, seeds=()), tmp_path / "without")
    assert run_files(tmp_path / "drawn") == run_files(tmp_path / "again")
    folders = [rows_of(tmp_path / "drawn", seed) for seed in SEEDS]
    draws = [ids(folder) for folder in folders]
    assert [len(set(draw)) for draw in draws] == [60, 60, 60]
    assert len({frozenset(draw) for draw in [*draws, ids(tmp_path / "without")]}) == 4
    held_out = ids(tmp_path / "without", "validation")
    assert [ids(folder, "validation") for folder in folders] == [held_out] * 3
    assert all(set(draw).isdisjoint(held_out) for draw in draws)
    pairs = [(0, 1), (0, 2), (1, 2)]
    common = [len(set(draws[a]) & set(draws[b])) / 60 for a, b in pairs]
    assert summary.pop("mean_overlap_of_draws") == pytest.approx(sum(common) / 3)
    assert 0 < sum(common) / 3 < 0.5
    assert summary == without
    shared, alone = run_files(tmp_path / "drawn"), run_files(tmp_path / "without")
    unlike = {name for name in shared if not name.startswith("seed-")} ^ set(alone)
    changed = {name for name in alone if alone[name] != shared[name]}
    assert (unlike, changed) == (set(), {"summary.json"})


def test_no_draw_has_a_group_that_is_held_out() -> None:
    every, _ = clean(rows(official=False), TASKS[TASK])
    for seed in range(3):
        _, held_out = split(every, 60, None, seed)
        for draw in range(20):
            train, same = split(every, 60, None, seed, draw)
            assert same == held_out
            assert {row.group for row in train}.isdisjoint(row.group for row in held_out)


def test_a_draw_depends_on_both_seeds() -> None:
    every = rows(official=True)
    drawn = {
        (seed, draw): frozenset(row.id for row in split(every, 60, None, seed, draw)[0])
        for seed in (0, 1)
        for draw in (0, 1)
    }
    assert len(set(drawn.values())) == 4
    backwards = split(every[::-1], 60, None, 1, 0)[0]
    assert frozenset(row.id for row in backwards) == drawn[1, 0]


def test_rows_are_drawn_evenly_over_seeds() -> None:
    """Each of the 320 rows is in 60 of 320 draws, give or take half as many."""
    every = rows(official=True)
    draws = [split(every, 60, None, 0, draw)[0] for draw in range(300)]
    counts = {row.id: 0 for row in every if row.split == "train"}
    for draw in draws:
        for row in draw:
            counts[row.id] += 1
    assert min(counts.values()) > 300 * 60 / 320 * 0.5
    assert max(counts.values()) < 300 * 60 / 320 * 1.5


@pytest.mark.parametrize("wanted", [None, 320, 500])
def test_seeds_that_would_all_take_every_row_are_refused(
    config: PrepareConfig, tmp_path: Path, wanted: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opinions, "read_rows", lambda *_: iter(rows(official=True)))
    everything = replace(config, train_rows=wanted)
    with pytest.raises(StudyError) as caught:
        prepare(everything, tmp_path / "out")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"tasks.{TASK}.train_rows: got {wanted}; must be below the 320 that")
    assert "data.resample 'per_seed' draws other rows for each seed" in message
    assert "draw fewer, or set data.resample to 'none'" in message
    assert not (tmp_path / "out").exists()
    summary = prepare(replace(config, train_rows=319), tmp_path / "out")
    assert summary["mean_overlap_of_draws"] > 0.99


def test_what_is_checked_of_one_draw_is_checked_of_all(
    config: PrepareConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A draw of one class only stops the stage, although the shared draw has both."""
    every = rows(official=True)
    first = {row.id for row in split(every, 60, None, 0, draw=2)[0]}
    one_sided = [
        replace(row, label=1) if row.id in first and row.split == "train" else row for row in every
    ]
    monkeypatch.setattr(opinions, "read_rows", lambda *_: iter(one_sided))
    prepare(replace(config, seeds=(1,)), tmp_path / "sound")
    named = rf"tasks\.{TASK}, the draw of seed 2: the train split holds one class only"
    with pytest.raises(StudyError, match=named):
        prepare(config, tmp_path / "out")
    assert not (tmp_path / "out/summary.json").exists()


def test_another_seed_leaves_the_draws_and_fingerprints_of_the_others(
    config: PrepareConfig, model_path: Path, tmp_path: Path
) -> None:
    run = make_config("lora", model_path)

    def found(seeds: tuple[int, ...]) -> dict[int, tuple[str, str]]:
        prepare(replace(config, seeds=seeds), tmp_path)
        folders = {seed: rows_of(tmp_path, seed) for seed in seeds}
        tables = {seed: sha256(at / "summary.json") for seed, at in folders.items()}
        return {n: (tables[n], fingerprint(run, n, at, None)) for n, at in folders.items()}

    few, many = found((1, 2)), found((4, 2, 1))
    assert {seed: many[seed] for seed in few} == few
    # Were it not for its seed, a run on another draw would still be another run.
    own, other = (fingerprint(run, 1, rows_of(tmp_path, seed), None) for seed in (1, 2))
    assert own != other
    prepare(replace(config, seeds=()), tmp_path)
    assert rows_of(tmp_path, 1) == tmp_path  # draws that are no longer asked for are gone


def test_a_missing_draw_is_not_replaced_by_the_shared_one(
    config: PrepareConfig, tmp_path: Path
) -> None:
    prepare(config, tmp_path)
    with pytest.raises(FileNotFoundError, match="seed-9"):
        datasets.load_from_disk(str(rows_of(tmp_path, 9)))


@pytest.mark.slow
def test_runs_train_on_their_own_draws_and_another_seed_trains_one_run(
    config: PrepareConfig,
    model_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PEFT_STUDY_STORE", raising=False)
    run, data, runs = make_config("lora", model_path), tmp_path / "data", tmp_path / "runs"

    def train(seeds: tuple[int, ...]) -> int:
        """Return how many runs were trained, and did not come from the run store."""
        prepare(replace(config, seeds=seeds), data)
        capsys.readouterr()
        run_cells([Cell(CellConfig(run, seeds), data, None, runs)], RUNNER)
        return len(seeds) - capsys.readouterr().out.count("from the run store")

    assert train((1, 2)) == 2
    alone = tmp_path / "alone"
    train_run(run, 2, data / "seed-2", None, alone / "own")
    train_run(run, 2, data / "seed-1", None, alone / "another seed's")
    train_run(run, 2, data, None, alone / "shared")
    assert run_files(alone / "own") == run_files(runs / "seed-2")
    assert run_files(alone / "another seed's") != run_files(runs / "seed-2")
    assert run_files(alone / "shared") != run_files(runs / "seed-2")
    assert train((1, 2, 3)) == 1
    cell = evaluate(CellConfig(run, (1, 2, 3)), runs, data, tmp_path / "rows.parquet")
    assert set(cell.data) == {"train seed 1", "train seed 2", "train seed 3", "validation"}
    described = read_json(data / "seed-2/summary.json")["splits"]["train"]
    assert vars(cell.trained_on("2")) == {key: described[key] for key in ("rows", "sha256_of_ids")}
    assert len({cell.trained_on(seed).sha256_of_ids for seed in cell.seeds}) == 3
    assert cell.baseline == read_json(data / "summary.json")["baseline"]
