"""Jobs that a test gives to another version of transformers, in a process of its own.

`python in_transformers.py JOBS.json` with a list of jobs, each a list of strings:

save CASE CONFIG.json DIRECTORY
    makes the case's model from a `config.json` and saves it
logits DIRECTORY IDS.json OUT.npz
    loads a directory and runs each list of ids alone; stores concatenated hidden states and logits
tokens DIRECTORY TEXTS.json OUT.json
    loads a directory's tokenizer and encodes
finetuned KIND DIRECTORY INPUTS.json OUT.json
    asks a fine-tuned model: by the pipeline for its task, where this version has one
card DIRECTORY INPUTS.json OUT.json
    runs the Python of the directory's card for each input, an object with the names that it reads,
    and stores what it calls the prediction
words DIRECTORY WORDS.json OUT.json
    ids of each list of words, and of the text that joins them

Prints the version that did it. The caller sets the path that decides the version.
"""

import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import cases


def save(case: str, config: str, directory: str) -> None:
    values = json.loads(Path(config).read_text())
    model = transformers.ModernBertForMaskedLM(transformers.ModernBertConfig(**values))
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(torch.from_numpy(cases.weight(case, name, tuple(value.shape))))
    model.save_pretrained(directory)


def logits(directory: str, ids: str, out: str) -> None:
    model, report = transformers.AutoModelForMaskedLM.from_pretrained(
        directory, output_loading_info=True, attn_implementation="sdpa"
    )
    problems = {k: v for k, v in report.items() if v}
    assert not problems, problems
    hidden, scores = [], []
    with torch.no_grad():
        for document in json.loads(Path(ids).read_text()):
            states = model.model(torch.tensor([document])).last_hidden_state
            hidden.append(states[0].numpy())
            scores.append(model.decoder(model.head(states))[0].numpy())
    np.savez(out, hidden=np.concatenate(hidden), logits=np.concatenate(scores))


def tokens(directory: str, texts: str, out: str) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    special = {
        role: getattr(tokenizer, f"{role}_token_id") for role in ("cls", "sep", "pad", "mask")
    }
    ids = tokenizer(json.loads(Path(texts).read_text()))["input_ids"]
    facts = {"ids": ids, "special": special, "longest": tokenizer.model_max_length}
    Path(out).write_text(json.dumps(facts))


def finetuned(kind: str, directory: str, inputs: str, out: str) -> None:
    asked = json.loads(Path(inputs).read_text())
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    if kind == "choice":
        model = transformers.AutoModelForMultipleChoice.from_pretrained(directory).eval()
        predictions = []
        for context, options in asked:
            encoded = tokenizer(
                [context] * len(options), options, padding=True, return_tensors="pt"
            )
            with torch.no_grad():
                predictions.append(
                    model(**{k: v[None] for k, v in encoded.items()}).logits[0].tolist()
                )
    elif kind == "questions":
        predictions = _answers(directory, tokenizer, asked)
    else:
        options = {"top_k": None, "batch_size": 4}
        options |= {"function_to_apply": "none"} if kind == "regression" else {}
        name = "text-classification"
        if kind == "tokens":
            name, options = "token-classification", {"ignore_labels": []}
        predictions = transformers.pipeline(name, directory)(asked, **options)
    Path(out).write_text(json.dumps(predictions, default=float))


def _answers(directory: str, tokenizer, asked: list) -> list[dict]:
    """Answers of the pipeline in version 4; logits in version 5, which has no pipeline."""
    if transformers.__version__.startswith("4."):
        ask = transformers.pipeline("question-answering", directory)
        outputs = ask(
            question=[q for q, _ in asked],
            context=[c for _, c in asked],
            max_answer_len=30,
            align_to_words=False,
        )
        return [{"answer": s["answer"], "start": s["start"]} for s in outputs]
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(directory).eval()
    logits = []
    for question, context in asked:
        with torch.no_grad():
            outputs = model(**tokenizer(question, context, return_tensors="pt"))
        logits.append(
            {"logits": torch.stack([outputs.start_logits[0], outputs.end_logits[0]], -1).tolist()}
        )
    return logits


def card(directory: str, inputs: str, out: str) -> None:
    asked = json.loads(Path(inputs).read_text())
    text = (Path(directory) / "README.md").read_text()
    code = compile(text.split("```python\n")[1].split("```")[0], "README.md", "exec")
    predictions = []
    with contextlib.chdir(directory):
        for names in asked:
            exec(code, names)
            predictions.append(names["prediction"])
    Path(out).write_text(json.dumps(predictions, default=float))


def words(directory: str, lists: str, out: str) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    split = json.loads(Path(lists).read_text())
    facts = {
        "words": tokenizer(split, is_split_into_words=True)["input_ids"],
        "text": tokenizer([" ".join(x) for x in split])["input_ids"],
    }
    Path(out).write_text(json.dumps(facts))


if __name__ == "__main__":
    for command, *arguments in json.loads(Path(sys.argv[1]).read_text()):
        commands = (save, logits, tokens, finetuned, card, words)
        {c.__name__: c for c in commands}[command](*arguments)
    print(transformers.__version__)
