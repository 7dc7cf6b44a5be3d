"""One run: the same bytes twice, from the right start, reporting the right evaluation."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from transformers import PreTrainedModel, get_scheduler

from conftest import LORA, make_config, run_files, small_model
from peft_study.data.tasks import TASKS
from peft_study.encoders.architectures import ARCHITECTURES
from peft_study.encoders.backbone import head_parameters
from peft_study.errors import StudyError
from peft_study.files import read_json
from peft_study.methods import METHODS, load_method
from peft_study.methods.saved import load_adapter, save_adapter
from peft_study.run_config import Encoder, RunConfig, RunResult, Schedule
from peft_study.training import loop
from peft_study.training.batches import load_splits
from peft_study.training.loop import Step, build, make_accelerator, make_optimizer, train_run


def steps_of(model: PreTrainedModel, config: RunConfig, data: Path) -> list[Step]:
    task, hyper = config.definition, config.train
    adamw, accelerator = make_optimizer(model, hyper), make_accelerator(hyper)
    train, _ = load_splits(data)
    return list(loop.training_steps(model, adamw, train, task, hyper, 1, accelerator))


@pytest.mark.parametrize("method", METHODS)
def test_two_runs_write_the_same_bytes(
    method: str, model_path: Path, learnable: Path, tmp_path: Path
) -> None:
    contents = []
    for name in ("first", "second"):
        train_run(make_config(method, model_path), 3, learnable, None, tmp_path / name)
        contents.append(run_files(tmp_path / name))
    assert contents[0] == contents[1]
    adapter = {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"}
    others = {"history.csv", "predictions.parquet", "run.json", "study.json"}
    assert set(contents[0]) == adapter | others


def test_lora_implementations_train_alike(
    model_path: Path, learnable: Path, tmp_path: Path
) -> None:
    """With one seed the three draw the same A, order and dropout: whole runs agree."""
    predictions = []
    for method in ("lora", "peft_lora", "loralib_lora"):
        train_run(make_config(method, model_path), 1, learnable, None, tmp_path / method)
        frame = pd.read_parquet(tmp_path / method / "predictions.parquet")
        predictions.append(torch.tensor([list(row) for row in frame["logits"]]))
        torch.testing.assert_close(predictions[0], predictions[-1], atol=1e-5, rtol=0)


def test_seeds_differ_and_a_learnable_task_is_learnt(
    model_path: Path, learnable: Path, tmp_path: Path
) -> None:
    config = make_config("full_ft", model_path, epochs=15, learning_rate=1e-3)
    results = [train_run(config, seed, learnable, None, tmp_path / str(seed)) for seed in (1, 2)]
    assert all(result.value is not None and result.value >= 0.95 for result in results)
    first, second = (tmp_path / str(seed) / "predictions.parquet" for seed in (1, 2))
    assert first.read_bytes() != second.read_bytes()


@pytest.mark.parametrize("report", ["best", "last"])
def test_the_saved_adapter_is_the_reported_evaluation(
    report: str, model_path: Path, learnable: Path, tmp_path: Path
) -> None:
    config = make_config("lora", model_path, report=report, epochs=3)
    result = train_run(config, 2, learnable, None, tmp_path)
    history = pd.read_csv(tmp_path / "history.csv")
    reported = int(history["accuracy"].argmax()) if report == "best" else len(history) - 1
    assert result.step == history["step"].iloc[reported]
    assert read_json(tmp_path / "run.json")["reported_step"] == result.step
    # Load the adapter as a start, and predict: the logits of that evaluation come out again.
    method, model = build(config, seed=9)
    load_adapter(model, method, config.settings, tmp_path / "adapter")
    validation = load_splits(learnable)[1]
    found = loop.predict(model, validation, config.definition, make_accelerator(config.train))
    stored = pd.read_parquet(tmp_path / "predictions.parquet")
    stored = stored[stored["step"] == result.step].reset_index()
    assert stored["id"].tolist() == validation.ids
    logits = torch.tensor([list(row) for row in stored["logits"]])
    torch.testing.assert_close(found, logits, atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", ["lora", "adapter_h", "full_ft"])
def test_a_run_starts_from_the_intermediate_adapter_without_its_head(
    method: str, model_path: Path, learnable: Path, tmp_path: Path
) -> None:
    config = make_config(method, model_path)
    train_run(config, 1, learnable, None, tmp_path / "intermediate")
    start = tmp_path / "intermediate" / "adapter"
    # A step of almost no length shows where the run started.
    config = make_config(method, model_path, epochs=1, learning_rate=1e-12, weight_decay=0.0)
    train_run(config, 2, learnable, start, tmp_path / "run")
    before = load_file(start / "adapter_model.safetensors")
    after = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    for name, value in after.items():
        is_head = "classifier" in name
        assert torch.allclose(value, before[name], atol=1e-6) != is_head or not value.any()


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("origin", ["lora", "full_ft"])
@pytest.mark.parametrize(
    ("model_type", "dense"),
    [("roberta", "classifier.dense."), ("deberta-v2", "pooler."), ("bert", "no such layer")],
)
def test_a_run_keeps_the_heads_dense_layer_and_never_its_output_layer(
    model_type: str, dense: str, origin: str, keeps: bool, tmp_path: Path
) -> None:
    """BERT's pooler is no part of its head: it comes along with the encoder in any case."""
    model = tmp_path / "model"
    small_model(model_type).save_pretrained(model)
    (model / "vocab.txt").write_text("[PAD]\n")
    encoder = Encoder(str(model), None, None, ARCHITECTURES[model_type])
    config = replace(make_config(origin, model), encoder=encoder)
    method, trained = build(config, 1)
    save_adapter(trained, method, config.settings, tmp_path / "start")
    pair = replace(config, definition=TASKS["mnli"], keeps_head=keeps)
    started, plain = (build(pair, 2, start)[1] for start in (tmp_path / "start", None))
    theirs, fresh = head_parameters(trained), head_parameters(plain)
    for name, value in head_parameters(started).items():
        kept = keeps and name.startswith(dense)
        assert torch.equal(value, (theirs if kept else fresh)[name])
        if value.ndim > 1 and name.startswith(dense):
            assert not torch.equal(theirs[name], fresh[name])


@pytest.mark.parametrize("method", ["lora", "adapter_h", "full_ft"])
def test_a_run_starts_from_a_fully_fine_tuned_encoder(
    method: str, model_path: Path, learnable: Path, tmp_path: Path
) -> None:
    """`mnli_init.mode: full_ft`: one checkpoint under every method; another width of head."""
    train_run(make_config("full_ft", model_path), 1, learnable, None, tmp_path / "intermediate")
    start = tmp_path / "intermediate" / "adapter"
    config = replace(make_config(method, model_path), definition=TASKS["tweet_rating"])
    started, plain = (build(config, 2, origin)[1] for origin in (start, None))
    weights = load_file(start / "adapter_model.safetensors")
    encoder = {n.replace("base_layer.", ""): p for n, p in started.named_parameters()}
    shared = [name for name in weights if name in encoder]
    assert len(shared) > 30
    assert all(torch.equal(encoder[name], weights[name]) for name in shared)
    assert encoder["classifier.weight"].shape == (1, 32)
    heads = [head_parameters(model)["classifier.weight"] for model in (started, plain)]
    assert torch.equal(*heads)
    added = [load_method(METHODS[method].module).adapter_state(model) for model in (started, plain)]
    if method != "full_ft":
        assert all(torch.equal(added[0][name], added[1][name]) for name in added[0])


def test_an_intermediate_adapter_of_another_rank_is_an_error(
    model_path: Path, learnable: Path, tmp_path: Path
) -> None:
    config = make_config("lora", model_path)
    train_run(config, 1, learnable, None, tmp_path / "intermediate")
    start = tmp_path / "intermediate" / "adapter"
    rank = replace(config, settings=replace(LORA, r=2))
    with pytest.raises(StudyError, match="r is 4, this adapter's is 2"):
        train_run(rank, 1, learnable, start, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("steps", [3, 8, 100])
def test_a_batch_in_pieces_trains_as_a_whole_one(
    steps: int, model_path: Path, learnable: Path
) -> None:
    """60 rows in batches of 8: the last batch, of 4, makes pieces of another size."""
    found = []
    for pieces in (1, steps):
        config = make_config("full_ft", model_path, gradient_accumulation_steps=pieces)
        config = replace(config, train=replace(config.train, learning_rate=1e-4))
        _, model = build(config, 1)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        steps_made = steps_of(model, config, learnable)
        assert len(steps_made) == 2 * 8
        found.append(([s.tokens for s in steps_made], torch.stack([s.loss for s in steps_made])))
    assert found[0][0] == found[1][0]
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_frozen_does_not_move(method: str, model_path: Path, learnable: Path) -> None:
    config = make_config(method, model_path, head="frozen")
    adapter, model = build(config, 0)
    trained = {id(p) for p in adapter.adapter_state(model).values()}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    steps_of(model, config, learnable)
    moved = {id(p) for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved <= trained
    assert len(moved) >= 0.9 * len(trained)


def test_evaluation_points() -> None:
    assert loop.evaluation_points(epochs=2, steps_per_epoch=10, per_epoch=3) == {
        3,
        7,
        10,
        13,
        17,
        20,
    }
    assert loop.evaluation_points(epochs=1, steps_per_epoch=2, per_epoch=5) == {1, 2}


def test_biases_and_norms_do_not_decay(model_path: Path) -> None:
    _, model = build(make_config("full_ft", model_path), 0)
    decaying, others = loop.parameter_groups(model, 0.1)
    assert decaying["weight_decay"] == 0.1
    assert others["weight_decay"] == 0.0
    names = {id(p): name for name, p in model.named_parameters()}
    assert all("bias" in names[id(p)] or "LayerNorm" in names[id(p)] for p in others["params"])
    assert all(names[id(p)].endswith("weight") for p in decaying["params"])
    assert len(decaying["params"]) + len(others["params"]) == len(names)


def test_learning_rate_warms_up_and_decays_to_zero(model_path: Path, learnable: Path) -> None:
    config = make_config("lora", model_path, warmup_ratio=0.25)
    _, model = build(config, 0)
    rates = [step.learning_rate for step in steps_of(model, config, learnable)]
    assert len(rates) == 16
    assert rates.index(max(rates)) == 3
    assert max(rates) == pytest.approx(5e-3)
    assert rates[-1] == 0


def test_a_constant_rate_warms_up_and_stays(model_path: Path, learnable: Path) -> None:
    config = make_config("lora", model_path, warmup_ratio=0.25, schedule="constant")
    _, model = build(config, 0)
    rates = [step.learning_rate for step in steps_of(model, config, learnable)]
    assert rates == pytest.approx([5e-3 * min(1, step / 4) for step in range(1, 17)])


SCHEDULES: dict[Schedule, str] = {"linear": "linear", "constant": "constant_with_warmup"}


@pytest.mark.parametrize("warmup", [0, 1, 3, 20])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_schedule_is_that_of_transformers(schedule: Schedule, warmup: int) -> None:
    adamw = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_scheduler(SCHEDULES[schedule], adamw, warmup, 20)
    for step in range(21):
        assert loop.rate_factor(schedule, warmup, 20, step) == theirs.get_last_lr()[0]
        adamw.step()
        theirs.step()


def test_epsilon_and_beta2_reach_the_optimiser(model_path: Path, learnable: Path) -> None:
    losses = []
    for epsilon in (1e-8, 1.0):
        config = make_config("lora", model_path, adam_epsilon=epsilon, adam_beta2=0.98)
        _, model = build(config, 0)
        groups = make_optimizer(model, config.train).param_groups
        assert {(group["eps"], group["betas"]) for group in groups} == {(epsilon, (0.9, 0.98))}
        losses.append(float(steps_of(model, config, learnable)[-1].loss))
    assert losses[0] != losses[1]


def test_a_run_whose_loss_is_not_finite_ends_with_the_reason(
    model_path: Path, learnable: Path, tmp_path: Path
) -> None:
    """It would diverge every time: it is finished, and has neither predictions nor weights."""
    config = make_config("lora", model_path, learning_rate=1e38)
    result = train_run(config, 1, learnable, None, tmp_path)
    failure = "the loss is nan after step 4; lower the learning rate 1e+38"
    assert result == RunResult("accuracy", None, 4, 4, result.seconds, failure)
    assert str(result) == f"no result: {failure}"
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    trainable = {"adapter": 1024, "head": 66, "total": 1090}
    about = {"device": "cpu", "seed": 1, "trainable": trainable, "steps": 4, "failure": failure}
    assert read_json(tmp_path / "run.json") == about


def test_bfloat16_trains_near_float32(model_path: Path, learnable: Path, tmp_path: Path) -> None:
    """Ours and PEFT's round alike; neither is evaluated merged, which would lose the update."""
    curves = {}
    for precision in ("float32", "bfloat16"):
        for method in ("lora", "peft_lora"):
            AcceleratorState._reset_state(reset_partial_state=True)  # one precision a process
            config = make_config(method, model_path, precision=precision)
            directory = tmp_path / precision / method
            train_run(config, 1, learnable, None, directory)
            curves[precision, method] = pd.read_csv(directory / "history.csv")["validation_loss"]
    AcceleratorState._reset_state(reset_partial_state=True)
    for method in ("lora", "peft_lora"):
        difference = (curves["float32", method] - curves["bfloat16", method]).abs().max()
        assert 0 < difference < 0.01
    assert (curves["bfloat16", "lora"] - curves["bfloat16", "peft_lora"]).abs().max() < 2e-3
