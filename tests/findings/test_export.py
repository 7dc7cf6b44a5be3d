"""Adapters that others can load, by what their cards say and nothing else."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertForMaskedLM, PreTrainedModel

import builders
from conftest import CONFIGS, make_config, small_model
from peft_study.encoders.architectures import ARCHITECTURES
from peft_study.errors import StudyError
from peft_study.files import read_json
from peft_study.findings.export import export, median_seed
from peft_study.records.scores import Cell, Counts, Rows
from peft_study.records.study import InitInfo, ModelInfo, StudyInfo, TaskInfo
from peft_study.run_config import RunConfig
from peft_study.training.batches import load_splits
from peft_study.training.loop import train_run

TASK = "movie_polarity"
SCORES = {"1": 0.5, "2": 0.7, "3": 0.6}  # the median is seed 3's


def cell(method: str = "lora", scores: dict[str, float] = SCORES) -> Cell:
    about: dict[str, Any] = {"data": {"train": Rows(60, "ab"), "validation": Rows(20, "cd")}}
    about["trainable"] = Counts(2048, 66, 2114)
    found = builders.cell(method, TASK, *scores.values(), **about)
    return replace(found, seeds=dict(zip(scores, found.seeds.values(), strict=True)))


def study_of(model: Path | str, mode: str, method: str = "lora", **changes: Any) -> StudyInfo:
    """Return a study whose only task starts from an intermediate one, unless `mode` is `none`."""
    init = InitInfo(mode, "product", () if mode == "none" else (TASK,))
    about = ModelInfo(str(model), None, 32)
    found = builders.study((method, "adapter_h"), {TASK: "accuracy"}, model=about, mnli_init=init)
    return replace(found, **changes)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"1": 0.5, "2": 0.7, "3": 0.6}, "3"),
        ({"1": 0.5, "2": 0.5, "3": 0.6}, "1"),
        ({"1": 0.6, "2": 0.5}, "2"),
        ({"7": 0.6}, "7"),
    ],
)
def test_the_median_seed(scores: dict[str, float], expected: str) -> None:
    assert median_seed(cell(scores=scores), "accuracy") == expected


def as_its_card_says(out: Path, encoder: Path) -> PreTrainedModel:
    """Load an exported adapter by running the code of its card; `encoder` is the pretrained one."""
    card = (out / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```\n(.*?)```", card, re.S)
    (named,) = re.findall(r"`ENCODER` is (.*?); a head of its own", card, re.S)
    beside = "that fine-tuned encoder, `encoder/` beside the folders of methods"
    assert named in ("the model named above", beside)
    assert named == beside or f"of `{encoder}`" in card
    place = out.parent.parent / "encoder" if named == beside else encoder
    loaded: dict[str, Any] = {"ENCODER": str(place), "FOLDER": str(out)}
    torch.manual_seed(9)  # whatever is drawn must be replaced
    exec(code, loaded)
    model: PreTrainedModel = loaded["model"].eval()
    return model


def fine_tuned(folder: Path) -> None:
    """Save a BERT that has the head of another task, of three classes."""
    config = type(CONFIGS["bert"])(**CONFIGS["bert"].to_dict() | {"num_labels": 3})
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)


ENCODERS: dict[str, Callable[[Path], object]] = {
    kind: partial(lambda kind, at: small_model(kind).save_pretrained(at), kind) for kind in CONFIGS
}
ENCODERS["bert without a pooler"] = lambda at: BertForMaskedLM(CONFIGS["bert"]).save_pretrained(at)
ENCODERS["bert with another's head"] = fine_tuned


@pytest.mark.parametrize(
    ("mode", "method", "encoder"),
    [
        ("none", "lora", "bert"),
        ("per_method", "lora", "bert"),
        ("full_ft", "lora", "bert"),
        ("full_ft", "peft_lora", "bert"),
        ("full_ft", "loralib_lora", "roberta"),
        ("full_ft", "lora", "deberta-v2"),
        ("per_method", "peft_lora", "deberta-v2"),
        ("none", "loralib_lora", "bert with another's head"),
        ("per_method", "lora", "bert without a pooler"),
        ("full_ft", "peft_lora", "bert without a pooler"),
    ],
)
def test_an_export_computes_what_its_run_has_predicted(
    mode: str, method: str, encoder: str, learnable: Path, tmp_path: Path
) -> None:
    """Loaded by its card on the encoder that the card names, be it the pretrained one or not."""
    pretrained, start = tmp_path / "pretrained", tmp_path / f"init/{method}/start"
    ENCODERS[encoder](pretrained)
    (pretrained / "vocab.txt").write_text("[PAD]\n")
    kind = encoder.partition(" ")[0]

    def train(name: str, seed: int, origin: Path | None, place: Path) -> None:
        config: RunConfig = make_config(name, pretrained, epochs=1, evaluations_per_epoch=1)
        read_by = replace(config.encoder, architecture=ARCHITECTURES[kind])
        train_run(replace(config, encoder=read_by), seed, learnable, origin, place)

    if mode != "none":
        train("full_ft" if mode == "full_ft" else method, 1, None, tmp_path / "intermediate")
        start.parent.mkdir(parents=True)
        (tmp_path / "intermediate/adapter").rename(start)
    run = tmp_path / "runs" / method / TASK / "seed-3"
    train(method, 3, None if mode == "none" else start, run)
    cells = {(method, TASK): cell(method), ("adapter_h", TASK): cell("adapter_h")}
    about = study_of(pretrained, mode, method)
    assert export(about, cells, tmp_path / "runs", tmp_path / "init", tmp_path / "out") == 1
    with_encoder = [method] if mode != "full_ft" else sorted(["encoder", method])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == with_encoder

    model = as_its_card_says(tmp_path / "out" / method / TASK, pretrained)
    stored, found = pd.read_parquet(run / "predictions.parquet"), []
    _, validation = load_splits(learnable)
    with torch.no_grad():
        found = [model(input_ids=row[None]).logits[0] for row in validation.columns["input_ids"]]
    assert stored["id"].tolist() == validation.ids
    told = read_json(run / "adapter/adapter_config.json")["base_model_name_or_path"]
    assert told == ("the encoder that the intermediate task trained" if mode == "full_ft" else None)
    logits = torch.tensor([list(row) for row in stored["logits"]])
    torch.testing.assert_close(torch.stack(found), logits, atol=2e-6, rtol=0)
    assert logits.std() > 1e-3  # so that another encoder's would not be as near


def test_what_a_card_says(model_path: Path, learnable: Path, tmp_path: Path) -> None:
    places = tmp_path / "runs", tmp_path / "init", tmp_path / "out"
    about = study_of(model_path, "none")
    about = replace(about, model=ModelInfo("some/encoder", "ab" * 20, 32))
    with pytest.raises(StudyError, match=r"is not here; fetch it with 'dvc pull .*runs/lora'"):
        export(about, {("lora", TASK): cell()}, *places)
    train_run(
        make_config("lora", model_path), 3, learnable, None, places[0] / f"lora/{TASK}/seed-3"
    )
    export(about, {("lora", TASK): cell()}, *places)
    out = places[2] / "lora" / TASK
    assert read_json(out / "adapter_config.json")["revision"] == "ab" * 20
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "| accuracy | 0.6000 | 0.6000 | 0.1000 | 3 |" in card
    assert "2,048 + 66 trained parameters" in card
    assert f'ENCODER, revision="{"ab" * 20}", num_labels=2, ignore_mismatched' in card
    assert "seed 3" in card
    # An encoder of one's own is not at the hub.
    tuned = replace(about, mnli_init=InitInfo("full_ft", "product", (TASK,)))
    with pytest.raises(StudyError, match=r"start: is not here; fetch it with 'dvc pull .*init/lo"):
        export(tuned, {("lora", TASK): cell()}, *places)


@pytest.mark.parametrize(("own", "said"), [(None, 32), (128, 128), (16, 16)])
def test_a_card_tells_the_length_of_its_tasks_texts(
    own: int | None, said: int, model_path: Path, learnable: Path, tmp_path: Path
) -> None:
    run = tmp_path / f"runs/lora/{TASK}/seed-3"
    train_run(make_config("lora", model_path, epochs=1), 3, learnable, None, run)
    task = TaskInfo(TASK, "accuracy", ("no", "yes"), own)
    about = study_of(model_path, "none", tasks=(task,))
    export(about, {("lora", TASK): cell()}, tmp_path / "runs", tmp_path / "init", tmp_path / "out")
    card = (tmp_path / "out/lora" / TASK / "README.md").read_text(encoding="utf-8")
    assert f"Texts were truncated at\n{said} tokens, logits computed in float32." in card
