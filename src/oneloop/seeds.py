"""Every random number comes from a name, never from a stream that something else may have advanced.

A stream named by (run seed, step, prompt, sample) gives the same draw in any batch, on any rank, after any resume.
"""

from hashlib import blake2b


def named_seed(*parts: int | str) -> int:
    """A 63-bit seed from a name such as `(run_seed, "shuffle", step)`; the same on every machine and process.

    >>> named_seed(0, "shuffle", 3) == named_seed(0, "shuffle", 3) != named_seed(0, "shuffle", 4)
    True
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) >> 1
