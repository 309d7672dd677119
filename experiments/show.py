"""What the data of an experiment looks like: `python -m experiments.show CONFIG`."""

from itertools import islice
from pathlib import Path

import yaml
from jsonargparse import ArgumentParser
from lightning import LightningDataModule
from rich.console import Console
from rich.table import Table

from datamodules import LanguageData
from experiments.command import command

VOCABULARY_SHOWN = 20


def show(config: str, lanes: int = 3, windows: int = 2) -> None:
    """Show the corpus of an experiment and its first windows, as text.

    Args:
        config: an experiment's YAML file.
        lanes: rows of a batch to show.
        windows: consecutive batches to show.
    """
    data = data_of(config)
    console = Console(soft_wrap=True, highlight=False)
    tokenizer = data.tokenizer
    sizes = Table(
        "split", "tokens", "unknown", title=f"{Path(config).stem}: vocabulary of {data.vocab_size:,}", title_justify="left"
    )
    for split in data.corpus.arrays:
        ids = data.tokens(split)
        unknown = 0 if tokenizer.unknown is None else int((ids == tokenizer.unknown).sum())
        sizes.add_row(split, f"{len(ids):,}", f"{unknown:,} ({unknown / max(1, len(ids)):.2%})")
    console.print(sizes)
    first = ", ".join(repr(token) for token in tokenizer.tokens(range(min(VOCABULARY_SHOWN, len(tokenizer)))))
    console.print(f"\nvocabulary: {first}{', ...' if len(tokenizer) > VOCABULARY_SHOWN else ''}", markup=False)
    stream = data.training_stream
    order = "each continues the one before" if stream.contiguous else "in an order of their own"
    console.print(f"\n{len(stream):,} batches an epoch, {data.lanes} lanes of {data.steps} steps; {order}; read {data.direction}")
    for number, window in enumerate(islice(stream, windows)):
        console.print(f"\nbatch {number}: tokens {tuple(window.tokens.shape)}, targets the same, one token later")
        for lane, (tokens, target) in enumerate(
            zip(window.tokens[:lanes].tolist(), window.targets[:lanes, -1].tolist(), strict=True)
        ):
            console.print(f"  lane {lane}: {tokenizer.decode(tokens)!r} -> {tokenizer.decode([target])!r}", markup=False)


def data_of(config: str) -> LanguageData:
    """The data of a config.

    Raises:
        FileNotFoundError, ValueError, TypeError: if there is no such file, it has no data, or data of another kind.
    """
    if not Path(config).is_file():
        raise FileNotFoundError(f"show: there is no file {config}; python -m experiments.run lists the experiments")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data", required=True)
    description = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
    if "data" not in description:
        raise ValueError(f"show: {config} has no section `data`")
    data = parser.instantiate(parser.parse_object({"data": description["data"]})).data
    if not isinstance(data, LanguageData):
        raise TypeError(f"show: {config} has {type(data).__name__}; only LanguageData can be shown")
    return data


if __name__ == "__main__":
    command(show)
