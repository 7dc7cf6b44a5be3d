"""The Makefile where others keep their clones, and what it never deletes."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT

FILES = ("Makefile", "requirements.lock", "pyproject.toml", "params.yaml")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a folder with what `make` reads, whose name no shell takes for one word."""
    folder = tmp_path / "it's a clone (2)"
    folder.mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, folder)
        os.utime(folder / name, (0, 0))  # older than the environment
    return folder


def make(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--no-print-directory", *words]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=plain
    )


def test_a_clone_in_a_folder_with_a_space_in_its_name(clone: Path) -> None:
    """And an apostrophe, and parentheses; its environment lies in it."""
    (clone / ".venv").mkdir()
    for part in ("bin", "lib", "pyvenv.cfg"):
        (clone / ".venv" / part).symlink_to(Path(sys.prefix) / part)
    (clone / ".venv/installed").touch()
    result = make(clone, "check")
    assert (result.returncode, result.stderr) == (0, "")
    assert re.fullmatch(r"params.yaml: study 'opinions' is valid: \d+ runs\n", result.stdout)
    printed = make(clone, "--dry-run", "study", "quick", "readme", "clean-store", "report").stdout
    assert "clone" not in printed  # nothing that a shell could take apart


@pytest.fixture
def python(tmp_path: Path) -> str:
    """Return a python that makes environments, in which nothing is installed."""
    path = tmp_path / "python"
    path.write_text(
        f"""#!/bin/sh
        if [ "$2" != venv ]; then exec {sys.executable} "$@"; fi
        shift 2
        {sys.executable} -m venv --without-pip "$@" || exit
        for folder; do :; done
        rm "$folder/bin/python"
        printf '#!/bin/sh\\n' > "$folder/bin/python" && chmod +x "$folder/bin/python"
        """
    )
    path.chmod(0o755)
    return f"PYTHON={path}"


@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize(
    "theirs",
    ["thesis.txt", "pyvenv.cfg", "lib/python3.11/site-packages/mine.py", ".hidden"],
)
def test_an_environment_that_was_not_made_here_is_left_alone(
    theirs: str, linked: bool, clone: Path, python: str
) -> None:
    folder = clone.parent / "another disk" if linked else clone / ".venv"
    (folder / theirs).parent.mkdir(parents=True)
    (folder / theirs).write_text("home = /usr/bin\nprompt = 'mine'\n")
    if linked:
        (clone / ".venv").symlink_to(folder)
    result = make(clone, "env", python)
    assert result.returncode == 2
    assert "error: .venv holds what 'make env' did not make; move it away\n" in result.stderr
    assert (folder / theirs).read_text() == "home = /usr/bin\nprompt = 'mine'\n"


@pytest.mark.parametrize("what", ["nothing", "a folder", "a link", "a link to nothing"])
def test_an_environment_is_made_and_made_anew(what: str, clone: Path, python: str) -> None:
    place = clone.parent / "another disk"
    if what == "a folder":
        (clone / ".venv").mkdir()
    elif what != "nothing":
        (clone / ".venv").symlink_to(place)
        if what == "a link":
            place.mkdir()
    result = make(clone, "env", python)
    assert result.returncode == 0, result.stderr
    assert (place if "link" in what else clone / ".venv").joinpath("installed").is_file()
    (clone / ".venv/installed").unlink()  # as where an installation was broken off
    (clone / ".venv/old").touch()
    assert make(clone, "env", python).returncode == 0
    assert not (clone / ".venv/old").exists()
