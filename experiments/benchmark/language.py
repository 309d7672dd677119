"""Language models beside hand-written PyTorch loops and fastai: `python -m experiments.benchmark lm`."""

from collections.abc import Sequence
from importlib.util import find_spec

from rich.table import Table

from experiments.benchmark.alternation import Speed
from experiments.benchmark.awd_lstm import awd_lstm as compare_awd_lstm
from experiments.benchmark.console import table_console
from experiments.benchmark.fastai import FastAI
from experiments.benchmark.loss import loss_table, measure_losses
from experiments.benchmark.machine import machine, product_rate
from experiments.benchmark.tied_lstm import tied_lstm
from experiments.cli import quiet


def lm(
    text: str | None = None,
    runs: int = 5,
    tokens: int | None = None,
    losses: bool = True,
    awd_lstm: bool = True,
    awd_lstm_tokens: int = 11270,
    fastai: bool = True,
) -> None:
    """Compare a tied LSTM and AWD-LSTM with hand-written PyTorch loops, and the loss with plain cross-entropy.

    The tied LSTM has two layers of 200 units and no dropout, AWD-LSTM the sizes and rates of the paper (Merity et al. 2017).
    fastai's AWD-LSTM has a process of its own, as its users would start it.

    Args:
        text: file to train on, its last tenth held out; none for the English of Python's manual.
        runs: epochs of each, in turn.
        tokens: training tokens in an epoch of the tied LSTM; none for all there are.
        losses: measure the losses as well, which takes about two minutes.
        awd_lstm: compare AWD-LSTM as well, which takes some minutes.
        awd_lstm_tokens: training tokens in an epoch of AWD-LSTM; by default those of 8 windows, half a minute or so on two cores.
        fastai: have a row of fastai's AWD-LSTM, where it is installed.
    """
    quiet()
    console = table_console()
    rate = product_rate()
    console.print(machine(rate))
    console.print(*shown("tied LSTM", tied_lstm(text, runs, tokens, rate)), sep="\n")
    if awd_lstm:
        neighbours = [FastAI] if fastai and find_spec("fastai") else []
        if fastai and not neighbours:
            console.print("fastai: not run, for it is not installed here")
        console.print(*shown("AWD-LSTM", compare_awd_lstm(text, runs, awd_lstm_tokens, rate, neighbours)), sep="\n")
    if losses:
        console.print(loss_table(measure_losses()))


def shown(model: str, rows: Sequence[Speed]) -> list[Table | str]:
    """A row for each implementation, ours first, and how many times as fast as each other one ours is."""
    table = Table(model, "tokens/s", "of the product rate", "validation perplexity")
    for row in rows:
        table.add_row(row.name, f"{row.tokens_per_second:,.0f}", f"{row.share:.2f}", f"{row.perplexity:.2f}")
    ratios = [f"{model}, ours/{other.name}, median of alternating epochs: {other.ours:.3f}" for other in rows[1:]]
    return [table, *ratios]
