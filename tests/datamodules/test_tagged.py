"""Tagged sentences: two file formats, what is held out, what is refused; and their batches."""

import gzip
from pathlib import Path

import pytest
import torch

from datamodules.number_labels import NumberPlaces
from datamodules.tagged import CoNLL2003, CoNLLU, TaggedSentence
from datamodules.tagging import TaggingData

UNIVERSAL = """# sent_id = 1
# text = I didn't .
1\tI\tI\tPRON\tPRP\tCase=Nom|Number=Sing\t2\tnsubj\t_\t_
2-3\tdidn't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdid\tdo\tAUX\tVBD\t_\t0\troot\t_\t_
3\tn't\tnot\tPART\tRB\t_\t2\tadvmod\t_\tSpaceAfter=No
3.1\telided\t_\tVERB\t_\t_\t_\t_\t_\t_
4\t.\t.\tPUNCT\t.\t_\t2\tpunct\t_\t_

1\tNew York\tNew York\tPROPN\tNNP\t_\t0\troot\t_\t_

"""
SHARED_TASK = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER
"""


@pytest.fixture
def universal(tmp_path: Path) -> str:
    path = tmp_path / "a.conllu.gz"
    path.write_bytes(gzip.compress(UNIVERSAL.encode()))
    return str(path)


@pytest.fixture
def shared_task(tmp_path: Path) -> str:
    path = tmp_path / "eng.train"
    path.write_text(SHARED_TASK)
    return str(path)


@pytest.mark.parametrize(
    ("column", "tags"),
    [
        ("upos", ["PRON", "AUX", "PART", "PUNCT"]),
        ("xpos", ["PRP", "VBD", "RB", "."]),
        ("feats", ["Case=Nom|Number=Sing", "_", "_", "_"]),
        ("head", ["2", "0", "2", "2"]),
        ("deprel", ["nsubj", "root", "advmod", "punct"]),
    ],
)
def test_any_column_of_conllu_tags_the_words_of_the_syntax(universal: str, column: str, tags: list[str]) -> None:
    sentences = CoNLLU(universal, column=column).tagged()["train"]
    assert sentences[0] == TaggedSentence(["I", "did", "n't", "."], tags)
    assert sentences[1].words == ["New York"]


@pytest.mark.parametrize(("column", "tags"), [(2, ["NNP", "NNP"]), (3, ["B-NP", "I-NP"]), (4, ["B-PER", "I-PER"])])
def test_any_column_of_the_shared_task(shared_task: str, column: int, tags: list[str]) -> None:
    sentences = CoNLL2003(shared_task, column=column).tagged()["train"]
    assert [sentence.words for sentence in sentences] == [["EU", "rejects"], ["Peter", "Blackburn"]]
    assert sentences[1].tags == tags


def test_the_last_or_any_sentences_are_held_out() -> None:
    last, drawn = (
        NumberPlaces(limit=99, validation_fraction=0.1, test_fraction=0.2, hold_out=way).tagged() for way in ("end", "random")
    )
    for splits in (last, drawn):
        assert {split: len(sentences) for split, sentences in splits.items()} == {"train": 69, "validation": 10, "test": 20}
    assert last["test"][-1].words == ["ninety", "nine"] != drawn["test"][-1].words


def test_numbers_are_tagged_with_what_their_words_count() -> None:
    sentences = NumberPlaces(limit=12_345).load()["train"]
    assert sentences[-1].words == ["twelve", "thousand", "three", "hundred", "forty", "five"]
    assert sentences[-1].tags == ["B-thousands", "I-thousands", "B-hundreds", "I-hundreds", "B-rest", "I-rest"]
    assert sentences[99].tags == ["B-hundreds", "I-hundreds"]


def test_batches_hold_every_word_once_with_its_tag() -> None:
    data = TaggingData(NumberPlaces(limit=400), batch_size=16)
    words = [word for sentence in data.sentences["train"] for word in sentence.words]
    read = []
    for batch in data.train_dataloader():
        assert batch.tokens.shape == batch.tags.shape == batch.mask.shape
        assert torch.equal(batch.mask.sum(dim=1), batch.lengths)
        assert float(batch.normalizer) == int(batch.mask.sum())
        for row, index in enumerate(batch.indices.tolist()):
            sentence = data.sentences["train"][index]
            assert batch.words[row] == sentence.words
            assert data.labels.tokens(batch.tags[row, : batch.lengths[row]].tolist()) == sentence.tags
            assert data.tokenizer.tokens(batch.tokens[row, : batch.lengths[row]].tolist()) == sentence.words
            read += sentence.words
    assert sorted(read) == sorted(words)
    assert [index for batch in data.test_dataloader()[0] for index in batch.indices.tolist()] == list(range(40))


def test_a_word_of_two_words_and_one_that_training_has_once_are_unknown(universal: str) -> None:
    data = TaggingData(CoNLLU(universal))
    (batch,) = data.train_dataloader()
    assert data.vocab_size == 1  # every word stands there once
    assert set(batch.tokens.flatten().tolist()) == {data.tokenizer.unknown}
    assert batch.lengths.tolist() == sorted(batch.lengths.tolist())


class TestRefused:
    def test_a_tag_unseen_in_training(self, universal: str, tmp_path: Path) -> None:
        (tmp_path / "test.conllu").write_text("1\toh\toh\tINTJ\tUH\t_\t0\troot\t_\t_\n\n")
        with pytest.raises(ValueError, match=r"test tags 'oh' in sentence 1 as 'INTJ', which is none of the 5 tags"):
            CoNLLU(universal, test=str(tmp_path / "test.conllu")).tagged()

    def test_a_file_that_is_not_there(self) -> None:
        with pytest.raises(FileNotFoundError, match=r"train is to come from nowhere\.conllu"):
            CoNLLU("nowhere.conllu").tagged()

    @pytest.mark.parametrize("text", ["the cat sat\n", "1\tcat\tcat\n\n"])
    def test_a_file_of_another_kind(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "a.conllu").write_text(text)
        with pytest.raises(ValueError, match=r"a\.conllu is no CoNLL-U .* ten columns"):
            CoNLLU(str(tmp_path / "a.conllu")).tagged()

    def test_an_empty_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.conllu").write_text("")
        with pytest.raises(ValueError, match="CoNLLU: train has no texts"):
            CoNLLU(str(tmp_path / "a.conllu")).tagged()

    def test_columns_that_there_are_not(self, shared_task: str) -> None:
        with pytest.raises(ValueError, match=r"there is no column 'pos' to tag with: choose one of \['lemma', 'upos'"):
            CoNLLU("a.conllu", column="pos")
        with pytest.raises(ValueError, match="column 1 holds the words"):
            CoNLL2003(shared_task, column=1)
        with pytest.raises(ValueError, match=r"line 3 of .*eng\.train has 4 columns, and tags are to be in column 5"):
            CoNLL2003(shared_task, column=5).tagged()
