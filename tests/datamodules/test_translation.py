"""TranslationData: from pairs to the batches of a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpora import GivenPairs, corpus
from jsonargparse import ArgumentParser
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint
from torch import Tensor

from datamodules import TranslationData
from datamodules.bucketing import TranslationBatch
from datamodules.filters import filter_by_length
from datamodules.number_pairs import NumberPairs
from datamodules.parallel import ParallelFiles, TabSeparated
from datamodules.recipes import Bytes, Characters, WordPiece, Words
from datamodules.tokenizers import Tokenizer

TRAIN = [(" ".join("abcde"[: 1 + n % 5]), " ".join("uvwxyz"[: 1 + n % 6])) for n in range(29)]
HELD = [("a b", "u v w"), ("a", "z"), ("e e e e e e e", "u"), ("new", "")]
MakeData = Callable[..., TranslationData]


@pytest.fixture
def make(tmp_path: Path) -> MakeData:
    """make(train, validation, test, **settings of TranslationData)."""

    def make(train: Any = TRAIN, validation: Any = (), test: Any = (), **settings: Any) -> TranslationData:
        return TranslationData(GivenPairs(train, validation, test), cache=str(tmp_path / "cache"), **settings)

    return make


def text(tokenizer: Tokenizer, ids: Tensor) -> str:
    return " ".join(tokenizer.tokens(ids.tolist()))


class TestRows:
    def test_source_ends_and_target_begins_and_ends(self, make: MakeData) -> None:
        data = make(batch_size=4)
        read = []
        for batch in data.train_dataloader():
            for row, index in enumerate(batch.indices.tolist()):
                source, target = data.texts("train")[index]
                read.append(index)
                assert text(data.source_tokenizer, batch.source[row, : batch.source_lengths[row]]) == f"{source} <eos>"
                assert text(data.target_tokenizer, batch.target[row, : batch.target_lengths[row]]) == f"<bos> {target} <eos>"
                assert set(batch.source[row, batch.source_lengths[row] :].tolist()) <= {data.source_tokenizer.padding}
                assert set(batch.target[row, batch.target_lengths[row] :].tolist()) <= {data.target_tokenizer.padding}
        assert sorted(read) == list(range(29))

    def test_other_names_of_the_special_tokens(self, make: MakeData) -> None:
        data = make([("the cat", "我是")], source_tokenizer=WordPiece(vocab_size=40), target_tokenizer=WordPiece(vocab_size=40))
        (batch,) = data.train_dataloader()
        assert text(data.source_tokenizer, batch.source[0]) == "the cat [SEP]"
        assert text(data.target_tokenizer, batch.target[0]) == "[CLS] 我 是 [SEP]"

    def test_every_split_is_cut_and_padded_to_one_length(self, make: MakeData) -> None:
        data = make(TRAIN, HELD, truncate_to=4, pad_to=4)
        for batch in [*data.train_dataloader(), *data.val_dataloader()[0]]:
            assert (batch.source.shape[1], batch.target.shape[1]) == (4, 5)
            ends = batch.source[torch.arange(len(batch.source)), batch.source_lengths - 1]
            assert set(ends.tolist()) == {data.source_tokenizer.end}
            ends = batch.target[torch.arange(len(batch.target)), batch.target_lengths - 1]
            assert set(ends.tolist()) == {data.target_tokenizer.end}
        assert data.texts("validation")[2].source == "e e e e e e e"

    def test_texts_are_untouched(self, make: MakeData) -> None:
        given = [("The  CAT, sat.", "Die Katze ."), ("A dog", "  Hund\u2028")]
        data = make(given, given[::-1], source_tokenizer=Words(normalization="letters"))
        assert list(data.texts("train")) == given
        assert list(data.texts("validation")) == given[::-1]
        with pytest.raises(ValueError, match=r"no test split, but \['train', 'validation'\]: hold out"):
            data.texts("test")


class TestTokenizers:
    def test_vocabularies_may_differ(self, make: MakeData) -> None:
        data = make()
        assert (data.source_vocab_size, data.target_vocab_size) == (5 + 4, 6 + 4)
        data = make(source_tokenizer=Characters(), target_tokenizer=Bytes())
        assert (data.source_vocab_size, data.target_vocab_size) == (6 + 4, 256 + 3)

    def test_one_for_both(self, make: MakeData) -> None:
        data = make(shared_tokenizer=Words())
        assert data.source_tokenizer is data.target_tokenizer
        assert data.source_vocab_size == data.target_vocab_size == 5 + 6 + 4
        with pytest.raises(ValueError, match="shared_tokenizer is for both sides"):
            make(shared_tokenizer=Words(), target_tokenizer=Words())

    @pytest.mark.parametrize(
        "recipe", [Characters(), WordPiece(vocab_size=60, limit_alphabet=40)], ids=["characters", "wordpiece"]
    )
    def test_chinese_needs_no_spaces(self, make: MakeData, recipe: Any) -> None:
        chinese = ["我是汤姆，你好。", "你好，我是学生。", "学生是我的朋友。"]
        data = make([("a", line) for line in chinese], target_tokenizer=recipe)
        (batch,) = data.train_dataloader()
        assert data.target_tokenizer.unknown not in batch.target
        assert set((batch.target_lengths - 2).tolist()) == {8}
        decoded = [data.target_tokenizer.decode(row[1:-1].tolist()) for row in batch.target]
        assert sorted(decoded) == sorted(chinese)


class TestFilters:
    def test_by_hand(self) -> None:
        source, target = np.array([3, 0, 9, 2, 4, 12, 5]), np.array([3, 4, 8, 5, 8, 1, 0])
        filtered = filter_by_length(source, target, max_length=8, max_ratio=2)
        assert filtered.rows.tolist() == [0, 4]
        assert filtered.dropped == {
            "without a token on one side": 2,
            "longer than max_length=8": 2,
            "of a length ratio above max_ratio=2": 1,
        }
        assert filter_by_length(source, target, None, None).rows.tolist() == [0, 2, 3, 4, 5]

    def test_they_are_for_training_alone_and_reported_in_one_line(self, make: MakeData, caplog: pytest.LogCaptureFixture) -> None:
        train = [("a b", "u v"), ("a", "u v w"), ("a b c d e", "u"), ("a b c d e", "u v w x y"), ("", "u"), ("a", " ")]
        data = make(train, HELD, max_length=4, max_ratio=2.5)
        with caplog.at_level("INFO"):
            data.setup("fit")
        assert [record.message for record in caplog.records if "pairs" in record.message] == [
            "pairs: train 1 of 6"
            " (dropped 2 with an empty side, 2 longer than max_length=4, 1 of a length ratio above max_ratio=2.5);"
            " validation 3 of 4 (dropped 1 with an empty side)"
        ]
        (batch,) = data.train_dataloader()
        assert batch.indices.tolist() == [0]
        assert sum(len(batch.indices) for batch in data.val_dataloader()[0]) == 3

    @pytest.mark.parametrize(
        ("stage", "expected"),
        [
            ("validate", "pairs: validation 3 of 4 (dropped 1 with an empty side)"),
            ("test", "pairs: test 1 of 3 (dropped 2 with an empty side)"),
            ("predict", "pairs: test 1 of 3 (dropped 2 with an empty side)"),
        ],
    )
    def test_every_stage_reports_the_split_that_it_reads(
        self, make: MakeData, caplog: pytest.LogCaptureFixture, stage: str, expected: str
    ) -> None:
        data = make(TRAIN, HELD, [("", "u"), ("a", "v"), ("b", "")], max_length=1)
        with caplog.at_level("INFO"):
            data.setup(stage)
        assert [record.message for record in caplog.records if "pairs" in record.message] == [expected]

    def test_nothing_to_report_is_one_line_too(self, make: MakeData) -> None:
        assert make(TRAIN, HELD[:2]).report() == "pairs: train 29 of 29; validation 2 of 2"

    def test_none_left_is_refused_before_anything_runs(self, make: MakeData) -> None:
        data = make([("a b c", "u v w"), ("a b", "u v w x y")], max_length=2)
        with pytest.raises(ValueError, match="no pair is left to train on, of 2: 2 longer than max_length=2; raise max_length"):
            data.setup("fit")
        data.setup("test")
        data = make([("我", "a")], source_tokenizer=Words(normalization="letters"), target_tokenizer=Words())
        with pytest.raises(ValueError, match="no text to train on is left after normalization 'letters'"):
            data.setup("fit")

    @pytest.mark.parametrize(
        ("name", "least"),
        [
            ("batch_size", 1),
            ("evaluation_batch_size", 1),
            ("max_length", 1),
            ("max_ratio", 1),
            ("truncate_to", 2),
            ("pad_to", 1),
        ],
    )
    def test_settings_out_of_range(self, make: MakeData, name: str, least: int) -> None:
        make(**{name: least})
        with pytest.raises(ValueError, match=f"{name} is {least} or more, got {least - 1}"):
            make(**{name: least - 1})


class TestEvaluation:
    def test_every_pair_is_read_once_and_can_be_put_back_in_order(self, make: MakeData) -> None:
        data = make(TRAIN, TRAIN[::-1], HELD, batch_size=4, evaluation_batch_size=3, max_length=2)
        for split, (loader,) in (("validation", data.val_dataloader()), ("test", data.test_dataloader())):
            found = {}
            for batch in loader:
                assert len(batch.indices) <= 3
                for row, index in enumerate(batch.indices.tolist()):
                    found[index] = text(data.target_tokenizer, batch.target[row, 1 : batch.target_lengths[row] - 1])
            texts = data.texts(split)  # type: ignore[arg-type]
            assert [found[index] for index in range(len(found))] == [pair.target for pair in texts]

    def test_without_a_split_there_is_no_loader_and_prediction_takes_what_there_is(self, make: MakeData) -> None:
        data = make(TRAIN, HELD)
        assert data.test_dataloader() == []
        assert len(data.val_dataloader()) == len(data.predict_dataloader()) == 1
        assert make(TRAIN).predict_dataloader() == []
        assert sum(len(batch.indices) for batch in make(TRAIN, HELD, TRAIN).predict_dataloader()[0]) == 29

    def test_any_split_can_be_predicted(self, make: MakeData) -> None:
        splits = {"train": TRAIN, "validation": HELD}
        for split, pairs in splits.items():
            (loader,) = make(TRAIN, HELD, predict_split=split).predict_dataloader()
            assert sum(len(batch.indices) for batch in loader) == sum(bool(target) for _, target in pairs)
        with pytest.raises(ValueError, match=r"there is no test split, but \['train', 'validation'\]"):
            make(TRAIN, HELD, predict_split="test").predict_dataloader()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_it_is_built_from_yaml(tmp_path: Path) -> None:
    """As the command line does, with every source and what is nested in one."""
    (tmp_path / "a.en").write_text("one\ntwo\n")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TranslationData, "data")
    shared = {"class_path": "datamodules.recipes.BPE", "init_args": {"vocab_size": 300}}
    file = str(tmp_path / "a.en")
    lines = {"class_path": "datamodules.sources.Hub", "init_args": {"name": "a/b"}}
    settings: dict[str, dict[str, Any]] = {
        "datamodules.parallel.ParallelFiles": {"source": {"train": file}, "target": {"train": [file]}},
        "datamodules.parallel.TabSeparated": {"train": "a", "test_fraction": 0.1, "hold_out": "groups"},
        "datamodules.parallel.PairTables": {"train": "a", "source": "en"},
        "datamodules.parallel.HubPairs": {"name": "a/b", "source": "en", "target": "de"},
        "datamodules.hsk.HSK": {"lines": lines, "target": "pinyin"},
        "datamodules.number_pairs.NumberPairs": {"target": "de"},
    }
    for path, arguments in settings.items():
        source = {"class_path": path, "init_args": arguments}
        config = parser.parse_object({"data": {"source": source, "shared_tokenizer": shared, "cache": str(tmp_path / "cache")}})
        data = parser.instantiate_classes(config).data
        assert type(data.source).__name__ == path.rpartition(".")[2]
        if isinstance(data.source, ParallelFiles):
            assert data.source_vocab_size == data.target_vocab_size > 256


class Reader(LightningModule):
    """Remembers what it reads, and what it read at each step of the optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.read: list[tuple[list[int], float]] = []
        self.steps: list[tuple[int, int]] = []
        self.pending = 0

    def training_step(self, batch: TranslationBatch, batch_index: int) -> Tensor:  # noqa: ARG002
        self.read.append((batch.indices.tolist(), float(batch.normalizer)))
        self.pending += int((batch.target_lengths - 1).sum())
        self.normalizer = float(batch.normalizer)
        return self.weight * batch.source.float().mean()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:  # noqa: ARG002
        self.steps.append((self.pending, int(self.normalizer)))
        self.pending = 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


class TestInATrainer:
    def fit(
        self,
        make: MakeData,
        make_trainer: Callable[..., Trainer],
        callbacks: list[Callback],
        ckpt_path: Any = None,
        **settings: Any,
    ) -> Reader:
        module = Reader()
        checkpoints = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
        trainer = make_trainer(callbacks=callbacks, enable_checkpointing=checkpoints, max_epochs=3, **settings)
        trainer.fit(module, make(batch_size=4, seed=3), ckpt_path=ckpt_path)
        return module

    @pytest.mark.parametrize("accumulate", [1, 3, 5])
    @pytest.mark.parametrize("limit", [None, 5, 0.5])
    def test_the_normalizer_is_that_of_the_step(
        self, make: MakeData, make_trainer: Callable[..., Trainer], accumulate: int, limit: Any
    ) -> None:
        """8 batches an epoch, or 5, or 4: the last group of an epoch has fewer."""
        module = self.fit(make, make_trainer, [], accumulate_grad_batches=accumulate, limit_train_batches=limit)
        batches = {None: 8, 5: 5, 0.5: 4}[limit]
        assert len(module.read) == 3 * batches
        assert len(module.steps) == 3 * -(-batches // accumulate)
        assert all(read == normalizer for read, normalizer in module.steps)

    def test_accumulation_may_change_between_epochs(self, make: MakeData, make_trainer: Callable[..., Trainer]) -> None:
        module = self.fit(make, make_trainer, [GradientAccumulationScheduler({0: 1, 1: 3})])
        assert len(module.steps) == 8 + 3 + 3
        assert all(read == normalizer for read, normalizer in module.steps)

    @pytest.mark.parametrize("accumulate", [1, 2])
    def test_a_resumed_run_reads_what_an_uninterrupted_one_reads(
        self, make: MakeData, make_trainer: Callable[..., Trainer], tmp_path: Path, accumulate: int
    ) -> None:
        saving = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=1)
        whole = self.fit(make, make_trainer, [saving], accumulate_grad_batches=accumulate).read
        assert len(whole) == 24
        for start in (0, 8, 16):
            assert sorted(index for rows, _ in whole[start : start + 8] for index in rows) == list(range(29))
        for step in (1, 3, 8 // accumulate, 9):
            path = tmp_path / f"step={step}.ckpt"
            resumed = self.fit(make, make_trainer, [], path, accumulate_grad_batches=accumulate).read
            assert resumed == whole[step * accumulate :], step


class Bigrams(LightningModule):
    """Predicts each target token from the one before it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Parameter(torch.randn(10, 10, dtype=torch.float64))

    def training_step(self, batch: TranslationBatch, batch_index: int) -> Tensor:  # noqa: ARG002
        nll = -self.table.log_softmax(dim=1)[batch.target[:, :-1], batch.target[:, 1:]]
        real = torch.arange(nll.shape[1]) < batch.target_lengths[:, None] - 1
        scale = self.trainer.world_size * self.trainer.accumulate_grad_batches
        return (nll * real).sum() / batch.normalizer * scale

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_from_the_same_steps(make: MakeData, make_trainer: Callable[..., Trainer]) -> None:
    """29 pairs in batches of 4: the last has one pair, so that one process has nothing; groups of 3 leave one of 2."""

    def learnt(**settings: Any) -> Tensor:
        module = Bigrams()
        make_trainer(max_epochs=2, accumulate_grad_batches=3, **settings).fit(module, make(batch_size=4, seed=1))
        return module.table.detach()

    one, two = learnt(), learnt(strategy="ddp_spawn", devices=2)
    assert torch.allclose(one, two, rtol=1e-9)
    assert not torch.allclose(one, Bigrams().table)


def test_numbers_in_words(tmp_path: Path) -> None:
    data = TranslationData(NumberPairs(source="en", target="de", limit=100), target_tokenizer=Characters(), cache=str(tmp_path))
    data.setup("fit")
    assert data.report() == "pairs: train 90 of 90; validation 5 of 5; test 5 of 5"
    assert data.source_vocab_size == 28 + 4  # one to nineteen, eight tens, hundred


def test_multi30k(tmp_path: Path) -> None:
    def files(language: str) -> Any:
        names = {"train": "train", "validation": "val", "test": "test_2016_flickr"}
        return {split: str(corpus("multi30k", "tok", f"{name}.{language}.gz")) for split, name in names.items()}

    data = TranslationData(ParallelFiles(files("en"), files("de")), cache=str(tmp_path), batch_size=64)
    assert data.report() == "pairs: train 29,000 of 29,000; validation 1,014 of 1,014; test 1,000 of 1,000"
    batches = list(data.train_dataloader())
    assert len(batches) == 454
    padded = sum(batch.source.numel() + batch.target.numel() for batch in batches)
    real = sum(int(batch.source_lengths.sum() + batch.target_lengths.sum()) for batch in batches)
    assert padded < 1.03 * real


@pytest.mark.slow
def test_chinese_of_tatoeba(tmp_path: Path) -> None:
    """WordPiece of 1,000 entries on each side, as in the lecture, with a pre-tokenizer and a limit to the alphabet."""
    source = TabSeparated(str(corpus("cmn-eng", "cmn.txt.gz")), test_fraction=0.1, hold_out="groups")
    recipe = WordPiece(vocab_size=1000, limit_alphabet=900)
    data = TranslationData(source, WordPiece(vocab_size=1000, limit_alphabet=70), recipe, cache=str(tmp_path))
    assert (data.source_vocab_size, data.target_vocab_size) == (1000, 1000)
    unknown, total, lost = 0, 0, 0
    for batch in data.test_dataloader()[0]:
        for row, length in zip(batch.target, batch.target_lengths.tolist(), strict=True):
            found = int((row == data.target_tokenizer.unknown).sum())
            unknown, total, lost = unknown + found, total + length - 2, lost + (found == length - 2)
    assert lost == 0
    assert unknown < 0.15 * total
