"""Saved weights on texts of one's own: what their run has predicted, or one line."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

import builders
from conftest import make_config
from peft_study.data.prepare import prepare
from peft_study.data.sources import tables
from peft_study.data.tasks import Task
from peft_study.encoders.architectures import ARCHITECTURES
from peft_study.encoders.pretrained import model_digest
from peft_study.errors import StudyError, run_command
from peft_study.files import read_json, write_json
from peft_study.findings.export import export
from peft_study.predict import load, logits_of, main, predicted, write_predictions
from peft_study.records.scores import Counts, Rows
from peft_study.records.study import InitInfo, MethodInfo, ModelInfo
from peft_study.run_config import (
    AdaptersSettings,
    BitFitSettings,
    Encoder,
    PeftSettings,
    RunConfig,
    Settings,
)
from peft_study.stage_configs import PrepareConfig
from peft_study.training.loop import train_run

TASK, LENGTH = "mine", 12  # tokens, of which most texts have more
PAIR = Task(("premise", "claim"), ("no", "yes", "maybe"), ("accuracy",))
RATED = Task(("premise", "claim"), None, ("pearson",))
WORDS = ("river", "house", "music", "winter", "bread", "stone", "garden", "letter", "market")
RECIPES: dict[str, tuple[str, Settings]] = {
    "ia3": (
        "peft_tuner",
        PeftSettings(
            {
                "peft_type": "IA3",
                "target_modules": ["key", "value", "intermediate.dense"],
                "feedforward_modules": ["intermediate.dense"],
            }
        ),
    ),
    # What it draws is not saved with it, but for the seed.
    "vera": (
        "peft_tuner",
        PeftSettings({"peft_type": "VERA", "r": 4, "target_modules": ["query"]}),
    ),
    "bitfit": ("bitfit", BitFitSettings()),
    "seq_bn": ("adapters_library", AdaptersSettings("seq_bn[reduction_factor=4]")),
}


class Study:
    """A task in files of one's own, and runs on it in the places where stages leave them."""

    def __init__(self, folder: Path, model: Path, task: Task = PAIR) -> None:
        self.folder, self.task = folder, task
        draw = np.random.default_rng(0)
        for name, rows in (("train", 24), ("dev", 15)):
            texts = [[" ".join(draw.choice(WORDS, 5)) for _ in range(rows)] for _ in "ab"]
            labels = [n % 3 for n in range(rows)]
            shown = [task.labels[n] for n in labels] if task.labels else labels
            frame = pd.DataFrame({"claim": texts[1], "premise": texts[0], "label": shown})
            frame.to_csv(folder / f"{name}.tsv", sep="\t", index=False)
        names = {"train": "train.tsv", "validation": "dev.tsv", "label": "label"}
        files = names | {"texts": task.texts, "labels": task.labels}
        location = tables.locate(TASK, task, str(folder), files)
        self.encoder = Encoder(str(model), None, model_digest(model), ARCHITECTURES["bert"])
        source = TASK, TASK, task, "files", location
        config = PrepareConfig(*source, 0, None, None, self.encoder, {}, LENGTH)
        prepare(config, folder / "prepared")

    def config(self, method: str) -> RunConfig:
        module, settings = RECIPES.get(method, ("", None))
        config = make_config("lora" if module else method, Path(), learning_rate=1e-2)
        config = replace(config, definition=self.task, encoder=self.encoder, max_length=LENGTH)
        return replace(config, module=module, settings=settings) if settings else config

    def train(self, method: str, start: Path | None = None, seed: int = 3) -> Path:
        run = self.folder / "runs" / method / TASK / f"seed-{seed}"
        train_run(self.config(method), seed, self.folder / "prepared", start, run)
        return run

    def export(self, method: str, tuned: bool = False) -> Path:
        settings = {"config": self.config(method).settings.__dict__.get("config")}
        info = MethodInfo(method, method, "other", method, 0, True, settings)
        info = builders.method(method) if method == "lora" else info
        about = replace(
            builders.study(("lora",), {TASK: "accuracy"}),
            methods=(info,),
            model=ModelInfo(self.encoder.name, None, 32),
            mnli_init=InitInfo("full_ft" if tuned else "none", "other", (TASK,) if tuned else ()),
        )
        data = {"train": Rows(24, "ab"), "validation": Rows(15, "cd")}
        cell = builders.cell(method, TASK, 0.5, data=data, trainable=Counts(1, 2, 3))
        cell = replace(cell, seeds={"3": next(iter(cell.seeds.values()))})
        out = self.folder / "exports"
        export(about, {(method, TASK): cell}, self.folder / "runs", self.folder / "init", out)
        return out / method / TASK

    def agrees(self, saved: Path, run: Path) -> None:
        """Check that saved weights give what their run has predicted of the rows held out."""
        stored = pd.read_parquet(run / "predictions.parquet")
        stored = stored[stored["step"] == read_json(run / "run.json")["reported_step"]]
        loaded, rows = load(saved), list(tables.read_texts(self.folder / "dev.tsv", self.task))
        stored = stored.set_index("id").loc[[f"validation:{row.id}" for row in rows]]
        expected = np.stack(stored["logits"].tolist())
        found = logits_of(loaded, rows).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)
        assert np.std(expected, axis=0).min() > 1e-3  # texts are told apart
        table = predicted(loaded, rows)
        if labels := self.task.labels:
            assert table["prediction"].tolist() == [labels[n] for n in stored["prediction"]]
            shares = table[[f"probability of {label}" for label in labels]].to_numpy()
            of_logits = torch.tensor(expected).double().softmax(-1).numpy()
            np.testing.assert_allclose(shares, of_logits, atol=1e-6)
        else:
            np.testing.assert_allclose(table["prediction"], stored["prediction"], atol=1e-6)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Path:
    """Return a small BERT whose logits depend on the text by more than rounding."""
    folder = tmp_path_factory.mktemp("encoder")
    shutil.copytree(model_path, folder, dirs_exist_ok=True)
    weights = load_file(folder / "model.safetensors")
    large = {name: 6 * w if w.ndim > 1 else w for name, w in weights.items()}
    save_file(large, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def study(tmp_path: Path, encoder: Path) -> Study:
    return Study(tmp_path, encoder)


@pytest.mark.parametrize("method", ["lora", "ia3", "vera"])
def test_an_export_predicts_what_its_run_has(method: str, study: Study) -> None:
    run = study.train(method)
    study.agrees(study.export(method), run)


@pytest.mark.parametrize("method", ["full_ft", "adapter_h", "bitfit", "seq_bn", "loralib_lora"])
def test_the_saved_weights_of_a_run_predict_what_it_has(method: str, study: Study) -> None:
    run = study.train(method)
    study.agrees(run, run)
    study.agrees(run / "adapter", run)


def test_scores_are_predicted_as_scores(tmp_path: Path, encoder: Path) -> None:
    study = Study(tmp_path, encoder, RATED)
    run = study.train("lora")
    study.agrees(run, run)
    rows = list(tables.read_texts(study.folder / "dev.tsv", RATED))
    assert predicted(load(run), rows).columns.tolist() == ["id", "prediction"]


def tuned(study: Study) -> Path:
    """Train an encoder whole, and lay it out where the runs of LoRA start from."""
    start = study.folder / "init/lora/start"
    start.parent.mkdir(parents=True)
    (study.train("full_ft", seed=1) / "adapter").rename(start)
    return start


def test_an_adapter_of_a_fine_tuned_encoder_is_applied_to_that(study: Study) -> None:
    start = tuned(study)
    run = study.train("lora", start)
    out = study.export("lora", tuned=True)
    assert (study.folder / "exports/encoder").is_dir()
    study.agrees(run, run)
    study.agrees(out, run)
    for path, saved in ((start / "adapter_model.safetensors", run), (out, out)):
        path = study.folder / "exports/encoder/model.safetensors" if path == out else path
        path.write_bytes(path.read_bytes() + b" ")
        with pytest.raises(StudyError, match="is another encoder than the one that was adapted"):
            load(saved)
        path.unlink()
        with pytest.raises(StudyError, match="is not here, the encoder of this adapter; fetch it"):
            load(saved)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> Study:
    """Return a study whose LoRA is exported."""
    study = Study(tmp_path_factory.mktemp("trained"), encoder)
    study.train("lora")
    study.export("lora")
    return study


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("premise\tlabel\na\tno\n", "line 1: column 'claim' is missing; found: premise, label"),
        ("premise\tclaim\n", "holds no rows"),
        ("", "is empty"),
        ("premise\tclaim\na\t \n", "line 2: a text is empty; fill it in or delete the line"),
        ("premise\tclaim\na\n", "line 2: 1 fields, expected 2"),
    ],
)
def test_a_table_that_cannot_be_read_is_a_line(
    table: str, says: str, trained: Study, tmp_path: Path
) -> None:
    (tmp_path / "mine.tsv").write_text(table)
    out = tmp_path / "out.tsv"
    with pytest.raises(StudyError) as caught:
        write_predictions(trained.folder / "exports/lora" / TASK, tmp_path / "mine.tsv", out)
    assert str(caught.value) == f"{tmp_path / 'mine.tsv'} {says}" or says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_ids_that_a_table_has_are_kept_and_nothing_is_overwritten(
    trained: Study, tmp_path: Path
) -> None:
    saved, mine = trained.folder / "exports/lora" / TASK, tmp_path / "mine.jsonl"
    mine.write_text('{"claim": "bread", "id": "x7", "premise": "stone"}\n')
    out = tmp_path / "new/out.csv"
    assert write_predictions(saved, mine, out) == 1
    assert pd.read_csv(out)["id"].tolist() == ["x7"]
    before = out.read_bytes()
    with pytest.raises(StudyError, match="is there already; move it away, or name another with O"):
        write_predictions(saved, mine, out)
    assert out.read_bytes() == before
    with pytest.raises(StudyError, match=r"OUT: got '.*out.parquet'; must end in .tsv or .csv$"):
        write_predictions(saved, mine, tmp_path / "out.parquet")


def test_folders_without_weights_and_another_encoder_are_named(
    trained: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StudyError, match=r"ADAPTER: got 'nowhere'; there is no such folder; name"):
        load(Path("nowhere"))
    with pytest.raises(StudyError, match=r"without study.json; must be an exported adapter, or a "):
        load(tmp_path)
    saved = trained.folder / "exports/lora" / TASK
    said: dict[str, Any] = read_json(saved / "study.json")
    said["run"]["encoder"]["sha256"] = "ab" * 32
    (tmp_path / "adapter_model.safetensors").touch()
    write_json(tmp_path / "study.json", said)
    (tmp_path / "adapter_config.json").write_bytes((saved / "adapter_config.json").read_bytes())
    with pytest.raises(StudyError, match=r"its files are not those that .* was trained on; put"):
        load(tmp_path)


def test_the_command_writes_beside_its_table_or_says_why_not(
    trained: Study,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mine, out = tmp_path / "mine.tsv", tmp_path / "mine.predictions.tsv"
    mine.write_bytes((trained.folder / "dev.tsv").read_bytes())
    command = ["predict", str(trained.folder / "exports/lora" / TASK), str(mine), ""]
    monkeypatch.setattr(sys, "argv", command)
    run_command(main)
    printed = capsys.readouterr()
    assert printed.out == f"predict: wrote the predictions of 15 rows to {out}\n"
    assert pd.read_csv(out, sep="\t").columns.tolist() == [
        *("id", "prediction", "probability of no", "probability of yes", "probability of maybe")
    ]
    for argv, says in ((command, f"OUT: '{out}' is there already"), (command[:2], "predict: name")):
        monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as ended:
            run_command(main)
        printed = capsys.readouterr()
        assert (ended.value.code, printed.out, printed.err.count("\n")) == (2, "", 1)
        assert printed.err.startswith(f"error: {says}")
