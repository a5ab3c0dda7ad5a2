"""Records from CoNLL's columns: a word and its tags on each line."""

from modernbert_jax.errors import UserError

from ..corpus.sources.line_records import Lines, RawRecords


def read(lines: Lines) -> RawRecords:
    """Read one word per line, its tag last, with empty lines between records.

    Values are `tokens` and `ner_tags`, the columns of the data set on the hub. A record's place is
    its first line. Lines of -DOCSTART- are ignored.
    """
    start, words, tags = 0, [], []
    problem: UserError | None = None
    for number, line in lines:
        if isinstance(line, UserError):
            problem, fields = problem or line, ["?", "?"]
        else:
            fields = line.split()
        if fields and fields[0] != "-DOCSTART-":
            start = start or number
            if len(fields) < 2:
                problem = problem or UserError(f"line {number} has a word without a tag")
            words.append(fields[0])
            tags.append(fields[-1])
        elif words:
            yield start, problem or {"tokens": words, "ner_tags": tags}
            start, words, tags, problem = 0, [], [], None
    if words:
        yield start, problem or {"tokens": words, "ner_tags": tags}
