"""Word vectors as text, and made from a text."""

import gzip
import math
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch

from datamodules.pmi import neighbours, positive_pmi, word_vectors
from datamodules.vectors import lines_of, read_vectors

GLOVE = "the 0.5 -1.0 2e-1\ncat 1 2 3\nthe 9 9 9\n. . . 4 5 6\n"


@pytest.fixture
def glove(tmp_path: Path) -> Path:
    path = tmp_path / "glove.txt"
    path.write_text(GLOVE)
    return path


def test_the_words_that_are_wanted_are_read_and_the_first_of_two_counts(glove: Path) -> None:
    vectors = read_vectors(str(glove), ["the", "dog", ".", "cat"])
    assert vectors.width == 3
    assert {word: vector.tolist() for word, vector in vectors.of.items()} == {
        "the": pytest.approx([0.5, -1, 0.2]),
        "cat": [1, 2, 3],
    }


def test_a_header_of_word2vec_and_spaces_at_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "word2vec.txt"
    path.write_text("2 2\n12 1.0 2.0 \ncat 3.0 4.0 \n")
    vectors = read_vectors(str(path), ["12", "cat", "2"])
    assert (vectors.width, {word: vector.tolist() for word, vector in vectors.of.items()}) == (2, {"12": [1, 2], "cat": [3, 4]})


def test_compressed_and_in_an_archive(glove: Path, tmp_path: Path) -> None:
    (tmp_path / "glove.txt.gz").write_bytes(gzip.compress(GLOVE.encode()))
    with ZipFile(tmp_path / "glove.zip", "w") as archive:
        archive.write(glove, "glove.3d.txt")
    plain = read_vectors(str(glove), ["cat"])
    for name in (str(tmp_path / "glove.txt.gz"), f"zip://glove.3d.txt::{tmp_path / 'glove.zip'}"):
        packed = read_vectors(name, ["cat"])
        assert packed.width == plain.width
        assert np.array_equal(packed.of["cat"], plain.of["cat"])
    with pytest.raises(ValueError, match=r"is an archive: say which file of it to read, zip://FILE::"):
        read_vectors(str(tmp_path / "glove.zip"), ["cat"])


@pytest.mark.parametrize("line", ["dog 1 2", "dog 1 2 x", "dog 1 2 nan"])
def test_a_line_that_is_no_vector_is_told(glove: Path, line: str) -> None:
    glove.write_text(GLOVE + line + "\n")
    assert read_vectors(str(glove), ["cat"]).width == 3
    with pytest.raises(ValueError, match=r"line 5 of .*glove.txt, 'dog', is not a word and 3 numbers"):
        read_vectors(str(glove), ["cat", "dog"])


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path, vectors = tmp_path / "vectors.txt", np.random.default_rng(0).normal(size=(3, 4))
    path.write_text("".join(lines_of(["a", "b", "ß"], vectors)), encoding="utf-8")
    found = read_vectors(str(path), ["ß", "a"])
    assert found.width == 4
    assert found.of["ß"] == pytest.approx(vectors[2], abs=1e-5)


def test_neighbours_count_by_distance_on_either_side() -> None:
    counted = neighbours(np.array([0, 1, 0, 2]), 3, window=2).to_dense()
    # Beside one another: 0 1, 1 0, 0 2; two apart: 0 0, 1 2.
    assert counted.tolist() == [[2 * 0.5, 2, 1], [2, 0, 0.5], [1, 0.5, 0]]


def test_positive_pmi_by_hand() -> None:
    counted = torch.tensor([[0.0, 4.0], [4.0, 8.0]], dtype=torch.float64)
    found = positive_pmi(counted.to_sparse()).to_dense()
    smoothed = [4**0.75, 12**0.75]
    assert float(found[0, 1]) == pytest.approx(math.log(4 / (4 * smoothed[1] / sum(smoothed))))
    assert float(found[1, 0]) == pytest.approx(math.log(4 / (12 * smoothed[0] / sum(smoothed))))
    assert float(found[1, 1]) == max(0.0, math.log(8 / (12 * smoothed[1] / sum(smoothed))))
    assert float(found[0, 0]) == 0


def test_words_of_like_neighbours_have_like_vectors() -> None:
    random = np.random.default_rng(0)
    pets, tools, verbs_of_pets, verbs_of_tools = (range(start, start + 3) for start in (0, 3, 6, 9))
    text = []
    for _ in range(3000):
        nouns, verbs = (pets, verbs_of_pets) if random.random() < 0.5 else (tools, verbs_of_tools)
        text += [random.choice(nouns), random.choice(verbs), 12]
    vectors = word_vectors(np.array(text), 13, size=4, window=1)
    assert vectors.shape == (13, 4)
    assert vectors.std(ddof=1) == pytest.approx(1, rel=1e-3)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = unit @ unit.T
    assert min(alike[0, 1], alike[0, 2], alike[3, 4]) > 0.9
    assert max(alike[0, 3], alike[1, 4]) < 0.5
    assert np.array_equal(vectors, word_vectors(np.array(text), 13, size=4, window=1))


def test_sizes_that_do_not_fit_are_told() -> None:
    with pytest.raises(ValueError, match="3 words gives 1 to 3 numbers a word, not 4"):
        word_vectors(np.array([0, 1, 2]), 3, size=4)
    with pytest.raises(ValueError, match="a window of 5 words does not fit a text of 3"):
        word_vectors(np.array([0, 1, 2]), 3, size=2)
