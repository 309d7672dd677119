"""`python -m experiments.benchmark lm`, `mt`, `loss`, `scaling`, `recurrences`, `gru` or `counts`."""

from experiments.benchmark.counts import counts
from experiments.benchmark.gru import gru
from experiments.benchmark.language import lm
from experiments.benchmark.loss import loss
from experiments.benchmark.recurrences import recurrences
from experiments.benchmark.scaling import scaling
from experiments.benchmark.translation import mt
from experiments.command import command

if __name__ == "__main__":  # a process that is spawned imports this file
    subcommands = {
        "lm": lm,
        "mt": mt,
        "loss": loss,
        "scaling": scaling,
        "recurrences": recurrences,
        "gru": gru,
        "counts": counts,
    }
    command(subcommands)
