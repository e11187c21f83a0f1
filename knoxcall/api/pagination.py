"""Paging and sorting of lists: `page`, `per_page`, `sort`, `order`, the same in every list."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from knoxcall.api.envelope import success
from knoxcall.api.errors import invalid

DEFAULT_PER_PAGE = 20
MAX_PER_PAGE = 100


def paged(
    request: Request,
    queryset: QuerySet,
    *,
    row: Callable[[Any], Mapping[str, Any]],
    sorts: Mapping[str, str],
    default_sort: str,
    default_order: str = "asc",
) -> Response:
    """Answer with one page of ``queryset``, each object rendered by ``row``: one statement to count, those of the page itself.

    ``sorts`` maps the public names to columns. Rows that tie are ordered by id, so that no page repeats or skips one.
    A page past the end is empty. Raises ``ValidationFailed`` for an unknown sort or order, or a number that is none.
    """
    page = whole_number(request, "page", default=1, lowest=1)
    per_page = min(whole_number(request, "per_page", default=DEFAULT_PER_PAGE, lowest=1), MAX_PER_PAGE)
    column = sorts[one_of(request, "sort", sorts.keys(), default=default_sort)]
    descending = one_of(request, "order", ("asc", "desc"), default=default_order) == "desc"
    total = queryset.count()
    start = (page - 1) * per_page
    rows: Sequence[Any] = ()
    if start < total:
        sign = "-" if descending else ""
        rows = list(queryset.order_by(f"{sign}{column}", f"{sign}pk")[start : start + per_page])
    meta = {"total": total, "page": page, "per_page": per_page, "total_pages": -(-total // per_page)}
    return success([row(item) for item in rows], meta=meta)


def whole_number(request: Request, name: str, *, default: int, lowest: int, highest: int | None = None) -> int:
    """Read a whole number of the query string; raises ``ValidationFailed`` naming it."""
    text = request.query_params.get(name)
    if text is None:
        return default
    # Nine digits are more than any list has; int() would take as long as the text is.
    if not (text.isascii() and text.isdigit() and len(text) <= 9) or int(text) < lowest:
        raise invalid(name, f"Must be a whole number, {lowest} or more.")
    if highest is not None and int(text) > highest:
        raise invalid(name, f"Must be a whole number from {lowest} to {highest}.")
    return int(text)


def one_of(request: Request, name: str, known: Any, *, default: str) -> str:
    """Read one of a closed set of words of the query string; raises ``ValidationFailed`` naming the set."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if text not in known:
        raise invalid(name, f"Must be one of: {', '.join(known)}.")
    return str(text)


def flag(request: Request, name: str) -> bool:
    """Read `true` or `false` of the query string, false where it is absent."""
    return one_of(request, name, ("true", "false"), default="false") == "true"
