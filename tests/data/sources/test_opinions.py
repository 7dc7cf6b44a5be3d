"""The embedded data: fetched once, checked by hash, never trusted unchecked."""

import shutil
import sys
from pathlib import Path

import pytest

from peft_study.data.sources import Row, opinions
from peft_study.data.tasks import TASKS
from peft_study.errors import StudyError


def read(name: str) -> list[Row]:
    """Read a task's rows, as its stages do."""
    location = opinions.locate(name, TASKS[name], None, None)
    return list(opinions.read_rows(name, TASKS[name], location))


def test_every_row_is_read(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opinions, "fetch", lambda: archive)
    counts = {}
    for domain in ("movie", "product", "editorial", "tweet"):
        rows = read(f"{domain}_rating")
        assert len({row.id for row in rows}) == len(rows)
        assert all(row.label is not None and -4 <= row.label <= 4 for row in rows)
        assert all(row.split is None for row in rows)
        counts[domain] = len(rows)
    assert counts == {"movie": 10605, "product": 3708, "editorial": 5190, "tweet": 4200}


def test_polarity_is_the_sign_of_the_rating(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opinions, "fetch", lambda: archive)
    ratings = {row.id: row.label for row in read("product_rating")}
    for row in read("product_polarity"):
        rating = ratings[row.id]
        assert rating is not None
        assert row.label == (None if rating == 0 else int(rating > 0))


def test_its_rows_are_named_by_the_hash_of_the_archive() -> None:
    location = opinions.locate("tweet_rating", TASKS["tweet_rating"], None, None)
    assert location == {"archive": opinions.ARCHIVE, "sha256": opinions.SHA256}


def test_a_task_of_another_source_is_refused() -> None:
    with pytest.raises(StudyError, match=r"'opinions' has no task 'rte'; .*known: .*tweet_rating"):
        opinions.locate("rte", TASKS["rte"], None, None)


def test_a_changed_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / opinions.ARCHIVE).write_bytes(b"something else")
    with pytest.raises(StudyError, match=r"sha256 is .* delete the file and run again"):
        opinions.fetch(tmp_path)
    assert (tmp_path / opinions.ARCHIVE).read_bytes() == b"something else"


def test_no_package_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(StudyError, match="could not fetch vaderSentiment") as caught:
        opinions.fetch(tmp_path / "downloads")
    assert opinions.ARCHIVE in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "downloads").exists()


def test_a_malformed_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opinions, "fetch", lambda: Path())
    for text, named in (("1\t0.5\n", "line 1: 2 fields"), ("1\thigh\ttext\n", "'high' is no")):
        monkeypatch.setattr(opinions, "_member", lambda *_, text=text: text)
        with pytest.raises(StudyError, match=named):
            read("movie_rating")
