"""What the data of an experiment looks like: `python -m experiments.show CONFIG`."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import yaml
from jsonargparse import ArgumentParser
from lightning import LightningDataModule
from rich.console import Console
from rich.table import Table

from datamodules import LanguageData, TranslationData
from datamodules.classification import ClassificationData
from datamodules.label_batches import ClassificationBatch, TaggingBatch
from datamodules.tagging import TaggingData
from datamodules.tokenizers import Tokenizer
from experiments.command import command

VOCABULARY_SHOWN = 20
Shown = LanguageData | TaggingData | ClassificationData | TranslationData


def show(config: str, lanes: int = 3, windows: int = 2) -> None:
    """Show the corpus of an experiment and its first batches, as text.

    Args:
        config: an experiment's YAML file.
        lanes: rows of a batch to show.
        windows: consecutive batches to show.
    """
    data = data_of(config)
    console = Console(soft_wrap=True, highlight=False)
    if isinstance(data, TranslationData):
        show_pairs(console, data, lanes, windows)
    elif isinstance(data, TaggingData | ClassificationData):
        show_labels(console, data, lanes, windows)
    else:
        show_windows(console, data, lanes, windows)


def show_windows(console: Console, data: LanguageData, lanes: int, windows: int) -> None:
    """Sizes, vocabulary and first windows of a corpus of text."""
    tokenizer = data.tokenizer
    show_sizes(console, tokenizer, {split: data.tokens(split) for split in data.corpus.arrays}, "text")
    stream = data.training_stream
    order = "each continues the one before" if stream.contiguous else "in an order of their own"
    console.print(f"\n{len(stream):,} batches an epoch, {data.lanes} lanes of {data.steps} steps; {order}; read {data.direction}")
    for number, window in enumerate(islice(stream, windows)):
        console.print(f"\nbatch {number}: tokens {tuple(window.tokens.shape)}, targets the same, one token later")
        for lane, (tokens, target) in enumerate(
            zip(window.tokens[:lanes].tolist(), window.targets[:lanes, -1].tolist(), strict=True)
        ):
            console.print(f"  lane {lane}: {tokenizer.decode(tokens)!r} -> {tokenizer.decode([target])!r}", markup=False)


def show_pairs(console: Console, data: TranslationData, rows: int, batches: int) -> None:
    """Sizes, vocabularies and first batches of a corpus of pairs."""
    console.print(data.report())
    tokenizers = {"source": data.source_tokenizer, "target": data.target_tokenizer}
    for side, tokenizer in tokenizers.items():
        ids: dict[str, np.ndarray] = {split: getattr(pairs, side).values for split, pairs in data.corpus.splits.items()}
        show_sizes(console, tokenizer, ids, side)
    console.print(f"\n{len(data.training_batches):,} batches an epoch of {data.batch_size} {data.batch_unit}, by length")
    for number, batch in enumerate(islice(data.training_batches, batches)):
        shapes = f"source {tuple(batch.source.shape)}, target {tuple(batch.target.shape)}"
        console.print(f"\nbatch {number}: {shapes}, {int(batch.normalizer):,} tokens to predict")
        for row in range(min(rows, len(batch.source))):
            for side, tokenizer in tokenizers.items():
                text = tokenizer.decode(getattr(batch, side)[row].tolist())
                console.print(f"  {side} {row}: {text!r}", markup=False)


def show_labels(console: Console, data: TaggingData | ClassificationData, rows: int, batches: int) -> None:
    """Sizes, vocabulary, labels and first batches of a corpus of labelled words or texts."""
    splits: dict[str, np.ndarray] = {}
    for split in data.splits:
        read = [
            batch.tokens[row, :length] for batch in data.batches(split, train=False) for row, length in enumerate(batch.lengths)
        ]
        splits[split] = np.concatenate(read)
    show_sizes(console, data.tokenizer, splits, "text")
    console.print(f"{data.label_count} labels: {', '.join(data.labels.tokens(range(data.label_count)))}", markup=False)
    console.print(f"\n{len(data.training_batches):,} batches an epoch of {data.batch_size}")
    training: Iterable[TaggingBatch | ClassificationBatch] = data.training_batches
    for number, batch in enumerate(islice(training, batches)):
        console.print(f"\nbatch {number}: tokens {tuple(batch.tokens.shape)}, {int(batch.normalizer):,} labels to predict")
        for row in range(min(rows, len(batch.tokens))):
            if isinstance(batch, TaggingBatch):
                tags = data.labels.tokens(batch.tags[row, : batch.lengths[row]].tolist())
                shown = " ".join(f"{word}/{tag}" for word, tag in zip(batch.words[row], tags, strict=True))
            else:
                shown = f"{data.labels.tokens([int(batch.labels[row])])[0]}: {batch.texts[row]!r}"
            console.print(f"  {shown}", markup=False)


def show_sizes(console: Console, tokenizer: Tokenizer, splits: Mapping[str, np.ndarray], title: str) -> None:
    """Tokens of each split, how many are unknown, and the beginning of the vocabulary."""
    sizes = Table("split", "tokens", "unknown", title=f"{title}: vocabulary of {len(tokenizer):,}", title_justify="left")
    for split, ids in splits.items():
        unknown = 0 if tokenizer.unknown is None else int((ids == tokenizer.unknown).sum())
        sizes.add_row(split, f"{len(ids):,}", f"{unknown:,} ({unknown / max(1, len(ids)):.2%})")
    console.print(sizes)
    first = ", ".join(repr(token) for token in tokenizer.tokens(range(min(VOCABULARY_SHOWN, len(tokenizer)))))
    console.print(f"vocabulary: {first}{', ...' if len(tokenizer) > VOCABULARY_SHOWN else ''}", markup=False)


def data_of(config: str, flags: Sequence[str] = ()) -> Shown:
    """The data of a config, changed by flags such as --data.source.train FILE.

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
    parser.set_defaults({"data": description["data"]})
    data = parser.instantiate(parser.parse_args(list(flags))).data
    if not isinstance(data, Shown):
        raise TypeError(
            f"show: {config} has {type(data).__name__}; only LanguageData, TaggingData, ClassificationData and TranslationData"
            " can be shown"
        )
    return data


if __name__ == "__main__":
    command(show)
