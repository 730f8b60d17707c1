"""A key that stands in a setting, a command or a failure never comes out of the server."""

import json

import pytest
from asking import Lab, make_run
from test_server_damage import ROUTES

from oneloop.secrets import HIDDEN, redacted

CANARY = "C4n4ryC4n4ryC4n4ryC4n4ry0123456789abcdef"


@pytest.mark.parametrize(
    "text",
    ["hf_" + CANARY, "sk-" + CANARY, "sk-proj-" + CANARY, "AKIA" + CANARY.upper()[:16], "ghp_" + CANARY,
     f"https://me:{CANARY}@example.com/x", f"--hf-token {CANARY}", f"--api-key={CANARY}", f"password: {CANARY}",
     f"WANDB_API_KEY={CANARY}", f'"secret": "{CANARY}"', f"Authorization: {CANARY}", f"authorization: Bearer {CANARY}"],
)  # fmt: skip
def test_what_looks_like_a_secret_is_hidden(text):
    for before, after in (("", ""), ("error: ", " at line 3")):
        shown = redacted(before + text + after)
        assert CANARY not in shown and CANARY.upper()[:16] not in shown and HIDDEN in shown
        assert shown.startswith(before) and shown.endswith(after)


@pytest.mark.parametrize(
    "text",
    ["max_new_tokens = 64", "--max-tokens 4096", "the key is to train longer", "num_tokens", "tokens/s 716",
     "a token limit", "40e889a152ab0d35a800392dd543b27e452ae6c5", "sk-learn", "hf_hub", "key figures"],
)  # fmt: skip
def test_what_is_none_stays(text):
    assert redacted(text) == text


def test_by_name_and_by_flag():
    given = {"hf_token": "x", "max_tokens": "9", "nested": {"apiKey": "y", "password": "z"}, "n": [1, None]}
    assert redacted(given) == {
        "hf_token": HIDDEN, "max_tokens": "9", "nested": {"apiKey": HIDDEN, "password": HIDDEN}, "n": [1, None],
    }  # fmt: skip
    assert redacted(["train", "--hf-token", "x", "--steps", "3"]) == ["train", "--hf-token", HIDDEN, "--steps", "3"]


def test_the_canary_is_in_no_answer(tmp_path):
    run = make_run(
        tmp_path / "run", status="failed", failure=f"401 for token={CANARY} at https://u:{CANARY}@hub/x",
        model=f"https://u:{CANARY}@hub/model", changed={"reward": "", "api_key": ""},
        config=f'api_key = "{CANARY}"\nreward = ["f.py:g", "--token", "{CANARY}"]\nmodel = "hf_{CANARY}"\n',
    )  # fmt: skip
    info = json.loads((run / "run.json").read_text())
    info["argv"] = ["oneloop", "train", "--hub-token", CANARY, f"--key={CANARY}", "sk-" + CANARY]
    info["environment"] = {"HF_TOKEN": CANARY}
    (run / "run.json").write_text(json.dumps(info))
    (run / "objective.txt").write_text(f"secret: {CANARY}")
    with (run / "events.jsonl").open("a") as file:
        file.write(
            json.dumps({"step": 2, "level": "alert", "code": "A_LOGGER", "text": f"wandb: api_key={CANARY}", "fix": ""})
            + "\n"
        )
    lab = Lab(run)
    answers = [lab.get(f"/api/runs/run{route}") for route in ROUTES]
    answers += [lab.get(path) for path in ("/api/runs", "/api/compare?runs=run,run", "/api/demo", "/")]
    assert [answer for answer in answers if CANARY.encode() in answer.body] == []
    assert lab.api("/runs/run")["info"]["seed"] == 7 and HIDDEN in lab.api("/runs/run")["words"]
