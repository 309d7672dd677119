"""Every translation experiment runs a step on a small corpus of its own format, with nothing changed but the paths."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from commands import LINES
from datasets import Dataset, Features, Translation
from loopback_hub import load_from_hub
from one_step import one_step

from experiments.listing import CONFIGS

WORDS = {
    "the": "那",
    "cat": "猫",
    "dog": "狗",
    "bird": "鸟",
    "horse": "马",
    "sees": "看见",
    "hears": "听见",
    "likes": "喜欢",
    ".": "。",
}
PAIRS = [(line.capitalize(), "".join(WORDS[word] for word in line.split())) for line in LINES]


def parallel(folder: Path) -> dict[str, Any]:
    """A file for each side."""
    for side, texts in (("source", LINES), ("target", [" ".join(reversed(line.split())) for line in LINES])):
        (folder / f"corpus.{side}").write_text("\n".join(texts) + "\n")
    splits = ("train", "validation", "test")
    init = {side: dict.fromkeys(splits, str(folder / f"corpus.{side}")) for side in ("source", "target")}
    return {"source": {"init_args": init}}


def parallel_with_vocabularies(folder: Path) -> dict[str, Any]:
    """A file for each side, and one of its words."""
    (folder / "vocab").write_text("\n".join(["<unk>", "<s>", "</s>", *WORDS]) + "\n")
    words = {"init_args": {"file": str(folder / "vocab")}}
    return {**parallel(folder), "source_tokenizer": words, "target_tokenizer": words}


def archive(member: str) -> Callable[[Path], dict[str, Any]]:
    """Makes an archive of tab-separated pairs."""

    def make(folder: Path) -> dict[str, Any]:
        with ZipFile(folder / "corpus.zip", "w") as zipped:
            zipped.writestr(member, "\ufeff" + "".join(f"{source}\t{target}\tCC-BY 2.0\n" for source, target in PAIRS))
        return {"source": {"init_args": {"train": f"zip://{member}::{folder / 'corpus.zip'}"}}}

    return make


LOCAL: dict[str, Callable[[Path], dict[str, Any]]] = {
    "fra_eng": archive("fra-eng/fra.txt"),
    "iwslt15_en_vi": parallel_with_vocabularies,
    "multi30k_de_en": parallel,
    "multi30k_en_de": parallel,
    "multi30k_en_de_bahdanau": parallel,
    "tatoeba_en_zh_attention": archive("cmn.txt"),
    "tatoeba_en_zh_context": archive("cmn.txt"),
}


def json_lines(repository: Path) -> None:
    """A column for each language, in JSON."""
    for split in ("train", "val", "test"):
        rows = (json.dumps({"en": source, "de": target}) for source, target in PAIRS)
        (repository / f"{split}.jsonl").write_text("\n".join(rows) + "\n")


def parquet(repository: Path) -> None:
    """One column of translations, in the folders that the hub converts other formats into."""
    features = Features({"translation": Translation(languages=["de", "en"])})
    rows = Dataset.from_dict({"translation": [{"de": target, "en": source} for source, target in PAIRS]}, features=features)
    for split in ("train", "validation", "test"):
        folder = repository / "de-en" / split
        folder.mkdir(parents=True)
        rows.to_parquet(folder / "0000.parquet")


def blocks(repository: Path) -> None:
    """Blocks of five lines."""
    lines = [f"english: {english}\nhsk: 1\nmandarin: {mandarin}\npinyin: nà\n--" for english, mandarin in PAIRS]
    (repository / "sentences.txt").write_text("\n".join(lines) + "\n")


HUB: dict[str, tuple[str, Callable[[Path], None]]] = {
    "hsk_en_zh": ("swaption2009/20k-en-zh-translation-pinyin-hsk", blocks),
    "iwslt14_de_en": ("bbaaaa/iwslt14-de-en-preprocess", parquet),
    "multi30k_en_de_raw": ("bentrevett/multi30k", json_lines),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees what another, or the person who runs them, has loaded."""
    import datasets

    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", str(tmp_path / "downloads"))


def test_no_experiment_is_left_out() -> None:
    assert {*LOCAL, *HUB, "numbers_en_fr"} == {path.stem for path in (CONFIGS / "mt").glob("*.yaml")}


@pytest.mark.parametrize("name", LOCAL)
def test_a_step_on_files(tmp_path: Path, name: str) -> None:
    trainer = one_step(CONFIGS / "mt" / f"{name}.yaml", tmp_path, LOCAL[name](tmp_path))
    assert trainer.global_step == 1
    assert trainer.callback_metrics["val/bleu"] >= 0


ON_THE_HUB = """
import json, sys
from pathlib import Path
sys.path.insert(0, "tests/experiments")
from one_step import one_step
for path, folder in json.load(sys.stdin):
    trainer = one_step(Path(path), Path(folder))
    print(trainer.global_step, trainer.callback_metrics["val/bleu"] >= 0)
"""


def test_a_step_on_the_hub(tmp_path: Path) -> None:
    for repository, write in HUB.values():
        (tmp_path / repository).mkdir(parents=True)
        write(tmp_path / repository)
    said = load_from_hub(tmp_path, ON_THE_HUB, [(str(CONFIGS / "mt" / f"{name}.yaml"), str(tmp_path)) for name in HUB])
    assert said.count("1 tensor(True)") == len(HUB)
