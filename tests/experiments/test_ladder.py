"""`experiments.ladder`: what a rung is, what the table says of them, and runs that are not run twice."""

import json
from pathlib import Path
from threading import Event

import pytest
import yaml
from commands import Call

import experiments.ladder
from experiments.ladder import RESULT, Ladder, Rung, climb, draw, folder_of, ladder, read, table

LADDERS = Path(experiments.ladder.__file__).parent / "ladders"
RUNGS = [
    {"name": "plain", "flags": {"model.layer_sizes": [8]}, "test": True},
    {"name": "dropout", "flags": {"model.output_dropout": 0.2, "trainer.callbacks+": {"class_path": "callbacks.WeightTying"}}},
    {"name": "few lanes", "flags": {"data.evaluation_lanes": 2}, "evaluate": True, "test": True},
    {"name": "too much", "flags": {"model.output_dropout": 0.9}, "keep": False},
    {"name": "longer", "flags": {"trainer.max_epochs": 3}},
]


def write(rungs: object = RUNGS, **others: object) -> Path:
    path = Path("ladder.yaml")
    path.write_text(yaml.safe_dump({"config": "experiment.yaml", "metric": "val/ppl", "seeds": [1, 2], "rungs": rungs, **others}))
    return path


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_rungs_keep_the_flags_of_those_below_but_not_of_evaluations_or_of_what_is_not_kept() -> None:
    plain, dropout, few, much, longer = read(write()).rungs
    assert plain == Rung(
        "plain", "experiment.yaml", ("--model.layer_sizes=[8]",), trained="plain", base="plain", kept=True, test=True
    )
    callback = '--trainer.callbacks+={"class_path": "callbacks.WeightTying"}'
    assert dropout.flags == (*plain.flags, "--model.output_dropout=0.2", callback)
    assert (few.flags, few.trained) == ((*dropout.flags, "--data.evaluation_lanes=2"), "dropout")
    assert (much.flags, much.trained) == ((*dropout.flags, "--model.output_dropout=0.9"), "too much")
    assert [rung.base for rung in (dropout, few, much, longer)] == ["plain", "dropout", "dropout", "dropout"]
    assert [rung.kept for rung in (dropout, few, much, longer)] == [True, False, False, True]
    assert longer.flags == (*dropout.flags, "--trainer.max_epochs=3")


def test_a_rung_with_a_config_of_its_own_keeps_nothing_and_later_ones_go_on_from_it() -> None:
    other = {"name": "other", "config": "other.yaml", "flags": {"model.order": 2}}
    rungs = read(write([*RUNGS, other, {"name": "its own", "flags": {"model.order": 3}}])).rungs
    assert [rung.config for rung in rungs] == ["experiment.yaml"] * len(RUNGS) + ["other.yaml"] * 2
    assert rungs[-2].flags == ("--model.order=2",)
    assert rungs[-1].flags == ("--model.order=2", "--model.order=3")
    assert rungs[-1].base == "other"


@pytest.mark.parametrize("path", sorted(LADDERS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_ladder_begins_with_its_launch_command_and_stands_on_a_config(path: Path) -> None:
    words = path.read_text().splitlines()[1].removeprefix("#   ").split()
    assert words[:4] == ["python", "-m", "experiments.ladder", str(path.relative_to(LADDERS.parent.parent))]
    chosen = read(path)
    assert all((LADDERS.parent.parent / rung.config).is_file() for rung in chosen.rungs)
    assert len(chosen.rungs) > 1


@pytest.mark.parametrize(
    ("rungs", "message"),
    [
        ([], r"rungs of ladder.yaml is \[\], and no list of one or more"),
        (4, "rungs of ladder.yaml is 4, and no list of one or more"),
        ([{"name": "a", "flags": [1]}], r"flags of a in ladder.yaml are \[1\]; write lines such as data.lanes: 4"),
        ([{"name": "a"}, {"name": "a"}], "needs rungs, each with a name of its own"),
        ([{"flags": {}}], "is no rung; give it a name"),
        ([{"name": "a", "flag": {}}], "is no rung; give it a name, and config, flags, keep, evaluate or test"),
        (
            [{"name": "b"}, {"name": "a", "config": "c", "evaluate": True}],
            "a in ladder.yaml is of another config, from which later",
        ),
        ([{"name": "a", "evaluate": True}], "a in ladder.yaml is the first, which is trained, and which the others stand on"),
        ([{"name": "a", "keep": False}], "a in ladder.yaml is the first, which is trained, and which the others stand on"),
    ],
)
def test_what_is_no_ladder_is_refused(rungs: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(write(rungs))
    with pytest.raises(ValueError, match="needs config, metric, seeds and rungs, and nothing else"):
        read(write(seed=1))
    with pytest.raises(ValueError, match=r"seeds of ladder.yaml is \[\], and no list of one or more"):
        read(write(seeds=[]))
    Path("broken.yaml").write_text("config: [a")
    with pytest.raises(ValueError, match=r"ladder: broken.yaml is no YAML .*: correct it there"):
        read(Path("broken.yaml"))
    with pytest.raises(FileNotFoundError, match=r"ladder: there is no file nowhere.yaml"):
        read(Path("nowhere.yaml"))


def test_the_table_has_medians_and_changes_against_what_a_rung_stands_on(tmp_path: Path) -> None:
    chosen = Ladder("val/ppl", (1, 2, 3), read(write()).rungs)
    found = {"plain": (200, 210, 190), "dropout": (150, 140, 160), "few lanes": (120, 119, 121), "longer": (135, 130, 140)}
    found["too much"] = (300, 310, 290)
    for name, values in found.items():
        for seed, value in zip(chosen.seeds, values, strict=True):
            folder = folder_of(tmp_path, name, seed)
            folder.mkdir(parents=True)
            tested = {"test": value + 1.0} if name in ("plain", "few lanes") else {}
            (folder / RESULT).write_text(json.dumps({"development": float(value), **tested}))
    assert table(chosen, tmp_path).splitlines() == [
        "| | val/ppl, seeds 1, 2, 3 | median | of the rung that it stands on | test, one lane |",
        "|---|---|---|---|---|",
        "| plain | 200.0, 210.0, 190.0 | 200.0 |  | 201.0, 211.0, 191.0 |",
        "| dropout | 150.0, 140.0, 160.0 | 150.0 | -25.0% |  |",
        "| few lanes | 120.0, 119.0, 121.0 | 120.0 | -20.0% | 121.0, 120.0, 122.0 |",
        "| too much | 300.0, 310.0, 290.0 | 300.0 | +100.0% |  |",
        "| longer | 135.0, 130.0, 140.0 | 135.0 | -10.0% |  |",
    ]
    draw(chosen, tmp_path)
    assert (tmp_path / "ladder.png").stat().st_size > 5000


def test_an_evaluation_waits_for_its_own_training_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = read(write([{"name": "a"}, {"name": "b", "evaluate": True}]))
    evaluated, finished = Event(), list[tuple[str, int]]()

    def run(_: Ladder, rung: Rung, seed: int, *_others: object) -> float:
        if (rung.name, seed) == ("a", 2):
            assert evaluated.wait(10), "the first seed was not evaluated while the second was trained"
        if rung.name == "b":
            assert ("a", seed) in finished
        finished.append((rung.name, seed))
        if rung.name == "b":
            evaluated.set()
        return 1.0

    monkeypatch.setattr(experiments.ladder, "result", run)
    climb(chosen, tmp_path, processes=2, flags=[])
    assert finished == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]


@pytest.mark.slow
def test_a_ladder_is_climbed_once(call: Call, experiment: Path) -> None:
    assert experiment.exists()
    write([RUNGS[0], RUNGS[2]], seeds=[1])
    done = call(ladder, "ladder.yaml", "--folder", "runs", "--trainer.max_epochs", "1", others="flags")
    assert done.status == 0, done.err
    assert done.out.startswith("1/2 plain, seed 1: ")
    assert Path("runs/plain/1/checkpoints/best.ckpt").exists()
    assert Path("runs/few_lanes/1/test/metrics.csv").exists()
    times = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("metrics.csv")}
    again = call(ladder, "ladder.yaml", "--folder", "runs", "--trainer.max_epochs", "1", others="flags")
    assert again.out == done.out
    assert times == {path: path.stat().st_mtime_ns for path in Path("runs").rglob("metrics.csv")}
    Path("runs/few_lanes/1/result.json").unlink()
    failed = call(ladder, "ladder.yaml", "--folder", "runs", "--model.layer_sizes", "[9]", others="flags")
    assert failed.status == 1
    assert "ladder: a run ended with status 1 (error: " in failed.err
