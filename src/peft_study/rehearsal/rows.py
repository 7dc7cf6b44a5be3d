"""Made-up rows in each task's own form, and a tiny model that can read them or any other text."""

import hashlib
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import datasets
import pandas as pd
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)

from peft_study.data.sources.hub import DATASETS
from peft_study.data.sources.tables import LAYOUTS
from peft_study.data.tasks import Task
from peft_study.data.texts import canonical
from peft_study.encoders.pretrained import TOKENISER_FILES
from peft_study.errors import StudyError
from peft_study.own_files import FilesParams

ROWS = {"train": 64, "validation": 32}
# Wide enough for the highest rank of any published sweep.
SIZE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZE |= {"intermediate_size": 128}
_TEXT = (
    "the a this that one and of in on with to from film book road city river house people group "
    "story idea plan work day year part place water light music game team school market letter "
    "was is had made found saw took gave went came said thought held kept lost"
)
WORDS = _TEXT.split()
# Words that tell a row's label: classes or scores can be learnt from them.
SIGNS = ("good", "bad", "odd", "old")
SPECIAL = {  # in the order of their numbers, as each architecture's own tokeniser has them
    "roberta": {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"},
    "bert": {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
    "deberta-v2": {"pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "unk": "[UNK]"}
    | {"mask": "[MASK]"},
}


def write_rows(name: str, task: Task, folder: Path) -> None:
    """Save made-up rows of a task of the hub, as its dataset has them, to `folder/name`."""
    datasets.disable_progress_bars()
    parts = {"train": "train"} | dict.fromkeys(DATASETS[name].validation, "validation")
    kinds: dict[str, object] = {text: datasets.Value("string") for text in task.texts}
    score, label = datasets.Value("float32"), task.labels and list(task.labels)
    kinds["label"] = datasets.ClassLabel(names=label) if label else score
    splits = {}
    for part, size in parts.items():
        rows = list(_rows(f"{name} {part}", task, ROWS[size]))
        splits[part] = datasets.Dataset.from_list(rows, features=datasets.Features(kinds))
    datasets.DatasetDict(splits).save_to_disk(str(folder / name))


def write_files(name: str, task: Task, files: FilesParams | None, folder: Path) -> None:
    """Write made-up rows of a task to the files that `files` names, or to those of GLUE's folder.

    Raises StudyError: a file is to be of a kind that is not written here.
    """
    columns: Sequence[str]
    header: Sequence[str] | None
    if files:
        columns, header = list(map(canonical, (*task.texts, files.label))), files.header
        header, home = header and list(map(canonical, header)), folder
        names = {files.train: "train", files.validation: "validation"}
    else:
        layout = LAYOUTS[name]
        columns, header, home = layout.columns[0], layout.header, folder / layout.folder
        names = {"train.tsv": "train"} | dict.fromkeys(layout.validation, "validation")
    for file, size in names.items():
        rows = pd.DataFrame(_rows(f"{name} {file}", task, ROWS[size]))
        if task.labels:
            rows["label"] = [task.labels[label] for label in rows["label"]]
        rows.columns = pd.Index(columns)
        path = home / file
        path.parent.mkdir(parents=True, exist_ok=True)
        match path.suffix:
            case ".tsv" | ".txt" | ".csv":
                rows = rows.reindex(columns=header or columns, fill_value="-")
                sign = "," if path.suffix == ".csv" else "\t"
                rows.to_csv(path, sep=sign, index=False, header=header is None)
            case ".jsonl":
                rows.to_json(path, orient="records", lines=True)
            case ".parquet":
                rows.to_parquet(path)
            case _:
                raise StudyError(f"tasks.{name}.files: '{file}' cannot be made up; put it there")


def _rows(origin: str, task: Task, count: int) -> Iterator[dict[str, str | int | float]]:
    """Yield rows, always the same for an `origin`; labels in turn, so that no class is missing."""
    draw = random.Random(hashlib.sha256(origin.encode()).digest())
    low, high = task.score_range or (0.0, 1.0)
    for number in range(count):
        if task.labels:
            label: int | float = number % len(task.labels)
            signs = [SIGNS[number % len(task.labels) % len(SIGNS)]] * 3
        else:
            share = (number % 4) / 3
            label = low + share * (high - low)
            signs = [SIGNS[0]] * (number % 4) + [SIGNS[1]] * (3 - number % 4)
        texts = {}
        for column in task.texts:
            words = [*draw.choices(WORDS, k=draw.randint(4, 24)), *signs]
            draw.shuffle(words)
            texts[column] = " ".join(words)
        yield {**texts, "label": label}


def write_model(
    config: Mapping[str, object],
    tokeniser: Path | None,
    folder: Path,
    size: Mapping[str, int] = SIZE,
) -> None:
    """Save a random classifier of the architecture that `config` describes, of another `size`.

    It reads with the tokeniser of the folder `tokeniser`, or with a byte-level one of its own.
    """
    import torch  # slow, and not needed to check parameters

    folder.mkdir(parents=True)
    changes = dict(size)
    if tokeniser is None:
        changes["vocab_size"] = _write_tokeniser(str(config["model_type"]), folder)
    else:
        for file in filter(Path.is_file, (tokeniser / name for name in TOKENISER_FILES)):
            shutil.copy(file, folder)
    torch.manual_seed(0)
    shape = shape_of({**config, **changes})
    AutoModelForSequenceClassification.from_config(shape).save_pretrained(folder)


def shape_of(config: Mapping[str, object]) -> PretrainedConfig:
    """Return a model's configuration as transformers completes it."""
    rest = {key: value for key, value in config.items() if key != "model_type"}
    shape: PretrainedConfig = AutoConfig.for_model(str(config["model_type"]), **rest)
    return shape


def _write_tokeniser(model_type: str, folder: Path) -> int:
    """Save a byte-level tokeniser that knows the made-up words; return its number of tokens."""
    special = SPECIAL[model_type]
    cls, sep = special["cls"], special["sep"]
    tokeniser = Tokenizer(models.BPE(unk_token=special["unk"]))
    tokeniser.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokeniser.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=list(special.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokeniser.train_from_iterator([" ".join((*WORDS, *SIGNS))] * 2, trainer)
    second, inputs = ("$B:1", f"{sep}:1"), ["input_ids", "token_type_ids", "attention_mask"]
    between = sep
    if model_type == "roberta":
        second, between = ("$B", sep), f"{sep} {sep}"
    if model_type != "bert":
        inputs.remove("token_type_ids")
    tokeniser.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=" ".join((cls, "$A", between, *second)),
        special_tokens=[(name, tokeniser.token_to_id(name)) for name in (cls, sep)],
    )
    named = {f"{kind}_token": token for kind, token in special.items()}
    PreTrainedTokenizerFast(
        tokenizer_object=tokeniser, model_input_names=inputs, **named
    ).save_pretrained(folder)
    return tokeniser.get_vocab_size()
