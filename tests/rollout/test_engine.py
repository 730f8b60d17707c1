"""The engine samples what the trainer scores: same weights, same log-probs, whatever the batch."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from scipy.stats import chisquare

from oneloop.errors import ConfigError
from oneloop.experience.pack import Row, collate
from oneloop.model.learner import Learner, Optimization
from oneloop.model.load import load_policy
from oneloop.rollout.engine import Engine
from oneloop.rollout.sampler import distribution, draw, uniform
from oneloop.types import Sampling, StopReason

PROMPTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13, 14, 15], [16], [17, 18, 19, 20]]
EOS = 1


def optimization() -> Optimization:
    return Optimization(learning_rate=1e-2, critic_learning_rate=1e-2, total_updates=10)


@pytest.fixture
def model():
    return load_policy("scratch:tiny", seed=3)


def generate(model, prompts=PROMPTS, seeds=None, ends=(EOS,), **sampling):
    options = Sampling(**({"max_new_tokens": 12} | sampling))
    return Engine(model, ends).generate(prompts, options, list(seeds or range(len(prompts))))


def rows(prompts, completions):
    return collate(
        [
            Row(prompt=p, actions=c.tokens, group=i, reward=0.0, logprobs=c.logprobs)
            for i, (p, c) in enumerate(zip(prompts, completions, strict=True))
        ]
    )


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
def test_sampler_and_trainer_agree_at_every_token(model, temperature) -> None:
    """Without an update the ratio is 1 at every token, the first one included, also away from temperature 1."""
    batch = rows(PROMPTS, generate(model, temperature=temperature))
    learner = Learner(model, optimization=optimization(), temperature=temperature)
    with torch.no_grad():
        logprobs = learner.policy(batch).logprobs
    assert (logprobs - batch.rollout_logprobs)[batch.mask].abs().max() < 1e-4
    assert ((logprobs - batch.rollout_logprobs)[batch.mask].exp() - 1).abs().max() < 1e-4


def test_a_trainer_at_another_temperature_would_not_agree(model) -> None:
    """The test above can fail: at another temperature the same tokens have other log-probs."""
    batch = rows(PROMPTS, generate(model, temperature=0.6))
    with torch.no_grad():
        logprobs = Learner(model, optimization=optimization(), temperature=1.0).policy(batch).logprobs
    assert (logprobs - batch.rollout_logprobs)[batch.mask].abs().max() > 1e-2


def test_samples_do_not_depend_on_the_batch(model) -> None:
    """Any slice, order or chunk size gives each (prompt, seed) the same completion."""
    together = generate(model)
    alone = [generate(model, [p], [seed])[0] for seed, p in enumerate(PROMPTS)]
    backwards = generate(model, PROMPTS[::-1], range(len(PROMPTS))[::-1])[::-1]
    chunks = Engine(model, [EOS], max_rows=2).generate(PROMPTS, Sampling(max_new_tokens=12), range(len(PROMPTS)))
    for other in (alone, backwards, chunks):
        assert [c.tokens for c in other] == [c.tokens for c in together]


def test_whoever_ends_first_stays_in_its_place(model) -> None:
    ends = tuple(range(0, 128, 4))
    together = generate(model, ends=ends)
    lengths = [len(one.tokens) for one in together]
    assert lengths != sorted(lengths), "some end before those in front of them"
    alone = [generate(model, [prompt], [seed], ends=ends)[0] for seed, prompt in enumerate(PROMPTS)]
    assert [one.tokens for one in together] == [one.tokens for one in alone]


def test_eight_samples_over_any_number_of_ranks(model) -> None:
    """8 distinct completions of one prompt, the same set again however the samples are dealt out."""
    from oneloop.seeds import named_seed

    seeds = [named_seed(0, 3, "prompt", sample) for sample in range(8)]
    whole = [c.tokens for c in generate(model, [PROMPTS[0]] * 8, seeds)]
    assert len(set(whole)) == 8
    for ranks in (1, 2, 4):
        dealt = [None] * 8
        for rank in range(ranks):
            for place, c in zip(
                range(rank, 8, ranks), generate(model, [PROMPTS[0]] * (8 // ranks), seeds[rank::ranks]), strict=True
            ):
                dealt[place] = c.tokens
        assert dealt == whole


def test_new_weights_are_used_at_once(model) -> None:
    """The second call matches a fresh engine on the new weights; nothing of the first one is reused."""
    engine = Engine(model, [EOS])
    options = Sampling(max_new_tokens=12)
    before = engine.generate(PROMPTS, options, range(5))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.3)
    engine.update(3)
    after = engine.generate(PROMPTS, options, range(5))
    fresh = Engine(model, [EOS]).generate(PROMPTS, options, range(5))
    assert after == [replace(one, version=3) for one in fresh] and {one.version for one in before} == {0}
    assert [c.logprobs for c in after] != [c.logprobs for c in before]
    batch = rows(PROMPTS, after)
    with torch.no_grad():
        fresh = Learner(model, optimization=optimization()).policy(batch).logprobs
    assert (fresh - batch.rollout_logprobs)[batch.mask].abs().max() < 1e-4


def test_every_end_token_stops_and_is_kept(model) -> None:
    """With many end tokens, each stops its row, stays in the tokens, and nothing is called truncated."""
    ends = list(range(2, 100))
    completions = generate(model, ends=ends, max_new_tokens=40)
    assert all(c.tokens[-1] in ends and c.stop is StopReason.EOS for c in completions)
    assert all(token not in ends for c in completions for token in c.tokens[:-1])
    assert [c.stop.truncated for c in completions] == [False] * len(completions)


def test_the_length_limit_truncates(model) -> None:
    completions = generate(model, ends=[102], max_new_tokens=3)
    assert all(len(c.tokens) == 3 and c.stop is StopReason.LENGTH for c in completions if 102 not in c.tokens)
    assert any(c.stop is StopReason.LENGTH for c in completions)


def test_modes_cache_setting_and_random_state_come_back(model) -> None:
    """Generating in the middle of training leaves no trace, and uses the cache although checkpointing is on."""
    model.train()
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()  # the newer name first
    model.lm_head.eval()
    engine = Engine(model, [EOS])  # looks at the model's attention once
    widths: list[int] = []
    handle = model.model.embed_tokens.register_forward_hook(lambda module, args, out: widths.append(out.shape[1]))
    torch.manual_seed(5)
    state, modes = torch.get_rng_state(), [module.training for module in model.modules()]
    engine.generate(PROMPTS, Sampling(max_new_tokens=6), range(5))
    handle.remove()
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    assert max(widths[1:]) == 1, "each step after the first reads one token: the cache is used"


def test_training_after_generating_is_bitwise_the_same(model) -> None:
    """Later training is the same as if nobody had sampled in between."""
    weights = []
    for between in (lambda m: None, lambda m: generate(m, max_new_tokens=6)):
        copy = load_policy("scratch:tiny", seed=3)
        learner = Learner(copy, optimization=optimization())
        batch = collate([Row(prompt=[5, 6], actions=[7, 8, 9], group=0, reward=1.0)])
        for _ in range(2):
            between(copy)
            (-learner.policy(batch).logprobs.sum()).backward()
            learner.step()
        weights.append(torch.cat([p.detach().flatten() for p in copy.parameters()]))
    assert torch.equal(*weights)


def test_sampling_follows_the_configured_distribution(model) -> None:
    """What a checkpoint's generation_config says about sampling changes nothing (χ² on the first token)."""
    model.generation_config.update(repetition_penalty=1.5, top_k=2, temperature=0.1)
    count = 4000
    drawn = Counter(c.tokens[0] for c in generate(model, [[5, 6]] * count, range(count), max_new_tokens=1))
    with torch.no_grad():
        expected = model(torch.tensor([[5, 6]])).logits[0, -1].softmax(-1).double()
    expected = (expected / expected.sum()).numpy() * count
    observed = [drawn[token] for token in range(len(expected))]
    assert chisquare(observed, expected * sum(observed) / expected.sum()).pvalue > 1e-3


def test_uniform_numbers_are_uniform_and_named() -> None:
    seeds = torch.arange(200_000)
    numbers = uniform(seeds, 3)
    assert numbers.min() >= 0 and numbers.max() < 1
    assert chisquare(torch.histc(numbers, 16, 0, 1).numpy()).pvalue > 1e-3
    assert torch.equal(numbers[7:8], uniform(torch.tensor([7]), 3))
    assert not torch.equal(numbers, uniform(seeds, 4))
    # splitmix64 of seed 0, first output, from the published generator: 0xE220A8397B1DCDAF
    assert uniform(torch.tensor([0]), 0).item() == (0xE220A8397B1DCDAF >> 11) * 2.0**-53


def test_a_draw_inverts_the_distribution_function() -> None:
    """p = [.5, .25, .25]: u < .5 gives 0, u < .75 gives 1, else 2; a token of probability 0 is never drawn."""
    logits = torch.tensor([[0.5, 0.25, 0.25, 0.0]]).log().repeat(2000, 1)
    seeds = torch.arange(2000)
    tokens, logprobs = draw(logits, Sampling(), seeds, 0)
    u = uniform(seeds, 0)
    assert torch.equal(tokens, torch.where(u < 0.5, 0, torch.where(u < 0.75, 1, 2)))
    assert torch.allclose(logprobs.exp(), torch.tensor([0.5, 0.25, 0.25])[tokens])


def test_truncated_support_is_normalised_again() -> None:
    """top_k 2 of [.5, .3, .2] is [.625, .375, 0]; top_p .7 keeps the same two, top_p .4 the first alone."""
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    wanted = torch.tensor([[0.625, 0.375, 0.0]])
    assert torch.allclose(distribution(logits, Sampling(top_k=2)).exp(), wanted)
    assert torch.allclose(distribution(logits, Sampling(top_p=0.7)).exp(), wanted)
    assert torch.allclose(distribution(logits, Sampling(top_p=0.4)).exp(), torch.tensor([[1.0, 0.0, 0.0]]))


def test_greedy_takes_the_most_likely_token(model) -> None:
    completions = generate(model, temperature=0.0, max_new_tokens=4)
    with torch.no_grad():
        for prompt, completion in zip(PROMPTS, completions, strict=True):
            tokens = list(prompt)
            for token in completion.tokens:
                assert token == model(torch.tensor([tokens])).logits[0, -1].argmax()
                tokens.append(token)


def test_a_prompt_beyond_the_context_is_refused_with_the_fix(model) -> None:
    with pytest.raises(ConfigError, match="--max-new-tokens 12"):
        generate(model, [[5] * 500], max_new_tokens=40)
    with pytest.raises(ConfigError, match="no tokens"):
        generate(model, [[]])
