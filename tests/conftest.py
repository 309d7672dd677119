"""What tests of models and data share: a silent Trainer, and a corpus that lives as long as a test."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer

from datamodules.language import LanguageData
from datamodules.sources import Source, Split, Texts


@dataclass(frozen=True)
class GivenLines(Source):
    """Lines that a test writes itself."""

    train: Sequence[str]
    validation: Sequence[str] = ()
    test: Sequence[str] = ()

    def splits(self) -> dict[Split, Texts]:
        given: dict[Split, Sequence[str]] = {"train": self.train, "validation": self.validation, "test": self.test}
        return {split: list(lines) for split, lines in given.items() if lines}

    def describe(self) -> dict[str, Any]:
        return {"source": "GivenLines", **asdict(self)}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=3, help="how often test_resume.py kills each of its runs at random")


@pytest.fixture
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def make_data(tmp_path: Path) -> Callable[..., LanguageData]:
    """make_data(train, validation, test, **settings of LanguageData)."""

    def make(train: Sequence[str], validation: Sequence[str] = (), test: Sequence[str] = (), **settings: Any) -> LanguageData:
        return LanguageData(GivenLines(train, validation, test), cache=str(tmp_path / "cache"), **settings)

    return make


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., Trainer]:
    """make_trainer(**settings of Trainer), on the CPU, printing and logging nothing."""

    def make(**settings: Any) -> Trainer:
        quiet = {
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        return Trainer(**{"default_root_dir": tmp_path, **quiet, **settings})

    return make
