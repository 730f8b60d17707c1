"""Model FLOPs of a training step, counted: matrix products only, a product of m×k and k×n as 2·m·k·n.

For each token and layer, with hidden size h and intermediate size i: 4 projections of attention, 2·4·h², and 3 matrices
of the MLP, 2·3·h·i. Attention itself, for the n-th token of a row: n products of its query with keys and n with values,
each 2·h; the triangle above the diagonal does not count, whoever computes it. The head, 2·h·V, counts where its logits
are used: at the positions that predict a trained token. A backward pass is twice its forward pass. Embedding, norms,
activations, softmax and the optimizer count as nothing. The last layer counts in full, also for tokens whose states
nobody reads.
"""

from __future__ import annotations

from collections.abc import Sequence

from cases.values import Shape


def _attended(first: int, count: int) -> int:
    """Σ n over the tokens number first + 1 … first + count of a row."""
    return sum(range(first + 1, first + count + 1))


def forward_flops(shape: Shape, tokens: int, attended: int, predicted: int) -> int:
    """One forward pass of `tokens` tokens which together look at `attended` tokens; `predicted` need the head."""
    weights = 4 * shape.hidden**2 + 3 * shape.hidden * shape.intermediate
    body = shape.layers * (2 * weights * tokens + 4 * shape.hidden * attended)
    return body + 2 * shape.hidden * shape.vocabulary * predicted


def step_flops(shape: Shape, rows: Sequence[tuple[int, int]], group: int = 1) -> dict[str, int]:
    """Forward and backward of rows of (prompt tokens, trained tokens).

    Returns: `every_row`, as if each row were computed in full, and `work_done`, where the rows of a group (`group` rows
    in a row share a prompt) compute their prompt once.
    """
    full = sum(forward_flops(shape, p + n, _attended(0, p + n), n) for p, n in rows)
    shared = 0
    for start in range(0, len(rows), group):
        members = rows[start : start + group]
        prompt = members[0][0]
        shared += forward_flops(shape, prompt, _attended(0, prompt), 0)
        shared += sum(forward_flops(shape, n, _attended(p, n), n) for p, n in members)
    return {"every_row": 3 * full, "work_done": 3 * (shared if group > 1 else full)}
