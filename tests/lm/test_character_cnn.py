"""Words as their characters, against one word at a time."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor
from two_ranks import bare_trainer, on_two_ranks

from datamodules import LanguageData, TranslationData
from datamodules.number_pairs import NumberPairs
from datamodules.recipes import Words
from datamodules.sources import Files
from datamodules.tokenizers import Tokenizer
from lm import LanguageModel
from lm.character_cnn import BEGINNING, END, PADDING, UNKNOWN, CharacterCNN
from lm.network import RecurrentNetwork
from lm.sampling import Sampling
from mt import AttentionDecoder, Seq2Seq

LINES = ["the cat sees the dog .", "the dogs hear the incomprehensible bird .", "a bird likes a cat ."] * 8
SMALL = partial(CharacterCNN, character_size=3, widths=[1, 3], filters=[4, 6], longest=8, highway_layers=2)


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Words().train(LINES)


@pytest.fixture
def embedding(tokenizer: Tokenizer) -> CharacterCNN:
    torch.manual_seed(0)
    made = SMALL(len(tokenizer), 5)
    made.learn_spellings(tokenizer)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made


def of_one_word(embedding: CharacterCNN, spelling: list[int], longest: int = 10) -> Tensor:
    """The vector of a word from its character ids, filter by filter and place by place."""
    characters = [embedding.characters.weight[character] for character in spelling]
    characters += [torch.zeros_like(characters[0])] * (longest - len(characters))
    features = []
    for convolution in embedding.convolutions:
        assert isinstance(convolution, torch.nn.Conv1d)
        assert convolution.bias is not None
        (width,) = convolution.kernel_size
        for kernel, bias in zip(convolution.weight, convolution.bias, strict=True):
            places = range(longest - width + 1)
            found = [(sum((kernel[:, k] * characters[place + k]).sum() for k in range(width)) + bias).tanh() for place in places]
            features.append(max(found))
    weights = dict(embedding.named_parameters())

    def linear(path: str, x: Tensor) -> Tensor:
        return weights[f"{path}.weight"] @ x + weights[f"{path}.bias"]

    y = torch.stack(features)
    for layer in range(len(embedding.highway)):
        t = torch.sigmoid(linear(f"highway.{layer}.gate", y) - 2)
        y = t * torch.relu(linear(f"highway.{layer}.transform", y)) + (1 - t) * y
    return linear("projection", y) if "projection.weight" in weights else y


def test_words_are_spelled_between_marks_and_reserved_ones_are_one_character(
    tokenizer: Tokenizer, embedding: CharacterCNN
) -> None:
    def row(word: str) -> list[int]:
        return embedding.spellings[tokenizer.id_of(word)].tolist()

    cat = row("cat")
    assert cat[0] == BEGINNING
    assert cat[4:] == [END] + [PADDING] * 5
    assert cat[2] == row("a")[1]
    unknown, end = row("<unk>"), row("<eos>")
    assert unknown[2] == end[2] == END
    assert unknown[1] != end[1]
    assert not {unknown[1], end[1]} & {i for word in ("the", "sees", "incomprehensible", "likes") for i in row(word)}
    long = row("incomprehensible")
    assert len(long) == 10  # cut to eight
    assert long[-1] == END
    assert [long[1], long[7], long[8]] == [row("bird")[2], row("bird")[3], row("the")[3]]  # i, r, e of incompre


def test_the_rarest_characters_are_unknown(tokenizer: Tokenizer) -> None:
    reserved = sum(len(name) > 1 for (name, *rest) in tokenizer.spellings() if not rest)
    few = CharacterCNN(len(tokenizer), 5, widths=[2], filters=[5], alphabet_size=reserved + 1)
    few.learn_spellings(tokenizer)
    assert few.spellings[tokenizer.id_of("cat")][:6].tolist() == [BEGINNING, UNKNOWN, UNKNOWN, UNKNOWN, END, PADDING]
    assert few.spellings[tokenizer.id_of("the")][:5].tolist() == [BEGINNING, UNKNOWN, UNKNOWN, END + 1 + reserved, END]
    none = CharacterCNN(len(tokenizer), 5, widths=[2], filters=[5], alphabet_size=reserved - 1)
    with pytest.raises(ValueError, match=rf"{reserved} reserved tokens need an alphabet_size of as many, got {reserved - 1}"):
        none.learn_spellings(tokenizer)


@pytest.mark.parametrize("size", [5, 10])
def test_a_word_is_what_one_word_at_a_time_gives(tokenizer: Tokenizer, size: int) -> None:
    torch.manual_seed(0)
    embedding = SMALL(len(tokenizer), size).double()
    embedding.learn_spellings(tokenizer)
    for parameter in embedding.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    tokens = torch.randint(len(tokenizer), (3, 7))
    spelled = [[i for i in row if i != PADDING] for row in embedding.spellings.tolist()]
    expected = torch.stack([of_one_word(embedding, spelled[token]) for token in tokens.flatten()]).view(3, 7, size)
    found = embedding(tokens)
    torch.testing.assert_close(found, expected)
    gradient = torch.randn_like(found)
    mine, theirs = (torch.autograd.grad(out, list(embedding.parameters()), gradient) for out in (found, expected))
    torch.testing.assert_close(mine, theirs)
    with torch.no_grad():
        torch.testing.assert_close(embedding.eval()(tokens), expected)


def test_words_of_one_spelling_so_far_as_it_is_read_are_one(tokenizer: Tokenizer) -> None:
    short = CharacterCNN(len(tokenizer), 5, widths=[1, 2], filters=[2, 3], longest=3)
    short.learn_spellings(tokenizer)
    dog, dogs, the = (short(torch.tensor(tokenizer.id_of(word))) for word in ("dog", "dogs", "the"))
    assert torch.equal(dog, dogs)
    assert not torch.equal(dog, the)


def test_an_evaluation_computes_all_words_once_and_anew_after_a_change(embedding: CharacterCNN) -> None:
    tokens = torch.arange(len(embedding.spellings))
    embedding.eval()
    with torch.no_grad():
        first = embedding.all_words()
        assert embedding.all_words() is first
        embedding.characters.weight.mul_(2)
        changed = embedding(tokens)
        assert embedding.all_words() is not first
    assert not torch.allclose(changed, first)
    torch.testing.assert_close(embedding(tokens), changed)  # with a gradient
    embedding.characters.weight.data.div_(2)  # as averaging exchanges weights, between training and evaluation
    embedding.train().eval()
    with torch.no_grad():
        torch.testing.assert_close(embedding(tokens), first)


def test_half_precision_gives_the_type_of_an_embedding_and_nearly_its_values(embedding: CharacterCNN) -> None:
    tokens = torch.arange(len(embedding.spellings))
    exact = embedding(tokens)
    for module in (embedding.train(), embedding.eval()):
        with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(module.training):
            half = module(tokens)
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, exact, rtol=0.05, atol=0.05)
        assert not torch.equal(half, exact)
    with torch.no_grad():
        torch.testing.assert_close(embedding(tokens), exact)  # not what was kept in half precision


def test_wrong_sizes_and_unknown_spellings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"give each of the widths \[1, 2\] its number of filters, got \[3\]"):
        CharacterCNN(10, 5, widths=[1, 2], filters=[3])
    with pytest.raises(ValueError, match="a filter of 6 characters is wider than the longest word, 3 and 2"):
        CharacterCNN(10, 5, longest=3)
    with pytest.raises(ValueError, match="CharacterCNN: it does not know how words are spelled: train it on data"):
        LanguageModel(10, 5, [5], embedding=SMALL)(torch.zeros(1, 1, dtype=torch.long))


# In models


def make_model(data: LanguageData, **settings: Any) -> LanguageModel:
    torch.manual_seed(0)
    optimizer = partial(torch.optim.SGD, lr=0.5)
    return LanguageModel(data.vocab_size, 5, [6], embedding=SMALL, initialisation="uniform", optimizer=optimizer, **settings)


def test_whole_words_are_dropped(tokenizer: Tokenizer) -> None:
    network = RecurrentNetwork(len(tokenizer), embedding_size=5, embedding=SMALL, embedding_dropout=0.5)
    network.learn_spellings(tokenizer)
    tokens = torch.arange(len(tokenizer)).repeat(2, 1)
    plain, dropped = network.embedding(tokens), network.embed(tokens)
    kept = dropped.abs().sum(dim=2) > 0
    assert 0 < kept[0].sum() < len(tokenizer)
    assert torch.equal(kept[0], kept[1])
    torch.testing.assert_close(dropped, plain * 2 * kept[:, :, None])


def test_a_checkpoint_alone_generates_and_scores(
    make_data: Callable[..., LanguageData], make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    data = make_data(LINES, validation=LINES[:6], lanes=4, steps=6)
    model = make_model(data)
    start = {name: value.clone() for name, value in model.named_parameters()}
    trainer = make_trainer(max_epochs=2)
    trainer.fit(model, data)
    assert all(not torch.equal(value, start[name]) for name, value in model.named_parameters())
    trainer.save_checkpoint(tmp_path / "words.ckpt")
    loaded = LanguageModel.load_from_checkpoint(tmp_path / "words.ckpt")
    assert loaded.arguments["embedding"]["class_path"] == "lm.character_cnn.CharacterCNN"
    sampling = Sampling(seed=1)
    assert loaded.generate(["the cat", ""], 8, sampling) == model.generate(["the cat", ""], 8, sampling)
    assert [score.perplexity for score in loaded.score(LINES[:3])] == [score.perplexity for score in model.score(LINES[:3])]
    resumed = make_model(data)
    trainer = make_trainer(max_epochs=3)
    trainer.fit(resumed, data, ckpt_path=str(tmp_path / "words.ckpt"))
    assert not any(map(torch.equal, resumed.parameters(), model.parameters()))


def test_both_sides_of_a_translation_are_spelled_by_their_tokenizers(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    data = TranslationData(NumberPairs(target="es", limit=40), batch_size=16, cache=str(tmp_path / "cache"))
    network = partial(RecurrentNetwork, embedding_size=5, embedding=SMALL, layer_sizes=[6])
    model = Seq2Seq(data.source_vocab_size, data.target_vocab_size, network, partial(AttentionDecoder, network=network))
    trainer = make_trainer(max_epochs=1, limit_val_batches=1)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "pairs.ckpt")
    loaded = Seq2Seq.load_from_checkpoint(tmp_path / "pairs.ckpt")
    assert [found[0].text for found in loaded.translate(["seven", "ten"])] == [
        found[0].text for found in model.translate(["seven", "ten"])
    ]


def trained(ranks: int, folder: Path) -> dict[str, Any]:
    """Weights after some epochs."""
    data = LanguageData(Files(train=str(folder / "train.txt")), lanes=4, steps=7, cache=str(folder / "cache"))
    model = make_model(data)
    bare_trainer(ranks, max_epochs=3, limit_val_batches=0).fit(model, data)
    return model.state_dict()


@pytest.mark.slow
def test_two_ranks_learn_as_one(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("\n".join(LINES) + "\n")
    weights = trained(1, tmp_path)
    for others in on_two_ranks(trained, 2, tmp_path, folder=tmp_path):
        torch.testing.assert_close(others, weights, rtol=0, atol=1e-5)
