"""Continue text: `python -m experiments.generate CHECKPOINT --prompt "..."`."""

from experiments.command import command, import_trusted
from lm.sampling import Sampling
from lm.text_model import TextModel


def generate(
    checkpoint: str,
    prompt: list[str] = [],  # noqa: B006  (never changed; a tuple could not be appended to on the command line)
    length: int = 100,
    samples: int = 1,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    allow_unknown: bool = False,
    trust: str = "",
) -> None:
    """Continue a text with a trained language model.

    Args:
        checkpoint: file written by a run, such as runs/quickstart/.../checkpoints/best.ckpt.
        prompt: beginning of the text, can be given several times; without one, a text begins with a line.
        length: tokens to add at most; a text ends before, at the end of a line.
        samples: continuations of each prompt.
        temperature: below 1 safer, above 1 bolder, 0 the most probable token every time.
        top_k: choose among the k most probable tokens.
        top_p: choose among the fewest tokens that together have this probability.
        seed: of the draws.
        allow_unknown: let the unknown token be chosen.
        trust: modules of your own that the checkpoint may name, with commas between them.
    """
    import_trusted(trust)
    model = TextModel.load_from_checkpoint(checkpoint)
    sampling = Sampling(temperature, top_k, top_p, seed)
    for text in model.generate(
        [text for text in prompt or [""] for _ in range(samples)], length, sampling, allow_unknown=allow_unknown
    ):
        print(text)


if __name__ == "__main__":
    command(generate)
