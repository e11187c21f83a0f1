"""`.env.example` and docs/operations.md name every variable that is read, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent.parent


def read_by(path: Path) -> set[str]:
    """The names that a module takes from the environment: what it passes first to `env.…`, `os.environ.…` or `_networks`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(ast.Attribute(reader, "str" | "int" | "list" | "get"), [ast.Constant(str(name)), *_]):
                if ast.unparse(reader) in ("env", "os.environ"):
                    found.add(name)
            case ast.Call(ast.Name("_networks"), [ast.Constant(str(name)), *_]):
                found.add(name)
    return found


def read_at_all() -> set[str]:
    modules = read_by(BASE_DIR / "knoxcall" / "settings.py") | read_by(BASE_DIR / "knoxcall" / "house.py")
    procfile = re.findall(r"\$\{([A-Z_]+)", (BASE_DIR / "Procfile").read_text())
    return modules | set(procfile)


def test_settings_are_read_at_all() -> None:
    assert read_at_all() >= {"DATABASE_URL", "REDIS_URL", "KNOXCALL_TRUSTED_PROXIES", "PORT", "KNOXCALL_BIND"}


def test_env_example_names_what_is_read() -> None:
    assert set(re.findall(r"(?m)^# ([A-Z_]+)=", (BASE_DIR / ".env.example").read_text())) == read_at_all()


def test_env_example_sets_nothing() -> None:
    lines = (BASE_DIR / ".env.example").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []


def test_operations_names_what_is_read() -> None:
    table = re.findall(r"(?m)^\| `([A-Z_]+)`", (BASE_DIR / "docs" / "operations.md").read_text())
    assert sorted(table) == sorted(read_at_all())
