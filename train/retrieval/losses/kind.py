"""What a loss needs of the data, and its options, read off its signature."""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from modernbert_jax.errors import UserError, did_you_mean

from .matryoshka import matryoshka
from .regularization import regularized

Arrays = jax.Array | None
_DATA = ("valid", "mask", "guide")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossKind:
    """A loss with what it needs. Call it with the columns of a batch, or a reranker's scores."""

    name: str
    """Name on the command line."""
    function: Callable[..., jax.Array]
    """The loss of what `takes` says; its keyword arguments are its options."""
    takes: Literal["vectors", "scores", "every-score"] = "vectors"
    """What it is a function of: vectors [C, N, E] of the texts; scores [K, N] of each query's
    documents, as a reranker gives; or scores [K, N, N] of the documents of every example for each
    query, as late interaction gives, of which a loss that is not `in_batch` gets its own [K, N]."""
    least: int = 2
    """Smallest number of columns of texts, query included."""
    most: int | None = None
    """Largest number of columns of texts; None is any."""
    targets: Literal["none", "label", "scores"] = "none"
    """Targets of an example: none, one label, or one score (or label) for each document."""
    optional: bool = False
    """Whether targets may be left out where there are three columns or more."""
    margins: bool = False
    """Whether one margin for each negative may stand for the scores."""
    in_batch: bool = False
    """Whether texts of other examples are negatives: a batch needs two examples, without
    duplicates."""
    guide: Literal["none", "similarity", "vectors"] = "none"
    """What is taken of a guide model's vectors of the texts: nothing, cosines, the vectors."""
    pointwise: bool = False
    """Whether it is a mean over pairs of losses of single scores, so that microbatches can be
    differentiated one by one."""
    graded: bool = False
    """Whether targets are labels: 1 and 0 stand for positives and negatives without targets."""

    def __call__(
        self,
        columns: jax.Array,
        targets: Arrays = None,
        *,
        valid: Arrays = None,
        mask: Arrays = None,
        **options: Any,
    ) -> jax.Array:
        """Compute the loss of a batch, a float32 scalar.

        Args:
            columns: Vectors of N examples, [C, N, E]: queries, positives, further documents. Or
                scores; see `takes`.
            targets: Targets [N, M]; ignored by a loss that needs none.
            valid: Examples that exist, bool [N]; None means all.
            mask: Documents that exist, bool [K, N]; None means all.
            options: Options of the loss; a guide's vectors as `guide`, [C, N, G].

        Raises:
            UserError: shapes that do not fit, or a wrong option.
        """
        if self.takes == "every-score" and not self.in_batch:
            columns = jnp.diagonal(columns, axis1=1, axis2=2)
        arrays: list[Arrays] = [columns]
        if self.takes == "vectors":
            arrays = [columns[0], columns[1:]]
        if self.targets != "none":
            arrays.append(targets)
        return self.function(*arrays, valid=valid, mask=mask, **options)

    @property
    def options(self) -> Mapping[str, inspect.Parameter]:
        """Options of the loss by name, with their types and defaults."""
        parameters = inspect.signature(self.function).parameters.values()
        chosen = (p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in _DATA)
        return {parameter.name: parameter for parameter in chosen}

    @property
    def learned(self) -> str:
        """The option that may be a trained parameter: `scale`, `temperature`, or empty.

        A teacher's loss has none: it is smallest where the temperature of both models is 0.
        """
        taught = "teacher_temperature" in self.options
        return next((x for x in ("scale", "temperature") if x in self.options and not taught), "")

    def target_sizes(self, columns: int) -> tuple[int, ...]:
        """How many targets an example may have with this number of columns, 0 for none."""
        documents = columns - 1
        sizes = [{"none": 0, "label": 1, "scores": documents}[self.targets]]
        if self.margins:
            sizes.append(documents - 1)
        if self.optional and columns > 2:
            sizes.append(0)
        return tuple(sizes)

    def check_options(self, options: Iterable[str]) -> None:
        """Raise `UserError` for an option that the loss does not have, with the nearest one."""
        for option in options:
            if option not in self.options:
                raise UserError(
                    f"loss {self.name} has no option {option!r};"
                    f" {did_you_mean(option, self.options)}"
                )

    def check(
        self,
        columns: int,
        targets: int,
        options: Mapping[str, Any] = {},
        examples: int = 2,
        dimensions: int = 2,
        drawn: bool = False,
    ) -> None:
        """Check what is known before training, without computing anything.

        Args:
            columns: Number of columns of texts, query included.
            targets: Number of targets of an example.
            options: Options of the loss.
            examples: Number of examples in a batch.
            dimensions: Dimensions of the vectors.
            drawn: Whether the loss draws with a key, as Matryoshka of some dimensions a step.

        Raises:
            UserError: the loss does not fit the data, or an option is unknown or wrong.
        """
        self.check_options(options)
        if self.in_batch and examples < 2:
            raise UserError(
                f"loss {self.name} takes negatives from other examples; a batch of {examples} has"
                " none"
            )
        if columns < self.least or (self.most is not None and columns > self.most):
            raise UserError(
                f"loss {self.name} takes {self._columns()}, query included; the data has {columns}"
            )
        if self.targets != "none" and not targets and 0 not in self.target_sizes(columns):
            raise UserError(f"loss {self.name} takes {self._targets()}")
        if self.targets != "none" and targets not in self.target_sizes(columns):
            sizes = " or ".join(str(size) for size in self.target_sizes(columns))
            raise UserError(
                f"loss {self.name} takes {sizes} targets ({self.targets}) per example of"
                f" {columns} columns; the data has {targets}"
            )
        shape: tuple[int, ...] = (columns, examples, dimensions)
        if self.takes == "scores":
            # A reranker with negatives of the batch scores documents of other queries, too.
            shape = (columns - 1 + int(self.in_batch), examples)
        elif self.takes == "every-score":
            shape = (columns - 1, examples, examples)
        guide = {} if self.guide == "none" else {"guide": jnp.zeros(shape)}
        wanted = jnp.zeros((examples, targets)) if targets else None
        key = {"key": jax.random.key(0)} if drawn else {}
        jax.eval_shape(lambda: self(jnp.zeros(shape), wanted, **guide, **key, **options))

    def matryoshka(
        self, dims: Sequence[int], weights: Sequence[float] | None = None, n_dims_per_step: int = -1
    ) -> "LossKind":
        """Return this loss summed over truncated vectors; see `matryoshka.matryoshka`."""
        if self.takes != "vectors":
            raise UserError(f"loss {self.name} is one of scores; Matryoshka truncates vectors")
        truncate = self.guide == "vectors"
        function = matryoshka(self.function, dims, weights, n_dims_per_step, truncate)
        return dataclasses.replace(self, function=function)

    def regularized(self, weight: float) -> "LossKind":
        """Return this loss with a regularization; see `regularization.regularized`."""
        if self.takes != "vectors":
            raise UserError("loss.orthogonality is for losses of vectors; leave it out")
        return dataclasses.replace(self, function=regularized(self.function, weight))

    def _targets(self) -> str:
        """The targets of an example, and what to do without them."""
        what = "label" if self.graded or self.targets == "label" else "score"
        of = "example" if self.targets == "label" else "document"
        negatives = "add columns of negatives, " if self.graded or self.optional else ""
        return (
            f"a {what} of each {of}, and the data has none; name their column with --target,"
            f" {negatives}or name a loss of pairs, such as --loss.name multiple-negatives-ranking"
        )

    def _columns(self) -> str:
        if self.most is None:
            return f"at least {self.least} columns of texts"
        if self.most == self.least:
            return f"{self.least} columns of texts"
        return f"{self.least} to {self.most} columns of texts"
