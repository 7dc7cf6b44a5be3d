"""What a training process takes over of the environment of the command that started it: little.

Launchers, MPI and Slurm leave variables behind that libraries read, and others choose the kernels
that compute: any of them would change a run's bytes, or let it wait for processes that never come.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from peft_study.errors import StudyError

KEPT = {
    # where programs, modules, files and the letters of their names are found
    *("PATH", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "LD_LIBRARY_PATH"),
    *("HOME", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE"),
    # threads, of what is computed beside the step, which has one
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    # devices
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "PYTORCH_ENABLE_MPS_FALLBACK"),
    # the hub's cache, and the way to the hub
    *("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "HF_HUB_OFFLINE"),
    *("HF_ENDPOINT", "HF_TOKEN", "HF_TOKEN_PATH", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
}
LONGEST_SOCKET = 100  # bytes of the path of a socket, on any system
TEMPORARY = ("/tmp", "/var/tmp")


@contextmanager
def kept_variables() -> Iterator[None]:
    """Take all variables but those of `KEPT`, and Ray's own, out of the environment for a while."""
    whole = dict(os.environ)
    for name in whole:
        if name not in KEPT and not name.startswith("RAY_"):
            del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(whole)


@contextmanager
def short_temporary_folder(room: int) -> Iterator[None]:
    """Let temporary files lie where the path of a socket has `room` bytes below the folder.

    It changes nothing where the user's folder is short enough. Raises StudyError if none is.
    """
    chosen, said = tempfile.gettempdir(), os.environ.get("TMPDIR")
    for folder in (chosen, *TEMPORARY):
        if len(os.fsencode(folder)) + room <= LONGEST_SOCKET and os.access(folder, os.W_OK):
            break
    else:
        raise StudyError(
            f"TMPDIR: '{chosen}' is too long for sockets to lie there, at most "
            f"{LONGEST_SOCKET - room} bytes; name another folder"
        )
    if folder == chosen:
        yield
        return
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    try:
        yield
    finally:
        tempfile.tempdir = chosen
        if said is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = said
