"""A model folder that is damaged is refused before step 0, in words that name file and tensor."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from oneloop.cli.main import run as command
from oneloop.errors import ConfigError
from oneloop.model.load import load_critic, load_policy, load_reward_model, load_tokenizer, quiet
from oneloop.model.sound import check_vocabulary

WEIGHTS = "model.safetensors"
NORM, EMBEDDING = "model.layers.0.input_layernorm.weight", "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "whole"
    with quiet():
        load_policy("scratch:tiny").save_pretrained(folder)
    load_tokenizer("scratch:tiny").save_pretrained(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "model")
    return tmp_path / "model"


def changed(folder: Path, change) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def configured(folder: Path, **values) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def refusal(folder: Path, load=load_policy) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder)
    assert "\n" not in str(caught.value) and "Fix: " in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("value", "said"), [(torch.nan, "nan at (3,) first"), (-torch.inf, "-inf at (3,) first")])
@pytest.mark.parametrize("load", [load_policy, load_reward_model, load_critic])
def test_a_number_that_is_none(folder: Path, value: float, said: str, load) -> None:
    changed(folder, lambda tensors: tensors[NORM].__setitem__(3, value))
    text = refusal(folder, load)
    assert all(words in text for words in (NORM.removeprefix("model."), str(folder / WEIGHTS), said))
    assert "holds 1 of 96 values that are no numbers" in text


def test_one_in_a_row_that_is_never_used(folder: Path) -> None:
    changed(folder, lambda tensors: tensors[EMBEDDING].__setitem__((-1, -1), torch.nan))
    assert EMBEDDING in refusal(folder)


def test_weights_that_nobody_can_have_trained(folder: Path) -> None:
    def blown_up(tensors) -> None:
        for name in tensors:
            tensors[name] *= 1e20

    changed(folder, blown_up)
    text = refusal(folder)
    assert "holds values up to" in text and "e+19" in text and str(folder / WEIGHTS) in text


@pytest.mark.parametrize("left", [0, 5, 1000, -1000])
@pytest.mark.parametrize("load", [load_policy, load_reward_model])
def test_a_file_that_is_cut_off(folder: Path, left: int, load) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:left])
    assert f"{folder / WEIGHTS} is cut off or damaged" in refusal(folder, load)


def test_another_shape(folder: Path) -> None:
    configured(folder, intermediate_size=json.loads((folder / "config.json").read_text())["intermediate_size"] + 8)
    text = refusal(folder)
    assert "model.layers.0.mlp." in text and str(folder / WEIGHTS) in text and "has the shape [" in text


def test_fewer_rows_than_the_tokenizer_has_tokens(folder: Path, tmp_path: Path, capsys) -> None:
    def fewer(tensors) -> None:
        for name in (EMBEDDING, "lm_head.weight"):
            tensors[name] = tensors[name][:50].clone()

    changed(folder, fewer)
    configured(folder, vocab_size=50)
    with pytest.raises(ConfigError, match=r"its tokenizer goes up to number 102 .*, and its embedding has 50 rows"):
        check_vocabulary(load_policy(folder), load_tokenizer(folder), folder)
    words = (
        f"train sft --model {folder} --data task:addition --steps 1 --data-size 4 --eval-size 2 --out {tmp_path}/run"
    )
    assert command(words.split()) == 2 and "its embedding has 50 rows" in capsys.readouterr().err
