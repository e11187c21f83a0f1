"""Valkey as one process speaks to it, where processes share what they know of token hosts: one question at a time, none in vain.

There are counts of calls under way, one hash for each host with a field for each process, which run out if that dies; and one
hash of troubles (``oauth_app.breaker``).
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import redis

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Seconds until Valkey is tried again.
AWAY = 5.0
# Seconds that Valkey has for an answer.
PATIENCE = 0.5
TROUBLES = "kc:troubles"

_ADMIT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local me, cap, ttl = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local granted = {}
for i, key in ipairs(KEYS) do
  local mine, wanted, others = tonumber(ARGV[2 + 2 * i]), tonumber(ARGV[3 + 2 * i]), 0
  local all = redis.call('HGETALL', key)
  for j = 1, #all, 2 do
    local count, ends = string.match(all[j + 1], '^(%d+) (%d+)$')
    if not ends or tonumber(ends) <= now then
      redis.call('HDEL', key, all[j])
    elseif all[j] ~= me then
      others = others + tonumber(count)
    end
  end
  local grant = math.max(0, math.min(wanted, cap - others - mine))
  if mine + grant > 0 then
    redis.call('HSET', key, me, (mine + grant) .. ' ' .. string.format('%.0f', now + ttl))
    redis.call('PEXPIRE', key, ttl)
  else
    redis.call('HDEL', key, me)
  end
  granted[i] = grant
end
return granted
"""
_SWAP = """
local known = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if known ~= ARGV[2] then return 0 end
if ARGV[3] == '' then redis.call('HDEL', KEYS[1], ARGV[1]) else redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
return 1
"""


class Valkey:
    """What is asked of Valkey. Everything but ``ask`` raises what its client raises, and belongs into a question."""

    def __init__(self, url: str) -> None:
        self._me = uuid.uuid4().hex
        # One question at a time: a process whose threads all wait for a Valkey that hangs would wait for each of them in turn.
        self._lock = threading.Lock()
        self._away_until = float("-inf")
        self._is_away = False
        self.outages = 0
        """How many times it has been found away."""
        self._redis = redis.Redis.from_url(
            url, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE, decode_responses=True
        )
        self._admit = self._redis.register_script(_ADMIT)
        self._swap = self._redis.register_script(_SWAP)

    def ask(self, question: Callable[[], T]) -> T | None:
        """The answer to ``question``; ``None`` while Valkey is away, which is noticed once and tried again after a while."""
        with self._lock:
            if time.monotonic() < self._away_until:
                return None
            try:
                answer = question()
            except (redis.RedisError, OSError, ValueError) as err:
                # ValueError: what somebody else wrote there is no text.
                self._away_until = time.monotonic() + AWAY
                if not self._is_away:
                    self._is_away = True
                    self.outages += 1
                    logger.warning(
                        "Valkey is away (%s): limits of token hosts are kept by each process", type(err).__name__
                    )
                return None
            if self._is_away:
                self._is_away = False
                logger.warning("Valkey is back: limits of token hosts are shared again")
            return answer

    def admit(self, calls: Mapping[str, tuple[int, int]], *, cap: int, seconds: float) -> dict[str, int]:
        """Tell by host how many calls are under way here, ask for so many more, and get as many as ``cap`` leaves.

        What was told and granted counts for so many ``seconds``, or until it is told again.
        """
        arguments: list[Any] = [self._me, cap, int(seconds * 1000)]
        for under_way, wanted in calls.values():
            arguments += [under_way, wanted]
        granted = self._admit(keys=[f"kc:calls:{host}" for host in calls], args=arguments) if calls else []
        return {host: int(number) for host, number in zip(calls, granted, strict=True)}

    def trouble(self, key: str) -> tuple[float, str]:
        """The time there, and the trouble of ``key``; an empty text for none."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hget(TROUBLES, key)
            (seconds, micros), text = pipe.execute()
        return seconds + micros / 1e6, text or ""

    def troubles(self) -> tuple[float, dict[str, str]]:
        """The time there, and all troubles."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hgetall(TROUBLES)
            (seconds, micros), texts = pipe.execute()
        return seconds + micros / 1e6, texts

    def swap(self, key: str, before: str, after: str) -> bool:
        """Put ``after`` in the place of the trouble ``before``, if that is still there; an empty text is none."""
        return bool(self._swap(keys=[TROUBLES], args=[key, before, after]))

    def drop_troubles(self) -> None:
        self._redis.delete(TROUBLES)
