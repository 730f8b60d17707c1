"""What is kept of a batch that no optimizer step could be made of: enough to see why, and small."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from math import isfinite
from typing import Any

from torch import Tensor

from oneloop.batch import Batch
from oneloop.ports import Recorder
from oneloop.record.writer import RunFolder
from oneloop.sound import Unsound

MOST_BYTES = 8 * 10**6
"""Of the rows of a file, the one that is named first."""
MOST_TOKENS = 20_000
"""Of a row."""
_PER_TOKEN = ("rewards", "rollout_logprobs", "old_logprobs", "ref_logprobs", "values", "returns", "advantages")


class Skipped:
    """Implements `oneloop.sound.Told`: an event, and skipped/step_N.json in the run folder."""

    def __init__(self, folder: RunFolder, recorder: Recorder, decode: Callable[[Sequence[int]], str]) -> None:
        self._folder, self._recorder, self._decode = folder, recorder, decode

    def __call__(self, found: Unsound, batch: Batch) -> None:
        name = f"step_{found.step:06d}.json"
        self._recorder.event(
            found.step,
            "A_UNSOUND",
            f"{found}: the optimizer step is not taken, and the weights stay as they are",
            f"look at skipped/{name}: prompts, rewards and log-probs of the batch",
        )
        if self._folder.keeps:
            self._folder.skipped(found.step, name, self._text(found, batch.to("cpu")))

    def _text(self, found: Unsound, batch: Batch) -> str:
        places = sorted(range(len(batch)), key=lambda row: (row != found.row, row))
        rows: list[str] = []
        left = MOST_BYTES
        for row in (json.dumps(self._row(batch, place)) for place in places):
            left -= len(row)
            if left < 0 and rows:
                break
            rows.append(row)
        head = {
            "step": found.step, "update": found.update, "what": found.what, "row": found.row, "rank": found.rank,
            "rows_in_batch": len(batch), "rows_here": len(rows),
        }  # fmt: skip
        return json.dumps(head)[:-1] + ', "rows": [\n' + ",\n".join(rows) + "\n]}\n"

    def _row(self, batch: Batch, place: int) -> dict[str, Any]:
        """Of a row longer than `MOST_TOKENS`, its end."""
        tokens, mask = batch.tokens[place, : int(batch.lengths[place])], batch.mask[place]
        actions = mask.nonzero()[:, 0]
        first = int(actions[0]) if len(actions) else len(tokens)
        kept = actions[-MOST_TOKENS:]
        numbers = {name: list(_numbers(value[place][kept])) for name, value in _parts(batch)}
        return {
            "row": place,
            "group": int(batch.group[place]),
            "truncated": bool(batch.truncated[place]),
            "prompt": self._decode(tokens[:first][-MOST_TOKENS:].tolist()),
            "completion": self._decode(tokens[first:][-MOST_TOKENS:].tolist()),
            "tokens": batch.tokens[place][kept].tolist(),
            **numbers,
        }


def _parts(batch: Batch) -> Iterator[tuple[str, Tensor]]:
    return ((name, value) for name in _PER_TOKEN if (value := getattr(batch, name)) is not None)


def _numbers(values: Tensor) -> Iterator[float | str]:
    """JSON has no word for what this file is about."""
    return (float(f"{value:.6g}") if isfinite(value) else str(value) for value in values.tolist())
