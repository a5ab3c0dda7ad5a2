"""Fine-tuning tasks: records to examples, and outputs to metrics and predictions. No jax in here.

records = read(["train.jsonl"])
task = TASKS["classification"](columns=("question", "passage")).with_labels(records)
examples = task.examples(records, tokenizer)
task.metrics(examples, outputs)
"""

from .classification import Classification
from .example import IGNORED, Example
from .multilabel import MultiLabel
from .multiple_choice import MultipleChoice
from .question_answering import QuestionAnswering
from .read import lines, read, stream
from .records import Problems, Record, Records
from .regression import Regression
from .split import balanced_weights, class_counts, positive_weights, split
from .task import Outputs, Task
from .token_classification import TokenClassification

__all__ = [
    "IGNORED",
    "TASKS",
    "Classification",
    "Example",
    "MultiLabel",
    "MultipleChoice",
    "Outputs",
    "Problems",
    "QuestionAnswering",
    "Record",
    "Records",
    "Regression",
    "Task",
    "TokenClassification",
    "balanced_weights",
    "class_counts",
    "lines",
    "positive_weights",
    "read",
    "split",
    "stream",
]

_TASKS = (
    Classification,
    MultiLabel,
    Regression,
    TokenClassification,
    QuestionAnswering,
    MultipleChoice,
)
TASKS: dict[str, type[Task]] = {task.kind: task for task in _TASKS}
"""Tasks by their names on the command line."""
