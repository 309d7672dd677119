"""The experiments there are, from the first lines of their files."""

from pathlib import Path

CONFIGS = Path(__file__).parent / "configs"
PARTS = ("logger", "trainer")


def listing(folder: Path = CONFIGS) -> str:
    """Every experiment with its one-line description, by kind, and how to launch one."""
    lines = []
    for kind in sorted(path for path in folder.iterdir() if path.is_dir()):
        title = "Parts, to add with a second --config" if kind.name in PARTS else "Experiments"
        lines.append(f"{title}: {shown(kind)}/")
        files = sorted(kind.glob("*.yaml"))
        width = max((len(path.name) for path in files), default=0)
        lines += [f"  {path.name:<{width}}  {description(path)}" for path in files]
        lines.append("")
    quickstart = shown(folder / "lm" / "quickstart.yaml")
    lines.append(f"Launch one:    python -m experiments.run fit --config {quickstart}")
    lines.append("Change it:     add --model.layer_sizes '[400, 400]', --data.lanes 64, --trainer.max_epochs 5, ...")
    lines.append(
        "All settings:  python -m experiments.run fit --help, --model.help lm.LanguageModel, --data.help datamodules.LanguageData"
    )
    return "\n".join(lines)


def description(path: Path) -> str:
    """The first line of a config, a comment."""
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").strip()


def shown(path: Path) -> str:
    """A path as one would type it here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
