"""The code of a model card: how transformers 4 and 5 use a fine-tuned model of each task.

Every snippet ends with `prediction`. The parity tests run them as they are.
"""

from ..tasks import Task

PIPELINES = {
    "classification": "text-classification",
    "multilabel": "text-classification",
    "regression": "text-classification",
    "tokens": "token-classification",
    "questions": "question-answering",
    "choice": "multiple-choice",
}
"""The hub's pipeline tag for each kind of task."""


def transformers(task: Task) -> list[str]:
    """Lines of Python that predict for one example with transformers."""
    snippets = {"tokens": _tokens, "questions": _questions, "choice": _choice}
    return snippets.get(task.kind, _texts)(task)


def _texts(task: Task) -> list[str]:
    options = {
        "multilabel": ', top_k=None, function_to_apply="sigmoid"',
        "regression": ', function_to_apply="none"',
    }.get(task.kind, "")
    pair = len(task.inputs) == 2
    inputs = '{"text": first, "text_pair": second}' if pair else "text"
    return [
        "from transformers import pipeline",
        "",
        f'ask = pipeline("{PIPELINES[task.kind]}", model="."{options})',
        f"prediction = ask({inputs}, truncation=True, max_length={task.max_length})",
    ]


def _tokens(task: Task) -> list[str]:
    return [
        *_model("TokenClassification"),
        "# words is a list of strings, such as ['George', 'went', 'to', 'Washington', '.']",
        'inputs = tokenizer(words, is_split_into_words=True, return_tensors="pt")',
        "labels = model(**inputs).logits[0].argmax(-1).tolist()",
        "numbers = inputs.word_ids()  # a word has the label of its first token",
        "labels = [labels[numbers.index(i)] for i in range(len(words))]",
        "prediction = [model.config.id2label[label] for label in labels]",
    ]


def _questions(task: Task) -> list[str]:
    """The best span of one window; transformers 5 has no pipeline for it."""
    longest = getattr(task, "max_answer_length", 30)
    return [
        "import torch",
        *_model("QuestionAnswering"),
        'inputs = tokenizer(question, context, return_tensors="pt")',
        "outputs = model(**inputs)",
        "inside = torch.tensor([side == 1 for side in inputs.sequence_ids()])",
        f"spans = (inside[:, None] & inside).triu().tril({longest - 1})",
        "scores = outputs.start_logits[0][:, None] + outputs.end_logits[0]",
        "best = int(scores.masked_fill(~spans, -torch.inf).argmax())",
        "first, last = divmod(best, len(inside))",
        "start, end = inputs.token_to_chars(first).start, inputs.token_to_chars(last).end",
        "prediction = context[start:end].strip()",
    ]


def _choice(task: Task) -> list[str]:
    return [
        *_model("MultipleChoice"),
        "inputs = tokenizer([context] * len(options), options, padding=True, truncation=True,",
        f'                   max_length={task.max_length}, return_tensors="pt")',
        "scores = model(**{name: x[None] for name, x in inputs.items()}).logits[0]",
        "prediction = options[int(scores.argmax())]",
    ]


def _model(head: str) -> list[str]:
    return [
        f"from transformers import AutoModelFor{head}, AutoTokenizer",
        "",
        'tokenizer = AutoTokenizer.from_pretrained(".")',
        f'model = AutoModelFor{head}.from_pretrained(".")',
    ]
