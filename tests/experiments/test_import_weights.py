"""`experiments.import_weights`: a state dict and a list of words become a checkpoint that the other commands take."""

from pathlib import Path

import pytest
import torch
from commands import Call, Command
from torch import Tensor, nn

from experiments.generate import generate
from experiments.import_weights import import_weights
from lm import LanguageModel

WORDS = ["<unk>", "<eos>", "the", "cat", "dog", "bird", "horse", "sees", "hears", "likes", "."]


def state_dict() -> dict[str, Tensor]:
    """One tied layer, named as salesforce/awd-lstm-lm names it without weight drop."""
    torch.manual_seed(0)
    embedding, rnn = nn.Embedding(len(WORDS), 4), nn.LSTM(4, 4)
    names = {f"rnns.0.{name}": weight for name, weight in rnn.state_dict().items()}
    return {
        "encoder.weight": embedding.weight.data,
        "decoder.weight": embedding.weight.data,
        "decoder.bias": torch.zeros(11),
        **names,
    }


def test_a_model_of_another_program_generates_and_is_tested(call: Call, cli: Command, experiment: Path) -> None:
    torch.save({"model": state_dict(), "opt": {}}, "weights.pth")
    Path("words.txt").write_text("\n".join(WORDS) + "\n")
    made = call(import_weights, "weights.pth", "words.txt", "imported.ckpt")
    assert (made.status, made.err) == (0, "")
    model = LanguageModel.load_from_checkpoint("imported.ckpt")
    assert model.tokenizer is not None
    assert model.tokenizer.encode("the bird is") == [2, 5, 0]
    assert call(generate, "imported.ckpt", "--prompt", "the", "--length", "3").out.startswith("the ")
    tokenizer = ["--data.tokenizer", "datamodules.recipes.Pretrained", "--data.tokenizer.name", "imported.json"]
    tested = cli("test", "--config", experiment.with_name("data.yaml"), "--ckpt_path", "imported.ckpt", *tokenizer)
    assert tested.status == 0, tested.err
    assert "test/ppl" in tested.out


def test_what_is_missing_or_doubled_is_said(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(state_dict(), "weights.pt")
    assert "words: there is no file words.txt" in call(import_weights, "weights.pt", "words.txt", "out.ckpt").err
    Path("words.txt").write_text("\n".join([*WORDS[:-1], "cat"]))
    assert "words: words.txt has 'cat' twice" in call(import_weights, "weights.pt", "words.txt", "out.ckpt").err
    torch.save([torch.ones(2)], "list.pt")
    assert "list.pt: it holds a list" in call(import_weights, "list.pt", "words.txt", "out.ckpt").err
    torch.save(nn.LSTM(2, 2), "module.pt")
    assert "module.pt cannot be read" in call(import_weights, "module.pt", "words.txt", "out.ckpt").err
    assert not Path("out.ckpt").exists()
