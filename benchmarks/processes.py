"""What processes cost: CPU and memory as `/proc` tells them. Where there is none (not Linux), nothing is known: ``None``."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

_PROC = Path("/proc")


def cpu_seconds(pid: int) -> float | None:
    """The CPU time of a process with all its threads, in user and kernel."""
    fields = _stat(pid)
    return None if fields is None else _seconds(fields[11:13])


def tree_cpu_seconds(pid: int) -> float | None:
    """The CPU time of a process, of its children, and of those that have ended: a child's passes on when it is waited for."""
    fields = _stat(pid)
    if fields is None:
        return None
    return _seconds(fields[11:15]) + sum(cpu_seconds(child) or 0.0 for child in _children(pid))


def parent_of(pid: int) -> int | None:
    fields = _stat(pid)
    return None if fields is None else int(fields[1])


def memory_mb(pid: int) -> tuple[float, float] | None:
    """Resident and proportional memory of a process in MB: the latter counts what several share in parts (proc(5))."""
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    kilobytes = {name: value.split()[0] for name, _, value in (line.partition(":") for line in lines[1:])}
    return int(kilobytes["Rss"]) * 1024 / 1e6, int(kilobytes["Pss"]) * 1024 / 1e6


def is_connected(pid: int, ports: Collection[int]) -> bool:
    """Whether a process has a TCP connection to one of these ports; True where nothing is known."""
    try:
        links = [os.readlink(link) for link in (_PROC / str(pid) / "fd").iterdir()]
        table = [line.split() for line in (_PROC / str(pid) / "net" / "tcp").read_text().splitlines()[1:]]
    except OSError:
        return not _PROC.joinpath("self").exists()
    # The remote address with its port in hexadecimal is the third field, the socket's inode the tenth.
    sockets = {f"socket:[{fields[9]}]" for fields in table if int(fields[2].rpartition(":")[2], 16) in ports}
    return not sockets.isdisjoint(links)


def total(seconds: Iterable[float | None]) -> float | None:
    """The sum, if every part of it is known."""
    parts = list(seconds)
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _children(pid: int) -> Iterator[int]:
    for entry in _PROC.glob("[0-9]*"):
        if parent_of(int(entry.name)) == pid:
            yield int(entry.name)


def _stat(pid: int) -> list[str] | None:
    """The fields of `/proc/PID/stat` from the third on (state, parent, …): those before hold a name in brackets."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _seconds(ticks: Iterable[str]) -> float:
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
