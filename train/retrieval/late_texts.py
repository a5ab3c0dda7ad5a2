"""Texts of late interaction, tokenized: prefixes, queries that are filled up, tokens that count."""

import dataclasses
from collections.abc import Sequence

from modernbert_jax import late_interaction
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.errors import clipped
from modernbert_jax.pipeline import LateInteraction
from modernbert_jax.tokenizer import Tokenizer

from ..tasks import Problems
from . import texts
from .columns import QUERY, role_of
from .config import RetrievalConfig
from .data import ExampleSet
from .texts import Encoded, TextSet


def tokenize(
    config: RetrievalConfig,
    dataset: ExampleSet,
    tokenizer: Tokenizer,
    model: ModernBertConfig,
    late: LateInteraction,
    lower_case: bool = False,
) -> TextSet:
    """Tokenize a data set; `TextSet.start` has the tokens of each text that others attend to.

    Args:
        config: the run, with prefixes as prompts and a length above 0.
        dataset: the examples.
        tokenizer: the model's.
        model: the architecture.
        late: settings of the model.
        lower_case: whether texts are converted to lower case.

    Raises:
        UserError: a length above the model's, ids that the model does not have, or all texts
            without a token that counts.
    """

    void: set[str] = set()

    def manner_of(column: int) -> tuple[str, bool, int]:
        prefix = config.prompt(dataset.name, dataset.column(column), column)
        length = texts.longest(config, dataset, column, model)
        return prefix, role_of(column) == QUERY, length

    def encoded(some: Sequence[str], manner: tuple[str, bool, int]) -> Encoded:
        prefix, is_query, length = manner
        own = of_column(late, prefix, is_query, length)
        cut: list[bool] = []
        tokens = late_interaction.tokenize(
            *(some, tokenizer, own),
            is_query=is_query,
            longest=length,
            lower_case=lower_case,
            cut=cut,
        )
        void.update(x for x, own in zip(some, tokens, strict=True) if not own.counted.any())
        return Encoded([x.ids for x in tokens], [x.visible for x in tokens], cut)

    tokenized = texts.text_set(dataset, model, manner_of, encoded)
    problems = Problems()
    for example in dataset.examples if void else ():
        for text in dict.fromkeys(example.texts):
            if text in void:
                problems.add(
                    example.place,
                    f"{clipped(text, 40)!r} has no token whose vector counts; leave it out, or"
                    " shorten the skiplist",
                )
    problems.check()
    return tokenized


def of_column(late: LateInteraction, prefix: str, is_query: bool, length: int) -> LateInteraction:
    """The settings of a model for a column with a prefix and a length of its own."""
    if is_query:
        return dataclasses.replace(late, query_prefix=prefix, query_length=length)
    return dataclasses.replace(late, document_prefix=prefix, document_length=length)
