"""What would make a stage run again: `make why STAGE=train@lora` tells its configuration's part."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from ruamel.yaml import YAML

from peft_study.configure import configure
from peft_study.errors import StudyError, nearest, run_command
from peft_study.experiments import leaves
from peft_study.files import as_json, read_json
from peft_study.running.store import dvc_cache
from peft_study.study import load_study


def changes(stage: str) -> Iterator[str]:
    """Yield a line for each key of a stage's configuration that its last run did not have.

    Raises StudyError: the stage never ran, has no configuration, or that of its last run is not
    here.
    """
    lock = Path("dvc.lock")
    ran = YAML(typ="safe").load(lock.read_text()).get("stages", {}) if lock.is_file() else {}
    if stage not in ran:
        raise StudyError(f"STAGE: got '{stage}', which never ran; {nearest(stage, ran)}")
    configs = [d for d in ran[stage].get("deps", []) if d["path"].startswith("configs/")]
    for path, digest in ((Path(dep["path"]), dep["md5"]) for dep in configs):
        name = path.relative_to("configs").with_suffix("").as_posix()
        now = json.loads(as_json(configure(load_study()).get(name, {})))
        old = Path(dvc_cache() or "", "files/md5", digest[:2], digest[2:])
        if not old.is_file():
            raise StudyError(f"{path}: that of the last run is not in DVC's cache here")
        before, after = dict(leaves(read_json(old))), dict(leaves(now))
        for key in sorted(set(before) | set(after)):
            if before.get(key) != after.get(key):
                yield f"{key}: {before.get(key, 'nothing')} -> {after.get(key, 'nothing')}"
    if not configs:
        raise StudyError(f"STAGE: '{stage}' has no configuration of its own; see 'dvc status'")


def main() -> None:
    stage = sys.argv[1] if len(sys.argv) > 1 else ""
    print("\n".join(changes(stage)) or "nothing changed in its configuration")
    print(f"why: code and data that changed, if any: dvc status {stage}")


if __name__ == "__main__":
    run_command(main)
