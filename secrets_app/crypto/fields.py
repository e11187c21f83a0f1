"""The encrypted column: assigning a `Plaintext` seals it for its row, reading gives a `Sealed` that opens only there."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models import ExpressionWrapper, Q
from django.db.models.query_utils import DeferredAttribute

from secrets_app.crypto.cipher import Ciphertext, Place, Plaintext


class Sealed:
    """A sealed value together with its place. Prints nothing of either."""

    __slots__ = ("_place", "ciphertext")

    def __init__(self, ciphertext: Ciphertext, place: Place) -> None:
        self.ciphertext = ciphertext
        self._place = place

    def open(self) -> Plaintext:
        """Decrypt. Raises ``SealBroken``."""
        from secrets_app import data_keys

        return data_keys.unseal(self.ciphertext, self._place)

    def __repr__(self) -> str:
        return "<sealed>"

    __str__ = __repr__


class _SealedAttribute(DeferredAttribute):
    """Seals on assignment: so no instance ever carries a plaintext, and nothing waits for a save to become safe."""

    field: SealedField

    def __get__(self, instance: Any, cls: Any = None) -> Any:
        raw = super().__get__(instance, cls)
        if instance is None or raw is None:
            return raw
        return Sealed(Ciphertext(raw), self.field.place_of(instance))

    def __set__(self, instance: Any, value: Any) -> None:
        if isinstance(value, Plaintext):
            value = self.field.seal(value, account=instance.account_id, row=instance.pk)
        elif isinstance(value, Sealed):
            value = value.ciphertext
        elif value is not None and not isinstance(value, Ciphertext):
            raise TypeError(f"{self.field.name} takes a Plaintext, not a {type(value).__name__}")
        instance.__dict__[self.field.attname] = value


class SealedField(models.BinaryField):
    """A column of sealed values. Its model has ``account_id`` and a UUID key, both declared before this field.

    For `QuerySet.update`, where there is no instance, ``seal`` makes the value.
    """

    descriptor_class = _SealedAttribute
    if TYPE_CHECKING:
        _pyi_private_set_type: Plaintext | Sealed | Ciphertext | None
        _pyi_private_get_type: Sealed  # type: ignore[assignment]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["editable"] = False
        super().__init__(*args, **kwargs)

    def place_of(self, instance: Any) -> Place:
        """Where this column's value of ``instance`` lives."""
        return self.place(account=instance.account_id, row=instance.pk)

    def place(self, *, account: uuid.UUID, row: uuid.UUID) -> Place:
        """Where this column's value lives in the row ``row`` of ``account``."""
        return Place(account=account, table=self.model._meta.db_table, column=str(self.column), row=row)

    def seal(self, plaintext: Plaintext, *, account: uuid.UUID, row: uuid.UUID) -> Ciphertext:
        """Seal ``plaintext`` for the row ``row`` of ``account``."""
        from secrets_app import data_keys

        return data_keys.seal(plaintext, self.place(account=account, row=row))

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Ciphertext | None:
        return None if value is None else Ciphertext(value)

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        # The last door: whatever comes here by `update` or a bulk call was sealed, or it is not stored.
        if value is not None and not isinstance(value, Ciphertext):
            raise TypeError(f"{self.name} stores sealed values only, not a {type(value).__name__}")
        return super().get_db_prep_value(value, connection, prepared)

    def pre_save(self, model_instance: Any, add: bool) -> Any:
        # By the attribute, which loads a deferred value: saved without it, the column would become null.
        sealed = getattr(model_instance, self.attname)
        return sealed.ciphertext if isinstance(sealed, Sealed) else sealed


def presence_of(*names: str, prefix: str = "") -> dict[str, ExpressionWrapper]:
    """Annotations ``has_<name>``: whether the sealed columns, behind ``prefix``, hold anything. Reads none of them."""
    return {
        f"has_{name}": ExpressionWrapper(Q(**{f"{prefix}{name}__isnull": False}), models.BooleanField())
        for name in names
    }
