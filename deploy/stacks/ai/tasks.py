"""The task store: what api and worker share in redis.

A task is a hash (`task:<id>`); its place in the line is an entry of one stream (`tasks:queue`)
read by one consumer group. Streams rather than `BLMOVE` lists, because the group's pending list
already knows who holds what since when: a dead worker's task is found by its idle time, with no
registry of workers and no reaper to go wrong.

What keeps a task from being lost or answered twice:

- every change of state is one Lua script, so hash and queue cannot disagree;
- an entry leaves the stream only in the script that makes its task final or delays it;
- `begin` counts the attempt and its number fences: a worker that lost its lease can no longer
  delay or fail the task, and `finish` takes the first answer and refuses any later one;
- a redis that is full refuses new tasks and nothing else: every other script begins with a write
  that frees memory, after which redis lets it go to its end.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

QUEUE = "tasks:queue"
DELAYED = "tasks:delayed"
TOTALS = "tasks:totals"
WORKERS = "tasks:workers"
GROUP = "workers"

WORKER_PRESENT_SECONDS = 30.0
"""A worker that has not reported for so long is not counted as present."""

_NOW = """
local t = redis.call('TIME')
local now = tonumber(t[1]) + tonumber(t[2]) / 1000000
local function drop(entry)
  redis.call('XACK', KEYS[2], 'workers', entry)
  redis.call('XDEL', KEYS[2], entry)
end
"""

# A repeat after a lost reply must not queue the task a second time.
_SUBMIT = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'state', 'queued', 'attempts', 0, 'submitted_at', now,
  'prompt', ARGV[1], 'model', ARGV[2])
redis.call('XADD', KEYS[2], '*', 'task', KEYS[1])
return 1
"""

# ARGV: entry, most attempts, seconds to keep. A worker's death is an attempt too: a prompt that
# kills whoever takes it comes to an end here.
_BEGIN = """
local task = redis.call('HMGET', KEYS[1], 'state', 'attempts', 'error', 'prompt', 'model')
if task[1] ~= 'queued' and task[1] ~= 'running' then
  drop(ARGV[1])
  return nil
end
local attempt = tonumber(task[2]) + 1
redis.call('HDEL', KEYS[1], 'next_attempt_at')
if attempt > tonumber(ARGV[2]) then
  local reason = task[3] or 'the worker ended while it was at this task'
  redis.call('HSET', KEYS[1], 'state', 'failed', 'finished_at', now,
    'error', 'given up after ' .. task[2] .. ' attempts: ' .. reason)
  redis.call('HINCRBY', KEYS[3], 'failed', 1)
  redis.call('EXPIRE', KEYS[1], ARGV[3])
  drop(ARGV[1])
  return nil
end
redis.call('HSET', KEYS[1], 'state', 'running', 'attempts', attempt, 'started_at', now)
return {attempt, task[4], task[5]}
"""

# ARGV: entry, seconds to keep, field, value, ...
_FINISH = """
local state = redis.call('HGET', KEYS[1], 'state')
drop(ARGV[1])
if state ~= 'queued' and state ~= 'running' then return 0 end
redis.call('HSET', KEYS[1], 'state', 'done', 'finished_at', now, unpack(ARGV, 3))
redis.call('HDEL', KEYS[1], 'error', 'next_attempt_at')
redis.call('HINCRBY', KEYS[3], 'done', 1)
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
"""

# ARGV: entry, attempt, reason, seconds to keep
_FAIL = """
local task = redis.call('HMGET', KEYS[1], 'state', 'attempts')
if task[1] ~= 'running' or task[2] ~= ARGV[2] then return 0 end
drop(ARGV[1])
redis.call('HSET', KEYS[1], 'state', 'failed', 'finished_at', now, 'error', ARGV[3])
redis.call('HINCRBY', KEYS[3], 'failed', 1)
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
"""

# ARGV: entry, attempt, reason, seconds until the next attempt
_DELAY = """
local task = redis.call('HMGET', KEYS[1], 'state', 'attempts')
if task[1] ~= 'running' or task[2] ~= ARGV[2] then return 0 end
local due = now + tonumber(ARGV[4])
drop(ARGV[1])
redis.call('HSET', KEYS[1], 'state', 'queued', 'error', ARGV[3], 'next_attempt_at', due)
redis.call('ZADD', KEYS[3], due, KEYS[1])
return 1
"""

# ARGV: entry, attempt. The attempt is handed back uncounted: nobody failed.
_RELEASE = """
local task = redis.call('HMGET', KEYS[1], 'state', 'attempts')
if task[1] ~= 'running' or task[2] ~= ARGV[2] then return 0 end
drop(ARGV[1])
redis.call('HSET', KEYS[1], 'state', 'queued', 'attempts', tonumber(task[2]) - 1)
redis.call('XADD', KEYS[2], '*', 'task', KEYS[1])
return 1
"""

_PROMOTE = """
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 100)
for _, task in ipairs(due) do
  redis.call('ZREM', KEYS[1], task)
  redis.call('XADD', KEYS[2], '*', 'task', task)
end
return #due
"""

# ARGV: consumer, entry. Resets the idle time, unless another worker holds the entry by now.
_RENEW = """
local held = redis.call('XPENDING', KEYS[2], 'workers', ARGV[2], ARGV[2], 1, ARGV[1])
if #held == 0 then return 0 end
redis.call('XCLAIM', KEYS[2], 'workers', ARGV[1], 0, ARGV[2], 'JUSTID')
return 1
"""

# ARGV: consumer. Deleting a consumer that holds entries would lose them.
_RETIRE = """
if #redis.call('XPENDING', KEYS[2], 'workers', '-', '+', 1, ARGV[1]) > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[2], 'workers', ARGV[1])
return 1
"""

# One script, so that no task is counted both in the queue and among the finished ones.
_HEALTH = """
local delayed = redis.call('ZCARD', KEYS[1])
local taken = 0
if redis.call('EXISTS', KEYS[2]) == 1 then
  local ok = redis.pcall('XPENDING', KEYS[2], 'workers')
  if not ok.err then taken = ok[1] end
end
local totals = redis.call('HMGET', KEYS[3], 'done', 'failed')
return {redis.call('XLEN', KEYS[2]) - taken, taken, delayed, tonumber(totals[1] or 0),
  tonumber(totals[2] or 0), tostring(now)}
"""


@dataclass(frozen=True, slots=True)
class Task:
    """A task taken from the queue, to be finished, failed, delayed or released.

    :param key: the task's key in redis
    :param entry: its entry in the stream
    :param consumer: who holds it
    :param attempt: the number of this attempt, from 1
    :param prompt: what to ask
    :param model: which model to ask; empty for the worker's own
    """

    key: str
    entry: str
    consumer: str
    attempt: int
    prompt: str
    model: str


class TaskStore:
    """Tasks in redis, with every change of state in one atomic step.

    :param redis: a client with `decode_responses=True`
    :param lease: seconds after which a task whose holder does not `renew` is given to another
    :param max_attempts: how often a task is begun before it is failed
    :param keep: seconds a finished task can still be read

    Every method raises `redis.exceptions.RedisError` when redis cannot be asked.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        lease: float = 15.0,
        max_attempts: int = 20,
        keep: int = 7 * 24 * 3600,
    ) -> None:
        self.redis = redis
        self._lease_ms = int(lease * 1000)
        self._max_attempts = max_attempts
        self._keep = keep
        script = redis.register_script
        self._submit = script(_NOW + _SUBMIT)
        self._begin = script(_NOW + _BEGIN)
        self._finish = script(_NOW + _FINISH)
        self._fail = script(_NOW + _FAIL)
        self._delay = script(_NOW + _DELAY)
        self._release = script(_NOW + _RELEASE)
        self._promote = script(_NOW + _PROMOTE)
        self._renew = script(_RENEW)
        self._retire = script(_RETIRE)
        self._health = script(_NOW + _HEALTH)

    async def submit(self, prompt: str, model: str = "") -> str:
        """Queue a prompt and return the new task's id.

        :param prompt: what to ask
        :param model: which model to ask; empty for the worker's own

        >>> await store.submit("Why is the sky blue?")
        '5f2b8c0e9d7a4163'
        """
        task_id = secrets.token_hex(8)
        await self._submit(keys=[f"task:{task_id}", QUEUE], args=[prompt, model])
        return task_id

    async def get(self, task_id: str) -> dict[str, str] | None:
        """Return the stored fields of a task, or None where there is no such task."""
        fields = await self.redis.hgetall(f"task:{task_id}")
        return cast(dict[str, str], fields) or None

    async def take(self, consumer: str, *, wait: float) -> Task | None:
        """Take the next task, or None when there is none for `wait` seconds.

        First what this consumer held when it died, then what a dead consumer's lease has run out
        on, then the line.

        :param consumer: a name of which only one process works at a time
        :param wait: seconds to wait for a new task
        """
        await self._promote(keys=[DELAYED, QUEUE])
        entry = await self._take_next_entry(consumer, wait)
        if entry is None:
            return None
        entry_id, fields = entry
        key = fields["task"]
        started = await self._begin(
            keys=[key, QUEUE, TOTALS], args=[entry_id, self._max_attempts, self._keep]
        )
        if started is None:
            return None
        attempt, prompt, model = started
        return Task(key, entry_id, consumer, attempt, prompt, model)

    async def finish(self, task: Task, answer: str, timings: Mapping[str, Any]) -> bool:
        """Store the answer; False where the task already had its final state."""
        stored = await self._finish(
            keys=[task.key, QUEUE, TOTALS],
            args=[task.entry, self._keep, "answer", answer, "timings", json.dumps(timings)],
        )
        return bool(stored)

    async def fail(self, task: Task, reason: str) -> bool:
        """Make the task failed for good; False where this attempt is no longer the task's."""
        done = await self._fail(
            keys=[task.key, QUEUE, TOTALS], args=[task.entry, task.attempt, reason, self._keep]
        )
        return bool(done)

    async def delay(self, task: Task, reason: str, seconds: float) -> bool:
        """Put the task off for a later attempt, or fail it where this was the last one.

        :param reason: why this attempt failed; readable on the task
        :param seconds: how long from now the next attempt waits
        """
        if task.attempt >= self._max_attempts:
            return await self.fail(task, f"given up after {task.attempt} attempts: {reason}")
        done = await self._delay(
            keys=[task.key, QUEUE, DELAYED], args=[task.entry, task.attempt, reason, seconds]
        )
        return bool(done)

    async def release(self, task: Task) -> bool:
        """Give the task back to the line without counting the attempt."""
        return bool(await self._release(keys=[task.key, QUEUE], args=[task.entry, task.attempt]))

    async def renew(self, task: Task) -> bool:
        """Extend the lease; False where another worker holds the task by now."""
        return bool(await self._renew(keys=[task.key, QUEUE], args=[task.consumer, task.entry]))

    async def retire(self, consumer: str) -> bool:
        """Forget a consumer that ends in peace; False where it still holds a task."""
        return bool(await self._retire(keys=[DELAYED, QUEUE], args=[consumer]))

    async def report(self, worker: str, knowledge: Mapping[str, Any]) -> None:
        """Leave what a worker knows of itself and its model server, for `health` to show."""
        seconds, micros = await self.redis.time()
        beat = {"seen_at": seconds + micros / 1e6, **knowledge}
        await self.redis.hset(WORKERS, worker, json.dumps(beat))

    async def remove_worker(self, worker: str) -> None:
        """Remove what `report` left."""
        await self.redis.hdel(WORKERS, worker)

    async def read_health(self) -> dict[str, Any]:
        """Return the queue's lengths, the totals and what the workers reported last.

        Reports of workers which have been silent for a day are removed on the way.
        """
        waiting, taken, delayed, done, failed, now = await self._health(
            keys=[DELAYED, QUEUE, TOTALS]
        )
        workers = {}
        for name, text in (await self.redis.hgetall(WORKERS)).items():
            report = json.loads(text)
            age = float(now) - report.pop("seen_at")
            if age > 24 * 3600:
                await self.redis.hdel(WORKERS, name)
            elif age < WORKER_PRESENT_SECONDS:
                workers[name] = {"seen_seconds_ago": round(max(age, 0.0), 1), **report}
        return {
            "queue": {"waiting": waiting, "running": taken, "delayed": delayed},
            "totals": {"done": done, "failed": failed},
            "workers": workers,
        }

    async def _take_next_entry(
        self, consumer: str, wait: float
    ) -> tuple[str, dict[str, str]] | None:
        try:
            found = await self.redis.xreadgroup(GROUP, consumer, {QUEUE: "0"}, count=1)
            entries = _parse_entries(found)
            if not entries:
                claimed = await self.redis.xautoclaim(
                    QUEUE, GROUP, consumer, self._lease_ms, count=1
                )
                entries = claimed[1]
            if not entries:
                found = await self.redis.xreadgroup(
                    GROUP, consumer, {QUEUE: ">"}, count=1, block=int(wait * 1000)
                )
                entries = _parse_entries(found)
        except ResponseError as error:
            # No stream yet, or a redis whose data were removed under us.
            if not str(error).startswith("NOGROUP"):
                raise
            await self._create_group()
            return None
        if not entries:
            return None
        entry, fields = entries[0]
        if not fields:  # trimmed away by somebody's hand: nothing is left to do
            await self.redis.xack(QUEUE, GROUP, entry)
            return None
        return entry, fields

    async def _create_group(self) -> None:
        try:
            await self.redis.xgroup_create(QUEUE, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):  # another worker was first
                raise


def _parse_entries(found: Any) -> list[tuple[str, dict[str, str]]]:
    return found[0][1] if found else []
