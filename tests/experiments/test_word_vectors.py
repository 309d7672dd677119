"""Vectors in GloVe's format from a text, and a model that takes them."""

from pathlib import Path

from commands import LINES, Call, Command

from datamodules.vectors import read_vectors
from experiments.listing import CONFIGS
from experiments.word_vectors import make_vectors


def test_vectors_of_a_text_start_the_model_of_the_notes(call: Call, cli: Command, tmp_path: Path) -> None:
    text, vectors = tmp_path / "text.txt", tmp_path / "vectors.txt"
    text.write_text("\n".join(line.title() for line in LINES * 4))
    words = [text, "--to", vectors, "--size", "8", "--normalization", "lowercase"]
    done = call(make_vectors, *words)
    assert done.status == 0, done.err
    assert "words of 8 numbers from" in done.out
    assert read_vectors(str(vectors), ["horse"]).width == 8
    config = CONFIGS / "lm" / "wikitext2_glove_lstm.yaml"
    own = ["--trainer.callbacks=callbacks.PretrainedVectors", "--trainer.callbacks.file", vectors, "--model.embedding_size", "8"]
    source = ["--data.source", "datamodules.sources.Files", "--data.source.train", text, "--data.cache", tmp_path / "cache"]
    quick = ["--trainer.fast_dev_run", "true", "--trainer.accelerator", "cpu", "--run_folder", tmp_path / "run"]
    done = cli("fit", "--config", config, *own, *source, *quick)
    assert done.status == 0, done.err
    assert "vectors: 11 of the 11 words of network.embedding (100.0%)" in done.out


def test_a_wrong_normalization_or_size_is_one_sentence(call: Call, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(LINES))
    assert "normalization: 'small' is not one of 'none'" in call(make_vectors, text, "--normalization", "small").err
    assert "gives 1 to 11 numbers a word, not 300" in call(make_vectors, text, "--min_frequency", "1").err
