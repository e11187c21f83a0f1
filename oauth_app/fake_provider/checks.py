"""Whether a value fits a switch, by the switch's type."""

from __future__ import annotations

import math
import types
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any, Union, get_args, get_origin

# How a type reads in "delay must be …", and in the list of switches.
_WORDS: dict[Any, str] = {
    Any: "anything",
    bool: "true or false",
    float: "a number of seconds, 0 or more",
    int: "a whole number",
    str: "text",
    bytes: "text",
    types.NoneType: "null",
    Mapping: "an object",
    Collection: "a list of texts",
}


def checked(name: str, hint: Any, value: Any) -> Any:
    """Return ``value`` as the switch ``name`` keeps it; raises `ValueError`, in words, if it does not fit ``hint``."""
    for option in _options(hint):
        if _is_choice(option) and value in list(option):
            return option(value)
        if _fits(option, value):
            return value
    raise ValueError(f"{name} must be {in_words(hint)}.")


def in_words(hint: Any) -> str:
    """What a switch of this type may be set to."""
    return " or ".join(_word(option) for option in _options(hint))


def takes_text(hint: Any) -> bool:
    """Whether any text is a value: then `123` on a command line means the text."""
    return str in _options(hint)


def _options(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) in (Union, types.UnionType):
        return get_args(hint)
    return (hint,)


def _is_choice(option: Any) -> bool:
    return isinstance(option, type) and issubclass(option, StrEnum)


def _word(option: Any) -> str:
    if _is_choice(option):
        return "one of " + ", ".join(option)
    return _WORDS.get(option) or _WORDS.get(get_origin(option)) or "an answer"


def _fits(option: Any, value: Any) -> bool:
    kind = get_origin(option) or option
    if kind is Any:
        return True
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is Collection:
        is_list = isinstance(value, list | tuple | set | frozenset)
        return is_list and all(isinstance(item, str) for item in value)
    return isinstance(value, kind)
