"""Names that settings have in TRL, verl and OpenRLHF, and what is written here: hints, never second names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Foreign:
    """A setting of another library.

    Args:
        ours: what to write here; {} stands for the value. Without a flag in it, a sentence.
    """

    peer: str
    name: str
    ours: str


TABLE = tuple(
    Foreign(peer, name, ours)
    for peer, pairs in {
        "others": {
            "lr": "--learning-rate {}",
            "batch_size": "--prompts-per-step N, all prompts of a step; --max-tokens bounds the memory",
            "kl_coef": "--set kl.coef={}",
            "clip_range": "--set surrogate.low={} surrogate.high={}",
            "gamma": "--set advantage.gamma={}",
            "lam": "--set advantage.lam={}",
        },
        "TRL": {
            "beta": "--set kl.coef={} where rewards are, --set reward.beta={} for dpo and ipo",
            "num_generations": "--group-size {}",
            "max_completion_length": "--max-new-tokens {}",
            "max_prompt_length": "rows that do not fit the model's context are named before step 0",
            "epsilon": "--set surrogate.low={} surrogate.high={}",
            "epsilon_high": "--set surrogate.high={}",
            "delta": "--set surrogate.dual={}",
            "loss_type": "the algorithm says it: grpo, dapo, dr_grpo, cispo, dpo, ipo; oneloop explain shows each loss",
            "importance_sampling_level": "the algorithm says it: gspo is the ratio of whole sequences, grpo of tokens",
            "scale_rewards": "--set advantage.scale=std or none",
            "num_iterations": "--epochs {}",
            "steps_per_generation": "--minibatch N: prompts of one optimizer step, of --prompts-per-step",
            "mask_truncated_completions": "--set drop=OverlongFilter()",
            "model_name_or_path": "--model {}",
            "dataset_name": "--data {}",
            "reward_funcs": "--reward file.py:function",
            "reward_model_name_or_path": "--reward-model {}",
            "output_dir": "--out {}",
            "config": "--recipe FILE.toml",
            "per_device_train_batch_size": "--prompts-per-step N, all of a step; --max-tokens bounds the memory",
            "gradient_accumulation_steps": "passes are cut by --max-tokens alone and change no result: leave it out",
            "num_train_epochs": "--steps N: passes over the rows times rows / --prompts-per-step",
            "max_steps": "--steps {}",
            "warmup_steps": "--warmup {}",
            "warmup_ratio": "--warmup N, in optimizer steps",
            "lr_scheduler_type": "--schedule constant, linear or cosine",
            "max_length": "--max-new-tokens {}",
            "max_seq_length": "rows that do not fit the model's context are named before step 0",
            "label_smoothing": "--set link.label_smoothing={}",
            "logging_steps": "every step is logged: leave it out",
            "save_steps": "--save-every {}",
            "save_total_limit": "--keep-checkpoints {}",
            "eval_steps": "--eval-every {}",
            "resume_from_checkpoint": "--resume",
            "overwrite_output_dir": "--overwrite",
            "bf16": "--dtype bfloat16",
            "fp16": "--dtype bfloat16",
            "torch_dtype": "--dtype {}",
            "torch_compile": "--compile",
            "optim": "--optimizer adamw, adamw-8bit or adafactor",
            "use_vllm": "--engine vllm; the built-in engine needs no second copy of the weights",
            "vllm_server_base_url": "--engine {}",
            "vllm_server_host": "--engine http://{}:8000",
            "vllm_tensor_parallel_size": "--vllm-devices, a number for each GPU",
            "vllm_gpu_memory_utilization": "beside a rank vLLM takes 0.4; --vllm-devices gives it GPUs of its own",
            "vllm_importance_sampling_correction": "--engine vllm has it; --set correction=none takes it out",
            "vllm_importance_sampling_cap": '--set "correction=TruncatedImportance({})"',
            "use_peft": "--lora 16",
            "fsdp": "--shard full, with --ranks N or torchrun",
            "deepspeed": "--shard grad or full, with --ranks N or torchrun",
            "lora_r": "--lora {}",
            "lora_target_modules": "--lora-targets {}",
        },
        "verl": {
            "algorithm.adv_estimator": "the first word: oneloop train {}",
            "algorithm.kl_ctrl.kl_coef": "--set kl.coef={}",
            "algorithm.gamma": "--set advantage.gamma={}",
            "algorithm.lam": "--set advantage.lam={}",
            "data.train_files": "--data {}",
            "data.val_files": "--eval-data {}",
            "data.train_batch_size": "--prompts-per-step {}",
            "data.max_response_length": "--max-new-tokens {}",
            "actor_rollout_ref.model.path": "--model {}",
            "actor_rollout_ref.actor.optim.lr": "--learning-rate {}",
            "actor_rollout_ref.actor.ppo_mini_batch_size": "--minibatch {}",
            "actor_rollout_ref.actor.ppo_epochs": "--epochs {}",
            "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": "--max-tokens {}",
            "actor_rollout_ref.actor.clip_ratio": "--set surrogate.low={} surrogate.high={}",
            "actor_rollout_ref.actor.clip_ratio_high": "--set surrogate.high={}",
            "actor_rollout_ref.actor.entropy_coeff": "--set entropy={}",
            "actor_rollout_ref.actor.kl_loss_coef": "--set kl.coef={}",
            "actor_rollout_ref.rollout.n": "--group-size {}",
            "actor_rollout_ref.rollout.name": "--engine {}",
            "actor_rollout_ref.rollout.tensor_model_parallel_size": "--vllm-devices, a number for each GPU",
            "actor_rollout_ref.rollout.temperature": "--temperature {}",
            "actor_rollout_ref.model.enable_gradient_checkpointing": "--gradient-checkpointing",
            "actor_rollout_ref.actor.fsdp_config.param_offload": "--cpu-offload, with --shard full",
            "actor_rollout_ref.ref.fsdp_config.param_offload": "--offload-idle",
            "critic.optim.lr": "--critic-learning-rate {}",
            "custom_reward_function.path": "--reward {}:compute_score",
            "trainer.total_training_steps": "--steps {}",
            "trainer.default_local_dir": "--out {}",
            "trainer.save_freq": "--save-every {}",
            "trainer.test_freq": "--eval-every {}",
            "async_training.staleness_threshold": "--staleness N, the most steps; not a share of stale samples",
            "async_training.partial_rollout": "--in-flight continue, with --staleness",
        },
        "AReaL": {
            "rollout.max_head_offpolicyness": "--staleness {}; it bounds every token, not the mean",
        },
        "prime-rl": {
            "max_async_level": "--staleness {}",
        },
        "OpenRLHF": {
            "async_train": "--staleness 1",
            "pretrain": "--model {}",
            "prompt_data": "--data {}",
            "dataset": "--data {}",
            "save_path": "--out {}",
            "ckpt_path": "--out {}",
            "reward_pretrain": "--reward-model {}",
            "remote_rm_url": "--reward file.py:function",
            "n_samples_per_prompt": "--group-size {}",
            "rollout_batch_size": "--prompts-per-step {}",
            "train_batch_size": "--minibatch N, in prompts and not in samples",
            "micro_train_batch_size": "--max-tokens N, in tokens of one pass",
            "generate_max_len": "--max-new-tokens {}",
            "prompt_max_len": "rows that do not fit the model's context are named before step 0",
            "max_epochs": "--epochs {}",
            "num_episodes": "--steps N: passes over the rows times rows / --prompts-per-step",
            "actor_learning_rate": "--learning-rate {}",
            "init_kl_coef": "--set kl.coef={}",
            "eps_clip": "--set surrogate.low={} surrogate.high={}",
            "vllm_num_engines": "--engine vllm, one server; several: one address of --engine before them",
            "advantage_estimator": "the algorithm says it: rloo, grpo, dr_grpo, reinforce_pp, ppo",
            "lambd": "--set advantage.lam={}",
            "zero_stage": "--ranks N on one machine, torchrun on several, with --shard grad (2) or full (3)",
            "adam_offload": "--cpu-offload with --shard; --optimizer adamw-8bit on one device",
            "packing_samples": "rows are always packed: leave it out",
            "lora_rank": "--lora {}",
        },
    }.items()
    for name, ours in pairs.items()
)
BY_NAME = {foreign.name: foreign for foreign in TABLE}


def hint(name: str, value: str | None) -> str | None:
    """What to write instead of a name of another library, with the value that was given; None for no such name."""
    foreign = BY_NAME.get(name.replace("-", "_"))
    if foreign is None:
        return None
    whose = "other libraries" if foreign.peer == "others" else foreign.peer
    return f"{name} of {whose} is here: {foreign.ours.replace('{}', value or 'VALUE')}"


def page_table() -> str:
    """The table of docs/coming-from.md."""
    rows = [f"| {one.peer} | `{one.name}` | {_code(one.ours)} |" for one in TABLE]
    return "\n".join(["| library | there | here |", "|---|---|---|", *rows])


def _code(ours: str) -> str:
    shown = ours.replace("{}", "VALUE")
    plain = shown.startswith("--") and not any(word in shown for word in (" where ", ":", ", ", " or "))
    return f"`{shown}`" if plain else shown
