"""Commands whose parameters are converted without pydantic.

Newer versions of typer have pydantic convert every parameter, even to `str`, which costs each command 70 ms; older ones
never ask for what is put in its place here.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any, Final, TypeVar, get_type_hints

import typer
import typer.core

F = TypeVar("F", bound=Callable[..., Any])


class _WithPlainParameters:
    """A mixin before typer's own classes."""

    params: list[Any]

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        for parameter in self.params:
            _use_plain_conversion(parameter)

    def get_params(self, ctx: Any) -> list[Any]:
        found: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in found:
            if parameter.name in _COMPLETION:  # typer adds these to a command that was made already
                parameter._runtime_param = _PlainConversion(bool, False, None)
        return found

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)  # type: ignore[misc]  # click's Command has it
        _use_plain_conversion(option)
        return option

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        super().format_epilog(ctx, formatter)  # type: ignore[misc]
        path = ctx.command_path.partition(" ")[2]
        if not path:
            return
        from maildefer.cli.manual.examples import EXAMPLES  # only to show them

        if examples := EXAMPLES.get(path):
            with formatter.section("Examples"):
                for what, example in examples:
                    formatter.write(f"  {what}:\n    {example}\n")


class Command(_WithPlainParameters, typer.core.TyperCommand):
    pass


class Group(_WithPlainParameters, typer.core.TyperGroup):
    """A group that lists its commands with whole sentences, without loading any."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows = [(name, command.help or "") for name, command in self.commands.items() if not command.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class Commands(typer.Typer):
    """The collection of a module's commands, its `app`; with a help text, they are subcommands of one."""

    def __init__(
        self, help: str | None = None, *, cls: type[Group] = Group, completes: bool = False, **attributes: Any
    ) -> None:
        super().__init__(
            cls=cls,
            help=help,
            add_completion=completes,
            rich_markup_mode=None,  # rich takes 100 ms
            pretty_exceptions_enable=False,
            no_args_is_help=True,
            **attributes,
        )
        if help:
            super().callback()(_do_nothing)

    def command(self, *arguments: Any, **attributes: Any) -> Callable[[F], F]:
        """As typer's; a command with `--json` gets `--json-schema`, too."""
        add = super().command(*arguments, **{"cls": Command, **attributes})

        def decorate(function: F) -> F:
            if "json" in inspect.signature(function).parameters:
                add(_with_schema(function))
            else:
                add(function)
            return function

        return decorate


def _print_schema(context: typer.Context, wanted: bool) -> None:
    if wanted:
        from maildefer.cli.schemas.schema import schema_text  # only to print it

        typer.echo(schema_text(context.command_path.partition(" ")[2]), nl=False)
        raise typer.Exit()


_SCHEMA: Final = typer.Option(
    "--json-schema", callback=_print_schema, is_eager=True, help="Print the JSON Schema of these lines."
)


def _with_schema(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the option that prints the schema of its lines."""

    @functools.wraps(function)
    def carry_out(*, json_schema: bool, **given: Any) -> None:
        function(**given)

    shown = list(inspect.signature(function, eval_str=True).parameters.values())
    option = inspect.Parameter(
        "json_schema",
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=False,
        annotation=Annotated[bool, _SCHEMA],
    )
    shown.insert([one.name for one in shown].index("json") + 1, option)
    carry_out.__annotations__ = {one.name: one.annotation for one in shown}
    vars(carry_out)["__signature__"] = inspect.Signature(shown)
    return carry_out


def with_options(
    kind: type, parameter: str = "options"
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command, instead of one of its parameters, options for the fields of a dataclass, which it then gets."""
    hints = get_type_hints(kind, include_extras=True)
    shared = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in fields(kind)
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [
            one
            for one in inspect.signature(command, eval_str=True).parameters.values()
            if one.name != parameter
        ]

        def carry_out(**given: Any) -> None:
            options = {one.name: given.pop(one.name, one.default) for one in shared}
            command(**{parameter: kind(**options)}, **given)

        carry_out.__name__, carry_out.__doc__ = command.__name__, command.__doc__
        carry_out.__annotations__ = {one.name: one.annotation for one in (*own, *shared)}
        vars(carry_out)["__signature__"] = inspect.Signature([*own, *shared])
        return carry_out

    return decorate


def octal(option: str, text: str, example: str) -> int:
    """The mode or mask that an option gives in octal digits. Raises BadParameter."""
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise typer.BadParameter(f"{option}: {text!r} is no octal number such as {example}.")
    return mode


def _do_nothing() -> None:
    pass


_COMPLETION: Final = ("install_completion", "show_completion")


class _PlainConversion:
    """A conversion to the plain types of our parameters; typer calls `coerce`."""

    __slots__ = ("_convert", "_many", "_minimum")

    def __init__(self, convert: type, many: bool, minimum: float | None) -> None:
        self._convert = convert
        self._many = many
        self._minimum = minimum

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        if self._many:
            return [self._one(item, param, ctx) for item in value or ()]
        return None if value is None else self._one(value, param, ctx)

    def _one(self, value: Any, param: Any, ctx: Any) -> Any:
        try:
            converted = self._convert(value)
        except ValueError:
            wanted = {int: "integer", float: "number"}.get(self._convert, self._convert.__name__)
            raise typer.BadParameter(f"{value!r} is not a valid {wanted}.", ctx=ctx, param=param) from None
        if self._minimum is not None and not converted >= self._minimum:  # so put that NaN is refused too
            raise typer.BadParameter(f"{value} is less than {self._minimum:g}.", ctx=ctx, param=param)
        return converted


_PLAIN: Final[dict[Any, tuple[type, bool]]] = {
    bool: (bool, False),
    str: (str, False),
    int: (int, False),
    float: (float, False),
    list[str]: (str, True),
}


def _use_plain_conversion(parameter: Any) -> None:
    descriptor = getattr(parameter, "type_descriptor", None)
    if hasattr(parameter, "_runtime_param") and descriptor is not None and descriptor.annotation in _PLAIN:
        convert, many = _PLAIN[descriptor.annotation]
        parameter._runtime_param = _PlainConversion(convert, many, descriptor.parameter_info.min)
