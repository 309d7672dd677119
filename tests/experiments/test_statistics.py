"""`experiments.statistics`: counts by hand, an exact law, and what stands out."""

from pathlib import Path

import numpy as np
import pytest
from commands import Call

from datamodules.recipes import Words
from experiments.listing import CONFIGS
from experiments.statistics import divided, ranked, standing_out, statistics, zipf

TIME_MACHINE = Path(__file__).parents[2].parent / "shared/data/time-machine/timemachine.txt"
TEXT = ["the cat sees the cat", "the dog sees the cat", "a bird sees the dog"]


def test_counts_by_hand() -> None:
    tokenizer = Words(reserved_tokens=("<unk>",)).train(TEXT)
    ids = np.array([token for line in TEXT for token in tokenizer.encode(line)])
    unigrams, bigrams, trigrams = ranked(ids, tokenizer, top=2)
    assert (unigrams.most[0], unigrams.counts.tolist()) == ("the", [5, 3, 3, 2, 1, 1])
    assert (set(bigrams.most), bigrams.counts[:3].tolist()) == ({"the cat", "sees the"}, [3, 3, 2])
    assert (trigrams.most[0], trigrams.counts[:2].tolist()) == ("sees the cat", [2, 1])
    assert [one.counts.sum() for one in (unigrams, bigrams, trigrams)] == [15, 14, 13]
    with pytest.raises(ValueError, match="a training text of 2 tokens has no trigrams; give a longer one"):
        ranked(ids[:2], tokenizer, top=2)


@pytest.mark.parametrize("exponent", [0.4, 1.0, 1.7])
def test_the_law_of_an_exact_one_is_found(exponent: float) -> None:
    found, factor = zipf(500 / np.arange(1, 2000) ** exponent)
    assert found == pytest.approx(exponent)
    assert factor == pytest.approx(500)


def test_documents_begin_where_they_are_told_to() -> None:
    lines = ["before", "= A =", "", "one", "= B =", "two", "three"]
    assert list(divided(lines, None)) == [["before"], ["= A ="], ["one"], ["= B ="], ["two"], ["three"]]
    assert list(divided(lines, "^= ")) == [["before"], ["= A =", "one"], ["= B =", "two", "three"]]
    with pytest.raises(ValueError, match=r"document_start '\^=>' is found in no line of the text"):
        list(divided(lines, "^=>"))
    with pytest.raises(ValueError, match=r"document_start '\[' is no regular expression"):
        list(divided(lines, "["))


def test_what_every_document_has_does_not_stand_out() -> None:
    pytest.importorskip("sklearn")
    documents = [["the time traveller spoke"], ["the editor spoke"], ["the morlocks spoke"]]
    tokenizer = Words(reserved_tokens=("<unk>",)).train(line for document in documents for line in document)
    first, second = standing_out(documents, tokenizer, count=2, top=3)
    assert not {"the", "spoke"} & {*first, *second}
    assert second[0] in {"editor", "the editor", "editor spoke", "the editor spoke"}


def test_the_command_shows_counts_a_law_and_documents(call: Call, experiment: Path) -> None:
    status, out, err = call(statistics, str(experiment), "--picture", "pictures/zipf.png", "--top", "3", others="flags")
    assert status == 0, err
    assert "unigrams: frequency falls as 1/rank^" in out
    assert Path("pictures/zipf.png").stat().st_size > 10_000
    assert "Highest TF-IDF in the first of 96 documents" in out or "scikit-learn is missing" in out
    Path("other.txt").write_text("one two two\n")
    status, out, err = call(statistics, str(experiment), "--data.source.train", "other.txt", "--documents", "0", others="flags")
    assert status == 0, err
    assert "two <eos>" in out
    assert "TF-IDF" not in out


def test_other_data_is_refused(call: Call, experiment: Path) -> None:
    status, _, err = call(statistics, str(CONFIGS / "mt/numbers_en_fr.yaml"), others="flags")
    assert status == 1
    assert err.endswith("numbers_en_fr.yaml has TranslationData; only a text of LanguageData can be counted\n")
    assert "did you mean train?" in call(statistics, str(experiment), "--data.source.trian", "a", others="flags").err
    assert (
        "top counts from 1 and documents from 0, got 0 and 3"
        in call(statistics, str(experiment), "--top", "0", others="flags").err
    )


@pytest.mark.skipif(not TIME_MACHINE.is_file(), reason=f"{TIME_MACHINE} is not here")
def test_the_words_of_the_time_machine(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    words = ["--data.source.train", str(TIME_MACHINE), "--data.cache", str(tmp_path), "--documents", "0"]
    picture = ["--picture", str(tmp_path / "zipf.png"), "--top", "1"]
    status, out, err = call(statistics, str(CONFIGS / "lm/time_machine_bigram.yaml"), *words, *picture, others="flags")
    assert status == 0, err
    cells = [cell.strip() for line in out.splitlines() if line.startswith("│ 1 ") for cell in line.split("│")[1:-1]]
    assert cells == ["1", "the", "2,261", "of the", "309", "the time traveller", "59"]
