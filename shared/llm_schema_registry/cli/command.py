"""Commands out of dataclasses: a frozen class holds a command's options, its fields are the command line.

    @dataclass(frozen=True, slots=True)
    class Greet:
        name: Annotated[str, typer.Argument(help="Whom.")]

    @command(app, Greet, examples=["llmsr greet world"])
    async def greet(session: Session, options: Greet) -> ExitCode:
        '''Greets somebody.'''

typer reads options off a function's parameters; ten options would be ten parameters. Here the function's signature is
made from the class. Every command also takes the global options behind its name, where people write them.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin, get_type_hints

import typer

from llm_schema_registry.cli.exit_codes import ExitCode
from llm_schema_registry.cli.session import GlobalOptions, Session

O = TypeVar("O")  # noqa: E741  # The options of a command.
Body = Callable[[Session, O], Coroutine[Any, Any, ExitCode]]

EXAMPLES = "Examples:"
"""The line above a command's examples in its help; tests run what follows it."""
KEPT_AS_WRITTEN = "\b"
"""At the head of a paragraph of help it keeps the paragraph's lines. Source: click, "Preventing rewrapping"."""


def command(
    app: typer.Typer, options: type[O], *, examples: Sequence[str], name: str | None = None
) -> Callable[[Body[O]], Body[O]]:
    """Adds the function to the app as a command with the options of the class. Its docstring is the help.

    examples: lines of shell that run as pasted, in order, also a second time.
    """
    own = list(parameters(options))
    everywhere = list(_hidden(parameters(GlobalOptions)))

    def add(body: Body[O]) -> Body[O]:
        def callback(context: typer.Context, **given: Any) -> int:
            chosen = {one.name: given.pop(one.name) for one in everywhere}
            session = Session.of(_merged(cast(GlobalOptions, context.obj), chosen))
            return session.perform(lambda: body(session, options(**given)))

        context_parameter = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        callback.__signature__ = inspect.Signature([context_parameter, *own, *everywhere])  # type: ignore[attr-defined]
        callback.__annotations__ = {}
        app.command(name or body.__name__, help=inspect.getdoc(body), epilog=_epilog(examples))(callback)
        return body

    return add


def parameters(options: type[Any]) -> Iterator[inspect.Parameter]:
    """The dataclass's fields as keyword parameters that typer understands."""
    hints = get_type_hints(options, include_extras=True)
    for field in dataclasses.fields(options):
        default: Any = inspect.Parameter.empty
        if field.default is not dataclasses.MISSING:
            default = field.default
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        yield inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[field.name]
        )


def _hidden(shown: Iterator[inspect.Parameter]) -> Iterator[inspect.Parameter]:
    """The same options, not in the help, without a default of their own: what is not given behind the command counts
    as given before it."""
    for parameter in shown:
        assert get_origin(parameter.annotation) is Annotated
        kind, info = get_args(parameter.annotation)
        info = copy.copy(info)
        info.hidden, info.envvar = True, None
        yield parameter.replace(default=None, annotation=Annotated[kind | None, info])


def _merged(before: GlobalOptions, behind: dict[str, Any]) -> GlobalOptions:
    return dataclasses.replace(before, **{name: value for name, value in behind.items() if value is not None})


def _epilog(examples: Sequence[str]) -> str:
    lines = "\n".join(f"  {line}" for example in examples for line in example.splitlines())
    return f"{KEPT_AS_WRITTEN}\n{EXAMPLES}\n{lines}"
