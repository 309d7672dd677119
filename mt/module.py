"""Seq2Seq: an encoder and a decoder that translate."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from datamodules.bucketing import TranslationBatch
from datamodules.tokenizers import Tokenizer
from lm.base import OptimizerFactory, SequenceModule
from lm.heads import LinearHead
from lm.initialisation import Initialisation, initialise
from lm.layers import GRU
from lm.metrics import TokenMetrics
from lm.module import HeadFactory
from lm.network import NetworkFactory, RecurrentNetwork, RNNOutput
from lm.schedule import Schedule
from lm.text_score import TextScore
from mt.attention_decoder import AttentionDecoder
from mt.beam import BeamSearch
from mt.decoder import Decoder, DecoderOutput, DecoderState, NextInput, Source
from mt.encoder import Encoder
from mt.evaluation import LONGEST, TOKENS_AT_ONCE, Evaluation, in_parts, real_rows, shortened
from mt.scheduled_sampling import ScheduledSampling, partly_own
from mt.scoring import score_pairs
from mt.search import GreedySearch, Search
from mt.step import SourceStep, Step, StepOutput
from mt.translation import Translation, readable, search_batch, tokenizers_of, translate

DecoderFactory = Callable[[int, int, Sequence[int]], Decoder]
"""Makes a decoder from the vocabulary's size, the features of the encoder's states, and those of its final states."""

BIDIRECTIONAL_GRU: NetworkFactory = partial(RecurrentNetwork, cell=GRU, bidirectional=True)

PLACES_AT_ONCE = 2**18
"""Places of the source that all steps scored at once may look at: an attention may hold its hidden features for each."""


class Seq2Seq(SequenceModule):
    """A translation model.

    Args:
        source_vocab_size: entries of the source vocabulary.
        target_vocab_size: entries of the target vocabulary.
        encoder: makes the network that reads.
        decoder: makes what writes: `mt.AttentionDecoder`, `mt.ContextDecoder`, or a class of your own.
        head: makes the output layer from its input size and the target vocabulary's; smoothing of labels is its.
        initialisation: of all weights, by name (see lm.initialisation).
        scheduled_sampling: how often training reads the model's own tokens; null for teacher forcing.
        search: how texts are translated, and a test in addition to greedy search.
        language: code of the language translated into, which decides how BLEU cuts it into tokens.
        tokenization: of BLEU, by its name in sacrebleu; null goes by the language.
        lowercase: whether BLEU and chrF look past case, for a tokenizer that knows no capitals.
        optimizer: makes the optimizer from the parameters.
        schedule: the learning-rate schedule; null for a constant rate.
    """

    BEST = ("val/bleu", "max")
    TOKENIZERS = ("source_tokenizer", "target_tokenizer")
    source_tokenizer: Tokenizer | None
    target_tokenizer: Tokenizer | None

    def __init__(
        self,
        source_vocab_size: int,
        target_vocab_size: int,
        encoder: NetworkFactory = BIDIRECTIONAL_GRU,
        decoder: DecoderFactory = AttentionDecoder,
        head: HeadFactory = LinearHead,
        initialisation: Initialisation = "default",
        scheduled_sampling: ScheduledSampling | None = None,
        search: Search | None = None,
        language: str | None = None,
        tokenization: str | None = None,
        lowercase: bool = False,
        optimizer: OptimizerFactory = lambda parameters: torch.optim.Adam(parameters, lr=0.001),
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(optimizer, schedule)
        self.encoder = Encoder(source_vocab_size, encoder)
        self.decoder = decoder(target_vocab_size, self.encoder.output_size, self.encoder.state_sizes)
        self.head = head(self.decoder.output_size, target_vocab_size)
        initialise(self, initialisation)
        self.scheduled_sampling = scheduled_sampling
        self.search = search or BeamSearch()
        self.train_metrics = TokenMetrics()
        self.evaluation = Evaluation(language, tokenization, lowercase)
        self.signatures: dict[str, str] = {}

    def setup(self, stage: str) -> None:
        """See SequenceModule; loggers of this stage have yet to learn how scores are computed."""
        super().setup(stage)
        self.encoder.network.learn_spellings(self.source_tokenizer)
        self.decoder.network.learn_spellings(self.target_tokenizer)
        self.signatures = {}

    def forward(self, batch: TranslationBatch, next_input: NextInput | None = None) -> DecoderOutput:
        """What the decoder says of the target, each token read after those before it."""
        source = self.read(batch.source, batch.source_lengths)
        output: DecoderOutput = self.decoder(batch.target[:, :-1], source, self.decoder.start(source), next_input)
        return output

    def read(self, tokens: Tensor, lengths: Tensor) -> Source:
        """Source tokens `(batch, source_time)` and their lengths -> what the decoder looks at."""
        return self.decoder.look(self.encoder(tokens, lengths))

    def layers_in_order(self) -> list[nn.Module]:
        """See SequenceModule: the embeddings, the encoder's layers, the decoder's; attention and bridge go with the head."""
        reader, writer = self.encoder.network, self.decoder.network
        return [nn.ModuleList([reader.embedding, writer.embedding]), *reader.layers, *self.decoder.layers(), self.head]

    # Training and evaluation

    def training_step(self, batch: TranslationBatch, batch_index: int) -> dict[str, Any]:
        """One batch: its loss over the target tokens of the whole step of the optimizer, with every loss term."""
        mask = predicted(batch)
        real = mask.flatten().nonzero()[:, 0]  # padding needs no logits, which are half of the work
        output = self(batch, self.own_tokens(batch))
        scale = self.trainer.world_size * self.trainer.accumulate_grad_batches / batch.normalizer
        rows = (part.flatten(0, 1).index_select(0, real) for part in (output.hidden, batch.target[:, 1:], mask * scale))
        loss = self.head.loss(*rows)
        self.train_metrics.update(loss.nll)
        regularizable = RNNOutput(output.hidden, output.raw, None, batch.target_lengths - 1)
        total = self.regularized(loss.total, regularizable)
        nll = loss.nll.sum() / max(1, len(loss.nll))
        self.log_dict({"train/loss": total.detach(), "train/ppl": nll.exp()}, prog_bar=True, batch_size=1)
        return {"loss": total, "tokens": len(loss.nll)}

    def own_tokens(self, batch: TranslationBatch) -> NextInput | None:
        """Scheduled sampling: each input token drawn from the model with the probability that there is today."""
        if self.scheduled_sampling is None or (truth := self.scheduled_sampling.truth(self.global_step)) == 1:
            return None
        tokenizer = self.target_tokenizer
        never = [] if tokenizer is None else [token for token in (tokenizer.padding, tokenizer.beginning) if token is not None]
        return partly_own(self.head, batch.target, truth, never)

    def on_train_epoch_end(self) -> None:
        """Log the nll and the perplexity of the epoch, over all of its target tokens."""
        found = self.train_metrics.compute()
        self.train_metrics.reset()
        self.log_dict({"train/nll": found["loss"], "train/ppl_epoch": found["ppl"]}, sync_dist=True)

    def validation_step(self, batch: TranslationBatch, batch_index: int) -> None:
        """A batch teacher-forced, and translated greedily."""
        self.evaluate(batch, "validation", searched=False)

    def test_step(self, batch: TranslationBatch, batch_index: int) -> None:
        """A batch teacher-forced, translated greedily, and by the model's search."""
        self.evaluate(batch, "test", searched=True)

    def evaluate(self, batch: TranslationBatch, split: str, *, searched: bool) -> None:
        """Add a batch to the metrics of an evaluation."""
        data = getattr(self.trainer, "datamodule", None)
        for part in in_parts(batch, TOKENS_AT_ONCE):
            nll, correct = self.forced(part.source, part.source_lengths, part.target)
            self.evaluation.add_predictions(nll, correct, predicted(part))
            rows = real_rows(part)
            if data is None or self.target_tokenizer is None or not rows:
                continue
            references = [data.texts(split).references(int(part.indices[row])) for row in rows]
            self.evaluation.add_translations(self.best_texts(part, GreedySearch(), rows), references, searched=False)
            if searched:
                self.evaluation.add_translations(self.best_texts(part, self.search, rows), references, searched=True)

    def best_texts(self, batch: TranslationBatch, search: Search, rows: Sequence[int]) -> list[str]:
        """The best translation of each of these rows of a batch; of a text that is very long, of its beginning."""
        tokens, lengths = shortened(batch.source, batch.source_lengths, LONGEST)
        if not lengths.equal(batch.source_lengths):
            rank_zero_warn(f"translation: of texts with more than {LONGEST} tokens, an evaluation translates the first {LONGEST}")
        found = search_batch([self], tokens, lengths, search, batch.indices.tolist())
        tokenizer = tokenizers_of([self])[1]
        ids = [found.tokens[row, 0, : found.lengths[row, 0]].tolist() for row in rows]
        return [readable(row, tokenizer.tokens(row), tokenizer) for row in ids]

    def log_evaluation(self, stage: str) -> None:
        """Log the metrics of an evaluation under its name, and once how its scores are computed, for others to compare."""
        values, signatures = self.evaluation.compute(searched=stage == "test")
        for name, value in values.items():
            self.log(f"{stage}/{name}", value.float(), prog_bar=name in ("ppl", "bleu"), sync_dist=True)
            if stage == "test" and name in signatures and self.trainer.is_global_zero:
                print(f"{name}: {float(value):.2f} ({signatures[name]})")
        told = {f"{stage}/{name}_signature": signature for name, signature in signatures.items()}
        if told != self.signatures and not self.trainer.sanity_checking:
            self.signatures = told
            for logger in self.trainer.loggers:
                logger.log_hyperparams(told)

    def on_validation_epoch_end(self) -> None:
        """Log `val/loss`, `val/ppl`, accuracies, and BLEU and chrF of greedy translations."""
        self.log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        """Log the same, and BLEU and chrF of the search as well."""
        self.log_evaluation("test")

    def predict_step(self, batch: TranslationBatch, batch_index: int) -> dict[str, Any]:
        """The numbers in the split of a batch's sentences, and the best translation of each."""
        indices: list[int] = []
        texts: list[str] = []
        for part in in_parts(batch, TOKENS_AT_ONCE):
            if rows := real_rows(part):
                indices += part.indices[rows].tolist()
                texts += self.best_texts(part, self.search, rows)
        return {"indices": indices, "texts": texts}

    # Translation

    def begin(self, tokens: Tensor, lengths: Tensor) -> tuple[Step, DecoderState]:
        """Read source tokens `(batch, source_time)` with lengths `(batch,)` -> the step and the first state of a search."""
        source = self.read(tokens, lengths)

        def look(tokens: Tensor, state: DecoderState, source: Source) -> StepOutput:
            output: DecoderOutput = self.decoder(tokens[:, None], source, state)
            attention = None if output.attention is None else output.attention[:, 0]
            return StepOutput(self.head.log_prob(output.hidden[:, 0]), output.state, attention)

        # What the bridge began with, the one part whose sentences do not come first, is not looked at again.
        kept = source._replace(memory=source.memory._replace(final=()))
        return SourceStep(kept, look), self.decoder.start(source)

    def translate(
        self, texts: str | Sequence[str], search: Search | None = None, prefixes: str | Sequence[str] = ""
    ) -> list[list[Translation]]:
        """Translate one text or several, as one batch.

        Args:
            texts: an empty one has an empty translation.
            search: None for the model's own.
            prefixes: what each translation begins with, whatever the model says; one for all texts, or one for each.

        Returns:
            of each text its translations, at least one, the best first.
        """
        texts = [texts] if isinstance(texts, str) else texts
        return translate([self], texts, search or self.search, prefixes=prefixes)

    def score(self, sources: str | Sequence[str], targets: str | Sequence[str]) -> list[TextScore]:
        """The probability of each target as the translation of its source, up to the `<eos>` that ends it.

        Args:
            sources: one or more texts; those of a call are padded to the longest and scored together. Of an empty one the model
                reads the `<eos>` alone.
            targets: a translation of each; an empty one is its `<eos>`, whose probability is that of saying nothing. Words that
                are not in the vocabulary are scored as the unknown token.

        Raises:
            ValueError: if there are not as many targets as sources.
        """
        pairs = ([texts] if isinstance(texts, str) else texts for texts in (sources, targets))
        return score_pairs(self, *pairs)

    def target_nll(self, tokens: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
        """−log P of each token of a target after those before it, teacher-forced.

        Args:
            tokens: of the source, `(batch, source_time)`.
            lengths: of the sources, `(batch,)`.
            target: `(batch, time)`, from `<bos>` on; what is said of padding means nothing.

        Returns:
            `(batch, time − 1)`, in nats.
        """
        return self.forced(tokens, lengths, target)[0]

    @torch.no_grad()
    def forced(self, tokens: Tensor, lengths: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """As `target_nll`, and whether each token is the most probable one; the longer the source, the fewer steps at once."""
        source = self.read(tokens, lengths)
        steps = max(1, PLACES_AT_ONCE // tokens.numel())
        state = self.decoder.start(source)
        # Both exist before the loop: small results between large temporary tensors would keep their room from being used again.
        dtype = torch.promote_types(next(self.head.parameters()).dtype, torch.float32)
        nll = torch.zeros_like(target[:, 1:], dtype=dtype)
        correct = torch.zeros_like(nll, dtype=torch.bool)
        for start in range(0, nll.shape[1], steps):
            part = target[:, start : start + steps + 1]
            output: DecoderOutput = self.decoder(part[:, :-1], source, state)
            loss = self.head.loss(output.hidden, part[:, 1:])
            assert loss.correct is not None  # no gradient is recorded here
            nll[:, start : start + steps], correct[:, start : start + steps] = loss.nll, loss.correct
            state = output.state
        return nll, correct


def predicted(batch: TranslationBatch) -> Tensor:
    """`(batch, target_time − 1)`, 1 where there is a token to predict."""
    steps = torch.arange(batch.target.shape[1] - 1, device=batch.target.device)
    return (steps < batch.target_lengths[:, None] - 1).float()
