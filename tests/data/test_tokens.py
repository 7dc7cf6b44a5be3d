"""What a tokeniser cannot tell apart is said for what it is."""

from pathlib import Path
from typing import Any

import pytest

from conftest import outcome
from peft_study.data.prepare import prepare
from peft_study.data.sources import tables
from peft_study.data.tasks import Task
from peft_study.encoders.architectures import ARCHITECTURES
from peft_study.errors import StudyError
from peft_study.run_config import Encoder
from peft_study.stage_configs import PrepareConfig

WORDS = ("apple", "bridge", "candle", "desert", "engine", "forest", "garden", "hammer", "island")
DISTINCT = [f"the {a} and the {b}" for a in WORDS for b in WORDS if a != b]
EMOJI = [chr(0x1F600 + n) for n in range(60)]
GOTHIC = [chr(0x10330 + n) for n in range(24)]


def own(folder: Path, train: list[str], held_out: list[str], max_length: int = 32) -> Any:
    """Prepare texts, with two labels in turn, for the embedded encoder; return the outcome."""
    for name, texts in (("train", train), ("dev", held_out)):
        rows = "".join(f"{text}\t{n % 2}\n" for n, text in enumerate(texts))
        (folder / f"{name}.tsv").write_text("text\tlabel\n" + rows, encoding="utf-8")
    task = Task(("text",), ("0", "1"), ("accuracy",))
    files = {"train": "train.tsv", "validation": "dev.tsv", "texts": ["text"], "label": "label"}
    location = tables.locate("own", task, str(folder), files | {"labels": ["0", "1"]})
    encoder = Encoder("minilm", None, None, ARCHITECTURES["bert"])
    config = PrepareConfig(
        "tasks.own", "own", task, "files", location, 0, None, None, encoder, {}, max_length
    )
    return outcome(lambda: prepare(config, folder / "out"))


@pytest.mark.parametrize(
    ("train", "held_out", "counted"),
    [
        pytest.param(EMOJI[:20], EMOJI[20:40], "20 training and 20 held-out", id="emoji alone"),
        pytest.param(
            [*DISTINCT[:20], *GOTHIC[:4]],
            [*GOTHIC[4:8], *DISTINCT[20:36]],
            "4 training and 4 held-out",
            id="a script that it does not know, now and then",
        ),
        pytest.param(DISTINCT[:20], GOTHIC, "0 training and 24 held-out", id="held out alone"),
        pytest.param(
            [f"{sign} {sign}" for sign in EMOJI[:20]],
            DISTINCT[:9],
            "20 training and 0 held-out",
            id="pairs",
        ),
        pytest.param(
            ["\ufffd" * n for n in range(1, 12)],
            DISTINCT[:9],
            "11 training and 0 held-out",
            id="replaced",
        ),
    ],
)
def test_texts_of_signs_that_the_tokeniser_does_not_know(
    tmp_path: Path, train: list[str], held_out: list[str], counted: str
) -> None:
    found = own(tmp_path, train, held_out)
    assert isinstance(found, StudyError)
    assert str(found).startswith(
        f"tasks.own: {counted} rows hold only signs that the tokeniser of model.name 'minilm' "
        "does not know, such as '"
    )
    assert "max_length" not in str(found)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("train", "held_out"),
    [
        (["I am 😀", *DISTINCT[:20]], ["I am 😡", *DISTINCT[20:29]]),
        (["naïve bridges", *DISTINCT[:20]], ["naive bridges", *DISTINCT[20:29]]),
    ],
)
def test_a_few_texts_that_read_the_same_are_leaks(
    tmp_path: Path, train: list[str], held_out: list[str]
) -> None:
    found = own(tmp_path, train, held_out)
    assert found["dropped"]["also_in_validation"] == 1
    assert found["splits"]["train"]["rows"] == 20


@pytest.mark.parametrize("signs", [EMOJI, ["naïve", "naive", "naíve"]])
def test_many_texts_that_read_the_same_are_not_blamed_on_their_length(
    tmp_path: Path, signs: list[str]
) -> None:
    train = [f"the {word} is {signs[0]}" for word in WORDS]
    held_out = [f"the {word} is {signs[1]}" for word in WORDS]
    found = own(tmp_path, train, held_out)
    assert str(found) == (
        "tasks.own: 9 of the 9 rows held out read as a training row to the tokeniser of model.name "
        "'minilm', which does not tell their signs apart"
    )


def test_texts_that_are_cut_to_the_same_are(tmp_path: Path) -> None:
    start = "one two three four five six seven"
    train, held_out = ([f"{start} {a} {b}" for a in WORDS] for b in ("here", "there"))
    found = own(tmp_path, train, held_out, max_length=8)
    assert str(found) == (
        "tasks.own: 9 of the 9 rows held out read as a training row once they are cut to 8 tokens; "
        "raise max_length"
    )


def test_a_few_unknown_texts_are_counted_and_kept(tmp_path: Path) -> None:
    found = own(tmp_path, [*DISTINCT[:20], EMOJI[0]], [*DISTINCT[20:40], f"{EMOJI[1]} {EMOJI[2]}"])
    assert found["unknown_to_tokeniser"] == {"train": 1, "validation": 1}
    assert [found["splits"][name]["rows"] for name in ("train", "validation")] == [21, 21]
    assert "unknown_to_tokeniser" not in own(tmp_path, DISTINCT[:20], DISTINCT[20:30])
