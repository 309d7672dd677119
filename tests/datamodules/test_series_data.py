"""Series of numbers: where they come from, and how they are cut."""

import math
from pathlib import Path

import numpy as np
import pytest

from datamodules.loading import checksum
from datamodules.series import SeriesData
from datamodules.series_sources import Column, NoisySine, NoisyTrend
from datamodules.streams import SequentialStream, SlidingStream


def test_a_sine_and_a_trend_without_noise_are_their_formulas() -> None:
    assert NoisySine(length=3, noise=0, frequency=0.5).values() == pytest.approx([math.sin(0.5), math.sin(1), math.sin(1.5)])
    assert NoisyTrend(length=3, noise=0, slope=0.1).values() == pytest.approx([0.1, 0.2, 0.3])


def test_noise_has_its_deviation_and_goes_by_the_seed() -> None:
    source = NoisyTrend(length=10_000, slope=0, noise=0.2)
    assert source.values().std() == pytest.approx(0.2, abs=4 * 0.2 / math.sqrt(20_000))
    assert source.noise_variance == pytest.approx(0.04)
    assert not np.array_equal(source.values(), NoisyTrend(length=10_000, slope=0, noise=0.2, seed=1).values())


@pytest.mark.parametrize(("name", "separator"), [("prices.csv", ","), ("prices.tsv", "\t")])
def test_a_column_of_a_table(tmp_path: Path, name: str, separator: str) -> None:
    path = tmp_path / name
    path.write_text("\n".join(separator.join(row) for row in (["day", "price"], ["mon", "1.5"], ["tue", "-2e3"])) + "\n")
    assert Column(str(path), "price").values().tolist() == [1.5, -2000.0]


@pytest.mark.parametrize("cell", ["cheap", "", "nan", "inf"])
def test_what_is_no_number_is_told_by_its_row(tmp_path: Path, cell: str) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(f"day,price\nmon,1\ntue,{cell}\n")
    with pytest.raises(ValueError, match=r"row 2 of 'price' in .*prices.csv is .* and no number: choose a column of numbers"):
        Column(str(path), "price").values()


def test_a_column_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text("day,price\nmon,1\n")
    with pytest.raises(ValueError, match=r"has no column 'cost', but \['day', 'price'\]"):
        Column(str(path), "cost").values()


def test_a_series_is_cut_in_the_order_of_time() -> None:
    data = SeriesData(NoisySine(length=10), validation_fraction=0.2, test_fraction=0.3)
    assert data.parts == {"train": range(1, 5), "validation": range(5, 7), "test": range(7, 10)}
    assert len(data.training_values) == 5


def test_what_is_held_out_comes_with_all_of_its_past() -> None:
    data = SeriesData(NoisySine(length=10), validation_fraction=0.2, test_fraction=0.3)
    (loader,) = data.val_dataloader()
    (window,) = loader
    values = data.series.astype(np.float32)
    assert window.tokens[0].numpy() == pytest.approx(values[:6])
    assert window.targets[0].numpy() == pytest.approx(values[1:7])
    assert window.mask is not None
    assert window.mask.tolist() == [[0, 0, 0, 0, 1, 1]]
    assert SeriesData(NoisySine(length=10)).val_dataloader() == []


def test_training_windows_are_numbers_that_the_next_follows() -> None:
    data = SeriesData(NoisySine(length=100), lanes=7, steps=4, stream=SlidingStream)
    for tokens, targets, mask in data.train_dataloader():
        assert tokens.shape == targets.shape == (7, 4)
        assert mask is None
        assert tokens.dtype.is_floating_point
        for row, following in zip(tokens.numpy(), targets.numpy(), strict=True):
            start = int(np.abs(data.series - row[0]).argmin())
            assert following == pytest.approx(data.series[start + 1 : start + 5].astype(np.float32))
            assert start + 4 < 60


def test_a_window_longer_than_what_trains_is_refused() -> None:
    data = SeriesData(NoisySine(length=20), lanes=1, steps=12)
    with pytest.raises(ValueError, match="12 tokens make 0 windows of 12 steps"):
        data.setup("fit")


def test_which_split_is_predicted_can_be_chosen() -> None:
    data = SeriesData(NoisySine(length=10), predict_split="train", test_fraction=0.3)
    assert data.predict_dataloader()[0].targets == range(1, 7)
    with pytest.raises(ValueError, match="no validation split"):
        SeriesData(NoisySine(length=10), predict_split="validation").predict_dataloader()


def test_a_place_in_other_numbers_is_refused() -> None:
    one, other = (SequentialStream(NoisySine(length=50, seed=seed).values(), 2, 4) for seed in (0, 1))
    with pytest.raises(ValueError, match="the checkpoint stopped in training data with corpus="):
        other.load_state_dict(one.state_dict())
    assert checksum(np.array([0.1, 0.2])) != checksum(np.array([0.3, 0.4]))
