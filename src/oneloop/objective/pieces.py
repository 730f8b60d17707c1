"""What a piece of somebody's own must say of itself, and what it may leave out."""

from typing import Any

from oneloop.errors import ConfigError

ASKED = {
    "advantage": {
        "uses_values": "whether it reads the critic's values",
        "compares": "whether it needs several answers to one prompt",
    },
    "surrogate": {
        "uses_old": "whether it takes the ratio to π_old",
        "proportional": "whether a token with advantage 0 has no loss and no gradient",
    },
}
"""Facts that decide what a run computes and loads. None can be seen from outside, and a wrong guess would be silent."""


def check_pieces(**pieces: Any) -> None:
    """Raises: ConfigError for a piece that cannot be called, or does not say what a run has to know."""
    for field, piece in pieces.items():
        _check(field, piece)


def _check(field: str, piece: Any) -> None:
    if isinstance(piece, type) or not callable(piece):
        what = f"the class {piece.__name__}" if isinstance(piece, type) else f"{piece!r}, which cannot be called"
        raise ConfigError(f"{field} is {what}; wanted a value such as a frozen dataclass with __call__, or a function")
    missing = {name: asked for name, asked in ASKED.get(field, {}).items() if not hasattr(piece, name)}
    if missing:
        name = getattr(piece, "__name__", type(piece).__name__)
        facts = "; ".join(f"{fact} = True or False ({asked})" for fact, asked in missing.items())
        raise ConfigError(f"{field}={name} does not say of itself: {facts}. Fix: add them to its class, above __call__")


def formula_of(piece: Any) -> str:
    """How a piece writes itself; of one that does not, its name and what it says about itself."""
    return getattr(piece, "formula", "") or getattr(piece, "__name__", "") or repr(piece)
