"""`oneloop COMMAND`: picks the command, turns errors into one message and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from oneloop import __version__
from oneloop.cli.output import flush_output, forget_output, safe
from oneloop.errors import OneloopError, with_notes

COMMANDS = {
    "demo": "the main job end to end on the built-in task: no network, no GPU, a few minutes on a laptop",
    "train": "train a model: oneloop train ALGORITHM --model M --data D --reward F --steps N --out DIR",
    "check": "look at data, tokens and rewards before anything is loaded; ends with 2 where training would refuse",
    "plan": "the memory bill before anything is loaded; ends with 3 when it does not fit",
    "eval": "score a model's answers on held-out prompts, with 95 % intervals",
    "sample": "print completions of a prompt",
    "explain": "the exact objective of an algorithm or a recipe",
    "diff": "what one algorithm deletes from or changes in another",
    "study": "test claims about the methods: measure, draw, and say what holds; alone, the list",
    "lab": "a page in the browser: how the methods work, live, and everything about your runs",
    "report": "write RUN/report.html: curves and samples of a run",
}

HELP = f"""oneloop {__version__}: SFT, reward models, PPO, GRPO, DAPO, RLOO and DPO are one loop.

usage: oneloop COMMAND ...

{chr(10).join(f"  {name:9}{text}" for name, text in COMMANDS.items())}

  oneloop COMMAND --help     flags of a command
  ONELOOP_TRACEBACK=1        show the traceback of an error

exit codes: 0 done; 1 failed while running; 2 bad usage, config or data; 3 finished but a gate failed, or does
not fit (plan); 130, 143 stopped by a signal after saving"""


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; ends the process with the exit code."""
    code = None
    try:
        code = run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except BrokenPipeError:
        # the reader, such as `head`, has seen enough; Python must not complain of it once more at its end
        forget_output()
        code = code or 0
    except Exception as error:
        # nobody foresaw it, or ONELOOP_TRACEBACK asks: the place is told, and a key in its words is not
        print(safe(traceback.format_exc()), end="", file=sys.stderr)
        code = code or getattr(error, "exit_code", 1)
        flush_output()
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Carry out one command; returns its exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP)
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        print(f"oneloop {__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, 1)
        hint = f" Did you mean `oneloop {near[0]}`?" if near else ""
        print(f"oneloop: there is no command {name!r}.{hint} Commands: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        return import_module(f"oneloop.cli.{name}").main(rest)
    except OneloopError as error:
        if os.environ.get("ONELOOP_TRACEBACK") == "1":
            raise
        if not error.told:
            print(safe(f"oneloop {name}: {with_notes(error)}"), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        print(f"oneloop {name}: interrupted", file=sys.stderr)
        return 128 + getattr(interrupt, "signum", 2)


if __name__ == "__main__":
    main()
