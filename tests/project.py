"""A copy of the repository with a small study, and the commands of its users."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from conftest import ROOT
from peft_study.data.sources import opinions

PARAMS = """
study: small
model: {name: model, max_length: 32}
data: {source: opinions, split_seed: 0}
seeds: [1, 2]
methods: [lora, full_ft]
tasks:
  tweet_rating: {train_rows: 32, validation_rows: 20}
  editorial_polarity: {train_rows: 32, validation_rows: 20}
mnli_init:
  mode: per_method
  task: product_polarity
  tasks: [editorial_polarity]
  train_rows: 32
  validation_rows: 20
  head: fresh
  seed: 1
sweep:
  task: tweet_rating
  alpha: rank
  ranks: [1]
  weights: [query, query+value]
profile: {tasks: [tweet_rating], ranks: [8], targets: [query, value], bottleneck: 4, rounds: 0}
train:
  epochs: 1
  batch_size: 8
  gradient_accumulation_steps: 1
  schedule: linear
  warmup_ratio: 0.06
  weight_decay: 0.01
  adam_beta2: 0.999
  adam_epsilon: 1e-8
  max_grad_norm: 1.0
  evaluations_per_epoch: 1
  head: trained
  report: best
  device: cpu
  precision: float32
lora:
  r: 8
  alpha: 16
  dropout: 0.0
  targets: [query, value]
  learning_rate: 4e-3
adapter_h: {bottleneck: 16, activation: gelu, learning_rate: 4e-3}
full_ft: {learning_rate: 1e-4, save_weights: false}
analysis: {iso_margin: 0.005, equivalence_margin: 0.02, published: []}
runner:
  backend: local
  workers: auto
  checkpoint_seconds: 60
  store_gigabytes: 1
  ray: {num_cpus: 1, num_gpus: 0, memory_gigabytes: 1}
"""
# What draws findings from scores: the counts of parity are another model's, and not made anew.
FINDINGS = ("aggregate", "curves", "claims", "figures", "report", "export")


OWN = Path(sys.executable).parent


class Project:
    """A checkout of the project in `folder`, and where its commands lie."""

    def __init__(self, folder: Path, programs: Path = OWN) -> None:
        self.folder, self.programs = folder, programs

    def run(self, *command: str, code: int = 0, path: str | None = None) -> str:
        """Run a command with its programs first on the PATH; return its output."""
        identity = {
            f"GIT_{who}_{what}": "t@t"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        }
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PEFT_STUDY", "PYTHONPA"))}
        here = f"{self.programs}{os.pathsep}{os.environ['PATH']}"
        result = subprocess.run(
            [str(shutil.which(command[0], path=here)), *command[1:]],
            cwd=self.folder,
            env=kept | identity | {"PATH": path or here},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert result.returncode == code, result.stdout
        return result.stdout

    def commit(self, message: str) -> None:
        """Commit everything that git does not ignore."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)

    def set(self, old: str, new: str) -> None:
        """Replace a text of params.yaml that stands there once."""
        params = self.folder / "params.yaml"
        assert params.read_text().count(old) == 1
        params.write_text(params.read_text().replace(old, new))

    def results(self) -> dict[str, bytes]:
        """Return the files of results, but those that tell seconds."""
        seconds = ("timings.csv", "manifest.json", "iso_accuracy.json")
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for folder in ("metrics", "runs", "data/prepared", "init")
            for path in sorted((self.folder / folder).rglob("*"))
            if path.is_file() and path.name not in seconds and path.parent.name != "histories"
        }

    def findings(self) -> dict[str, bytes]:
        """Return the files of figures and of the page."""
        plots = sorted((self.folder / "plots").rglob("*.*"))
        return {str(p.relative_to(self.folder)): p.read_bytes() for p in plots if p.is_file()}


def stages_in(printed: str) -> set[str]:
    """Return the stages that a command of DVC ran, as it says."""
    return set(re.findall(r"Running stage '([^']+)'", printed))


def trained_in(printed: str) -> list[str]:
    """Return the runs that were trained, and not taken from the run store, as stages say."""
    lines = re.findall(r"^(\S+ .*seed \d+): (?:\S+ -?[\d.]+ at step|no result)(.*)$", printed, re.M)
    return sorted(name for name, rest in lines if "from the run store" not in rest)


def build(folder: Path, archive: Path, model: Path) -> None:
    """Make a small study in `folder`, run it, and commit its results."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in files.splitlines():
        unwanted = name.startswith(("metrics/", "plots/", "docs/", "tests/", "benchmarks/"))
        if (ROOT / name).is_file() and not unwanted and name != "dvc.lock":
            copy(ROOT / name, folder / name)
    copy(archive, folder / opinions.DOWNLOADS / archive.name)
    shutil.copytree(model, folder / "model")
    (folder / "params.yaml").write_text(PARAMS)
    project = Project(folder)
    project.run("git", "init", "--quiet")
    project.commit("a small study")
    project.run("dvc", "repro", "aggregate", "curves")
    copy(ROOT / "metrics/parity.json", folder / "metrics/parity.json")
    project.run("dvc", "repro", "--single-item", *without(FINDINGS, "aggregate", "curves"))
    project.commit("its results")


def copy(source: Path, target: Path) -> None:
    """Copy a file, with the folders that it is to lie in."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def without(names: Iterable[str], *left_out: str) -> list[str]:
    """Return names without some of them."""
    return [name for name in names if name not in left_out]
