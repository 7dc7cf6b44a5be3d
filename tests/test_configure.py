"""Which stages a changed parameter concerns, and what they are asked to do."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from peft_study.configure import configure
from peft_study.errors import StudyError
from peft_study.presets import describe
from peft_study.resolver import pinned
from peft_study.run_config import AdapterHSettings, LoraSettings
from peft_study.study import Study, check_study

Params = dict[str, Any]

TASKS = ("movie_polarity", "tweet_rating", "editorial_polarity")
METHODS = ("lora", "peft_lora", "adapter_h", "full_ft")


def training(*methods: str) -> set[str]:
    return {f"train/{method}/{task}" for method in methods for task in TASKS}


def training_on(task: str) -> set[str]:
    return {f"train/{method}/{task}" for method in METHODS}


STARTS = training_on("editorial_polarity")
LORA, EVERYTHING = training("lora", "peft_lora"), training(*METHODS)
PREPARED = {"prepare/movie_polarity", "prepare/tweet_rating", "prepare/editorial_polarity"}
UNPREPARED = {"mnli_init", "prepare/intermediate", "prepare/starters"}


def parts(study: Study) -> dict[str, Any]:
    """Return what each stage is asked to do, by task where its runs or rows are a task's own."""
    found: dict[str, Any] = configure(study)
    prepared = found.pop("prepare")
    for name in [name for name in found if name.startswith("train/")]:
        found |= {f"{name}/{task}": cell for task, cell in found.pop(name).items()}
    found |= {f"prepare/{task}": config for task, config in prepared.tasks.items()}
    intermediate = {"prepare/intermediate": prepared.intermediate}
    return found | intermediate | {"prepare/starters": prepared.starters}


@pytest.fixture
def before(params: Params) -> dict[str, Any]:
    """Return what the stages of the default study are asked to do."""
    return parts(check_study(params))


@pytest.mark.parametrize(
    ("key", "value", "concerned"),
    [
        # Costs are not measured again because a rank under comparison changed, or the like.
        ("lora.r", 3, LORA | {"mnli_init", "certify"}),
        ("lora.alpha", 3, LORA | {"mnli_init", "certify"}),
        ("lora.targets", ["key"], LORA | {"mnli_init", "certify"}),
        ("lora.learning_rate", 1e-3, LORA | {"mnli_init"}),
        ("adapter_h.bottleneck", 4, training("adapter_h") | {"mnli_init", "certify"}),
        ("adapter_h.learning_rate", 1e-3, training("adapter_h") | {"mnli_init"}),
        ("full_ft.learning_rate", 1e-3, training("full_ft") | {"mnli_init"}),
        ("runner.workers", 1, set()),
        ("runner.backend", "ray", set()),
        ("train.precision", "bfloat16", EVERYTHING | {"mnli_init", "profile"}),
        ("mnli_init.mode", "none", STARTS | UNPREPARED),
        ("mnli_init.mode", "full_ft", {"mnli_init"}),
        (
            "tasks.tweet_rating.max_length",
            32,
            {"prepare/tweet_rating"} | training_on("tweet_rating"),
        ),
        ("train.gradient_accumulation_steps", 2, EVERYTHING | {"mnli_init", "profile"}),
        ("mnli_init.learning_rate", 1e-3, {"mnli_init"}),
        ("tasks.tweet_rating.full_ft", {"learning_rate": 3e-5}, {"train/full_ft/tweet_rating"}),
        ("train.epochs", 3, EVERYTHING),
        # A sixth seed leaves preparation and the intermediate task alone.
        ("seeds", [1, 2, 3, 4, 5, 6], EVERYTHING),
        # Runs find the rows that are theirs: what they are asked to do is the same.
        ("data.resample", "per_seed", PREPARED),
        ("sweep.task", "tweet_rating", set()),
        ("analysis.iso_margin", 0.01, set()),
        ("analysis.equivalence_margin", 0.01, set()),
        ("profile.rounds", 0, {"profile"}),
        ("profile.ranks", [1], {"profile"}),
        ("profile.targets", ["key"], {"profile"}),
        ("profile.bottleneck", 4, {"profile"}),
        ("profile.tasks", ["tweet_rating"], {"profile"}),
        # The rows of its task, and how it is trained on them, are what a profile measures.
        ("tasks.movie_polarity.train_rows", 80, {"prepare/movie_polarity", "profile"}),
        (
            "tasks.movie_polarity.lora",
            {"batch_size": 4},
            {*(f"train/{m}/movie_polarity" for m in ("lora", "peft_lora")), "profile"},
        ),
        ("full_ft.epochs", 3, training("full_ft")),
        ("train.schedule", "constant", EVERYTHING | {"mnli_init"}),
        ("train.adam_epsilon", 1e-6, EVERYTHING | {"mnli_init"}),
        ("full_ft.adam_epsilon", 1e-6, training("full_ft") | {"mnli_init"}),
        ("full_ft.adam_beta2", 0.98, training("full_ft") | {"mnli_init"}),
        ("tasks.tweet_rating.adam_epsilon", 1e-6, training_on("tweet_rating")),
        ("lora.init_std", 0.02, LORA | {"mnli_init", "certify"}),
        ("mnli_init.head", "kept", STARTS),
        ("only", {"peft_lora": {"seeds": [7, 8]}}, training("peft_lora")),
        ("tasks.tweet_rating.train_rows", 80, {"prepare/tweet_rating"}),
    ],
)
def test_a_parameter_concerns_the_stages_it_changes_and_no_other(
    params: Params,
    before: dict[str, Any],
    set_key: Callable[[Params, str, Any], None],
    key: str,
    value: Any,
    concerned: set[str],
) -> None:
    set_key(params, key, value)
    after = parts(check_study(params))
    assert set(before) == set(after)
    changed = {name for name in before if before[name] != after[name]}
    # The report says what the study was, but not how its runs were run.
    assert ("report" in changed) == (not key.startswith("runner"))
    assert changed - {"report"} == concerned


def test_seeds_are_drawn_for_in_the_tasks_and_not_in_the_intermediate_one(params: Params) -> None:
    params["data"]["resample"] = "per_seed"
    params["seeds"] = [3, 1]
    found = parts(check_study(params))
    assert {found[name].seeds for name in PREPARED} == {(3, 1)}
    assert found["prepare/intermediate"].seeds == ()


def test_a_method_may_have_tasks_and_seeds_of_its_own(
    params: Params, before: dict[str, Any]
) -> None:
    """Another method's runs stay as they are, and none of it starts from the intermediate task."""
    params["only"] = {"peft_lora": {"tasks": ["movie_polarity"], "seeds": [7]}}
    found = parts(check_study(params))
    gone = {f"train/peft_lora/{task}" for task in TASKS[1:]}
    assert set(before) - set(found) == gone
    changed = {name for name in found if found[name] != before[name]}
    assert changed == {"train/peft_lora/movie_polarity", "mnli_init", "report"}
    assert found["train/peft_lora/movie_polarity"].seeds == (7,)
    starts = found["mnli_init"].starts
    assert starts == {name: None if name == "peft_lora" else name for name in METHODS}
    assert set(found["mnli_init"].cells) == set(METHODS) - {"peft_lora"}
    runs = sum(len(cell.seeds) for name, cell in found.items() if name.startswith("train/"))
    size = describe(check_study(params))
    assert (runs, size["runs"]) == (3 * 3 * 5 + 1, 3 * 3 * 5 + 1 + 3)
    report = found["report"]
    assert report.trains("peft_lora", "movie_polarity")
    assert not report.trains("peft_lora", "tweet_rating")
    assert (report.method("peft_lora").seeds, report.method("lora").seeds) == ((7,), None)
    params["mnli_init"]["mode"] = "full_ft"
    only_one = parts(check_study(params))["mnli_init"]
    assert (set(only_one.cells), only_one.starts["peft_lora"]) == ({"full_ft"}, None)


def test_a_recipe_that_says_nothing_new_is_an_implementation_of_what_it_is_like(
    params: Params,
) -> None:
    params["recipes"] = {
        "mine": {"like": "lora"},
        "small": {"like": "lora", "r": 1},
        "slower": {"like": "full_ft", "learning_rate": 1e-5},
        "again": {"like": "small", "label": "Once more"},
    }
    params["methods"] += list(params["recipes"])
    report = parts(check_study(params))["report"]
    computed = {name: report.method(name).computes for name in params["recipes"]}
    assert computed == {"mine": "lora", "small": "small", "slower": "slower", "again": "small"}
    assert [report.method(name).kind for name in ("small", "slower")] == ["lora", "full_ft"]
    # Hyperparameters of one task are enough.
    params["tasks"]["tweet_rating"]["mine"] = {"learning_rate": 1e-3}
    assert parts(check_study(params))["report"].method("mine").computes == "mine"


def test_seeds_of_a_methods_own_have_draws_where_it_is_trained(params: Params) -> None:
    params["data"]["resample"] = "per_seed"
    params["seeds"] = [3, 1]
    params["only"] = {"full_ft": {"tasks": ["tweet_rating"], "seeds": [1, 9]}}
    found = parts(check_study(params))
    assert found["prepare/tweet_rating"].seeds == (3, 1, 9)
    assert found["prepare/movie_polarity"].seeds == (3, 1)


def swept(params: Params) -> dict[str, Any]:
    """Return the cells of a study's sweep by name."""
    cells = parts(check_study(params))["variants"].cells
    return {place.removeprefix("sweep/"): cell.config for place, cell in cells.items()}


def test_a_sweep_has_a_configuration_per_cell(params: Params, before: dict[str, Any]) -> None:
    params["sweep"] |= {"ranks": [1, 64], "weights": ["query", "value+output"], "alpha": "rank"}
    scaled = swept(params)["query-r64"].run.settings
    assert (scaled.r, scaled.alpha) == (64, 64.0)
    params["sweep"]["alpha"] = 16
    cells = swept(params)
    assert set(cells) == {
        f"{weights}-r{rank}" for rank in (1, 64) for weights in ("query", "value+output")
    }
    expected = LoraSettings(r=64, alpha=16.0, dropout=0.0, targets=("value", "output"))
    assert cells["value+output-r64"].run.settings == expected
    cell, lora = cells["query-r1"], before["train/lora/movie_polarity"]
    assert replace(cell, run=replace(cell.run, settings=lora.run.settings)) == lora


def test_a_profile_measures_its_own_recipes_in_the_studys_batches(params: Params) -> None:
    params["tasks"]["movie_polarity"]["full_ft"] = {"batch_size": 4}
    params["tasks"]["tweet_rating"]["batch_size"] = 32
    params["train"]["gradient_accumulation_steps"] = 2
    params["profile"] |= {"ranks": [8, 1, 64], "targets": ["key"], "bottleneck": 5}
    params["profile"]["tasks"] = ["tweet_rating", "movie_polarity"]
    config = parts(check_study(params))["profile"]
    assert config.reference == "full_ft"
    other, found = config.tasks
    assert [task.prepared.task for task in config.tasks] == ["tweet_rating", "movie_polarity"]
    cells = found.cells
    assert list(cells) == list(other.cells) == ["lora", "lora r=1", "lora r=64", *METHODS[1:]]
    sizes = {key: cell.train.batch_size for key, cell in cells.items()}
    assert sizes == dict.fromkeys(cells, 16) | {"full_ft": 4}
    assert {cell.train.batch_size for cell in other.cells.values()} == {32}
    every = [*cells.values(), *other.cells.values()]
    assert {cell.train.gradient_accumulation_steps for cell in every} == {2}
    ranks = {"lora": 8, "lora r=1": 1, "lora r=64": 64}
    lora = {name: LoraSettings(rank, 16.0, 0.0, ("key",)) for name, rank in ranks.items()}
    for name, settings in (lora | {"peft_lora": lora["lora"]}).items():
        assert cells[name].settings == settings
    assert cells["adapter_h"].settings == AdapterHSettings(5, "gelu")
    params["methods"] = ["adapter_h"]
    config = parts(check_study(params))["profile"]
    assert config.reference == "lora"
    assert list(config.tasks[0].cells) == ["adapter_h", *lora]


def test_another_model_in_the_same_folder_concerns_all_that_read_it(
    params: Params, model_path: Path, tmp_path: Path
) -> None:
    configs = []
    for name in ("one", "two"):
        folder = tmp_path / name
        shutil.copytree(model_path, folder)
        if name == "two":
            weights = folder / "model.safetensors"
            weights.write_bytes(weights.read_bytes()[:-1] + b"x")
        params["model"] = {"name": str(folder), "max_length": 64}
        params["lora"]["r"] = params["adapter_h"]["bottleneck"] = 4
        params["profile"] |= {"ranks": [1], "bottleneck": 4}
        configs.append(parts(check_study(params)))
    changed = {name.split("/")[0] for name in configs[0] if configs[0][name] != configs[1][name]}
    assert {"prepare", "train", "mnli_init", "parity", "certify"} <= changed
    digests = [c["train/lora/movie_polarity"].run.encoder.sha256 for c in configs]
    assert digests[0] != digests[1]


def test_an_environment_that_is_not_the_pinned_one(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("torch==1.0.0\nno-such-package==2.0.0\n")
    for package, named in (
        ("torch", r"torch is pinned to 1\.0\.0, but \d.* is installed"),
        ("peft", r"peft is pinned to None, but \d.* is installed"),
        ("no-such-package", r"no-such-package is pinned to 2\.0\.0, but none is installed"),
        ("unheard-of", "unheard-of is pinned to None, but none is installed"),
    ):
        with pytest.raises(StudyError, match=f"{named}; run 'make env'") as caught:
            pinned((package,), lock)
        assert "\n" not in str(caught.value)


def test_a_device_that_is_not_there(params: Params) -> None:
    device = next(
        name
        for name, module in (("cuda", torch.cuda), ("mps", torch.backends.mps))
        if not module.is_available()
    )
    params["train"]["device"] = device
    with pytest.raises(StudyError, match=f"train.device: got '{device}', which PyTorch does not"):
        configure(check_study(params))
    params["runner"]["backend"] = "ray"
    configs = parts(check_study(params))
    assert configs["train/lora/movie_polarity"].run.train.device == device


def test_predictions_made_elsewhere_concern_no_training(
    params: Params, before: dict[str, Any], tmp_path: Path
) -> None:
    """Nor do they take part in what is measured; a file that changes is read again."""
    runs = describe(check_study(params))["runs"]
    file = tmp_path / "movie_polarity/seed-7.csv"
    file.parent.mkdir()
    params["recipes"] = {"theirs": {"like": "predictions", "folder": str(tmp_path)}}
    params["methods"].append("theirs")
    params["only"] = {"theirs": {"tasks": ["movie_polarity"], "seeds": [7]}}
    configs = []
    for prediction in ("positive", "negative"):
        file.write_text(f"id,prediction\na,{prediction}\n")
        configs.append(configure(check_study(params)))
    changed = {name for name in configs[0] if configs[0][name] != configs[1][name]}
    assert changed == {"prepare", "train/theirs"}
    one = parts(check_study(params))
    apart = {name for name in before if one[name] != before[name]}
    assert apart == {"report", "mnli_init", "profile", "tune"}  # that lists the methods
    assert one["mnli_init"].cells == before["mnli_init"].cells
    assert one["mnli_init"].starts == before["mnli_init"].starts | {"theirs": None}
    assert one["profile"].tasks == before["profile"].tasks
    assert describe(check_study(params))["runs"] == runs
