"""Words of the command line → the options of a command, checked, with its configuration."""

import contextlib
import dataclasses
import functools
import inspect
import io
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructTypeInfo,
)

from modernbert_jax import configs, ranges
from modernbert_jax.errors import UserError
from modernbert_jax.io.paths import expanded

from . import other_names
from .options import as_option
from .registry import Command

Hidden = Mapping[type, Collection[str]]
"""Fields by their dataclass that a configuration does not need, so that they are no options."""

NOTHING: Hidden = {}

_LOSS = re.compile(r"--losses\.(.+)\.[a-z_-]+(=|$)")
"""An option of the loss of a data set, whose name only the user knows."""

Suppress: Any = tyro.conf.Suppress


def parse(name: str, command: Command, words: Sequence[str]) -> Callable[[], int | None]:
    """The command as a function that is ready to run.

    A call for help prints it and raises `SystemExit`. Raises `UserError` for wrong arguments.
    """
    options = command.load()
    description = inspect.getdoc(options) or ""
    if command.config is None:
        return _checked(_parse(options, name, words, description)).run
    if not words or words[0].startswith("-"):
        _explain_config(name, command.config, options, words, description)
    config = configs.load(command.config, words[0])
    if named := [match[1] for match in map(_LOSS.match, words[1:]) if match]:
        config = config.with_losses(named) if hasattr(config, "with_losses") else config
    description += f"\n\nCONFIG {words[0]}: {configs.description(command.config, words[0])}"
    kind = _flat(type(config), tyro.conf.AvoidSubcommands)
    fields: list[Any] = [
        ("options", _flat(options)),
        ("config", kind, dataclasses.field(default=config)),
    ]
    both = dataclasses.make_dataclass("Arguments", fields)
    hidden: Hidden = getattr(config, "hidden", {})
    parsed = _parse(both, f"{name} {words[0]}", words[1:], description, hidden)
    return functools.partial(_checked(parsed.options).run, parsed.config)


def _checked(options: Any) -> Any:
    """The options of a command, if their numbers are in range. Raises `UserError`."""
    ranges.check(options, "--", as_option)
    return options


def _flat(kind: type, *markers: Any) -> Any:
    """A type whose options have no prefix of their own."""
    annotated: Any = Annotated
    return annotated[(kind, *markers, tyro.conf.arg(name=""))]


def _explain_config(
    name: str, kind: configs.Kind, options: type, words: Sequence[str], description: str
) -> NoReturn:
    """Print help that lists the presets, and exit; or raise `UserError` if it was not asked for."""
    presets = configs.presets(kind)
    if not {"-h", "--help"} & {*words}:
        raise UserError(f"{name} needs a CONFIG first: {', '.join(presets)}")
    with contextlib.suppress(SystemExit):
        _parse(options, f"{name} CONFIG", ["--help"], description)
    print("\nCONFIG is a Python file with config(), a run's config.json, or one of these presets:")
    width = max(map(len, presets)) + 2
    for preset, (summary, _) in presets.items():
        print(f"  {preset:{width}}{summary}")
    print(f"\nmodernbert-jax {name} PRESET --help shows the fields of its configuration.")
    raise SystemExit(0)


def _parse(
    target: type, name: str, words: Sequence[str], description: str, hidden: Hidden = NOTHING
) -> Any:
    """An instance of a dataclass. Raises `UserError` with what tyro complains of, in one line."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                target,
                prog=f"modernbert-jax {name}",
                args=list(words),
                description=description,
                registry=_registry(hidden),
            )
    except SystemExit as end:
        if not end.code:
            raise
        for option in (word.partition("=")[0] for word in words if word.startswith("--")):
            field = option.lstrip("-").rpartition(".")[2].replace("-", "_")
            if any(field in fields for fields in hidden.values()):
                raise UserError(f"{option} is not for {name}; leave it out") from None
        raise UserError(_one_line(complaint.getvalue(), name.split()[0], words)) from None


def _one_line(box: str, command: str, words: Sequence[str]) -> str:
    """The text of a framed complaint, without its title, and a suggestion if there is one."""
    lines = [line.strip("│ ") for line in box.splitlines()]
    if not box.startswith("╭"):  # without Unicode the title is a line, not part of the frame
        lines = lines[1:]
    rules = [i for i, line in enumerate(lines) if line.startswith(("╭", "──", "---"))]
    text = " ".join(lines[rules[0] + 1 : rules[1]])
    own = (other_names.ours(command, word) for word in words if word.startswith("--"))
    if (ours := next(filter(None, own), None)) is not None:
        text += f"; did you mean {ours}?"
    elif "Perhaps you meant:" in lines:
        text += f"; did you mean {lines[lines.index('Perhaps you meant:') + 1].split()[0]}?"
    return text


def _registry(hidden: Hidden) -> ConstructorRegistry:
    """tyro's rules, but the help of fields is unwrapped, `~` in paths is the home folder, and some
    fields are no options.
    """
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def path(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Path] | None:
        if info.type is not Path:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="PATH",
            instance_from_str=lambda words: Path(expanded(words[0])),
            is_instance=lambda value: isinstance(value, Path),
            str_from_instance=lambda value: [str(value)],
        )

    outer: list[Any] = []  # types whose fields are being read: the next rule is tyro's own

    @registry.struct_rule
    def rule(info: StructTypeInfo) -> StructConstructorSpec | None:
        if info.type in outer or not dataclasses.is_dataclass(info.type):
            return None
        left_out = hidden.get(info.type, ())
        outer.append(info.type)
        try:
            spec = registry.get_struct_spec(info)
        finally:
            outer.pop()
        if not isinstance(spec, StructConstructorSpec):
            return None
        fields = (
            dataclasses.replace(
                field,
                type=Suppress[field.type] if field.name in left_out else field.type,
                helptext=functools.partial(_help, field.helptext),
            )
            for field in spec.fields
        )
        return dataclasses.replace(spec, fields=tuple(fields))

    return registry


def _help(text: str | Callable[[], str | None] | None) -> str | None:
    """The help of a field, each paragraph in one line."""
    text = text() if callable(text) else text
    paragraphs = re.split(r"\n\s*\n", text.strip()) if text else []
    return "\n\n".join(" ".join(part.split()) for part in paragraphs) or None
