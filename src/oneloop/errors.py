"""Typed errors. Each message says: the value and where it came from, what was wanted, a fix that can be pasted.

The command line prints them without a traceback and ends with `exit_code`.
"""


class OneloopError(Exception):
    """Any failure that oneloop explains itself."""

    exit_code = 1
    told = False
    """Of several ranks that end with it, another one says it."""


def with_notes(error: BaseException) -> str:
    """Its message, and a line for each note that was added on its way."""
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


class ConfigError(OneloopError, ValueError):
    """A flag, recipe or combination of pieces that cannot work; found before anything is trained."""

    exit_code = 2


class DataError(OneloopError, ValueError):
    """A data file or row that cannot be used; names file, row and column."""

    exit_code = 2


class RewardError(OneloopError, RuntimeError):
    """A reward function that raised or broke its contract; never read as a reward of 0."""


class EnvironmentFailed(OneloopError, RuntimeError):
    """An environment that raised, was not done in time, or answered what is no step; never read as a reward of 0."""

    hopeless = False
    """No other episode can be played on either."""


class SandboxError(OneloopError, RuntimeError):
    """The machine could not run a confined process; says nothing about the program that was to run there."""


class EngineError(OneloopError, RuntimeError):
    """What samples outside of this process cannot be mended: it died, stalls, or answers what is no completion."""


class DivergedError(OneloopError, ArithmeticError):
    """Gradients were not finite several times in a row."""


class OutOfMemory(OneloopError, RuntimeError):
    """Memory of the device or of the machine ran out, with passes as small as they may be."""


class CheckpointError(OneloopError, RuntimeError):
    """A checkpoint that is torn, incomplete or belongs to another run."""


class DiskError(OneloopError, OSError):
    """The disk refuses what a run has to write: full, failing, or the folder is not there any more."""


class RankError(OneloopError, RuntimeError):
    """Another process of the run failed, was killed or did not come; names it and what it was busy with."""


class GateError(OneloopError):
    """The run finished, but a check on its result failed."""

    exit_code = 3


class Stopped(OneloopError):
    """A signal ended the run after its state was saved; carries the signal's number."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum
