"""Which stages a changed parameter concerns, and models that cannot be used."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from peft_study.configure import configure, pinned
from peft_study.errors import StudyError
from peft_study.files import read_json, write_json
from peft_study.study import check_study

config = {"hidden_size": 8, "max_position_embeddings": 600}

TASKS = ("movie_polarity", "tweet_rating", "editorial_polarity")
LORA_TRAINING = {f"train/{method}-{task}" for method in ("lora", "peft_lora") for task in TASKS}
STARTS = {f"start/{m}-editorial_polarity" for m in ("lora", "peft_lora", "adapter_h", "full_ft")}
FULL_FT = {"start/full_ft-editorial_polarity"}
ALL_TRAINING = {
    f"train/{method}-{task}"
    for method in ("lora", "peft_lora", "adapter_h", "full_ft")
    for task in TASKS
}


@pytest.mark.parametrize(
    ("key", "value", "concerned"),
    [
        ("lora.r", 3, LORA_TRAINING | {"mnli_init", "profile"}),
        ("runner.workers", 1, set()),
        ("runner.backend", "ray", set()),
        ("train.precision", "bfloat16", ALL_TRAINING | {"mnli_init", "profile"}),
        ("mnli_init.mode", "none", STARTS | {"mnli_init", "prepare_intermediate", "ready"}),
        ("mnli_init.mode", "full_ft", STARTS - FULL_FT | {"mnli_init"}),
        ("tasks.tweet_rating.max_length", 32, {"prepare/tweet_rating"}),
        ("train.gradient_accumulation_steps", 2, ALL_TRAINING | {"mnli_init", "profile"}),
        ("lora.learning_rate", 1e-3, LORA_TRAINING | {"mnli_init"}),
        ("mnli_init.learning_rate", 1e-3, {"mnli_init"}),
        (
            "tasks.tweet_rating.full_ft",
            {"learning_rate": 3e-5},
            {"train/full_ft-tweet_rating"},
        ),
        ("train.epochs", 3, ALL_TRAINING),
        ("sweep.task", "tweet_rating", set()),
        ("analysis.iso_margin", 0.01, {"curves"}),
        ("analysis.equivalence_margin", 0.01, {"aggregate"}),
        ("profile.rounds", 0, {"profile"}),
        ("profile.ranks", [], {"profile"}),
        ("full_ft.epochs", 3, {name for name in ALL_TRAINING if "/full_ft-" in name}),
        ("tasks.tweet_rating.train_rows", 80, {"prepare/tweet_rating"}),
        (
            "adapter_h.bottleneck",
            4,
            {"mnli_init", "profile"} | {f"train/adapter_h-{task}" for task in TASKS},
        ),
    ],
)
def test_a_parameter_concerns_the_stages_it_changes_and_no_other(
    params: dict[str, Any],
    set_key: Callable[[dict[str, Any], str, Any], None],
    key: str,
    value: Any,
    concerned: set[str],
) -> None:
    before = configure(check_study(params))
    set_key(params, key, value)
    after = configure(check_study(params))
    assert set(before) == set(after)
    changed = {name for name in before if before[name] != after[name]}
    # The report says what the study was, but not how its runs were run.
    assert ("report" in changed) == (not key.startswith("runner") and before != after)
    assert changed - {"report"} == concerned


def test_a_sixth_seed_leaves_preparation_and_intermediate_task_alone(
    params: dict[str, Any],
) -> None:
    before = configure(check_study(params))
    params["seeds"].append(6)
    after = configure(check_study(params))
    changed = {name.split("/")[0] for name in before if before[name] != after[name]}
    assert changed == {"train", "curves", "report"}


def test_a_sweep_has_a_configuration_per_cell(params: dict[str, Any]) -> None:
    params["sweep"] |= {"ranks": [1, 64], "weights": ["query", "value+output"], "alpha": "rank"}
    scaled = configure(check_study(params))["sweep"]["query-r64"]["adapter"]
    assert (scaled["r"], scaled["alpha"]) == (64, 64.0)
    params["sweep"]["alpha"] = 16
    configs = configure(check_study(params))
    cells = configs["sweep"]
    assert set(cells) == {
        f"{weights}-r{rank}" for rank in (1, 64) for weights in ("query", "value+output")
    }
    adapter = cells["value+output-r64"]["adapter"]
    assert adapter == {"r": 64, "alpha": 16.0, "dropout": 0.0, "targets": ["value", "output"]}
    lora = configs["train/lora-movie_polarity"]
    assert cells["query-r1"] | {"adapter": lora["adapter"]} == lora


def test_a_profile_compares_methods_and_ranks_on_the_same_batches(params: dict[str, Any]) -> None:
    params["tasks"]["movie_polarity"]["full_ft"] = {"batch_size": 4}
    params["profile"] |= {"ranks": [1, 8, 64]}
    config = configure(check_study(params))["profile"]
    assert (config["task"], config["reference"]) == ("movie_polarity", "full_ft")
    # The study's own rank is there already.
    assert list(config["cells"]) == [*params["methods"], "lora r=1", "lora r=64"]
    assert {cell["train"]["batch_size"] for cell in config["cells"].values()} == {16}
    assert config["cells"]["lora r=64"]["adapter"]["r"] == 64
    params["profile"]["task"] = "tweet_rating"
    params["methods"] = ["adapter_h"]
    config = configure(check_study(params))["profile"]
    assert (config["task"], config["reference"]) == ("tweet_rating", "lora")
    assert list(config["cells"]) == ["adapter_h", "lora", "lora r=1", "lora r=64"]


@pytest.mark.parametrize(
    ("break_it", "named"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda folder: (folder / "config.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "no valid 'model_type'"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'),
            "no valid 'hidden_size'",
        ),
        (
            lambda folder: (folder / "config.json").write_text(
                json.dumps(config | {"model_type": "gpt2"})
            ),
            "architecture 'gpt2' has no known weight names; known: bert, deberta-v2, roberta",
        ),
        (
            lambda folder: [(folder / name).unlink() for name in ("tokenizer.json", "vocab.txt")],
            "holds no tokeniser",
        ),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "holds pytorch_model.bin, a pickle, which can run code, and no safetensors",
        ),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(
                (folder / "model.safetensors").read_bytes()[:-9]
            ),
            "model.safetensors is damaged",
        ),
    ],
)
def test_unusable_model_folder(
    params: dict[str, Any],
    model_path: Path,
    tmp_path: Path,
    break_it: Callable[[Path], None],
    named: str,
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_path, folder)
    break_it(folder)
    params["model"]["name"] = str(folder)
    with pytest.raises(StudyError, match=named) as caught:
        configure(check_study(params))
    assert "model.name" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_model_in_the_same_folder_concerns_all_that_read_it(
    params: dict[str, Any], model_path: Path, tmp_path: Path
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
        params["profile"]["ranks"] = [1]
        configs.append(configure(check_study(params)))
    changed = {name.split("/")[0] for name in configs[0] if configs[0][name] != configs[1][name]}
    assert {"prepare", "train", "mnli_init", "parity"} <= changed
    digests = [c["train/lora-movie_polarity"]["model_sha256"] for c in configs]
    assert digests[0] != digests[1]


def test_an_environment_that_is_not_the_pinned_one(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("torch==1.0.0\n")
    with pytest.raises(StudyError, match=r"torch is pinned to 1\.0\.0, but .* run 'make env'"):
        pinned(("torch",), lock)
    with pytest.raises(StudyError, match="peft is pinned to None"):
        pinned(("peft",), lock)


def test_a_device_that_is_not_there(params: dict[str, Any]) -> None:
    device = next(
        name
        for name, module in (("cuda", torch.cuda), ("mps", torch.backends.mps))
        if not module.is_available()
    )
    params["train"]["device"] = device
    with pytest.raises(StudyError, match=f"train.device: got '{device}', which PyTorch does not"):
        configure(check_study(params))
    params["runner"]["backend"] = "ray"
    configs = configure(check_study(params))
    assert configs["train/lora-movie_polarity"]["train"]["device"] == device


def test_relative_positions_of_bert_are_an_error(
    params: dict[str, Any], model_path: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_path, folder)
    changed = read_json(folder / "config.json") | {"position_embedding_type": "relative_key"}
    write_json(folder / "config.json", changed)
    params["model"]["name"] = str(folder)
    with pytest.raises(StudyError, match=r"position_embedding_type is 'relative_key'; must be"):
        configure(check_study(params))
