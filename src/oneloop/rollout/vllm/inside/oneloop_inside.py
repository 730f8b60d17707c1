"""What oneloop brings into vLLM's environment: this one file. Only the standard library is needed to import it.

Three guests, each asked for by a flag of the server or by name:

    python .../oneloop_inside.py FOLDER ...    runs the server, and ends it with the process that started it
    --middleware oneloop_inside.Guard          asks for the run's key on every route
    --worker-extension-cls oneloop_inside.Loader    takes weights, and says what arrived
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from threading import Event, Thread

KEY = "ONELOOP_ENGINE_KEY"
"""Environment variable of the key; a command line could be read by everybody on the machine."""
GRACE = 5.0
"""Seconds in which a server may end by itself."""
SERVER = "vllm.entrypoints.openai.api_server"


class Guard:
    """ASGI middleware: nothing behind it is reached without the key, whatever the route and the protocol.

    vLLM's own `--api-key` guards `/v1` alone, and neither `/pause` nor `/collective_rpc` nor weight updates.
    """

    def __init__(self, app):
        self.app, self._wanted = app, f"Bearer {os.environ[KEY]}".encode()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan" or self._allowed(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": b'{"error": "wrong or missing key"}'})

    def _allowed(self, scope):
        given = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
        return len(given) == 1 and compare_digest(given[0], self._wanted)


class Loader:
    """Methods that vLLM adds to its worker; they are called by name through `/collective_rpc`."""

    def oneloop_load(self, folder):
        """Take every tensor of a folder as the model's weights; returns the digest of each group as it was handed over.

        Through the model runner, which packs matrices anew: writing into its parameters fails where they are packed.
        """
        seen = Digests()

        def handed():
            for name, tensor in _tensors(folder):
                seen.add(name, memoryview(tensor.contiguous().reshape(-1).view(_bytes()).numpy()))
                yield name, tensor

        self.model_runner.reload_weights(weights_iterator=handed())  # pyright: ignore[reportAttributeAccessIssue]
        return seen.result()


def _bytes():
    import torch

    return torch.uint8


def _tensors(folder):
    """Sorted by file and name, as `digests` reads them."""
    from safetensors import safe_open

    for path in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in sorted(file.keys()):
                yield name, file.get_tensor(name)


class Digests:
    """A digest for each group of tensors: a layer, or whatever stands outside of the layers."""

    def __init__(self):
        self._groups = {}

    def add(self, name, content):
        group = self._groups.setdefault(group_of(name), sha256())
        group.update(name.encode())
        group.update(content)

    def result(self):
        return {name: group.hexdigest() for name, group in self._groups.items()}


def group_of(name):
    """`model.layers.3.mlp.up_proj.weight` belongs to `model.layers.3`, `lm_head.weight` to itself."""
    parts = name.split(".")
    numbers = [place for place, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbers[0] + 1]) if numbers else name


def digests(folder):
    """Of the tensors of a folder's safetensors files, as they stand on disk."""
    seen = Digests()
    for path in sorted(Path(folder).glob("*.safetensors")):
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
            header.pop("__metadata__", None)
            for name in sorted(header):
                start, end = header[name]["data_offsets"]
                file.seek(8 + size + start)
                seen.add(name, file.read(end - start))
    return seen.result()


def main(folder, arguments):
    """Run the server in this process group. When standard input ends, its parent is gone: so is the group then.

    Args:
        folder: of the run's weights; nobody else would remove it.
    """
    server = subprocess.Popen([sys.executable, "-m", SERVER, *arguments], stdin=subprocess.DEVNULL)
    ending = Event()

    def watch():
        while os.read(0, 1):
            pass
        ending.set()
        shutil.rmtree(folder, ignore_errors=True)
        server.terminate()  # it gives back the memory that its processes share; what is killed leaves it behind
        with suppress(subprocess.TimeoutExpired):
            server.wait(GRACE)
        time.sleep(0.3)  # for the process that gives back what the server forgot
        os.killpg(0, signal.SIGKILL)

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    code = server.wait()
    if ending.is_set():
        watcher.join()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
