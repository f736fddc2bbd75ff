"""Turning a typed function into a command line, the same way for every command."""

import dataclasses
import difflib
import inspect
import itertools
import json
import re
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import jsonargparse


class UsageError(ValueError):
    """Wrong words on the command line or in a YAML file."""


class Parser(jsonargparse.ArgumentParser):
    """A parser whose errors are one sentence with the nearest right name, not a page of usage.

    It takes no short forms of options, nor do the parsers that it makes for nested settings: one
    that works today is ambiguous after the next option.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (jsonargparse's own)
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises UsageError; the caller prints it."""
        raise UsageError(with_nearest(message, self)) from ex


def run_function(
    function: Callable[..., Any], words: list[str], *, name: str, leave_out: Sequence[str] = ()
) -> Any:  # noqa: ANN401
    """Parses ``words`` (and any ``--config FILE``) by the signature of ``function`` and calls it.

    Args:
        function: its parameters are the options, its docstring their help.
        words: of the command line.
        name: of the command, for messages.
        leave_out: parameters that only callers in code can give.

    Raises:
        UsageError: an unknown option or a value of the wrong type.
    """
    parser = Parser(
        prog=f"srdet {name}",
        description=(function.__doc__ or "").split("\n")[0],
    )
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_function_arguments(
        function, as_group=False, as_positional=False, fail_untyped=True, skip=set(leave_out)
    )
    for action in parser._actions:
        if action.option_strings and action.option_strings[0] in _list_options(function):
            action.metavar = "ONE [MORE ...]"  # not the JSON that a list may be, too
    try:
        parsed = parser.parse_args(_gather_lists(words, _list_options(function)))
    except UsageError as error:
        raise UsageError(f"{error}{_configs(words)}") from error
    settings = parser.instantiate_classes(parsed).as_dict()
    settings.pop("config", None)
    return function(**settings)


def _configs(words: list[str]) -> str:
    """The files that a wrong setting may stand in, since the parser does not name them."""
    pairs = itertools.pairwise(words)
    files = [second for first, second in pairs if first == "--config"]
    files += [word.removeprefix("--config=") for word in words if word.startswith("--config=")]
    return f" (settings of {', '.join(files)} and of the command line)" if files else ""


def _list_options(function: Callable[..., Any]) -> set[str]:
    hints = typing.get_type_hints(function)
    names = inspect.signature(function).parameters
    return {f"--{place}" for name in names for place in _lists_in(name, hints.get(name))}


def _lists_in(place: str, hint: object) -> Iterator[str]:
    """A parameter that is a list, or the lists of a settings object, however deep."""
    if _is_list(hint):
        yield place
    elif isinstance(hint, type) and dataclasses.is_dataclass(hint):
        for name, inner in typing.get_type_hints(hint).items():
            yield from _lists_in(f"{place}.{name}", inner)


def _is_list(hint: object) -> bool:
    return any(typing.get_origin(part) is list for part in (hint, *typing.get_args(hint)))


def _gather_lists(words: list[str], options: set[str]) -> list[str]:
    """``--hr a b`` becomes ``--hr=["a", "b"]``, the form that jsonargparse reads as a list.

    ``--hr=a`` and ``--hr a --hr b`` work likewise; values given in several places add up.
    """
    rest: list[str] = []
    lists: dict[str, list[str]] = {}
    into = rest
    for word in words:
        option, equals, value = word.partition("=")
        if option in options:
            into = lists.setdefault(option, [])
            into += [value] if equals else []
        elif word.startswith("--") or word == "-h":
            into = rest
            into.append(word)
        else:
            into.append(word)
    return rest + [f"{option}={_as_json(option, values)}" for option, values in lists.items()]


def _as_json(option: str, values: list[str]) -> str:
    if not values:
        raise UsageError(f"option {option} needs one value or more")
    one_json = len(values) == 1 and values[0].startswith("[") and values[0].endswith("]")
    return values[0] if one_json else json.dumps(values)


def with_nearest(message: str, parser: jsonargparse.ArgumentParser) -> str:
    """Adds the nearest existing option to a message about an option that does not exist."""
    message = re.sub(r"\s*\n\s*", " ", message).strip()
    message = re.sub(r"<class '(\w+)'>", r"\1", message)
    given = re.search(
        r"unrecognized arguments?: (\S+)|[Oo]ption '([^']+)'|[Kk]ey '([^']+)'", message
    )
    if given is None:
        return message
    wrong = next(filter(None, given.groups())).lstrip("-").split("=")[0]
    known = [a.dest for a in parser._actions if a.dest and a.dest not in ("help", "==SUPPRESS==")]
    near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.5)
    return f"{message}; did you mean '{near[0]}'?" if near else f"{message}; see --help"
