"""A text has the same translations alone and among others: by a trained model, and by every search."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor

from datamodules import TranslationData
from datamodules.number_pairs import NumberPairs
from lm.layers import GRU, LSTM
from lm.network import RecurrentNetwork
from lm.sampling import Sampling
from mt import AttentionDecoder, ContextDecoder, Seq2Seq
from mt.attention import AdditiveAttention
from mt.beam import BeamSearch
from mt.constraints import Constraints
from mt.diverse import DiverseBeamSearch
from mt.ranking import Ranking
from mt.sampled import SamplingSearch
from mt.search import GreedySearch, Search
from mt.step import SourceStep, Special, StepOutput, ensemble
from mt.stochastic import StochasticBeamSearch
from mt.translation import Translation, padded, tokenizers_of, translate

TEXTS = [
    "seven",
    "two hundred seventy three",
    "one hundred one",
    "",
    "ninety eight",
    "a hundred of what nobody has counted",
    "six six six " * 12,
    "one hundred eighty four",
]
COVERING = partial(AdditiveAttention, coverage=True)
SEARCHES = [
    GreedySearch(),
    BeamSearch(width=5, n_best=5),
    BeamSearch(width=4, n_best=3, threshold=0.5, ranking=Ranking(alpha=1.0, offset=5.0)),
    DiverseBeamSearch(width=6, groups=3, n_best=6),
    StochasticBeamSearch(width=5, seed=3),
    SamplingSearch(sampling=Sampling(temperature=1.5, top_p=0.98, seed=3), samples=4),
]


@pytest.fixture(scope="module", params=["attention", "context"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Seq2Seq:
    data = TranslationData(NumberPairs(target="es", limit=300), batch_size=32, cache=str(tmp_path_factory.mktemp("cache")))
    reader = partial(RecurrentNetwork, embedding_size=24, layer_sizes=[24], cell=GRU, bidirectional=True)
    writer = partial(RecurrentNetwork, embedding_size=24, layer_sizes=[24, 24], cell=LSTM, layer_dropout=0.1)
    decoder: Any = {
        "attention": partial(AttentionDecoder, network=writer, attention=COVERING, input_feeding=True),
        "context": partial(ContextDecoder, network=writer),
    }[request.param]
    torch.manual_seed(0)
    optimizer = partial(torch.optim.Adam, lr=0.02)
    module = Seq2Seq(data.source_vocab_size, data.target_vocab_size, reader, decoder, optimizer=optimizer)
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    Trainer(accelerator="cpu", max_epochs=8, gradient_clip_val=1.0, limit_val_batches=0, **quiet).fit(module, data)
    return module


def alone_and_together(model: Seq2Seq, search: Search) -> list[tuple[list[Translation], list[Translation]]]:
    """Of each text: its translations in a batch by itself, and in one with all."""
    together = translate([model], TEXTS, search)
    alone = [translate([model], [text], search, [number])[0] for number, text in enumerate(TEXTS)]
    return list(zip(alone, together, strict=True))


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: type(search).__name__)
def test_in_single_precision_scores_alone_and_among_others_agree(model: Seq2Seq, search: Search) -> None:
    pairs = alone_and_together(model, search)
    for alone, together in pairs:
        assert [found.score for found in together] == pytest.approx([found.score for found in alone], abs=1e-4)
        assert [found.log_prob for found in together] == pytest.approx([found.log_prob for found in alone], abs=1e-4)
    assert len({found[0].text for found, _ in pairs}) >= 5  # the model tells texts apart


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: type(search).__name__)
def test_in_double_precision_translations_alone_and_among_others_are_identical(model: Seq2Seq, search: Search) -> None:
    for alone, together in alone_and_together(copy.deepcopy(model).double(), search):
        assert [found.tokens for found in together] == [found.tokens for found in alone]
        assert [found.finished for found in together] == [found.finished for found in alone]
        assert [found.score for found in together] == pytest.approx([found.score for found in alone], abs=1e-10)


CONSTRAINED = Constraints(min_length=3, no_repeat_ngram=3, ban_unknown=True)


@pytest.mark.parametrize(
    ("search", "share"),
    [
        (BeamSearch(width=4, n_best=4, ranking=Ranking(coverage=0.3)), 0.8),
        (BeamSearch(width=5, n_best=2, constraints=CONSTRAINED), 0.8),
        (BeamSearch(width=4, n_best=2, patience=1), 0.9),  # few sentences go on for long
        (DiverseBeamSearch(width=6, groups=3, n_best=6), 0.8),
    ],
    ids=["coverage", "constraints", "patience", "diverse"],
)
@pytest.mark.parametrize("members", [1, 2])
def test_to_set_finished_sentences_aside_is_less_work_for_the_same_result(
    model: Seq2Seq, search: Search, share: float, members: int
) -> None:
    if isinstance(model.decoder, ContextDecoder) and isinstance(search, BeamSearch) and search.ranking.coverage:
        search = BeamSearch(width=4, n_best=4)  # there is no attention to cover anything
    model = copy.deepcopy(model).double().eval()
    source, target = tokenizers_of([model])
    read, lengths = padded([[*source.encode(text), Special.of(source).end] for text in TEXTS if text], model.device)
    with torch.no_grad():
        begun = [model.begin(read, lengths) for _ in range(members)]
    step, state = begun[0] if members == 1 else (ensemble([step for step, _ in begun]), tuple(state for _, state in begun))
    assert isinstance(step, SourceStep)
    rows: dict[str, int] = {"whole": 0, "part": 0}

    def counted(name: str, look: Callable[..., StepOutput]) -> Callable[..., StepOutput]:
        def count(tokens: Tensor, *rest: Any) -> StepOutput:
            rows[name] += len(tokens)
            return look(tokens, *rest)

        return count

    prefixes = [[], target.encode("dos"), *[[]] * (len(lengths) - 2)]
    find = partial(search, state=state, sentences=len(lengths), special=Special.of(target), max_length=lengths * 2 + 10)
    whole = find(counted("whole", step), prefixes=prefixes, source_lengths=lengths)
    part = find(SourceStep(step.source, counted("part", step.look)), prefixes=prefixes, source_lengths=lengths)
    assert rows["part"] < share * rows["whole"]
    for field, expected in zip(part, whole, strict=True):
        torch.testing.assert_close(field, expected, rtol=0, atol=1e-9)
