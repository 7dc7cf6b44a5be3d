"""The studies of `studies/`: valid, open about what they reproduce, and written whole."""

import csv
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from conftest import ROOT
from peft_study import presets as studies
from peft_study.errors import StudyError
from peft_study.grids import LedgerParams
from peft_study.study import Study, check_study, load_study

NAMES = sorted(path.stem for path in (ROOT / "studies").glob("*.yaml"))
OVERLAYS = [name for name in NAMES if name != "opinions"]
OWN = ("minilm_glue", "minilm_ledger", "peft_methods")
PUBLISHED = [name for name in OVERLAYS if name not in OWN]
SCRIPTS = ROOT.parent / "shared/reference/hyperparameters.csv"
# Training rows: of MNLI, QQP and SNLI as published, of the others what cleaning leaves.
MNLI, STSB, SST2, QQP, MRPC, SNLI = 392_702, 5_737, 67_344, 363_846, 3_667, 550_152


@pytest.fixture(autouse=True)
def _at_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return, and enter, a git repository with the studies and nothing else."""
    shutil.copytree(ROOT / "studies", tmp_path / "studies")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "no-such-file"))
    monkeypatch.chdir(tmp_path)
    _git("init", "--quiet")
    return tmp_path


def _edit(path: Path) -> str:
    edited = path.read_text("utf-8").replace("  r: 8\n", "  r: 3\n")
    path.write_text(edited, "utf-8")
    return edited


def _commit() -> None:
    _git("add", "params.yaml")
    _git("commit", "--quiet", "--message", "a study")


def _git(*arguments: str) -> None:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


def _parse(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def _leaves(values: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings by their dotted keys."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _source(name: str) -> str:
    return (ROOT / f"studies/{name}.yaml").read_text("utf-8")


def _body(text: str) -> str:
    """Return the text without the comment that opens it."""
    return re.sub(r"\A(#.*\n)*", "", text)


@pytest.mark.parametrize("name", NAMES)
def test_study_is_valid_without_a_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a check must not reach for the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    assert studies.load(name).study == name
    questions = studies.check(name)
    assert bool(questions) == (name not in ("opinions", "peft_methods"))


@pytest.mark.parametrize("name", NAMES)
def test_study_opens_with_a_comment_that_names_it(name: str) -> None:
    text = _source(name)
    assert text.startswith(f"# {name}: ")
    assert _body(text).startswith("study: ")  # no blank line before the first key


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_study_names_its_source_and_deviations(name: str) -> None:
    header = _source(name).partition("\nstudy: ")[0]
    assert "\n# Source: " in header
    assert re.search(r"\(hu2021\)|\(00\d_[0-9a-f]{16}", header)
    assert "\n# Deviations:\n" in header
    assert max(map(len, header.splitlines())) <= 100


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_study_is_small_and_of_the_hub(name: str) -> None:
    study = studies.load(name)
    assert study.data.source == "hub"
    assert study.mnli_init.task == "mnli"
    assert study.model.name.startswith("models/") or study.model.revision


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_study_measures_the_costs_of_what_it_trains(name: str) -> None:
    """Unless its file names another profile or task, which is one of its own in any case."""
    study, said = studies.load(name), _parse(_source(name)).get("profile") or {}
    profile = study.profile
    trained = {
        "ranks": [study.lora.r, *(r for r in profile.ranks if r != study.lora.r)],
        "targets": study.lora.targets,
        "bottleneck": study.adapter_h.bottleneck,
    }
    assert {key: getattr(profile, key) for key in trained} == trained | {
        key: value for key, value in said.items() if key in trained
    }
    assert {*profile.tasks, study.sweep.task} <= set(study.tasks)
    assert profile.tasks == said.get("tasks", [next(iter(study.tasks))])


@pytest.mark.parametrize("name", NAMES)
def test_rendered_study_is_its_values(name: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(studies.render(name), "utf-8")
    assert _parse(path.read_text("utf-8")) == studies.values(name)
    assert load_study(path) == studies.load(name)


@pytest.mark.parametrize("name", NAMES)
def test_rendered_study_keeps_the_comments(name: str) -> None:
    text, own = studies.render(name), _source(name)
    assert text.startswith(own.removesuffix(_body(own)))  # the study's own comment, and no other
    assert text.count("# opinions: ") == (name == "opinions")
    base = _body(_source("opinions"))
    comments = re.findall(r"  (# .*)", base)
    assert "# lora, peft_lora and loralib_lora" in comments
    assert [comment for comment in comments if comment not in text] == []


@pytest.mark.parametrize("name", NAMES)
def test_rendered_study_is_in_block_style(name: str) -> None:
    lines = [line.partition("#")[0].rstrip() for line in studies.render(name).splitlines()]
    empty = ("[]", "{}")
    flow = [line for line in lines if re.search(r"[:-] +[[{]", line)]
    assert [line for line in flow if not line.endswith(empty)] == []


def test_a_methods_own_tasks_and_seeds_are_rendered_in_block_style(repository: Path) -> None:
    text = "study: own\nonly:\n  lora:\n    seeds:\n      - 7\n"
    (repository / "studies/own.yaml").write_text(text)
    rendered = studies.render("own")
    assert _parse(rendered) == studies.values("own")
    assert re.search(r"\nonly: +# a method's own .*\n  lora:\n    seeds:\n      - 7\n\n", rendered)


def test_the_base_is_rendered_as_it_is() -> None:
    assert studies.render("opinions") == _source("opinions")


def test_tasks_are_replaced_whole_and_all_else_is_merged() -> None:
    base, study = studies.load("opinions"), studies.load("chu_table1")
    assert list(study.tasks) == ["sst2", "qqp", "mrpc"]
    assert set(base.tasks).isdisjoint(study.tasks)
    assert study.train.epochs == 3
    assert study.train.warmup_ratio == base.train.warmup_ratio
    assert study.seeds == base.seeds


def test_a_list_is_replaced_whole() -> None:
    assert studies.load("keyquery_sst2").lora.targets == ["query", "key"]
    assert studies.load("chu_table3").seeds == [1]


@pytest.mark.parametrize(("name", "close"), [("chu_tabel1", "chu_table1"), ("../params", None)])
@pytest.mark.parametrize("function", [studies.values, studies.load, studies.use, studies.check])
def test_unknown_study_is_one_line(name: str, close: str | None, function: Any) -> None:
    with pytest.raises(StudyError) as caught:
        function(name)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"STUDY: got '{name}'; ")
    assert f"did you mean '{close}'?" in message if close else "known: " in message


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("study: [broken", " line 1: not valid YAML: "),
        ("study: broken\nstudy: twice\n", " line 2: not valid YAML: "),
        ("", ": must hold a mapping"),
        ("study: broken\nlora:\n  rank: 3\n", ": lora.rank: unknown key"),
        ("study: broken\nlora: 3\n", ""),
        ("study: broken\nprofile: 3\n", ""),
        ("study: broken\nprofile:\n  ranks: 3\n", ": profile.ranks: got 3"),
        ("study: broken\ntasks: {}\n", ": tasks: got {}"),
        ("study: broken\ntasks:\n  mrcp:\n", ": tasks"),
    ],
)
def test_broken_study_is_one_line(repository: Path, text: str, named: str) -> None:
    (repository / "studies/broken.yaml").write_text(text)
    with pytest.raises(StudyError) as caught:
        studies.load("broken")
    assert str(caught.value).startswith(f"studies/broken.yaml{named}")
    assert "\n" not in str(caught.value)


# What YAML 1.1 reads otherwise: words, octal numbers, sixagesimal numbers, a plain sign.
WORDS = [
    ("[no, yes]", ["no", "yes"]),
    ("[on, off]", ["on", "off"]),
    ("[y, n]", ["y", "n"]),
    ("[NO, SE]", ["NO", "SE"]),
    ('["010", 1:30]', ["010", "1:30"]),
]


@pytest.mark.parametrize(("text", "labels"), WORDS)
def test_a_study_is_read_as_params_yaml_is(repository: Path, text: str, labels: list[str]) -> None:
    files = "{train: a.tsv, validation: b.tsv, texts: [text], label: label, labels: "
    (repository / "studies/own.yaml").write_text(
        "study: own\ndata: {source: files, folder: here}\n"
        f"tasks:\n  mine:\n    files: {files}{text}}}\n"
        "    learning_rate: 1e-4\n"
        "mnli_init: {mode: none, tasks: []}\n"
    )
    study = studies.load("own")
    assert study.tasks["mine"].files is not None
    assert study.tasks["mine"].files.labels == labels
    studies.use("own")
    assert load_study(repository / "params.yaml") == study


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("text\tanswer\na\tyes\n", "own.tsv line 1: column 'label' is missing"),
        ("text\tlabel\na\tmaybe\n", "own.tsv line 2: unknown label 'maybe'"),
        ("text\tlabel\ra\tyes\r", "own.tsv: its lines end in CR alone"),
        ("text\tlabel\na\tnan\nb\tno\n", None),
    ],
)
def test_a_check_looks_at_tables_though_the_model_is_not_at_hand(
    repository: Path, table: str, says: str | None
) -> None:
    (repository / "own.tsv").write_text(table, newline="")
    (repository / "studies/own.yaml").write_text(
        f"study: own\nmodel: {{name: no/such-model, revision: {'a' * 40}}}\n"
        "data: {source: files, folder: .}\nmnli_init: {mode: none, tasks: []}\n"
        "tasks:\n  mine:\n    files: {train: own.tsv, validation: own.tsv, texts: [text], "
        "label: label, labels: [no, yes]}\n"
    )
    if says is None:
        question = "model no/such-model is neither a folder nor in the hub's cache"
        assert studies.check("own") == [question]
        return
    with pytest.raises(StudyError, match=re.escape(says)):
        studies.check("own")


def test_use_writes_a_study(repository: Path) -> None:
    studies.use("chu_table1")
    assert load_study(repository / "params.yaml") == studies.load("chu_table1")
    assert sorted(path.name for path in repository.iterdir()) == [".git", "params.yaml", "studies"]


@pytest.mark.parametrize("edits", [False, True])
def test_use_overwrites_a_study_whose_edits_if_any_are_committed(
    repository: Path, edits: bool
) -> None:
    studies.use("chu_table1")
    if edits:
        _edit(repository / "params.yaml")
        _commit()
    studies.use("liu_weights")
    assert load_study(repository / "params.yaml").study == "liu_weights"


@pytest.mark.parametrize("committed", [False, True])
def test_use_refuses_to_lose_edits(repository: Path, committed: bool) -> None:
    studies.use("chu_table1")
    if committed:
        _commit()
    path = repository / "params.yaml"
    edited = _edit(path)
    with pytest.raises(StudyError, match=r"params\.yaml: holds edits that are not committed") as e:
        studies.use("liu_weights")
    assert "\n" not in str(e.value)
    assert path.read_text("utf-8") == edited
    assert sorted(path.name for path in repository.iterdir()) == [".git", "params.yaml", "studies"]


def test_use_refuses_edits_outside_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "studies", tmp_path / "studies")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("study: mine\n")
    with pytest.raises(StudyError, match="edits"):
        studies.use("chu_table1")
    assert (tmp_path / "params.yaml").read_text() == "study: mine\n"


def test_use_leaves_params_alone_for_an_unknown_study(repository: Path) -> None:
    studies.use("chu_table1")
    before = (repository / "params.yaml").read_bytes()
    with pytest.raises(StudyError, match="did you mean 'chu_table3'"):
        studies.use("chu_table33")
    assert (repository / "params.yaml").read_bytes() == before


def _steps(epochs: int, rows: int, batch: int) -> int:
    return epochs * math.ceil(rows / batch)


# study, runs, optimiser steps
SIZES = [
    ("chu_table3", 15, 15 * _steps(3, MNLI, 16)),
    ("chu_table1", 15, 5 * (_steps(3, SST2, 16) + _steps(3, QQP, 4) + _steps(3, MRPC, 16))),
    ("hu_table6_roberta_base", 75, 75 * _steps(30, MNLI, 128)),
    ("liu_comparison", 15, 15 * _steps(5, STSB, 16)),
    ("liu_weights", 75, 75 * _steps(5, STSB, 16)),
    ("liu_snli", 15, 15 * _steps(5, SNLI, 16)),
    ("keyquery_mrpc", 1 + 3, 4 * _steps(10, MRPC, 32)),
    ("keyquery_deberta", 2, 2 * _steps(3, SST2, 16)),
    # three methods, five seeds, three tasks and an MNLI-like start each; another on one task
    ("opinions", 3 * (5 * 3 + 1) + 5, 3 * (5 * (2 * 25 + 2 * 28 + 2 * 13) + 80) + 5 * 2 * 25),
]


def _without_ledger(study: Study) -> Study:
    return study.model_copy(update={"ledger": LedgerParams.model_validate({})})


@pytest.mark.parametrize(("name", "runs", "steps"), SIZES)
def test_size_of_a_study(name: str, runs: int, steps: int) -> None:
    size = studies.describe(_without_ledger(studies.load(name)))
    assert (size["runs"], size["steps"]) == (runs, steps)


def test_size_counts_the_settings_of_the_ledger_and_trials() -> None:
    size = studies.describe(studies.load("keyquery_rte"))
    assert size["methods"] == ["full_ft", "sweep of 3", "ledger of 5"]
    assert (size["runs"], size["steps"]) == (4 + 5, 9 * _steps(10, 2_490, 32))
    values = studies.values("opinions") | {"tune": {"learning_rate": [1, 2, 4]}}
    tuned, plain = (studies.describe(check_study(v)) for v in (values, studies.values("opinions")))
    assert tuned["runs"] - plain["runs"] == (3 * 3 + 1) * 3 * 2


def test_size_counts_the_starts() -> None:
    """Five methods on eight tasks with five seeds, and an MNLI run for each method."""
    size = studies.describe(_without_ledger(studies.load("hu_table2_roberta_base")))
    assert size["runs"] == 5 * 8 * 5 + 5
    without = studies.values("hu_table2_roberta_base") | {"ledger": {}}
    without["mnli_init"] |= {"mode": "none"}
    smaller = studies.describe(Study.model_validate(without))
    starts = _steps(30, MNLI, 128) + 4 * _steps(10, MNLI, 32)
    assert size["steps"] - smaller["steps"] == starts
    without["mnli_init"] |= {"mode": "full_ft"}  # one encoder for all
    assert studies.describe(Study.model_validate(without))["runs"] == 5 * 8 * 5 + 1


def test_size_is_unknown_for_files_of_ones_own() -> None:
    values = studies.values("minilm_glue")
    values["mnli_init"]["train_rows"] = None
    assert studies.describe(Study.model_validate(values))["steps"] is None


def test_listing_has_every_study() -> None:
    lines = studies.listing().splitlines()
    assert [line for line in lines if not line.startswith(" ")] == NAMES
    assert "  runs     19; optimiser steps: about 1,399,008" in lines


@pytest.mark.parametrize("model", ["roberta-base", "roberta-large"])
def test_table_2_has_the_hyperparameters_of_the_authors_scripts(model: str) -> None:
    if not SCRIPTS.is_file():
        pytest.skip(f"{SCRIPTS} is not there: the table of the LoRA authors' scripts")
    with SCRIPTS.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == model]
    scripts = {row["task"]: row for row in rows if row["method"] == "lora"}
    study = studies.load(f"hu_table2_{model.replace('-', '_')}")
    assert set(study.tasks) == set(scripts)
    for name, row in scripts.items():
        starts = [study.mnli_init] if name == study.mnli_init.task else []
        for task in [study.tasks[name], *starts]:
            found = study.hyperparameters("lora", task)
            wanted = {
                key: float(row[key]) for key in ("learning_rate", "warmup_ratio", "weight_decay")
            }
            wanted["epochs"] = int(row["epochs"])
            wanted["batch_size"] = int(row["batch_size_per_device"]) * int(row["devices"])
            assert {key: getattr(found, key) for key in wanted} == wanted, name
            assert (task.max_length or study.model.max_length) == int(row["max_length"]), name
        assert (name in study.starters) == (row["starts_from_mnli"] == "yes"), name
        assert (study.lora.r, study.lora.alpha) == (int(row["rank"]), float(row["alpha"]))


def test_table_6_has_the_hyperparameters_of_the_mnli_script() -> None:
    table_2, table_6 = (studies.load(f"hu_table{n}_roberta_base") for n in (2, 6))
    resolved = [s.hyperparameters("lora", s.tasks["mnli"]) for s in (table_2, table_6)]
    whole = [replace(hyper, gradient_accumulation_steps=1) for hyper in resolved]
    assert whole[0] == whole[1]
    assert table_2.lora.alpha == table_6.lora.alpha


@pytest.mark.parametrize("model", ["roberta_base", "roberta_large"])
def test_full_fine_tuning_of_table_2_is_the_same_for_all_tasks(model: str) -> None:
    study = studies.load(f"hu_table2_{model}")
    found = [study.hyperparameters("full_ft", t) for t in (*study.tasks.values(), study.mnli_init)]
    assert all(hyper == found[0] for hyper in found)
    assert (found[0].epochs, found[0].batch_size) == (10, 32)
    assert found[0].learning_rate == {"roberta_base": 2e-5, "roberta_large": 1e-5}[model]


@pytest.mark.parametrize("name", ["keyquery_mrpc", "keyquery_rte", "keyquery_deberta"])
def test_keyquery_trains_all_methods_with_the_same_hyperparameters(name: str) -> None:
    study = studies.load(name)
    (task,) = study.tasks.values()
    lora, full_ft = (study.hyperparameters(method, task) for method in ("lora", "full_ft"))
    assert replace(lora, head="trained") == full_ft
    assert lora.head == "frozen"


@pytest.mark.parametrize(("model", "most"), [("roberta_base", 32), ("roberta_large", 8)])
def test_pieces_of_a_batch_are_small(model: str, most: int) -> None:
    study = studies.load(f"hu_table2_{model}")
    resolved = [study.hyperparameters(m, t) for m in study.methods for t in study.tasks.values()]
    pieces = [h.batch_size / h.gradient_accumulation_steps for h in resolved]
    assert max(map(math.ceil, pieces)) == most


def test_list_into_a_reader_that_stops_early() -> None:
    """`make studies | head` ends without a complaint."""
    command, pipe = [sys.executable, "-m", "peft_study.presets", "list"], subprocess.PIPE
    listing = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    assert listing.stdout
    assert listing.stderr
    listing.stdout.close()
    complaint = listing.stderr.read()
    listing.wait()
    assert complaint == ""
