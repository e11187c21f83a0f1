"""What a browser makes of an answer: a page with its title, text, links and forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from html.parser import HTMLParser
from http.client import HTTPMessage
from urllib.parse import urldefrag, urljoin


@dataclass
class Control:
    """One element of a form that sends a value."""

    kind: str
    name: str
    value: str
    checked: bool = False


@dataclass
class Form:
    name: str
    """Its `id`, or its `name`."""
    action: str
    """An absolute URL."""
    method: str
    enctype: str
    controls: list[Control] = field(default_factory=list)

    @property
    def names(self) -> set[str]:
        """The fields that a person, or the page itself, has filled in or could."""
        return {control.name for control in self.controls if control.kind != "submit"}

    def filled(self, values: Mapping[str, str | bool], *, click: str | None = None) -> list[tuple[str, str]]:
        """What is sent when these values are entered and a button is pressed: the named one, or else the first.

        A boolean ticks or clears a check box. Raises `LookupError` for a field or a button that is not there.
        """
        buttons = [control for control in self.controls if control.kind == "submit"]
        if click is not None:
            buttons = [button for button in buttons if click in (button.name, button.value)]
        if missing := (set(values) - self.names) | ({click} if click is not None and not buttons else set()):
            raise LookupError(f"The form has no {', '.join(sorted(missing))}")
        pressed = buttons[0] if buttons else None
        sent = []
        for control in self.controls:
            if control.kind == "submit":
                is_sent, value = control is pressed and bool(control.name), control.value
            else:
                is_sent, value = _entered(control, values.get(control.name))
            if is_sent:
                sent.append((control.name, value))
        return sent


def _entered(control: Control, given: str | bool | None) -> tuple[bool, str]:
    match control.kind, given:
        case (("checkbox" | "radio"), None):
            return control.checked, control.value
        case (("checkbox" | "radio"), bool()):
            return given, control.value
        case (("checkbox" | "radio"), str()):
            return control.value == given, control.value
        case _:
            return True, control.value if given is None else str(given)


@dataclass(frozen=True)
class Page:
    """An answer, as it stands when the last redirect was followed."""

    status: int
    url: str
    """What the address bar shows, fragment and all."""
    headers: HTTPMessage
    """Looked up in any case; `get_all` for those that repeat."""
    body: bytes

    @cached_property
    def html(self) -> str:
        return self.body.decode(self.headers.get_content_charset() or "utf-8", "replace")

    @property
    def text(self) -> str:
        """What a person reads: no markup, and white space as one space."""
        return " ".join(" ".join(self._reader.text).split())

    @property
    def title(self) -> str:
        return " ".join("".join(self._reader.title).split())

    @property
    def forms(self) -> list[Form]:
        return self._reader.forms

    @property
    def links(self) -> list[tuple[str, str]]:
        """Text and absolute URL of each link."""
        return [(" ".join("".join(text).split()), url) for text, url in self._reader.links]

    @cached_property
    def _reader(self) -> _Reader:
        reader = _Reader(self.url)
        if self.headers.get_content_type() == "text/html":
            reader.feed(self.html)
            reader.close()
        else:
            reader.text.append(self.html)
        return reader

    def form(self, which: int | str = 0) -> Form:
        """A form by its position, or by its `id` or `name`; raises `LookupError`."""
        if isinstance(which, int):
            return self.forms[which]
        for form in self.forms:
            if form.name == which:
                return form
        raise LookupError(f"No form {which!r} among {[form.name for form in self.forms]}")

    def link(self, text: str) -> str:
        """The URL of the link with this text; raises `LookupError`."""
        for label, url in self.links:
            if label == text:
                return url
        raise LookupError(f"No link {text!r} among {[label for label, _ in self.links]}")


@dataclass
class _Option:
    value: str | None
    is_selected: bool
    text: str = ""
    """Stands in where there is no value."""


@dataclass
class _Select:
    name: str
    takes_many: bool
    options: list[_Option] = field(default_factory=list)

    def chosen(self) -> list[_Option]:
        selected = [option for option in self.options if option.is_selected]
        return selected if self.takes_many else (selected or self.options)[:1]


class _Reader(HTMLParser):
    """Collects while it parses; only what people see counts as text."""

    def __init__(self, url: str) -> None:
        super().__init__(convert_charrefs=True)
        self.base = url
        self.text: list[str] = []
        self.title: list[str] = []
        self.links: list[tuple[list[str], str]] = []
        self.forms: list[Form] = []
        self._form: Form | None = None
        self._select: _Select | None = None
        self._open: list[str] = []
        """The elements that data now belongs to, of those that matter here."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        match tag:
            case "title" | "script" | "style" | "template":
                self._open.append(tag)
            case "base" if "href" in given:
                self.base = urljoin(self.base, given["href"])
            case "a" if "href" in given:
                self.links.append(([], urljoin(self.base, given["href"])))
                self._open.append(tag)
            case "form":
                self._form = Form(
                    name=given.get("id") or given.get("name", ""),
                    action=urljoin(urldefrag(self.base).url, given.get("action", "")),
                    method=given.get("method", "get").upper(),
                    enctype=given.get("enctype", "application/x-www-form-urlencoded"),
                )
                self.forms.append(self._form)
            case _ if self._form is not None and "disabled" not in given:
                self._control(tag, given)

    def _control(self, tag: str, given: dict[str, str]) -> None:
        name = given.get("name", "")
        match tag, given.get("type", "").lower():
            case "input", ("submit" | "image"):
                self._add("submit", name, given.get("value", "Submit"))
            case "input", ("checkbox" | "radio") as kind if name:
                self._add(kind, name, given.get("value", "on"), checked="checked" in given)
            case "input", ("button" | "reset" | "file"):
                pass
            case "input", kind if name:
                self._add(kind or "text", name, given.get("value", ""))
            case "button", ("submit" | ""):
                self._add("submit", name, given.get("value", ""))
            case "textarea", _ if name:
                self._add("textarea", name, "")
                self._open.append(tag)
            case "select", _ if name:
                self._select = _Select(name, takes_many="multiple" in given)
            case "option", _ if self._select is not None:
                self._select.options.append(_Option(given.get("value"), is_selected="selected" in given))

    def _add(self, kind: str, name: str, value: str, *, checked: bool = False) -> None:
        self._form.controls.append(Control(kind, name, value, checked))

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()
        elif tag == "select" and self._select is not None:
            for option in self._select.chosen():
                self._add("select", self._select.name, option.text.strip() if option.value is None else option.value)
            self._select = None
        elif tag == "form":
            self._form = None

    def handle_data(self, data: str) -> None:
        match self._open[-1:]:
            case ["title"]:
                self.title.append(data)
                return
            case ["script"] | ["style"] | ["template"]:
                return
            case ["textarea"]:
                # The line break right after the tag is not part of the value.
                control = self._form.controls[-1]
                control.value += data.removeprefix("\n") if not control.value else data
            case ["a"]:
                self.links[-1][0].append(data)
        if self._select is not None and self._select.options:
            self._select.options[-1].text += data
        self.text.append(data)
