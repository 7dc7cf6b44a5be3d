"""The embedded data: fetched once, checked by hash, never trusted unchecked."""

import shutil
import sys
from pathlib import Path

import pytest

from peft_study.errors import StudyError
from peft_study.sources import opinions


def test_every_row_is_read(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opinions, "fetch", lambda: archive)
    counts = {}
    for domain in ("movie", "product", "editorial", "tweet"):
        rows = list(opinions.read_rows(f"{domain}_rating"))
        assert len({row.id for row in rows}) == len(rows)
        assert all(row.label is not None and -4 <= row.label <= 4 for row in rows)
        counts[domain] = len(rows)
    assert counts == {"movie": 10605, "product": 3708, "editorial": 5190, "tweet": 4200}


def test_polarity_is_the_sign_of_the_rating(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opinions, "fetch", lambda: archive)
    ratings = {row.id: row.label for row in opinions.read_rows("product_rating")}
    for row in opinions.read_rows("product_polarity"):
        rating = ratings[row.id]
        assert rating is not None
        assert row.label == (None if rating == 0 else int(rating > 0))


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
            list(opinions.read_rows("movie_rating"))
