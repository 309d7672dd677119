"""Tagger: a recurrent network that says of each word of a sentence what it is."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from datamodules.label_batches import TaggingBatch
from datamodules.tokenizers import word_ids
from lm.base import OptimizerFactory
from lm.character_cnn import CharacterCNN, spelled_in_bytes
from lm.heads import LinearHead
from lm.initialisation import Initialisation, initialise
from lm.label_model import LabelModel
from lm.masked import BIDIRECTIONAL_LSTM
from lm.network import NetworkFactory, RNNOutput
from lm.prediction import Prediction
from lm.schedule import Schedule
from lm.spans import SpanScores, is_span_tagging


class Tagger(LabelModel):
    """P(tag of x_t | x_1 … x_T) = softmax(W h_t + b); with both directions, h_t has seen the whole sentence (Ling et al. 2015).

    Args:
        vocab_size: words that have an embedding of their own.
        label_count: different tags.
        network: makes what reads; of one direction, each word is tagged from itself and those before it.
        character_features: features that stand beside each word's embedding, from the bytes it is spelled with, which words that
            have no embedding of their own have too (Plank et al. 2016); 0 for none.
        filters: of the convolution over these bytes, as many of each width from 2 to 4.
        initialisation: of all weights, by name (see lm.initialisation).
        optimizer: makes the optimizer from the parameters.
        schedule: the learning-rate schedule; null for a constant rate.
    """

    def __init__(
        self,
        vocab_size: int,
        label_count: int,
        network: NetworkFactory = BIDIRECTIONAL_LSTM,
        character_features: int = 0,
        filters: int = 50,
        initialisation: Initialisation = "default",
        optimizer: OptimizerFactory = lambda parameters: torch.optim.Adam(parameters, lr=0.001),
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(label_count, optimizer, schedule)
        self.network = network(vocab_size, character_features)
        self.characters = (
            CharacterCNN(0, character_features, 25, (2, 3, 4), (filters,) * 3) if character_features else None
        )  # of no vocabulary: it reads words as they come
        self.head = LinearHead(self.network.output_size, label_count)
        initialise(self, initialisation)
        self.span_scores = SpanScores()

    def forward(self, tokens: Tensor, lengths: Tensor, words: Sequence[Sequence[str]]) -> RNNOutput:
        """Ids of words `(batch, time)`, lengths `(batch,)` and how the words are spelled -> what the network says at each."""
        x = self.network.embed(tokens)
        if self.characters is not None:
            flat = self.characters.encode(spelled_in_bytes([word for sentence in words for word in sentence]).to(tokens.device))
            spelled = pad_sequence(list(torch.split(flat, [len(sentence) for sentence in words])), batch_first=True)
            x = torch.cat([x, self.network.input_dropout(spelled)], dim=-1)
        return self.network.read(x, lengths=lengths)

    def layers_in_order(self) -> list[nn.Module]:
        """See SequenceModule: the embeddings, each layer, the head."""
        embeddings = [self.network.embedding] if self.characters is None else [self.network.embedding, self.characters]
        return [nn.ModuleList(embeddings), *self.network.layers, self.head]

    def setup(self, stage: str) -> None:
        """See SequenceModule."""
        super().setup(stage)
        self.network.learn_spellings(self.tokenizer)

    # Training and evaluation

    def training_step(self, batch: TaggingBatch, batch_index: int) -> dict[str, Any]:
        """One batch: its loss over the tags of the whole step of the optimizer, with every loss term."""
        output = self(batch.tokens, batch.lengths, batch.words)
        scale = self.trainer.world_size * self.trainer.accumulate_grad_batches / batch.normalizer
        targets = batch.tags[batch.mask]
        loss = self.head.loss(output.hidden[batch.mask], targets, scale.expand(len(targets)))
        self.train_metrics.update(loss.nll)
        total = self.regularized(loss.total, output)
        self.log("train/loss", total.detach(), prog_bar=True, batch_size=1)
        return {"loss": total, "tokens": len(targets)}

    def evaluate(self, batch: TaggingBatch) -> None:
        """Add a batch to the metrics of an evaluation."""
        log_prob = self.head.log_prob(self(batch.tokens, batch.lengths, batch.words).hidden)
        told, targets = log_prob.argmax(dim=-1), batch.tags[batch.mask]
        self.losses.update(-log_prob[batch.mask].gather(1, targets[:, None])[:, 0])
        if len(targets):
            self.label_metrics.update(told[batch.mask], targets)
        names = self.label_names()
        if is_span_tagging(names):
            for mask, *ids in zip(batch.mask, batch.tags, told, strict=True):
                self.span_scores.update(*([names[number] for number in row[mask].tolist()] for row in ids))

    def validation_step(self, batch: TaggingBatch, batch_index: int) -> None:
        """A batch of the validation sentences."""
        self.evaluate(batch)

    def test_step(self, batch: TaggingBatch, batch_index: int) -> None:
        """A batch of the test sentences."""
        self.evaluate(batch)

    def other_scores(self) -> Mapping[str, Tensor]:
        """Scores of whole spans, of tags that tell where one begins."""
        scores: Mapping[str, Tensor] = self.span_scores.compute() if is_span_tagging(self.label_names()) else {}
        self.span_scores.reset()
        return scores

    def predict_step(self, batch: TaggingBatch, batch_index: int) -> Prediction:
        """Each word with its tag and the one it is told to have, and the number of its sentence, counted from 1."""
        told = self.head.log_prob(self(batch.tokens, batch.lengths, batch.words).hidden).argmax(dim=-1)
        names = self.label_names()
        rows: list[tuple[str, ...]] = []
        for index, mask, words, *ids in zip(batch.indices.tolist(), batch.mask, batch.words, batch.tags, told, strict=True):
            columns = ([names[number] for number in row[mask].tolist()] for row in ids)
            rows += [(str(index + 1), *row) for row in zip(words, *columns, strict=False) if index >= 0]
        return Prediction(("sentence", "word", "target", "predicted"), rows)

    # Text

    @torch.no_grad()
    def tag(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        """The tag of each word of each sentence; those of a call are read together.

        Raises:
            ValueError: if the model was trained on tensors alone.
        """
        if self.tokenizer is None:
            raise ValueError("tokenizer: this model was trained without one; set model.tokenizer to read text")
        kept = [list(sentence) for sentence in sentences if sentence]
        if not kept:
            return [[] for _ in sentences]
        rows = [torch.tensor(word_ids(sentence, self.tokenizer)) for sentence in kept]
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        with self.evaluating():
            output = self(pad_sequence(rows, batch_first=True).to(self.device), lengths, kept)
            told = self.head.log_prob(output.hidden).argmax(dim=-1).tolist()
        names = self.label_names()
        tagged = iter([names[number] for number in row[: len(sentence)]] for row, sentence in zip(told, kept, strict=True))
        return [next(tagged) if sentence else [] for sentence in sentences]
