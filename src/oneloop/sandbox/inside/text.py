"""The plainest role: runs the text that it is sent, which may answer over `channel`."""

import socket


def main(channel: socket.socket) -> None:
    """Receives Python text until the other side shuts down its writing half."""
    with channel.makefile("rb") as sent:
        text = sent.read().decode()
    exec(compile(text, "<text>", "exec"), {"__name__": "__main__", "channel": channel})
