"""Heads and embeddings of YAML: what README shows trains, tied, and what does not fit the data is refused."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands import NOUNS, VERBS, Command

from lm import LanguageModel

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"```yaml\n(    (?:head|embedding):.*?)```", README, re.DOTALL)
WORDS_ALONE = re.findall(r"`(\{source: network.*?\})`", README)
TYING = {"class_path": "callbacks.WeightTying"}
ADAPTIVE_TIES = [TYING, TYING | {"init_args": yaml.safe_load(*WORDS_ALONE)}]

Variant = Callable[[str, Any], Path]


def shown(number: int) -> dict[str, Any]:
    """Settings that README shows, for a vocabulary and layers of a few."""
    found: dict[str, Any] = yaml.safe_load(
        SHOWN[number].replace("200}", "16}").replace("200,", "16,").replace("[2000, 10000]", "[3, 6]")
    )
    return found


@pytest.mark.parametrize(("number", "tying"), [(0, TYING), *((1, tying) for tying in ADAPTIVE_TIES)])
def test_what_readme_shows_trains_tied(cli: Command, variant: Variant, number: int, tying: dict[str, Any]) -> None:
    config = yaml.safe_load(variant("trainer.callbacks", [tying]).read_text())
    config["model"]["init_args"] |= shown(number) | {"embedding_size": 16, "layer_sizes": [20]}
    Path("heads.yaml").write_text(yaml.safe_dump(config))
    done = cli("fit", "--config", "heads.yaml", "--run_folder", "run")
    assert done.status == 0, done.err
    model = LanguageModel.load_from_checkpoint("run/checkpoints/last.ckpt")
    weights = dict(model.named_parameters())
    name = "words.0.weight" if number else "weight"
    assert torch.equal(weights[f"network.embedding.{name}"], weights[f"head.{name}"])
    if number:
        one, other = (weights[f"{part}.projections.1.weight"] for part in ("network.embedding", "head"))
        assert torch.equal(one, other) is (tying is ADAPTIVE_TIES[0])
    assert cli("test", "--config", "heads.yaml", "--ckpt_path", "run/checkpoints/best.ckpt").status == 0


def test_a_list_of_words_in_another_order_is_refused_before_training(cli: Command, variant: Variant) -> None:
    Path("words.txt").write_text("\n".join([*VERBS, *NOUNS, ".", "the"]) + "\n")
    recipe = {
        "class_path": "datamodules.word_list.WordList",
        "init_args": {"file": "words.txt", "reserved_tokens": ["<unk>", "<eos>"]},
    }
    config = yaml.safe_load(variant("data.tokenizer", recipe).read_text())
    config["model"]["init_args"] |= shown(1) | {"embedding_size": 16}
    Path("heads.yaml").write_text(yaml.safe_dump(config))
    done = cli("fit", "--config", "heads.yaml")
    assert done.status == 1
    assert re.search(r"error: Adaptive\w+: its ids have to fall in frequency, and a word from id 6 on is seen", done.err)
