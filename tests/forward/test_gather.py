"""Parts of a packed sequence against plain indexing."""

import torch

from oneloop.forward.gather import gathered


def test_pieces_and_their_gradients_are_those_of_plain_indexing():
    """Parts overlap, as keys of a shared prompt do; an index can come twice in one; some tokens are in none."""
    torch.manual_seed(0)
    sequence = torch.randn(9, 2, 3, dtype=torch.float64, requires_grad=True)
    indices = [slice(0, 4), torch.tensor([0, 1, 6, 7]), torch.tensor([1, 1, 8]), slice(2, 5)]
    weights = [torch.randn(n, 2, 3, dtype=torch.float64) for n in (4, 4, 3, 3)]
    ours = gathered(sequence, indices)
    plain = [sequence[index] for index in indices]
    assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))
    slopes = [
        torch.autograd.grad(sum((w * part).sum() for w, part in zip(weights, parts, strict=True)), sequence)[0]
        for parts in (ours, plain)
    ]
    torch.testing.assert_close(slopes[0], slopes[1])
    assert not slopes[0][5].any() and slopes[0][1].any()
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(gathered(sequence, indices), plain, strict=True))
