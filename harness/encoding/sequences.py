"""What encoded texts are made of, and whether a model can read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from momentum_bench.harness.encoding.batch import Encoded


@dataclass(frozen=True)
class TokenCounts:
    """Counts over encoded sequences; special tokens are left out of the first two.

    Attributes:
        n_tokens: tokens of the texts.
        n_unknown: those that stand for what the vocabulary does not have.
        n_without_words: sequences that are special tokens alone.
        n_sequences: all sequences.
    """

    n_tokens: int
    n_unknown: int
    n_without_words: int
    n_sequences: int

    def __add__(self, other: TokenCounts) -> TokenCounts:
        return TokenCounts(
            self.n_tokens + other.n_tokens,
            self.n_unknown + other.n_unknown,
            self.n_without_words + other.n_without_words,
            self.n_sequences + other.n_sequences,
        )


def count_tokens(encoded: Encoded, tokenizer: Any) -> TokenCounts:
    """What the sequences are made of.

    A token that is "unknown" and also ends or separates texts (as in GPT-2's vocabulary) is not counted as
    unknown, because a vocabulary of bytes knows every text.
    """
    unknown = tokenizer.unk_token_id
    names = ("bos", "eos", "cls", "sep", "pad", "mask")
    marks = {getattr(tokenizer, f"{name}_token_id", None) for name in names}
    if unknown in marks:
        unknown = None
    special = set(tokenizer.all_special_ids) - {unknown}
    n_words = [sum(token not in special for token in ids) for ids in encoded.input_ids]
    return TokenCounts(
        n_tokens=sum(n_words),
        n_unknown=0 if unknown is None else sum(ids.count(unknown) for ids in encoded.input_ids),
        n_without_words=n_words.count(0),
        n_sequences=len(n_words),
    )


def unreadable(encoded: Encoded, longest: int, n_embedded: int) -> tuple[int, str] | None:
    """The first example that a model cannot read, by its position, and why; None: it reads all.

    Args:
        longest: how many tokens a sequence may have.
        n_embedded: how many tokens have an embedding; ids count from 0.
    """
    largest_word = max(encoded.words or (0,))
    for example, sequences in enumerate(encoded.sequences):
        for ids in (encoded.input_ids[i] for i in sequences):
            if not 1 <= len(ids) <= longest:
                return example, f"{len(ids)} tokens, and the model reads 1 to {longest}"
            if (largest := max(*ids, largest_word)) >= n_embedded:
                return example, (
                    f"token {largest}, and the model has embeddings of {n_embedded} tokens: its "
                    f"tokenizer has tokens that were added without resize_token_embeddings"
                )
    return None
