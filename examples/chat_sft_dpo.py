"""A chat model from conversations, then from preferences between answers: SFT, DPO.

The small model made on the spot has no chat template, so it gets one; a real chat model brings its own, and then
`model="org/name"` is all that is needed. A minute on a laptop.
"""

import os

import oneloop
from oneloop.model.load import load_policy, load_tokenizer

STEPS = int(os.environ.get("ONELOOP_STEPS", "150"))
TEMPLATE = (
    "{% for message in messages %}{{ message.role[0] }}: {{ message.content }}"
    "{{ eos_token if message.role == 'assistant' else '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}a: {% endif %}"
)

model, tokenizer = load_policy("scratch:tiny"), load_tokenizer("scratch:tiny")
tokenizer.chat_template = TEMPLATE


def asked(a: int, b: int) -> list[dict[str, str]]:
    return [{"role": "system", "content": "Add."}, {"role": "user", "content": f"{a} and {b}?"}]


numbers = [(a, b) for a in range(10) for b in range(10)]
conversations = [{"prompt": asked(a, b), "completion": f"{a + b}."} for a, b in numbers]
preferences = [{"prompt": asked(a, b), "chosen": f"{a + b}.", "rejected": f"Well, {a + b}."} for a, b in numbers]

sft = oneloop.fit(
    "sft",
    model=model,
    tokenizer=tokenizer,
    data=conversations,
    steps=STEPS,
    learning_rate=3e-3,
    out="runs/chat_sft",
)
dpo = oneloop.fit(
    "dpo",
    model=sft.path / "final",  # its tokenizer has the template
    data=preferences[10:],
    eval_data=preferences[:10],
    steps=STEPS // 5 + 1,
    learning_rate=1e-4,
    out="runs/chat_dpo",
)
print(sft)
print(dpo)

policy, tokenizer = dpo.policy()
question = tokenizer.apply_chat_template(asked(2, 3), add_generation_prompt=True, return_tensors="pt", return_dict=True)
answer = policy.generate(**question, max_new_tokens=8, do_sample=False)
print(tokenizer.decode(answer[0], skip_special_tokens=True))
