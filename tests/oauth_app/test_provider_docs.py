"""The page about the providers says what the presets say."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from django.core.management import call_command

from oauth_app.providers import CUSTOM, PROVIDERS

PAGE = Path(__file__).parent.parent.parent / "docs" / "providers.md"


def test_the_page_is_what_the_presets_say():
    written = StringIO()
    call_command("provider_docs", stdout=written)
    assert PAGE.read_text() == written.getvalue(), "run: python manage.py provider_docs > docs/providers.md"


def test_every_provider_has_its_section():
    page = PAGE.read_text()
    assert [name for name in PROVIDERS if f'<a id="{name}"></a>' not in page] == [CUSTOM]
