"""How good translations are: corpus BLEU and chrF as sacrebleu computes them, and the rates of right tokens and sentences."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from itertools import zip_longest
from typing import Any

import torch
from sacrebleu.metrics import BLEU, CHRF
from torch import Tensor
from torchmetrics import Metric

from lm.sampling import widest
from mt.languages import tokenization_for


class CorpusScore(Metric):
    """A score of sacrebleu over a corpus, exact over batches and ranks: counts are summed, and the score is taken of the sums.

    sacrebleu gives these counts to its own significance tests and to no one else, so two of its private methods are called here,
    in `update` and `compute`.

    Args:
        make_scorer: gives sacrebleu's metric. It is asked each time, since MeCab's tokenizers can be neither copied nor pickled,
            as a module's metrics must be.
        counts: how many numbers sacrebleu keeps of a sentence.
    """

    full_state_update = False
    higher_is_better = True
    counts: Tensor
    fewest_references: Tensor
    most_references: Tensor

    def __init__(self, make_scorer: Callable[[], Any], counts: int) -> None:
        super().__init__()
        make_scorer()  # a wrong choice shows now, not after an epoch
        self.make_scorer = make_scorer
        self.references: int | None = None
        self.add_state("counts", torch.zeros(counts, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("fewest_references", torch.tensor(torch.iinfo(torch.long).max), dist_reduce_fx="min")
        self.add_state("most_references", torch.tensor(0), dist_reduce_fx="max")

    def update(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        """Add sentences.

        Args:
            hypotheses: one translation a sentence, as text.
            references: the right translations of each sentence, one at least, and not the same number for each.

        Raises:
            TypeError: if a sentence's references are one text instead of a list, whose characters would pass for references.
            ValueError: if a sentence has no reference, or the numbers of sentences differ.
        """
        name = type(self).__name__
        if len(hypotheses) != len(references):
            raise ValueError(f"{name}: {len(hypotheses)} translations have {len(references)} lists of references; give one each")
        for place, given in enumerate(references, 1):
            if isinstance(given, str):
                raise TypeError(f"{name}: the references of a sentence are a list, even of one: write [{given!r}]")
            if not given:
                raise ValueError(f"{name}: sentence {place} of {len(references)} has no reference; give one, or leave it out")
        if not hypotheses:
            return
        # sacrebleu reads a file of first references, one of second ones and so on; None is one that a sentence does not have.
        files = list(zip_longest(*references))
        counts = self.make_scorer()._extract_corpus_statistics(hypotheses, files)
        self.counts = self.counts + torch.tensor(counts, device=self.counts.device).sum(dim=0)
        numbers = [len(given) for given in references]
        self.fewest_references = self.fewest_references.clamp(max=min(numbers))
        self.most_references = self.most_references.clamp(min=max(numbers))

    def compute(self) -> Tensor:
        """The score, from 0 to 100; nan where there was no sentence."""
        if not self.most_references:
            return self.counts.new_full((), torch.nan, dtype=widest(self.counts.device))
        same = self.fewest_references == self.most_references
        self.references = int(self.most_references) if same else -1  # of all ranks, for `compute` runs on their sum
        score = self.make_scorer()._compute_score_from_stats(self.counts.tolist()).score
        return torch.tensor(score, dtype=widest(self.counts.device), device=self.counts.device)

    @property
    def signature(self) -> str:
        """What sacrebleu calls the score last computed, so that others can compute the same one.

        Raises:
            RuntimeError: if none was: the number of references is part of it.
        """
        if self.references is None:
            raise RuntimeError(f"{type(self).__name__}: its signature counts references; compute a score first")
        scorer = self.make_scorer()
        scorer.num_refs = self.references
        return str(scorer.get_signature())


class CorpusBLEU(CorpusScore):
    """BLEU of a corpus (Papineni et al. 2002), as sacrebleu gives it (Post 2018), smoothed where an n-gram order has no match.

    Args:
        language: code of the language translated into, which chooses the tokenisation.
        tokenization: one of sacrebleu's instead; `none` for text that comes with spaces between its tokens.
        lowercase: whether case does not count.

    Raises:
        ValueError: if there is no such language or tokenisation, or it needs what is not installed.
    """

    def __init__(self, language: str | None = None, tokenization: str | None = None, lowercase: bool = False) -> None:
        self.tokenization = tokenization_for(language) if tokenization is None else tokenization
        # The lengths of translation and reference, then matches and totals of each order.
        super().__init__(partial(bleu, self.tokenization, lowercase), counts=2 + 2 * 4)


class ChrF(CorpusScore):
    """chrF2, the F-score of character n-grams up to 6 (Popović 2015), as sacrebleu gives it; needs no tokenisation.

    Args:
        word_order: longest n-gram of words to count too: 2 for chrF++ (Popović 2017).
        lowercase: whether case does not count.

    Raises:
        ValueError: if the order is negative.
    """

    def __init__(self, word_order: int = 0, lowercase: bool = False) -> None:
        if word_order < 0:
            raise ValueError(f"ChrF: word_order is 0 for characters alone, or the longest n-gram of words, got {word_order}")
        # n-grams of translation and reference, and matches, of each order.
        super().__init__(partial(CHRF, word_order=word_order, lowercase=lowercase), counts=3 * (6 + word_order))


class TranslationAccuracy(Metric):
    """Of teacher-forced predictions, the rate of right tokens and of sentences right throughout.

    The second is also the rate of sentences that greedy decoding gets right: while it is right, it reads what it
    would be forced to read.
    """

    full_state_update = False
    higher_is_better = True
    tokens: Tensor
    right_tokens: Tensor
    sentences: Tensor
    right_sentences: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("tokens", "right_tokens", "sentences", "right_sentences"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, correct: Tensor, mask: Tensor) -> None:
        """Add a batch.

        Args:
            correct: whether each token was the most probable one, `(batch, time)`.
            mask: 0 where there is no token, `(batch, time)`; a row without any is no sentence.
        """
        real = mask.bool()
        wrong = real & ~correct.bool()
        sentences = real.any(dim=1)
        self.tokens = self.tokens + real.sum()
        self.right_tokens = self.right_tokens + (real & ~wrong).sum()
        self.sentences = self.sentences + sentences.sum()
        self.right_sentences = self.right_sentences + (sentences & ~wrong.any(dim=1)).sum()

    def compute(self) -> Mapping[str, Tensor]:
        """`token_accuracy` and `sequence_accuracy`, from 0 to 1; nan where there was no sentence."""
        return {
            "token_accuracy": self.right_tokens / self.tokens,
            "sequence_accuracy": self.right_sentences / self.sentences,
        }


@cache
def bleu(tokenization: str, lowercase: bool) -> Any:
    """sacrebleu's BLEU; one for each choice, since some tokenizers take long to load.

    Raises:
        ValueError: if there is no such tokenisation, or it needs what is not installed.
    """
    if tokenization not in BLEU.TOKENIZERS:
        raise ValueError(f"tokenization: {tokenization!r} is none of {', '.join(BLEU.TOKENIZERS)}")
    try:
        # force: without it, batches of 100 tokenised sentences or more are warned of, smaller ones are not.
        return BLEU(tokenize=tokenization, lowercase=lowercase, force=True)
    except (ImportError, RuntimeError, OSError) as error:  # no MeCab, no sentencepiece, no network to fetch its model from
        reason = " ".join(str(error).split())
        raise ValueError(f"tokenization: {tokenization} does not work here, take another or see to this: {reason}") from error
