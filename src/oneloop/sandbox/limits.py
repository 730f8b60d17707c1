"""What one confined process may take."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Each passed limit ends the process, or is an error that the program gets from the kernel."""

    seconds: float = 4.0
    """CPU time. Wall-clock time is the deadline of `Confined.wait`."""
    memory_mb: int = 512
    """MiB of address space, the interpreter's own included."""
    output_mb: int = 8
    """MiB of stdout and stderr together."""
    scratch_mb: int = 64
    """MiB in the scratch folder."""
    files: int = 512
    """Files and folders in the scratch folder."""
    threads: int = 64
    """Threads, the first one included."""
