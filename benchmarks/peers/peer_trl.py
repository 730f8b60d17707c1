"""TRL's side: its own trainers on the same model, rows and batch, for one CPU thread.

The engine's name holds its settings: `trl-rows-4` takes four rows in a pass and as many passes before an optimizer step
as the step's batch needs; `trl-rows-16@0.001` has a learning rate, too.

A step is timed from on_step_begin to on_step_end. Sampling is inside it (GRPOTrainer samples when a training step asks
for its inputs); reading and padding a batch of given rows comes before it and is not counted.
"""

from __future__ import annotations

import shutil
import sys
from argparse import Namespace
from pathlib import Path
from statistics import fmean
from time import perf_counter, process_time
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from cases.rewards import exact, spread
from cases.values import CASES, ENOUGH, WINDOW, Case, rows_a_pass
from datasets import Dataset, disable_progress_bars, load_dataset
from peft import LoraConfig
from processes.measured import arguments, emit, forget_peak, mebibytes, wait_for_turn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PrinterCallback,
    TrainerCallback,
)
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    RewardConfig,
    RewardTrainer,
    SFTConfig,
    SFTTrainer,
)


class Watch(TrainerCallback):
    """Times steps, and stops when the last rewards are enough; with `turns`, each step waits for its own."""

    def __init__(self, enough: float = float("inf"), *, turns: bool = False) -> None:
        self.enough, self.reached, self.turns = enough, False, turns
        self.begun = self.start = 0.0
        self.seconds: list[float] = []
        self.worked: list[float] = []
        """Seconds of the processor in each step."""
        self.begun_work = 0.0
        self.waited: list[float] = []
        self.ends: list[float] = []
        self.losses: list[float] = []
        self.reference = 0.0
        """Seconds of the reference's passes before step 0."""
        self.rewards: list[float] = []
        self.lengths: list[float] = []
        self.peak = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.begun = perf_counter()

    def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if self.turns and self.seconds:  # after the warm-up
            begun = perf_counter()
            wait_for_turn()
            self.waited.append(perf_counter() - begun)
        self.start, self.begun_work = perf_counter(), process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.ends.append(perf_counter())
        self.seconds.append(self.ends[-1] - self.start)
        self.worked.append(process_time() - self.begun_work)
        self.peak = mebibytes("VmHWM")
        self.reached = len(self.rewards) >= WINDOW and fmean(self.rewards[-WINDOW:]) >= self.enough
        control.should_training_stop = control.should_training_stop or self.reached

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **others: Any) -> None:
        """After the step: not timed."""
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])


def settings(case: Case, args: Namespace, steps: int, rate: float) -> dict[str, Any]:
    """Float32 on the CPU, nothing recomputed, nothing evaluated or saved; all rows in one optimizer step."""
    samples = case.rows * (case.group if TRAINERS[case.kind] is grpo else 1)
    rows = rows_a_pass(args.engine) or samples
    return {
        "output_dir": str(Path(args.work) / "trl"),
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": samples // rows,
        "max_steps": steps,
        "learning_rate": rate,
        "lr_scheduler_type": "constant",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "report_to": [],
        "save_strategy": "no",
        "eval_strategy": "no",
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "seed": args.seed,
    }


def grpo(case: Case, args: Namespace, watch: Watch, common: dict[str, Any], rows: Dataset) -> GRPOTrainer:
    function = exact if case.kind == "accuracy" else spread

    def reward(completions: list[str], **columns: Any) -> list[float]:
        values = function(completions, **columns)
        watch.rewards.append(fmean(values))
        watch.lengths.append(fmean(len(ids) for ids in columns["completion_ids"]))
        return values

    config = GRPOConfig(
        **common,
        # all samples of a step are generated together, and their prompts drawn once
        steps_per_generation=common["gradient_accumulation_steps"],
        num_generations=case.group,
        max_completion_length=case.max_new_tokens,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        beta=case.beta,
        loss_type="grpo",
        num_iterations=1,
        use_transformers_continuous_batching="continuous" in args.engine,
        transformers_continuous_batching_config=_continuous(case) if "continuous" in args.engine else None,
    )
    tokenizer = AutoTokenizer.from_pretrained(args.model, padding_side="left")
    return GRPOTrainer(
        model=_model(args),
        reward_funcs=reward,
        args=config,
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=_adapters(case),
    )


def _continuous(case: Case) -> dict[str, Any]:
    """Sizes that it takes from GPU memory otherwise: every request fits at once."""
    page, samples = 32, case.rows * case.group
    each = -(-(case.prompt_tokens + case.max_new_tokens) // page) + 1
    return {
        "page_size": page,
        "num_blocks": each * samples,
        "max_batch_tokens": samples * case.prompt_tokens,
        "max_requests_per_batch": samples,
    }


def dpo(case: Case, args: Namespace, watch: Watch, common: dict[str, Any], rows: Dataset) -> DPOTrainer:
    class Timed(DPOTrainer):
        def compute_ref_log_probs(self, *inputs: Any) -> Any:
            begun = perf_counter()
            found = super().compute_ref_log_probs(*inputs)
            watch.reference += perf_counter() - begun
            return found

    config = DPOConfig(**common, beta=case.beta, max_length=None, precompute_ref_log_probs=True)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    return Timed(model=_model(args), args=config, train_dataset=rows, processing_class=tokenizer)


def reward_model(case: Case, args: Namespace, watch: Watch, common: dict[str, Any], rows: Dataset) -> RewardTrainer:
    model = AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=1, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    config = RewardConfig(**common, max_length=None)
    return RewardTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer)


def sft(case: Case, args: Namespace, watch: Watch, common: dict[str, Any], rows: Dataset) -> SFTTrainer:
    config = SFTConfig(**common, max_length=None, padding_free="padding-free" in args.engine)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    return SFTTrainer(
        model=_model(args),
        args=config,
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=_adapters(case),
    )


def _adapters(case: Case) -> LoraConfig | None:
    """As the other side has them: beside every linear layer but the head, without dropout."""
    if not case.lora:
        return None
    return LoraConfig(r=case.lora, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")


def _model(args: Namespace) -> Any:
    return AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)


TRAINERS = {
    "grpo": grpo,
    "accuracy": grpo,
    "dpo": dpo,
    "memory": dpo,
    "reward_model": reward_model,
    "sft": sft,
}


def row_tokens(rows: Dataset) -> int:
    """Tokens of the prepared rows, to compare with what the other engine counts."""
    names = [name for name in rows.column_names if name.endswith("_ids")]
    return sum(len(row[name]) for row in rows for name in names)


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    disable_progress_bars()
    case = CASES[args.case]
    cache = Path(args.work) / "datasets"
    shutil.rmtree(cache, ignore_errors=True)  # the reference's log-probs of an earlier round are in it
    rows = load_dataset("json", data_files=args.data, split="train", cache_dir=str(cache))
    whole = case.kind in ("memory", "accuracy")
    watch = Watch(ENOUGH if case.kind == "accuracy" else float("inf"), turns=not whole)
    rate = float(args.engine.partition("@")[2] or case.learning_rate)
    steps = case.steps + (not whole)
    before = mebibytes("VmRSS")
    forget_peak()
    trainer = TRAINERS[case.kind](case, args, watch, settings(case, args, steps, rate), rows)
    trainer.add_callback(watch)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    values: dict[str, object] = {"row_tokens": row_tokens(trainer.train_dataset)}
    if case.kind == "accuracy":
        values |= {"reached": watch.reached, "seconds": [watch.ends[-1] - watch.begun], "rewards": watch.rewards}
    elif case.kind == "memory":
        values |= {"mebibytes": watch.peak - before, "before": before}
    else:
        ends = zip(watch.ends, watch.ends[1:], watch.waited, strict=False)
        wall = [end - last - waited for last, end, waited in ends]
        # the reference is asked about one step's pairs, which are all there are: each step counts it
        values |= {"seconds": [took + watch.reference for took in watch.seconds[1:]], "wall_seconds": wall}
        values |= {
            "processor_seconds": watch.worked[1:],
            "losses": watch.losses[:steps],
            "reference_seconds": watch.reference,
        }
        values |= {"tokens": [mean * case.rows * case.group for mean in watch.lengths[1:]]}
    emit(values)


if __name__ == "__main__":
    main()
