"""Open a file of a million rows and tokenise it: seconds, rows a second and resident memory, each row checked.

python benchmarks/single/open_data.py [--rows 1000000] [--kind prompts|demonstrations] [--form text|messages]
                                      [--format jsonl|parquet]

A byte-level BPE with a vocabulary of 30,000 stands for a model's tokenizer; it has learned words of the same language.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from random import Random

from oneloop.data import open_data

CHARACTERS, CONTEXT = 500, 4096


def resident() -> dict[str, float]:
    """MB of this process now: all, and what no file stands behind."""
    found = {}
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name in ("VmRSS", "RssAnon", "VmHWM"):
            found[name] = int(value.split()[0]) / 1024
    return found


@dataclass
class Used:
    """What a block took: seconds, seconds of CPU of all cores, MB of resident memory."""

    seconds: float = 0.0
    cpu: float = 0.0
    memory: dict[str, float] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def of_block(cls) -> Iterator[Used]:
        used, before, began, cpu = cls(), resident(), time.perf_counter(), time.process_time()
        yield used
        used.seconds, used.cpu = time.perf_counter() - began, time.process_time() - cpu
        used.memory = {name: size - before[name] for name, size in resident().items()}

    def __str__(self) -> str:
        return (
            f"{self.seconds:.1f} s ({self.cpu:.1f} s of CPU); resident memory +{self.memory['VmRSS']:.0f} MB, of which "
            f"+{self.memory['RssAnon']:.0f} MB belong to no file, the peak +{self.memory['VmHWM']:.0f} MB"
        )


def language() -> list[str]:
    """Twenty thousand words, some of them frequent, in a text of 100,000."""
    random = Random(0)
    words = ["".join(random.choices("etaoinshrdlucmfwyp", k=random.randint(2, 9))) for _ in range(20_000)]
    return random.choices(words, cum_weights=list(accumulate(1 / (rank + 10) for rank in range(20_000))), k=100_000)


def rows(count: int, kind: str, form: str) -> Iterator[dict]:
    words = language()
    for number in range(count):
        at = number * 7 % 99_800
        text = f"{number} {' '.join(words[at : at + 150])}"[:CHARACTERS]
        asked, said = (text, str(number)) if kind == "prompts" else (text[: CHARACTERS // 2], text[CHARACTERS // 2 :])
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": asked}]
        if kind == "prompts":
            yield {"prompt": asked if form == "text" else messages, "answer": said}
        elif form == "text":
            yield {"prompt": asked, "completion": said}
        else:
            yield {"messages": [*messages, {"role": "assistant", "content": said}]}


def write(path: Path, count: int, kind: str, form: str) -> None:
    if path.suffix == ".jsonl":
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows(count, kind, form))
        return
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow.parquet import ParquetWriter  # noqa: PLC0415

    writer, batch = None, []
    for number, row in enumerate(rows(count, kind, form), start=1):
        batch.append(row)
        if number % 50_000 == 0 or number == count:
            table = pa.Table.from_pylist(batch)
            writer = writer or ParquetWriter(path, table.schema)
            writer.write_table(table)
            batch = []
    if writer is not None:
        writer.close()


def tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=30_000, special_tokens=["<end>"], initial_alphabet=letters, show_progress=False
    )
    inner.train_from_iterator([" ".join(language())], trainer)
    found = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>")
    found.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}<end>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kind", choices=("prompts", "demonstrations"), default="demonstrations")
    parser.add_argument("--form", choices=("text", "messages"), default="text")
    parser.add_argument("--format", choices=("jsonl", "parquet"), default="jsonl")
    options = parser.parse_args()
    kind, form, count = options.kind, options.form, options.rows
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = f"{folder}/cache"
        path = Path(folder) / f"rows.{options.format}"
        child = os.fork()  # writing leaves its memory to another process
        if child == 0:
            write(path, count, kind, form)
            if options.format == "parquet":
                open_data(str(path), kind)  # builds the cache
            os._exit(0)
        os.waitpid(child, 0)
        if options.format == "parquet":
            import datasets  # noqa: F401, PLC0415  its modules are not the data's memory
        with Used.of_block() as opened:
            data = open_data(str(path), kind)
        print(f"{options.format}, {kind}, {form}: {count:,} rows of {CHARACTERS} characters; load {os.getloadavg()}")
        print(f"opened and checked: {opened}; {count / opened.cpu:,.0f} rows a second of CPU")
        with Used.of_block() as hashed:
            mark = data.fingerprint
        print(f"fingerprint {mark[:8]}: {hashed.cpu:.1f} s of CPU")

        from oneloop.experience.stream import Stream  # noqa: PLC0415
        from oneloop.model.text import Text  # noqa: PLC0415
        from oneloop.recipes import items  # noqa: PLC0415

        text = Text(tokenizer(), (0,))
        list(text.ahead([{"text": "first use"}], ("text",)))
        with Used.of_block() as prepared:
            if kind == "prompts":
                kept, _ = items.prompts(data.rows, text, CONTEXT, 512)
            else:
                kept, _ = items.demonstrations(data.rows, text, CONTEXT)
        print(f"tokenised and checked: {prepared}; {count / prepared.seconds:,.0f} rows a second")
        stream = Stream(kept, seed=0)
        with Used.of_block() as drawn:
            stream.take(10_000)
        print(f"10,000 of them drawn: {drawn}; load {os.getloadavg()}")


if __name__ == "__main__":
    main()
