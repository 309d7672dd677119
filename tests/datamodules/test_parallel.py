"""Sources of pairs: which come out, which are dropped, and what wrong data says."""

import gzip
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from corpora import GivenPairs, corpus
from loopback_hub import load_from_hub, serve_files

from datamodules.number_pairs import NumberPairs
from datamodules.pairs import PairSource
from datamodules.parallel import FileNames, HubPairs, PairTables, ParallelFiles, TabSeparated
from datamodules.sources import Split


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees what another, or the person who runs them, has loaded."""
    import datasets

    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", str(tmp_path / "downloads"))


def write(path: Path, text: str) -> str:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def pairs(source: PairSource, split: str = "train") -> list[tuple[str, str]]:
    return list({str(name): found for name, found in source.splits().items()}[split])


def trained_and_tested(source: str, target: str, references: FileNames) -> ParallelFiles:
    """Of the same files, with references for the test."""
    return ParallelFiles({"train": source, "test": source}, {"train": target, "test": target}, {"test": references})


class TestParallelFiles:
    def test_line_n_of_one_translates_line_n_of_the_other(self, tmp_path: Path) -> None:
        english = [write(tmp_path / "a.en", "one\n"), write(tmp_path / "b.en.gz", "two: 2\r\n")]
        french = write(tmp_path / "a.csv", '\ufeffun\n"deux", 2\n')
        test = write(tmp_path / "t.en", "six\n")
        source = ParallelFiles({"train": english, "test": test}, {"train": french, "test": test})
        train = source.splits()["train"]
        assert list(train) == list(train) == [("one", "un"), ("two: 2", '"deux", 2')]
        assert len(train) == 2
        assert list(train.source) == ["one", "two: 2"]
        assert pairs(source, "test") == [("six", "six")]

    def test_unequal_counts_name_both_files(self, tmp_path: Path) -> None:
        english, french = write(tmp_path / "a.en", "one\ntwo\n"), write(tmp_path / "a.fr", "un\n")
        with pytest.raises(ValueError, match=rf"{english} has 2 lines and {french} has 1: line n of one has to translate"):
            ParallelFiles({"train": english}, {"train": french}).splits()

    def test_both_sides_have_the_same_splits(self) -> None:
        with pytest.raises(ValueError, match=r"source has files for \['train', 'test'\], the target for \['train'\]"):
            ParallelFiles({"train": "a", "test": "b"}, {"train": "c"})
        with pytest.raises(ValueError, match="nothing to train on"):
            ParallelFiles({"test": "b"}, {"test": "c"})

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        source = ParallelFiles({"train": write(tmp_path / "a.en", "one\n")}, {"train": "nowhere.fr"})
        for ask in (source.splits, source.describe):
            with pytest.raises(FileNotFoundError, match=r"train is to come from nowhere\.fr"):
                ask()

    def test_references_stay_beside_their_pairs(self, tmp_path: Path) -> None:
        english, french = write(tmp_path / "t.en", "one\ntwo\n\nfour\n"), write(tmp_path / "t.fr", "un\n\ntrois\nquatre\n")
        more = [write(tmp_path / "1.fr", "une\ndeux\n3\nQuatre\n"), write(tmp_path / "2.fr.gz", "\n2\n\ncinq - un\n")]
        splits = trained_and_tested(english, french, more).splits()
        assert (list(splits["test"]), len(splits["test"].gaps)) == ([("one", "un"), ("four", "quatre")], 2)
        assert [list(lines) for lines in splits["test"].references] == [["une", "Quatre"], ["", "cinq - un"]]
        assert not splits["train"].references
        (one,) = trained_and_tested(english, french, more[0]).splits()["test"].references
        assert list(one) == ["une", "Quatre"]

    def test_references_of_another_length_name_the_file(self, tmp_path: Path) -> None:
        side, more = write(tmp_path / "a", "one\ntwo\n"), write(tmp_path / "b", "one\n\n\n")
        with pytest.raises(ValueError, match=rf"{side} has 2 lines and {more} has 3: line n of one has to translate"):
            trained_and_tested(side, side, [side, more]).splits()

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_references_are_for_splits_that_are_scored(self, split: Split) -> None:
        with pytest.raises(ValueError, match=rf"references for \['{split}'\], and the splits .* are \['validation'\]"):
            ParallelFiles({"train": "a", "validation": "b"}, {"train": "c", "validation": "d"}, {split: "e", "validation": "f"})

    def test_a_changed_reference_is_noticed(self, tmp_path: Path) -> None:
        side, more = write(tmp_path / "a", "one\n"), write(tmp_path / "b", "eins\n")
        before = trained_and_tested(side, side, more).describe()
        write(tmp_path / "b", "eins!\n")
        assert trained_and_tested(side, side, more).describe() != before
        with pytest.raises(FileNotFoundError, match="test is to come from nowhere"):
            trained_and_tested(side, side, "nowhere").describe()

    def test_files_of_the_web(self, tmp_path: Path) -> None:
        (tmp_path / "web").mkdir()
        write(tmp_path / "web" / "a.en.gz", "one\n")
        write(tmp_path / "web" / "a.fr", "un\n")
        with serve_files(tmp_path / "web") as address:
            assert pairs(ParallelFiles({"train": f"{address}/a.en.gz"}, {"train": f"{address}/a.fr"})) == [("one", "un")]
            with pytest.raises(ValueError, match="instead of 0000"):
                ParallelFiles({"train": f"{address}/a.en.gz"}, {"train": f"{address}/a.fr#sha1={'0' * 40}"}).splits()


class TestTabSeparated:
    TATOEBA = '\ufeffHi.\t嗨。\tCC-BY 2.0 #1\n\nHi.\t你好。\tCC-BY 2.0 #2\n \nHe said "so".\t他说"是"。\n'

    def test_mark_attribution_and_empty_lines(self, tmp_path: Path) -> None:
        train = TabSeparated(write(tmp_path / "cmn.txt", self.TATOEBA)).splits()["train"]
        assert list(train) == [("Hi.", "嗨。"), ("Hi.", "你好。"), ('He said "so".', '他说"是"。')]
        assert list(train.gaps) == [1, 3]

    def test_either_direction_and_any_column(self, tmp_path: Path) -> None:
        assert pairs(TabSeparated(write(tmp_path / "a.tsv", "1\tone\tun\n"), source_column=3, target_column=2)) == [("un", "one")]
        file = write(tmp_path / "cmn.txt.gz", self.TATOEBA)
        assert pairs(TabSeparated(file, source_column=2, target_column=1))[0] == ("嗨。", "Hi.")

    def test_a_line_without_a_translation_is_named(self, tmp_path: Path) -> None:
        file = write(tmp_path / "a.txt", "one\tun\n\ntwo\n")
        with pytest.raises(ValueError, match=rf"line 3 of {file} has no column 2, .* reads 'two': .* than \[1, 2\]"):
            TabSeparated(file).splits()

    @pytest.mark.parametrize("columns", [(0, 1), (2, 2), (1, -1)])
    def test_wrong_columns(self, columns: tuple[int, int]) -> None:
        with pytest.raises(ValueError, match="two, counted from 1"):
            TabSeparated("a.txt", source_column=columns[0], target_column=columns[1])

    def test_tatoeba(self) -> None:
        source = TabSeparated(
            str(corpus("cmn-eng", "cmn.txt.gz")), validation_fraction=0.05, test_fraction=0.1, hold_out="groups"
        )
        splits = source.splits()
        assert [len(splits[split]) for split in ("train", "validation", "test")] == [24781, 1458, 2916]
        assert sum(map(len, splits.values())) == 29_155
        assert len(splits["train"].gaps) == 1
        for side in ("source", "target"):
            train, test = ({text.casefold() for text in getattr(splits[split], side)} for split in ("train", "test"))
            assert not train & test


class TestPairTables:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.csv", 'n,de,en\n1,"a, b",x\n2,NA,y\n'),
            ("a.tsv", "de\ten\na, b\tx\nNA\ty\n"),
            ("a.jsonl", '{"de": "a, b", "en": "x"}\n{"de": "NA", "en": "y"}\n'),
            ("a.json.gz", '[{"translation": {"en": "x", "de": "a, b"}}, {"translation": {"en": "y", "de": "NA"}}]'),
        ],
    )
    def test_formats(self, tmp_path: Path, name: str, content: str) -> None:
        file = write(tmp_path / name, content)
        assert pairs(PairTables(file, source="de", target="en")) == [("a, b", "x"), ("NA", "y")]
        assert pairs(PairTables(file, source="en", target="de")) == [("x", "a, b"), ("y", "NA")]

    def test_parquet(self, tmp_path: Path) -> None:
        from datasets import Dataset

        Dataset.from_dict({"source": ["a", "b"], "target": ["x", "y"]}).to_parquet(tmp_path / "a.parquet")
        assert pairs(PairTables(str(tmp_path / "a.parquet"))) == [("a", "x"), ("b", "y")]

    def test_a_missing_column_is_named(self, tmp_path: Path) -> None:
        file = write(tmp_path / "a.csv", "de,en\na,x\n")
        with pytest.raises(
            ValueError, match=r"no column 'fr', nor that language .* choose source and target from \['de', 'en'\]"
        ):
            PairTables(file, source="de", target="fr").splits()
        numbers = write(tmp_path / "b.csv", "de,en\na,1\n")
        with pytest.raises(ValueError, match="column 'en' of train holds int64, not text"):
            PairTables(numbers, source="de", target="en").splits()


LOAD = """
import json, sys
from datamodules.parallel import HubPairs
for settings in json.load(sys.stdin):
    try:
        print(json.dumps({split: list(pairs) for split, pairs in HubPairs(**settings).splits().items()}))
    except ValueError as error:
        print(error)
"""


def test_hub(tmp_path: Path) -> None:
    from datasets import Dataset, Features, Translation

    opus, multi = tmp_path / "someone" / "opus", tmp_path / "someone" / "multi"
    for repository in (opus, multi):
        repository.mkdir(parents=True)
    features = Features({"translation": Translation(languages=["de", "en"])})
    rows = [{"de": "eins", "en": "one"}, {"de": "zwei", "en": "two"}]
    Dataset.from_dict({"translation": rows}, features=features).to_parquet(opus / "train.parquet")
    write(multi / "train.jsonl", '{"en": "one", "de": "eins"}\n')
    write(multi / "test.jsonl", '{"en": "six", "de": "sechs"}\n')
    both = {"source": "en", "target": "de"}
    settings = [
        {"name": "someone/opus", **both, "test_fraction": 0.5},
        {"name": "someone/opus", "source": "de", "target": "en", "split_names": {"train": "train[1:]"}},
        {"name": "someone/multi", **both},
        {"name": "someone/multi", **both, "test_fraction": 0.5},
        {"name": "someone/opus", "source": "en", "target": "fr"},
    ]
    halves, swapped, columns, twice, wrong = load_from_hub(tmp_path, LOAD, settings)
    assert json.loads(halves) == {"train": [["one", "eins"]], "test": [["two", "zwei"]]}
    assert json.loads(swapped) == {"train": [["zwei", "two"]]}
    assert json.loads(columns) == {"train": [["one", "eins"]], "test": [["six", "sechs"]]}
    assert "HubPairs: it has a test split and test_fraction=0.5: leave one of them out" in twice
    assert "HubPairs: train has no column 'fr', nor that language" in wrong
    assert "['translation.de', 'translation.en']" in wrong


class TestEverySource:
    def test_pairs_with_an_empty_side_are_dropped_and_counted(self) -> None:
        given = [("a", "x"), ("", "y"), ("b", " \t"), ("c", "z"), ("", "")]
        splits = GivenPairs(given, validation=[("d", ""), ("e", "v")]).splits()
        assert (list(splits["train"]), len(splits["train"].gaps)) == ([("a", "x"), ("c", "z")], 3)
        assert (list(splits["validation"]), len(splits["validation"].gaps)) == ([("e", "v")], 1)

    @pytest.mark.parametrize(("side", "given"), [("source", [("", "x"), (" ", "y")]), ("target", [("a", ""), ("b", "")])])
    def test_a_side_that_is_empty_throughout_is_refused(self, side: str, given: list[tuple[str, str]]) -> None:
        with pytest.raises(ValueError, match=f"the {side} side of test is empty in all of its 2 pairs"):
            GivenPairs([("a", "x")], test=given).splits()

    def test_nothing_left_is_refused(self) -> None:
        with pytest.raises(ValueError, match="train has no texts"):
            GivenPairs([("a", ""), ("", "x")]).splits()
        with pytest.raises(ValueError, match="test has no texts"):  # one group, which cannot be parted
            GivenPairs([("a", str(number)) for number in range(10)], test_fraction=0.2, hold_out="groups").splits()

    def test_held_out_pairs_are_whole_pairs_and_dropped_ones_no_share(self) -> None:
        given = [(f"s{number}", f"t{number}") for number in range(8)] + [("", "x")] * 8
        splits = GivenPairs(given, validation_fraction=0.25, test_fraction=0.25, hold_out="random").splits()
        assert [len(splits[split]) for split in ("train", "validation", "test")] == [4, 2, 2]
        assert sorted(pair for part in splits.values() for pair in part) == given[:8]
        assert [len(part.gaps) for part in splits.values()] == [8, 0, 0]

    def test_the_first_pairs_are_taken_before_any_is_held_out(self) -> None:
        given = [("", "gap"), *((f"s{number}", f"t{number}") for number in range(9))]
        splits = GivenPairs(given, test=given, validation_fraction=0.25, max_pairs=5).splits()
        assert (list(splits["train"]), list(splits["validation"])) == (given[1:4], given[4:5])
        assert (len(splits["test"]), len(splits["train"].gaps)) == (9, 1)
        assert len(GivenPairs(given, max_pairs=99).splits()["train"]) == 9

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"max_pairs": 0}, "max_pairs is 1 or more, or null for all, got 0"),
            ({"validation_fraction": -0.1}, "below 1 together"),
            ({"validation_fraction": 0.5, "test_fraction": 0.5}, "below 1 together"),
            ({"hold_out": "start"}, r"not held out by 'start': choose one of \['end', 'random', 'groups'\]"),
        ],
    )
    def test_wrong_settings(self, settings: dict[str, Any], message: str) -> None:
        for make in (
            partial(GivenPairs, [("a", "x")]),
            partial(TabSeparated, "a.txt"),
            partial(HubPairs, "a/b", "en", "de"),
            NumberPairs,
        ):
            with pytest.raises(ValueError, match=message):
                make(**settings)

    def test_what_describes_it_is_of_json_and_tells_sources_apart(self, tmp_path: Path) -> None:
        file = write(tmp_path / "a.tsv", "source\ttarget\n")
        sources: list[PairSource] = [
            ParallelFiles({"train": file}, {"train": file}),
            TabSeparated(file),
            TabSeparated(file, source_column=2, target_column=1),
            TabSeparated(file, hold_out="random"),
            TabSeparated(file, test_fraction=0.1),
            TabSeparated(file, max_pairs=5),
            PairTables(file),
            HubPairs("a/b", "en", "de"),
            HubPairs("a/b", "de", "en"),
            NumberPairs(),
            NumberPairs(source="fr", target="en"),
        ]  # fmt: skip
        described = [json.dumps(source.describe(), sort_keys=True) for source in sources]
        assert len(set(described)) == len(sources)
        assert described == [json.dumps(source.describe(), sort_keys=True) for source in sources]
        write(tmp_path / "a.tsv", "source\ttarget\nmore\tmehr\n")
        changed = [json.dumps(source.describe(), sort_keys=True) != old for source, old in zip(sources, described, strict=True)]
        assert changed == [True] * 7 + [False] * 4


class TestNumbers:
    def test_both_sides_spell_the_same_number(self) -> None:
        splits = NumberPairs(source="en", target="de", limit=200).splits()
        everything = [tuple(pair) for part in splits.values() for pair in part]
        assert [len(splits[split]) for split in ("train", "validation", "test")] == [180, 10, 10]
        assert len(everything) == len(set(everything)) == 200
        assert ("one hundred twenty three", "einhundertdreiundzwanzig") in everything
        assert ("two", "zwei") in everything

    def test_the_held_out_numbers_are_any(self) -> None:
        english = [pair.source for pair in NumberPairs(limit=200).splits()["test"]]
        assert english != [pair.source for pair in NumberPairs(limit=200, hold_out="end").splits()["test"]]
        assert english == [pair.source for pair in NumberPairs(limit=200).splits()["test"]]

    def test_any_two_languages(self) -> None:
        assert pairs(NumberPairs(source="ja", target="es", limit=3, validation_fraction=0, test_fraction=0)) == [
            ("一", "uno"),
            ("二", "dos"),
            ("三", "tres"),
        ]

    def test_an_unknown_language_is_named(self) -> None:
        with pytest.raises(ValueError, match="no language 'xx': choose one of"):
            NumberPairs(target="xx")
