"""Serializer fields that take one JSON type each. DRF's own read 1 as "1" and "yes" as true; the contract does not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rest_framework import serializers

from knoxcall.clock import iso


class TextField(serializers.CharField):
    """A JSON string, without NUL and kept as it is (no trimming unless asked)."""

    default_error_messages = {"invalid": "Must be a string."}

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("trim_whitespace", False)
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class SecretTextField(TextField):
    """A string sent as a secret: at most ``max_bytes`` of UTF-8, any characters, and never part of a message."""

    default_error_messages = {"too_large": "Must be at most {limit} bytes of UTF-8."}

    def __init__(self, *, max_bytes: int = 64 * 1024, **kwargs: Any) -> None:
        self.max_bytes = max_bytes
        kwargs["style"] = {"input_type": "password"}
        super().__init__(**kwargs)
        # NUL is a character like any other in a value: it is sealed, not stored as text.
        self.validators = [v for v in self.validators if type(v).__name__ != "ProhibitNullCharactersValidator"]

    def to_internal_value(self, data: Any) -> str:
        value = super().to_internal_value(data)
        if len(value.encode()) > self.max_bytes:
            self.fail("too_large", limit=self.max_bytes)
        return value


class StrictBooleanField(serializers.BooleanField):
    """A JSON boolean, nothing else."""

    default_error_messages = {"invalid": "Must be true or false."}

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid")
        return data


class StrictIntegerField(serializers.IntegerField):
    """A JSON integer, nothing else."""

    default_error_messages = {"invalid": "Must be a whole number."}

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        return int(super().to_internal_value(data))


class ChoiceTextField(serializers.ChoiceField):
    """One of a closed set of strings; the message names the set."""

    default_error_messages = {"invalid_choice": "Must be one of: {known}."}

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str) or data not in self.choices:
            self.fail("invalid_choice", known=", ".join(str(choice) for choice in self.choices))
        return data


class UuidTextField(serializers.UUIDField):
    """A UUID as a JSON string."""

    default_error_messages = {"invalid": "Must be a UUID."}

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class MomentField(serializers.DateTimeField):
    """An ISO-8601 time with its offset; shown in UTC with milliseconds."""

    default_error_messages = {"invalid": "Must be an ISO-8601 time with its offset, such as 2026-03-10T15:30:00.000Z."}

    def to_internal_value(self, value: Any) -> datetime:
        # fromisoformat alone would take any character between date and time, and a NUL behind them.
        if not isinstance(value, str) or not re.fullmatch(r"[0-9W:.,T Z+-]+", value):
            self.fail("invalid")
        try:
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is None:
                self.fail("invalid")
            # The years 1 and 9999 overflow when they are moved to UTC.
            return super().to_internal_value(moment)
        except (ValueError, OverflowError):
            self.fail("invalid")

    def to_representation(self, value: Any) -> Any:
        return iso(value)


class TextMapField(serializers.DictField):
    """An object whose values are strings, at most ``max_entries`` of them."""

    default_error_messages = {
        "not_a_dict": "Must be an object of strings.",
        "too_many": "Must have at most {limit} entries.",
    }

    def __init__(self, *, max_entries: int = 20, **kwargs: Any) -> None:
        self.max_entries = max_entries
        super().__init__(child=TextField(max_length=2000, allow_blank=True), **kwargs)

    def to_internal_value(self, data: Any) -> dict[str, str]:
        if not isinstance(data, Mapping):
            self.fail("not_a_dict", input_type=type(data).__name__)
        if len(data) > self.max_entries:
            self.fail("too_many", limit=self.max_entries)
        value: dict[str, str] = super().to_internal_value(dict(data))
        return value


class StrictSerializer(serializers.Serializer):
    """A request body. A field that the call does not know is an error: a misspelt `expires_at` must not be dropped in silence."""

    def to_internal_value(self, data: Any) -> Any:
        unknown = [name for name in data if name not in self.fields]
        if not unknown:
            return super().to_internal_value(data)
        errors: dict[str, Any] = {name: ["This call does not take this field."] for name in unknown[:20]}
        try:
            super().to_internal_value({name: value for name, value in data.items() if name in self.fields})
        except serializers.ValidationError as err:
            errors = {**err.detail, **errors}  # type: ignore[dict-item]
        raise serializers.ValidationError(errors)
