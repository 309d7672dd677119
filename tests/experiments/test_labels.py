"""Models that label, and those that fill, from the command line: trained, tested, predicting, and asked."""

import gzip
import sys
from pathlib import Path

import pytest
from commands import Call, Command, piped

from experiments.classify import classify
from experiments.fill import fill
from experiments.listing import CONFIGS
from experiments.show import show
from experiments.tag import tag

QUICK = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
SMALL = {
    "places": ["--data.source.limit", "400", "--trainer.max_epochs", "12"],
    "languages": ["--data.source.limit", "99", "--trainer.max_epochs", "12"],
}


def evaluated(cli: Command, name: str, folder: Path, *words: str | Path) -> tuple[Path, str, list[str]]:
    """A run's best checkpoint, what its test says, and the lines of its predictions."""
    own = ["--config", CONFIGS / "labels" / f"number_{name}.yaml", *QUICK, *SMALL[name], *words]
    done = cli("fit", *own, "--run_folder", folder / "run")
    assert done.status == 0, done.err
    assert "val/accuracy: " in done.out
    checkpoint = folder / "run" / "checkpoints" / "best.ckpt"
    tested = cli("test", *own, "--ckpt_path", checkpoint, "--run_folder", folder / "test")
    assert tested.status == 0, tested.err
    assert (folder / "test" / "confusion.png").is_file()
    predicted = cli(
        "predict", *own, "--ckpt_path", checkpoint, "--data.predict_split", "validation", "--run_folder", folder / "test"
    )
    assert predicted.status == 0, predicted.err
    return checkpoint, tested.out, (folder / "test" / "predictions.tsv").read_text().splitlines()


def test_a_tagger(cli: Command, call: Call, tmp_path: Path) -> None:
    checkpoint, told, predictions = evaluated(cli, "places", tmp_path)
    assert "B-hundreds" in told
    assert predictions[0] == "sentence\tword\ttarget\tpredicted"
    assert len({line.split("\t")[0] for line in predictions[1:]}) == 40
    (tmp_path / "numbers.txt").write_text("three hundred twenty six\n\ntwo hundred ten\n")
    done = call(tag, checkpoint, tmp_path / "numbers.txt", optional="file")
    assert done.status == 0, done.err
    expected = ["three\tB-hundreds", "hundred\tI-hundreds", "twenty\tB-rest", "six\tI-rest", "", ""]
    expected += ["two\tB-hundreds", "hundred\tI-hundreds", "ten\tB-rest", ""]
    assert done.out.splitlines() == expected


def test_a_classifier(cli: Command, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, told, predictions = evaluated(cli, "languages", tmp_path, "--data.cache", tmp_path / "cache")
    assert "highest losses: " in told
    assert predictions[0] == "text\ttarget\tpredicted\tprobability"
    assert (tmp_path / "test" / "highest_loss.tsv").is_file()
    for words in ([], ["--ensemble", checkpoint]):
        monkeypatch.setattr(sys, "stdin", piped("soixante-dix\nninety seven\n"))
        done = call(classify, checkpoint, *words, optional="file")
        assert done.status == 0, done.err
        assert [line.split("\t")[0] for line in done.out.splitlines()] == ["fr", "en"]
    monkeypatch.setattr(sys, "stdin", piped("seven\n\n"))
    done = call(classify, checkpoint, optional="file")
    assert (done.status, done.err) == (1, "error: classify: text 2, '', has no token to read: give it some text\n")


def test_show_prints_words_with_their_tags_and_texts_with_their_labels(call: Call) -> None:
    shown = call(show, CONFIGS / "labels" / "number_places.yaml", "--lanes", "1", "--windows", "1")
    assert "6 labels: B-hundreds, B-rest, B-thousands" in shown.out
    assert "/B-thousands thousand/I-thousands" in shown.out
    shown = call(show, CONFIGS / "labels" / "number_languages.yaml", "--windows", "4")
    assert "4 labels: de, en, es, fr" in shown.out
    assert "  en: '" in shown.out


def test_a_masked_model(cli: Command, call: Call, tmp_path: Path) -> None:
    own = ["--config", CONFIGS / "lm" / "numbers_masked.yaml", *QUICK, "--data.cache", tmp_path / "cache"]
    done = cli("fit", *own, "--data.source.limit", "999", "--trainer.max_epochs", "8", "--run_folder", tmp_path / "run")
    assert done.status == 0, done.err
    checkpoint = tmp_path / "run" / "checkpoints" / "best.ckpt"
    done = call(fill, checkpoint, "one [MASK] ten . one hundred eleven", "--choices", "2")
    assert done.out.startswith("one hundred ten . one hundred eleven\n  hundred ")
    done = call(fill, checkpoint, "one hundred")
    assert (done.status, done.err) == (
        1,
        "error: fill: there is nothing to fill in 'one hundred': write [MASK] where a token is to be told\n",
    )
    assert call(fill, checkpoint, "one [MASK]", "--choices", "0").err == "error: fill: choices counts from 1, got 0\n"


def test_reviews_are_read_from_a_folder_and_their_language_model_lends_its_words(cli: Command, tmp_path: Path) -> None:
    folder = tmp_path / "movie-reviews"
    folder.mkdir()
    for label, word in (("negative", "dull"), ("positive", "fine")):
        text = "".join(f"a {word} film , number {number % 7} .\n" for number in range(40))
        (folder / f"{label}.txt.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "wiki.valid.tokens").write_text("a film of a number .\n" * 200)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        small = [*QUICK, "--data.cache", "cache", "--trainer.max_epochs", "2"]
        done = cli("fit", "--config", CONFIGS / "lm" / "reviews_language_model.yaml", *small, "--run_folder", "language")
        assert done.status == 0, done.err
        config = CONFIGS / "labels" / "reviews_pretrained.yaml"
        start = ["--trainer.callbacks.checkpoint", "language/checkpoints/best.ckpt"]
        done = cli("fit", "--config", config, *small, *start, "--run_folder", "classifier")
        assert done.status == 0, done.err
        assert "StartFrom: 10 of 10 entries" not in done.out  # the reviews alone have fewer words
        done = cli("fit", "--config", CONFIGS / "labels" / "reviews_scratch.yaml", *small, "--run_folder", "scratch")
        assert done.status == 0, done.err
