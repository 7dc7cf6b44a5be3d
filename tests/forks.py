"""Commands of Python and DVC that begin at once: forks of a process that has imported libraries.

A study of seconds starts dozens of processes, each of which would spend seconds on importing
PyTorch or DVC. Who has a folder of `programs` first on the PATH runs the same commands with the
same arguments, folder, environment, open files and exit code, each in a process of its own. Only
libraries are imported beforehand, nothing of this project.
"""

import atexit
import fcntl
import gc
import importlib
import json
import multiprocessing
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
import types
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from filelock import FileLock

LIBRARIES = (
    *("adapters", "altair", "datasets", "jinja2", "loralib", "pandas", "peft", "psutil"),
    *("pyarrow.parquet", "pydantic", "ruamel.yaml", "safetensors.torch", "scipy.stats"),
    *("sklearn.metrics", "torch", "tqdm", "transformers", "transformers.trainer", "vl_convert"),
    *(f"transformers.models.{name}.modeling_{name}" for name in ("bert", "roberta", "deberta_v2")),
    *("dvc.cli.parser", "dvc.repo.experiments.queue.celery", "dvc.repo.reproduce", "dvc_render"),
    *("dvc.api", "dvc_data.index.checkout", "networkx", "scmrepo.git"),
)
SIZE = struct.Struct("!I")
FILES = 64  # open files that a command hands over, at most
FAR = 500  # above the numbers of all open files
# What `python` and `dvc` are here: they hand over what a process is given, and wait for its end.
CLIENT = """\
import array, json, os, socket, struct, sys
server = socket.socket(socket.AF_UNIX)
server.connect(sys.argv[1])
kept = {server.fileno()}
files = [file for file in map(int, os.listdir("/proc/self/fd")) if file not in kept]
files = [file for file in files if os.path.exists(f"/proc/self/fd/{file}")]
asked = json.dumps([sys.argv[2:], os.getcwd(), dict(os.environ), files]).encode()
handed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))]
server.sendmsg([struct.pack("!I", len(asked))], handed)
server.sendall(asked)
code = server.recv(1)
sys.exit(code[0] if code else "the process that ran this command is gone")
"""


@contextmanager
def programs(folder: Path) -> Iterator[Path]:
    """Yield a folder with `python` and `dvc`, the same for all who name `folder` meanwhile.

    The process that they are forked from ends when all have left. Where the system cannot wait for
    processes as it does for files, as only Linux can, or `folder` is too long for a socket's name,
    the programs are the environment's own.
    """
    address = folder / "socket"
    try:
        os.close(os.pidfd_open(os.getpid()))
        able = len(os.fsencode(address)) <= 100
    except (AttributeError, OSError):
        able = False
    if not able:
        yield Path(sys.executable).parent
        return
    started = None
    with FileLock(f"{folder}.lock"):
        if not (here := _present(address)):
            folder.mkdir(exist_ok=True)
            (folder / "client.py").write_text(CLIENT)
            for name, what in (("python", ""), ("dvc", " -m dvc")):
                command = f'"{sys.executable}" -I -S "{folder}/client.py" "{address}"{what} "$@"'
                # What multiprocessing spawns is known to it by its number, and meant to be fresh;
                # pip has processes of its own, with options.
                fresh = f'*--multiprocessing-fork|"-m pip "*) exec "{sys.executable}" "$@";;'
                (folder / name).write_text(
                    f'#!/bin/sh\ncase "$*" in {fresh} esac\nexec {command}\n'
                )
                (folder / name).chmod(0o755)
            with (folder / "log").open("w") as log:
                command_line = [sys.executable, __file__, str(folder)]
                started = subprocess.Popen(command_line, stdout=log, stderr=log)
            while not (here := _present(address)):
                assert started.poll() is None, (folder / "log").read_text()
                time.sleep(0.05)
    with here:
        yield folder
    if started:
        started.wait()


def _present(address: Path) -> socket.socket | None:
    """Return a connection that keeps the process of `serve` there; None if it is not there."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(address))
        connection.sendall(SIZE.pack(0))
        if connection.recv(1):
            return connection
    except OSError:
        pass
    connection.close()
    return None


def serve(folder: Path) -> None:
    """Fork a process for each command that is asked for, until all who use the folder have left."""
    gc.disable()
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.enable()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "unnamed"))
    listener.listen(64)
    (folder / "unnamed").rename(folder / "socket")
    present: set[socket.socket] = set()
    running: dict[int, tuple[int, socket.socket]] = {}  # by the descriptor of the process
    while True:
        waiting = {connection: file for file, (_, connection) in running.items()}
        watched: list[Any] = [listener, *present, *running, *waiting]
        for ready in select.select(watched, [], [])[0]:
            if ready is listener:
                connection, _ = listener.accept()
                try:
                    asked = _asked(connection)
                except ConnectionError:
                    connection.close()
                    continue
                if asked is None:
                    connection.sendall(b"!")
                    present.add(connection)
                    continue
                pid = os.fork()
                if not pid:
                    _become(folder, *asked)
                for file in asked[1]:
                    os.close(file)
                running[os.pidfd_open(pid)] = pid, connection
            elif ready in present:
                present.remove(ready)
                if not present:
                    (folder / "socket").unlink()
                    return
            elif ready in waiting and waiting[ready] in running:  # who asked is gone
                signal.pidfd_send_signal(waiting[ready], signal.SIGKILL)
            elif ready in running:
                pid, connection = running.pop(ready)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                os.close(ready)
                with connection, suppress(OSError):
                    connection.sendall(bytes([code & 255]))


def _asked(connection: socket.socket) -> tuple[str, list[int]] | None:
    """Return what a command hands over, in JSON, and its open files; None if it is no command.

    Raises ConnectionError: who asked is gone before it has said what.
    """
    head, files, _, _ = socket.recv_fds(connection, SIZE.size, FILES)
    (size,) = SIZE.unpack(head) if head else (1,)
    asked = bytearray()
    while len(asked) < size:
        if not (more := connection.recv(size - len(asked))):
            raise ConnectionError
        asked += more
    return (asked.decode(), files) if size else None


def _become(folder: Path, asked: str, files: list[int]) -> NoReturn:
    """Be the process of a command from here on."""
    arguments, place, environment, numbers = json.loads(asked)
    files = [fcntl.fcntl(file, fcntl.F_DUPFD, FAR) for file in files]
    os.closerange(3, FAR)
    for file, number in zip(files, numbers, strict=True):
        os.dup2(file, number)
        os.close(file)
    os.chdir(place)
    os.environ.clear()
    os.environ.update(environment)
    np.random.seed()  # it would draw what other forks draw
    sys.dont_write_bytecode = bool(environment.get("PYTHONDONTWRITEBYTECODE"))
    sys.executable = str(folder / "python")
    multiprocessing.set_executable(sys.executable)
    code = 1
    try:
        _run(arguments, environment.get("PYTHONPATH"))
        code = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        else:
            code = end.code or 0
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with suppress(ValueError):  # the command has closed it
        sys.stdout.flush()
    os._exit(code)


def _run(arguments: list[str], path: str | None) -> None:
    """Run a script, `-m module` or `-c code` as Python does."""
    while arguments[0] == "-B":
        sys.dont_write_bytecode = bool(arguments.pop(0))
    first = Path(arguments[0]).resolve().parent if arguments[0][0] != "-" else Path.cwd()
    named = [str(Path(at).resolve()) for at in path.split(os.pathsep)] if path else []
    sys.path[:] = [str(first), *named, *sys.path[1:]]
    kind, sys.argv = arguments[0], arguments
    if kind == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *arguments[2:]]
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(arguments[1], "<string>", "exec"), vars(sys.modules["__main__"]))
    else:
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
