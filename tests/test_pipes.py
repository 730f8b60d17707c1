"""Messages over a pipe arrive whole, in order, and end with it."""

import json
import os
import subprocess
import sys
from threading import Thread

from oneloop import pipes


def test_messages_larger_than_the_pipe_arrive_whole_and_in_order() -> None:
    reads, writes = os.pipe()
    sent = [{"number": number, "text": "ä" * size} for number, size in enumerate((0, 1, 300_000, 5))]

    def send() -> None:
        for message in sent:
            pipes.send(writes, message)
        os.write(writes, (99).to_bytes(pipes.HEAD)[:5])  # the sender died amid a head
        os.close(writes)

    sender = Thread(target=send)
    sender.start()
    assert [json.loads(body) for body in pipes.bodies(reads)] == sent
    sender.join()
    os.close(reads)


def test_a_child_is_told_whether_its_parent_is_there() -> None:
    ask = (
        "import os, signal; from oneloop.pipes import die_with; print(*(die_with(parent, signal.SIGKILL) for parent in "
    )
    code = f"{ask}(1, os.getppid())))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False", "True"]
