"""Small models of every architecture, small data, and the parameters of runs and studies."""

import copy
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import datasets
import hypothesis
import pyarrow as pa
import pytest
import torch
from ruamel.yaml import YAML
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    PretrainedConfig,
    PreTrainedModel,
    RobertaConfig,
)

import forks
from peft_study.configure import configure
from peft_study.data.sources import opinions
from peft_study.data.tasks import TASKS
from peft_study.encoders.architectures import ARCHITECTURES
from peft_study.encoders.pretrained import model_folder
from peft_study.errors import StudyError
from peft_study.methods import METHODS
from peft_study.run_config import (
    AdapterHSettings,
    Encoder,
    FullFtSettings,
    Hyperparameters,
    LoraSettings,
    RunConfig,
    Settings,
)
from peft_study.running import lean
from peft_study.study import check_study
from peft_study.training.resume import Checkpoint, Progress

T = TypeVar("T")
ROOT = Path(__file__).parent.parent
# A loaded machine is no mistake.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")
# For tests that throw at a reader whatever people's files may hold. `make test` draws the same 200
# inputs every time, so that a failure is the change's; `make nightly` draws 5,000 new ones.
NIGHTLY = "FUZZ_EXAMPLES" in os.environ
FUZZ = hypothesis.settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "200")),
    derandomize=not NIGHTLY,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)


class Hang(BaseException):
    """A call that does not end; no handler of errors takes it for one of its own."""


def outcome(call: Callable[[], T], seconds: int = 60) -> T | StudyError:
    """Return what a call returns, or the StudyError it raises, which must be one short line.

    Anything else that it raises is a traceback for a user, and fails the test; so does a hang.
    """

    def hangs(*_: object) -> None:
        raise Hang(f"{call} has not ended after {seconds} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(seconds)
    try:
        return call()
    except StudyError as error:
        refusal = error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert len(str(refusal).splitlines()) == 1, refusal
    assert len(str(refusal)) < 2000, refusal
    return refusal


def pytest_xdist_auto_num_workers() -> int:
    """Return one more than the cores: a test often waits for the processes that it started."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_finish() -> None:
    """Leave what was imported out of what the garbage collector searches again and again."""
    lean.settle()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests: one process builds their project while others test units."""
    longest = ("test_pipeline.py", "test_rehearsal.py")
    items.sort(key=lambda item: (item.path.name not in longest, "slow" not in item.keywords))


_SIZE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 30522,
    "max_position_embeddings": 66,
    "num_labels": 2,
}
CONFIGS: dict[str, PretrainedConfig] = {
    "bert": BertConfig(**_SIZE),
    "roberta": RobertaConfig(**_SIZE, type_vocab_size=1),
    "deberta-v2": DebertaV2Config(
        **_SIZE,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_buckets=8,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        position_biased_input=False,
        conv_kernel_size=3,
        conv_act="gelu",
        type_vocab_size=0,
    ),
}


def small_model(model_type: str) -> PreTrainedModel:
    """Build a random two-layer classifier, always the same."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(CONFIGS[model_type])
    return model.eval()


def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that all test processes of a command share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if base.name.startswith("popen-") else base


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with a `python` and a `dvc` that begin at once."""
    with forks.programs(shared_folder(tmp_path_factory) / "forks") as folder:
        yield folder


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a small BERT and a real tokeniser, as `model.name` may name it."""
    folder = tmp_path_factory.mktemp("model")
    small_model("bert").save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(model_folder("minilm") / name, folder)
    return folder


@pytest.fixture(scope="session")
def archive() -> Path:
    """Return the checked archive of human-rated sentences."""
    try:
        return opinions.fetch(ROOT / opinions.DOWNLOADS)
    except StudyError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the archive is neither there nor to be fetched: {error}")


@pytest.fixture
def params() -> dict[str, Any]:
    """Return the parameters of the default study, parsed, with all methods on all tasks."""
    values: dict[str, Any] = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text())
    return copy.deepcopy(values | {"only": {}})


def refusal(params: dict[str, Any]) -> str:
    """Return the one line with which parameters are refused before anything runs."""
    with pytest.raises(StudyError) as caught:
        configure(check_study(params))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def set_key() -> Callable[[dict[str, Any], str, Any], None]:
    """Return a function that sets a dotted key of parsed parameters."""

    def set_key(values: dict[str, Any], key: str, value: Any) -> None:
        *path, last = key.split(".")
        for part in path:
            values = values[part]
        values[last] = value

    return set_key


LORA = LoraSettings(r=4, alpha=8.0, dropout=0.1, targets=("query", "value"))
SETTINGS: dict[str, Settings] = {
    "lora": LORA,
    "adapter_h": AdapterHSettings(bottleneck=4, activation="gelu"),
    "full_ft": FullFtSettings(),
}
HYPER = Hyperparameters(
    epochs=2,
    batch_size=8,
    gradient_accumulation_steps=1,
    learning_rate=5e-3,
    schedule="linear",
    warmup_ratio=0.1,
    weight_decay=0.01,
    adam_beta2=0.999,
    adam_epsilon=1e-8,
    max_grad_norm=1.0,
    evaluations_per_epoch=2,
    head="trained",
    report="best",
    device="cpu",
    precision="float32",
)


def make_config(method: str, model: Path, **train: Any) -> RunConfig:
    """Return a small run of `method`, its weights saved; `train` replaces hyperparameters."""
    row = METHODS[method]
    return RunConfig(
        method=method,
        module=row.module,
        task="movie_polarity",
        definition=TASKS["movie_polarity"],
        encoder=Encoder(str(model), None, None, ARCHITECTURES["bert"]),
        settings=SETTINGS[str(row.block)],
        train=replace(HYPER, **train),
        max_length=32,
        save_weights=True,
        packages={},
    )


@pytest.fixture(scope="session")
def learnable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a task that can be learnt: the label is whether token 7 or token 9 is in the text."""
    generator = torch.Generator().manual_seed(0)
    folder = tmp_path_factory.mktemp("learnable")
    splits = {}
    for name, rows in (("train", 60), ("validation", 40)):
        labels = torch.randint(2, (rows,), generator=generator).tolist()
        ids = []
        for label in labels:
            length = int(torch.randint(3, 20, (1,), generator=generator))
            text = torch.randint(20, 40, (length,), generator=generator).tolist()
            ids.append([101, 7 + 2 * label, *text, 102])
        table = pa.table(
            {
                "id": [f"{name}:{i}" for i in range(rows)],
                "input_ids": pa.array(ids, pa.list_(pa.int32())),
                "label": labels,
            }
        )
        splits[name] = datasets.Dataset(table, fingerprint="test")
    datasets.DatasetDict(splits).save_to_disk(str(folder))
    return folder


@contextmanager
def full_disk(left: int = 1000) -> Iterator[None]:
    """Let no file become longer than `left` bytes: what a full disk says, without a disk.

    Python keeps nothing that it compiles meanwhile: it would keep, and read later, what was cut.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, before[0][1]))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before[0])
        sys.dont_write_bytecode = before[1]


def run_files(directory: Path) -> dict[str, bytes]:
    """Return the contents of the files of one run or many, by path, without what tells seconds."""
    files = sorted(directory.rglob("*"))
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in files
        if path.is_file() and path.name not in ("timings.csv", "manifest.json")
    }


class Interrupted(Exception):
    pass


class InterruptedAfter(Checkpoint):
    """A checkpoint after every step, and the end of the process after some of them."""

    def __init__(self, directory: Path, step: int) -> None:
        super().__init__(directory, interval=0)
        self.step = step

    def save(self, progress: Progress, *rest: Any, **named: Any) -> None:
        super().save(progress, *rest, **named)
        if progress.step == self.step:
            raise Interrupted
