from typing import NamedTuple

import pytest
import torch
from tiny_models import EOS, VOCAB, Tables, texts
from torch import Tensor

from datamodules.recipes import Characters, Words
from mt.beam import BeamSearch
from mt.step import Special, StepOutput, ensemble, leaves, map_state, reorder, repeat


class Pair(NamedTuple):
    hidden: Tensor
    cell: tuple[Tensor, None]


def test_every_tensor_of_a_state_is_reordered() -> None:
    rows = torch.arange(6.0).view(3, 2)
    state = (Pair(rows, (rows + 10, None)), None, ())
    moved = reorder(state, torch.tensor([2, 0, 0, 1]))
    assert isinstance(moved[0], Pair)
    assert moved[0].hidden.tolist() == [[4, 5], [0, 1], [0, 1], [2, 3]]
    assert moved[0].cell[0].tolist() == [[14, 15], [10, 11], [10, 11], [12, 13]]
    assert moved[0].cell[1] is None
    assert moved[1:] == (None, ())
    assert repeat(state, 2)[0].hidden[:, 0].tolist() == [0, 0, 2, 2, 4, 4]
    assert len(list(leaves(state))) == 2
    assert map_state(torch.neg, None) is None


def search(models: list[Tables]) -> list[tuple[tuple[int, ...], float]]:
    step = ensemble([model.step for model in models])
    state = tuple(model.start(2) for model in models)
    output = BeamSearch(width=3, n_best=3)(step, state, 2, Special(0, 1, 2), 6)
    assert output.attention is not None
    return [item for i in range(2) for item in zip(texts(output, i), output.score[i].tolist(), strict=True)]


def test_a_model_twice_is_the_model() -> None:
    model = Tables.random(2)
    alone = model.search(BeamSearch(width=3, n_best=3), 6)
    for models in ([model], [model, model], [model] * 3):
        found = search(models)
        assert [text for text, _ in found] == texts(alone, 0) + texts(alone, 1)
        assert [score for _, score in found] == pytest.approx(alone.score.flatten().tolist(), abs=1e-12)


def test_probabilities_are_averaged_and_not_their_logarithms() -> None:
    one, other = Tables.random(1, seed=1), Tables.random(1, seed=2)
    one.log_prob[..., 5] = -torch.inf
    other.log_prob[..., 5] = other.log_prob[..., 5].clamp(min=-1)
    other.log_prob[..., 4] = one.log_prob[..., 4] = -torch.inf
    mean = (one.log_prob.exp() + other.log_prob.exp()) / 2
    tokens, states = torch.tensor([0]), (one.start(1), other.start(1))
    output = ensemble([one.step, other.step])(tokens, states)
    assert torch.allclose(output.log_prob[0].exp(), mean[0, 2, 0])
    assert output.log_prob[0, 4].isneginf()
    assert one.attention is not None
    assert other.attention is not None
    assert output.attention is not None
    assert torch.allclose(output.attention[0], (one.attention[0, 2, 0] + other.attention[0, 2, 0]) / 2)
    other.attention = None
    partial = ensemble([one.step, other.step])(tokens, states).attention
    assert partial is not None
    assert torch.equal(partial[0], one.attention[0, 2, 0])
    one.attention = None
    assert ensemble([one.step, other.step])(tokens, states).attention is None


def test_members_find_together_what_brute_force_on_the_mean_finds() -> None:
    """Their states go with the hypotheses: the mean of two tables is the table of the means."""
    models = [Tables.random(2, seed=seed) for seed in (1, 2, 3)]
    mean = Tables(torch.stack([model.log_prob.exp() for model in models]).mean(0).log())
    alone = mean.search(BeamSearch(width=3, n_best=3), 6)
    assert [text for text, _ in search(models)] == texts(alone, 0) + texts(alone, 1)


def test_members_of_different_vocabularies_are_refused() -> None:
    def larger(tokens: Tensor, state: None) -> StepOutput:
        return StepOutput(torch.zeros(len(tokens), VOCAB + 2), state)

    model = Tables.random(1)
    with pytest.raises(ValueError, match=r"theirs have \[6, 8\] entries"):
        ensemble([model.step, larger])(torch.tensor([0]), (model.start(1), None))
    with pytest.raises(ValueError, match="no member"):
        ensemble([])


def test_special_tokens_come_from_a_tokenizer() -> None:
    tokenizer = Words(reserved_tokens=("[PAD]", "[UNK]", "[CLS]", "[SEP]")).train(["a b"])
    assert Special.of(tokenizer) == Special(beginning=2, end=3, padding=0, unknown=1)
    with pytest.raises(ValueError, match="no token for beginning, end, padding; reserve"):
        Special.of(Characters().train(["a b"]))
    with pytest.raises(ValueError, match=r"an id each, got .*end=1, padding=1"):
        Special(beginning=0, end=EOS, padding=1)
