"""A vLLM server that a run starts, watches and ends. It listens on this machine alone and asks for the run's key."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

from oneloop.errors import ConfigError
from oneloop.rollout.vllm.client import Client
from oneloop.rollout.vllm.faults import Fault, Patience
from oneloop.rollout.vllm.inside import oneloop_inside

HOST = "127.0.0.1"
SHARED = Path("/dev/shm")
"""Memory as a file system: where weights are handed over without a disk, if it is there."""
LOOK = 30.0
"""Seconds for finding out whether an environment has vLLM."""
CAUSE = re.compile(r"\b\w+(Error|Exception): \S.*")
"""What a server prints of an error: the first one since its start is the cause of the others."""
TAIL = 4
"""Last lines of the server's output that an error quotes beside it."""
SAID = 15.0
"""Seconds of waiting for a start after which, and as often again, it is said."""
ENVIRONMENT = {
    "VLLM_SERVER_DEV_MODE": "1",  # /pause, /collective_rpc, ...; `Guard` asks for the key there too
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_HOST_IP": HOST,
    "GLOO_SOCKET_IFNAME": "lo",
    "HF_HUB_OFFLINE": "1",
}
KVCACHE = ("VLLM_CPU_KVCACHE_SPACE", "2")
"""GiB for keys and values on a CPU, unless the environment says otherwise."""
OURS = (
    "PYTHON", "VIRTUAL_ENV", "LD_", "VLLM_ALLOW_INSECURE_SERIALIZATION", "VLLM_PLUGINS", "TORCHELASTIC_", "MASTER_",
    "WORLD_SIZE", "RANK", "LOCAL_", "GROUP_", "ROLE_",
)  # fmt: skip
"""How variables begin that belong to the trainer's environment, or open a door: the server does not get them."""


class Server:
    """A process that can be started again.

    Args:
        python: of an environment with vLLM.
        describe: writes configuration and tokenizer of the model into a folder.
        flags: of vLLM's server, beside those that are set here.
        log: file for its output.
        say: told while a start takes long.
        devices: GPUs, as CUDA_VISIBLE_DEVICES names them; empty: those of this process.
    """

    def __init__(
        self,
        python: str,
        describe: Callable[[Path], None],
        flags: Sequence[str],
        log: Path,
        patience: Patience,
        say: Callable[[str], None],
        devices: str = "",
    ) -> None:
        self._python, self._describe, self._flags, self._log = python, describe, flags, log
        self._patience, self._say, self._devices = patience, say, devices
        self._process: subprocess.Popen[bytes] | None = None
        self._said = 0  # bytes in the log before this start
        self._key = secrets.token_urlsafe(32)
        self.folder = Path()
        self.client = Client(f"http://{HOST}", self._key)
        self.close: Callable[[], object] = lambda: None

    @property
    def name(self) -> str:
        pid = f", process {self._process.pid}" if self._process else ""
        return f"the vLLM server at {self.client.address}{pid}, which this run started"

    def start(self) -> None:
        """Returns when it answers.

        Raises: Fault.
        """
        self.close()
        self.folder = Path(tempfile.mkdtemp(prefix="oneloop-", dir=SHARED if os.access(SHARED, os.W_OK) else None))
        self._describe(self.folder)
        port = free_port()
        self.client = Client(f"http://{HOST}:{port}", self._key)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        command = [self._python, oneloop_inside.__file__, str(self.folder), *self._arguments(port)]
        with self._log.open("ab") as log:
            self._said = log.tell()
            try:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
                    env=self._environment(), cwd=self.folder, start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                shutil.rmtree(self.folder)
                raise Fault(f"--vllm-python {self._python} cannot be run: {error.strerror}", hopeless=True) from None
        self.close = weakref.finalize(self, _end, self._process, self.folder)
        self._wait()

    def _arguments(self, port: int) -> list[str]:
        return [
            "--host", HOST, "--port", str(port), "--model", str(self.folder), "--served-model-name", "policy",
            "--load-format", "dummy",  # weights come as they come after each update
            "--middleware", "oneloop_inside.Guard", "--worker-extension-cls", "oneloop_inside.Loader",
            "--logprobs-mode", "processed_logprobs", "--generation-config", "vllm",
            "--enable-scale-out",  # tokens in and out
            "--uvicorn-log-level", "warning", *self._flags,
        ]  # fmt: skip

    def _environment(self) -> dict[str, str]:
        guests = {"PYTHONPATH": str(Path(oneloop_inside.__file__).parent), oneloop_inside.KEY: self._key}
        # inductor's cache is shared: a compiler that was killed leaves half a library there, which everybody loads
        eager = {"TORCH_COMPILE_DISABLE": "1"} if "--enforce-eager" in self._flags else {}
        devices = {"CUDA_VISIBLE_DEVICES": self._devices} if self._devices else {}
        return dict([KVCACHE]) | _clean() | ENVIRONMENT | eager | devices | guests

    def _wait(self) -> None:
        begin = told = monotonic()
        while True:
            self.check_alive()
            with suppress(Fault):
                self.client.bytes("GET", "/health", self._patience.answer)
                return
            waited = monotonic() - begin
            if waited > self._patience.start:
                raise Fault(f"it did not answer within {waited:.0f} s of its start. {self.last_words()}")
            if monotonic() - told > SAID:
                told = monotonic()
                self._say(f"waiting for vLLM to start: {waited:.0f} s")
            sleep(min(self._patience.look, 0.2))

    def check_alive(self) -> None:
        """Raises: Fault when the process has ended."""
        code = None if self._process is None else self._process.poll()
        if code is None:
            return
        words = self.last_words()
        if "No module named 'vllm'" in words or 'No module named "vllm"' in words:
            raise Fault(f"--vllm-python {self._python}: vLLM is not installed there. {words}", hopeless=True)
        raise Fault(f"it ended with exit code {code}. {words}", lasting=True)

    def cause(self, fault: Fault) -> Fault:
        """What is behind a fault: a connection fails a moment before the process has ended."""
        if fault.cut and self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(self._patience.death)
            try:
                self.check_alive()
            except Fault as death:
                return death
        return fault

    def last_words(self) -> str:
        try:
            with self._log.open("rb") as log:
                log.seek(self._said)
                lines = log.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return f"It left no output in {self._log}"
        causes = [found.group() for line in lines if "WARNING" not in line and (found := CAUSE.search(line))]
        return "\n".join([f"It said ({self._log}):", *causes[:1], *lines[-TAIL:]])


def check_python(python: str) -> None:
    """Raises: ConfigError where there is no such interpreter, or no vLLM in its environment. vLLM is not loaded."""
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    fix = "Fix: --vllm-python PATH of an environment with vLLM; `make vllm` makes .venv-vllm"
    try:
        found = subprocess.run([python, "-c", look], env=_clean(), capture_output=True, timeout=LOOK, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"--vllm-python {python} cannot be run ({error}). {fix}") from None
    if found.returncode:
        raise ConfigError(f"--vllm-python {python}: vLLM is not installed there. {fix}")


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(OURS)}


def free_port() -> int:
    with socket.socket() as found:
        found.bind((HOST, 0))
        return found.getsockname()[1]


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()  # asks for the end
    with suppress(subprocess.TimeoutExpired):
        process.wait(2 * oneloop_inside.GRACE)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)


class Elsewhere:
    """A server that somebody else started and ends.

    Args:
        folder: where weights are put that it may read: of a file system that both machines see.
    """

    def __init__(self, address: str, key: str, folder: Path) -> None:
        self.client, self.folder, self.name = Client(address, key), folder, f"the engine at {address} (--engine)"

    def start(self) -> None: ...

    def check_alive(self) -> None: ...

    def cause(self, fault: Fault) -> Fault:
        return fault

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class OfRank0:
    """A server as the other ranks know it: rank 0 starts, watches and ends it.

    Args:
        name: what rank 0 calls it.
        folder: where weights are put for it.
    """

    def __init__(self, address: str, key: str, name: str, folder: str) -> None:
        self.client, self.name, self.folder = Client(address, key), name, Path(folder)

    def start(self) -> None: ...

    def check_alive(self) -> None: ...

    def cause(self, fault: Fault) -> Fault:
        return fault

    def close(self) -> None: ...
