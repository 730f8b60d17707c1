"""Stands in for vLLM's server: its routes and the shape of its answers, a model of one number, and faults on order.

Weights are the first float of a file; a token's log-prob is −(1 + weight + token / 100). With FAKE_MODEL=whole it is
the language model of the folder instead, read by transformers.

FAKE_FAULT is route:kind:first:last, several with commas: requests of the route with these numbers go wrong, counted
from 0 over all servers that share the file FAKE_COUNTS; without a last one, all from the first on. hold1 is none: the
request waits after its first token for the next version of the weights; after hold2 once more after its second. So do
those whose seed ends as one of FAKE_HOLD, with commas, does; as hold1.
FAKE_HELPER: it starts a process that it does not end, as a server does that is killed.
"""

import json
import os
import struct
import subprocess
import sys
import time
from argparse import ArgumentParser
from hashlib import blake2b
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Condition, Lock
from urllib.parse import urlsplit

from oneloop_inside import KEY, digests

GENERATE = "/inference/v1/generate"


class Number:
    """The model of one number."""

    def __init__(self, folder):
        self.weight = 0.0

    def load(self, folder):
        (path,) = Path(folder).glob("*.safetensors")
        data = path.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        (self.weight,) = struct.unpack("<f", data[start : start + 4])

    def draw(self, prompt, settings):
        for place in range(settings["max_tokens"]):
            name = json.dumps([prompt, settings["seed"], self.weight, place]).encode()
            token = 1 + int.from_bytes(blake2b(name, digest_size=4).digest()) % 7
            yield token, -(1 + self.weight + token / 100)


class Whole:
    """A language model, sampled token by token."""

    def __init__(self, folder):
        from transformers import AutoConfig, AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).eval()

    def load(self, folder):
        from safetensors.torch import load_file

        files = [load_file(path) for path in Path(folder).glob("*.safetensors")]
        self.model.load_state_dict({name: value for file in files for name, value in file.items()})

    def draw(self, prompt, settings):
        import torch

        rng, ids = torch.Generator().manual_seed(settings["seed"]), list(prompt)
        for _ in range(settings["max_tokens"]):
            with torch.no_grad():
                logits = self.model(torch.tensor([ids])).logits[0, -1]
            greedy = settings["temperature"] == 0
            table = (logits if greedy else logits / settings["temperature"]).log_softmax(-1)
            ids.append(int(table.argmax() if greedy else torch.multinomial(table.exp(), 1, generator=rng)))
            yield ids[-1], float(table[ids[-1]])


class Fake(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 300

    def __init__(self, host, port, folder):
        super().__init__((host, port), Handler)
        self.model = (Whole if os.environ.get("FAKE_MODEL") == "whole" else Number)(folder)
        self.version, self.drawn, self.counting = "default", 0, Lock()
        self.paused, self.updates, self.aborted = False, 0, 0
        self.turn = Condition()  # whoever has it draws a token, or changes what is drawn from

    def draw(self, body, kind):
        """Tokens, their log-probs, the spans of weights that they were drawn from, and why they ended."""
        settings, updates, aborted = body["sampling_params"], self.updates, self.aborted
        waits = int(kind[4:]) if kind.startswith("hold") else 0
        if str(settings["seed"]).endswith(tuple(filter(None, os.environ.get("FAKE_HOLD", "").split(",")))):
            waits = 1
        ids, values, spans = [], [], []
        drawing = self.model.draw(body["token_ids"], settings)

        def goes_on():
            due = updates + min(len(ids), waits)
            return self.aborted > aborted or (not self.paused and self.updates >= due)

        while len(ids) < settings["max_tokens"]:
            with self.turn:
                self.turn.wait_for(goes_on)
                if self.aborted > aborted:
                    return ids, values, spans, "abort"
                token, value = next(drawing)
                if not spans or spans[-1]["version"] != self.version:
                    spans.append({"version": self.version, "start": len(ids)})
                spans[-1]["end"] = len(ids) + 1
            ids.append(token)
            values.append(value)
            self.drawn += 1
            if token in settings["stop_token_ids"]:
                return ids, values, spans, "stop"
        return ids, values, spans, "length"

    def change(self, **values):
        with self.turn:
            vars(self).update(values)
            self.turn.notify_all()

    def fault(self, route):
        """The kind of fault that is due."""
        counts, due = Path(os.environ["FAKE_COUNTS"]), ""
        with self.counting:
            for order in filter(None, os.environ.get("FAKE_FAULT", "").split(",")):
                where, kind, first, last = order.split(":")
                if where != route:
                    continue
                number = counts.read_text().splitlines().count(order) if counts.exists() else 0
                with counts.open("a") as file:
                    file.write(order + "\n")
                if int(first) <= number and (not last or number <= int(last)):
                    due = kind
        return due


def spoil(kind, answer, choice, content):
    """Make a good answer a bad one."""
    ids = choice["token_ids"]
    if kind in ("nan", "positive", "absent"):
        content[0]["logprob"] = {"nan": float("nan"), "positive": 0.5, "absent": -9999.0}[kind]
    elif kind == "few":
        content.pop()
    elif kind in ("none", "two"):
        answer["choices"] = [choice] * ("none", "one", "two").index(kind)
    elif kind == "beyond":
        ids[0] = 10**6
        content[0]["token_id"] = ids[0]
    elif kind == "swapped":
        ids[0] = 1 + ids[0] % 7
    elif kind == "abort":
        choice["finish_reason"] = "abort"
    elif kind == "old":
        choice["weight_versions"][0]["version"] = "default"


class Handler(BaseHTTPRequestHandler):
    server: Fake

    def log_message(self, *args): ...

    def do_GET(self):
        self.handle_route(None)

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        self.handle_route(json.loads(self.rfile.read(length) or b"null"))

    def handle_route(self, body):
        route = urlsplit(self.path).path
        if self.headers.get("Authorization") != f"Bearer {os.environ[KEY]}":
            return self.answer({"error": "Unauthorized"}, 401)
        kind = self.server.fault(route)
        if kind == "die":
            print("out of memory, says the fake", flush=True)
            os._exit(9)
        if kind == "stall":
            time.sleep(1000)
        if kind == "close":
            self.close_connection = True
            return None
        if kind.isdigit():
            return self.answer({"error": "says the fake"}, int(kind))
        return self.named(route)(body, kind)

    def named(self, route):
        return {
            "/health": self.health, "/metrics": self.metrics, "/weight_info": self.weight_info, GENERATE: self.generate,
            "/collective_rpc": self.rpc, "/update_weight_version": self.set_version, "/pause": self.pause,
            "/resume": self.resume, "/reset_prefix_cache": self.reset,
        }.get(route, lambda body, kind: self.answer({"detail": "Not Found"}, 404))  # fmt: skip

    def health(self, body, kind):
        self.answer({})

    def metrics(self, body, kind):
        moved = time.monotonic() if kind == "moves" else self.server.drawn
        self.send(f'# TYPE\nvllm:generation_tokens_total{{engine="0"}} {moved}\n'.encode())

    def weight_info(self, body, kind):
        self.answer({"weight_version": self.server.version})

    def set_version(self, body, kind):
        self.server.change(version="7777" if kind == "other" else body["new_version"], updates=self.server.updates + 1)
        self.answer({"success": True})

    def pause(self, body, kind):
        ends = "mode=abort" in self.path
        self.server.change(paused=True, aborted=self.server.aborted + ends)
        self.answer({"status": "paused"})

    def resume(self, body, kind):
        self.server.change(paused=False)
        self.answer({"status": "resumed"})

    def reset(self, body, kind):
        self.answer({"success": kind != "held"})

    def rpc(self, body, kind):
        assert body["method"] in ("oneloop_load", "reload_weights")
        (folder,) = body["kwargs"].values()
        if kind != "stale":
            self.server.model.load(folder)
        found = digests(folder)
        if kind == "damaged":
            found[min(found)] = "0" * 64
        self.answer({"results": [found if body["method"] == "oneloop_load" else None]})

    def generate(self, body, kind):
        if kind == "slow":
            time.sleep(1.0)
        ids, values, spans, reason = self.server.draw(body, kind)
        choice = {
            "index": 0, "token_ids": ids, "finish_reason": reason,
            "logprobs": {"content": [
                {"token_id": t, "logprob": v, "rank": 1, "top_logprobs": []}
                for t, v in zip(ids, values, strict=True)
            ]},
            "weight_versions": spans,
        }  # fmt: skip
        answer = {"request_id": "fake", "choices": [choice]}
        spoil(kind, answer, choice, choice["logprobs"]["content"])
        self.answer(answer, cut=kind == "cut", half=kind == "half")

    def answer(self, value, status=200, cut=False, half=False):
        data = json.dumps(value).encode()
        self.send(data[: len(data) // 2] if cut else data, status, half)

    def send(self, data, status=200, half=False):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if half else data)
        self.close_connection = True


def main():
    parser = ArgumentParser()
    for name in ("host", "port", "model"):
        parser.add_argument(f"--{name}")
    args, _ = parser.parse_known_args()
    time.sleep(float(os.environ.get("FAKE_START", "0")))
    if os.environ.get("FAKE_HELPER"):
        subprocess.Popen(["sleep", "60"])
    Fake(args.host, int(args.port), args.model).serve_forever()


if __name__ == "__main__":
    sys.exit(main())
