"""The reference stack's task store against a real redis: what no timing of the stack can be made
to hit, such as a worker that comes back from the dead with an answer.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from deploy.stacks.ai.tasks import DELAYED, GROUP, QUEUE, Task, TaskStore
from tests.lab import images
from tests.lab.engine import docker
from tests.lab.fixtures import Lab
from tests.lab.paths import HOME_LABEL, LABEL, PREFIX, PROJECT

EMPTY = {"waiting": 0, "running": 0, "delayed": 0}
MOMENT = 0.005


@pytest.fixture(scope="module")
def redis_url(lab: Lab) -> Iterator[str]:
    """A redis of its own, in a container of the outer engine."""
    image = images.build(["lab/redis:7"])["lab/redis:7"]
    name = f"{PREFIX}-tasks-{os.getpid()}"
    labels = ("--label", LABEL, "--label", f"{HOME_LABEL}={PROJECT}")
    docker("run", "-d", "--name", name, *labels, "-p", "127.0.0.1::6379", image)
    try:
        port = docker("port", name, "6379/tcp").splitlines()[0].rpartition(":")[2]
        ping = ["docker", "exec", name, "sh", "-c", "until redis-cli ping; do sleep 0.1; done"]
        subprocess.run(ping, check=True, timeout=30, capture_output=True)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        docker("rm", "-f", name)


@asynccontextmanager
async def emptied(url: str) -> AsyncIterator[Redis]:
    redis = Redis.from_url(url, decode_responses=True)
    try:
        await redis.flushall()
        yield redis
    finally:
        await redis.aclose()


def run(url: str, scene: Callable[[Redis], Awaitable[None]]) -> None:
    """Play a scene on an empty redis."""

    async def playing() -> None:
        async with emptied(url) as redis:
            await scene(redis)

    asyncio.run(playing())


async def taken(store: TaskStore, consumer: str) -> Task:
    """The next task; the group of an empty redis is made by the first look."""
    for _ in range(3):
        task = await store.take(consumer, wait=0.01)
        if task is not None:
            return task
    raise AssertionError("nothing to take")


async def state(store: TaskStore, task: Task) -> str:
    fields = await store.get(task.key.removeprefix("task:"))
    assert fields is not None
    return fields["state"]


def test_the_first_answer_stands(redis_url: str) -> None:
    async def scene(redis: Redis) -> None:
        store = TaskStore(redis, lease=MOMENT)
        await store.submit("x")
        slow = await taken(store, "slow")
        await asyncio.sleep(MOMENT * 2)
        quick = await taken(store, "quick")
        assert (quick.key, quick.attempt, quick.entry) == (slow.key, 2, slow.entry)
        assert not await store.renew(slow)
        assert await store.renew(quick)
        # Who lost the lease can neither fail nor delay it for the other, but may have the answer.
        assert not await store.fail(slow, "late")
        assert not await store.delay(slow, "late", 0)
        assert not await store.release(slow)
        assert await state(store, quick) == "running"
        assert await store.finish(slow, "first", {})
        assert not await store.finish(quick, "second", {})
        assert not await store.delay(quick, "late", 0)
        found = await redis.hgetall(slow.key)
        assert (found["state"], found["answer"]) == ("done", "first")
        assert (await store.read_health())["totals"] == {"done": 1, "failed": 0}
        assert (await store.read_health())["queue"] == EMPTY

    run(redis_url, scene)


def test_an_answer_that_overtakes_the_next_attempt(redis_url: str) -> None:
    async def scene(redis: Redis) -> None:
        store = TaskStore(redis, lease=MOMENT)
        await store.submit("x")
        slow = await taken(store, "slow")
        await asyncio.sleep(MOMENT * 2)
        assert await store.delay(await taken(store, "quick"), "away", 0)
        assert await store.finish(slow, "late but there", {})
        # Its next turn comes, and is none.
        assert await store.take("quick", wait=0.01) is None
        assert await state(store, slow) == "done"
        assert (await store.read_health())["queue"] == EMPTY

    run(redis_url, scene)


def test_a_restarted_worker_goes_on_at_once_with_what_it_held(redis_url: str) -> None:
    async def scene(redis: Redis) -> None:
        store = TaskStore(redis, lease=3600)
        await store.submit("first")
        held = await taken(store, "worker")
        await store.submit("second")
        again = await taken(store, "worker")
        assert (again.key, again.attempt, again.prompt) == (held.key, 2, "first")
        assert (await taken(store, "other")).prompt == "second"

    run(redis_url, scene)


def test_a_prompt_that_kills_its_workers_comes_to_an_end(redis_url: str) -> None:
    async def scene(redis: Redis) -> None:
        store = TaskStore(redis, max_attempts=2)
        await store.submit("poison")
        task = await taken(store, "worker")
        await taken(store, "worker")
        assert await store.take("worker", wait=0.01) is None
        found = await redis.hgetall(task.key)
        assert found["state"] == "failed"
        assert found["error"] == (
            "given up after 2 attempts: the worker ended while it was at this task"
        )
        assert (await store.read_health())["queue"] == EMPTY

    run(redis_url, scene)


def test_a_delayed_task_waits_for_its_time(redis_url: str) -> None:
    async def scene(redis: Redis) -> None:
        store = TaskStore(redis)
        await store.submit("x")
        assert await store.delay(await taken(store, "worker"), "away", 2)
        assert await store.take("worker", wait=0.01) is None
        assert (await store.read_health())["queue"] == {**EMPTY, "delayed": 1}
        await asyncio.sleep(2.1)
        assert (await taken(store, "worker")).attempt == 2
        assert await redis.zcard(DELAYED) == 0

    run(redis_url, scene)


def test_what_is_finished_is_kept_for_a_while_and_what_is_not_for_ever(redis_url: str) -> None:
    async def scene(redis: Redis) -> None:
        store = TaskStore(redis, keep=100)
        for prompt in ("done", "failed", "delayed", "released"):
            await store.submit(prompt)
        tasks = [await taken(store, f"worker/{number}") for number in range(4)]
        assert await store.finish(tasks[0], "", {})
        assert await store.fail(tasks[1], "no")
        assert await store.delay(tasks[2], "later", 60)
        assert await store.release(tasks[3])
        kept = [await redis.ttl(task.key) for task in tasks]
        assert [90 < seconds <= 100 for seconds in kept] == [True, True, False, False]
        assert kept[2:] == [-1, -1]

    run(redis_url, scene)


def test_a_consumer_is_forgotten_only_with_empty_hands(redis_url: str) -> None:
    async def scene(redis: Redis) -> None:
        store = TaskStore(redis)
        await store.submit("x")
        task = await taken(store, "worker")
        assert not await store.retire("worker")
        assert await store.finish(task, "", {})
        assert await store.retire("worker")
        assert await redis.xinfo_consumers(QUEUE, GROUP) == []

    run(redis_url, scene)


def test_a_full_redis_refuses_new_tasks_and_nothing_else(redis_url: str) -> None:
    async def scene(redis: Redis) -> None:
        store = TaskStore(redis)
        for prompt in ("done", "failed", "delayed", "released"):
            await store.submit(prompt)
        assert await store.delay(await taken(store, "worker"), "first things first", 0)
        await redis.config_set("maxmemory", 1)
        try:
            with pytest.raises(OutOfMemoryError):
                await store.submit("too much")
            tasks = [await taken(store, f"worker/{number}") for number in range(4)]
            assert await store.renew(tasks[0])
            assert await store.finish(tasks[0], "answer", {})
            assert await store.fail(tasks[1], "no")
            assert await store.delay(tasks[2], "away", 0)
            assert await store.release(tasks[3])
            for _ in range(2):
                assert await store.finish(await taken(store, "worker"), "answer", {})
            health = await store.read_health()
            assert (health["queue"], health["totals"]) == (EMPTY, {"done": 3, "failed": 1})
        finally:
            await redis.config_set("maxmemory", 0)

    run(redis_url, scene)


def test_redis_emptied_under_a_worker(redis_url: str) -> None:
    async def scene(redis: Redis) -> None:
        store = TaskStore(redis)
        await store.submit("gone")
        task = await taken(store, "worker")
        await redis.flushall()
        assert not await store.finish(task, "nobody asks", {})
        assert await redis.exists(task.key) == 0
        await store.submit("new")
        assert (await taken(store, "worker")).prompt == "new"

    run(redis_url, scene)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_every_task_ends_once(redis_url: str, seed: int) -> None:
    """Workers take, renew, finish, fail, delay, release, die and rise, in any order."""

    async def scene(redis: Redis) -> None:
        store = TaskStore(redis, lease=MOMENT, max_attempts=1000)
        dice = random.Random(seed)
        ids = [await store.submit(str(number)) for number in range(20)]
        held: list[Task] = []
        final: dict[str, dict[str, str]] = {}
        for step in range(300):
            acted = dice.choice(held) if held else None
            match dice.randrange(9):
                case 0 | 1 | 2:
                    if task := await store.take(f"worker/{dice.randrange(3)}", wait=0.001):
                        held.append(task)  # whoever held it before is a ghost now, and acts on
                case 3 if acted:
                    await store.finish(acted, f"answer of step {step}", {})
                case 4 if acted:
                    await store.fail(acted, f"failed in step {step}")
                case 5 if acted:
                    await store.delay(acted, "away", dice.choice((0, MOMENT)))
                case 6 if acted:
                    await store.release(acted)
                case 7 if acted:
                    await store.renew(acted)
                case 8:
                    await asyncio.sleep(MOMENT)
            for task_id in ids:
                fields = await store.get(task_id)
                assert fields is not None
                if task_id in final:
                    assert fields == final[task_id]
                elif fields["state"] in ("done", "failed"):
                    final[task_id] = fields

        # In the end one worker, which lives.
        await asyncio.sleep(MOMENT * 2)
        for _ in range(200):
            if task := await store.take("last", wait=0.001):
                await store.finish(task, "answer of the last", {})
            health = await store.read_health()
            if health["queue"] == EMPTY:
                break
        assert health["queue"] == EMPTY
        assert sum(health["totals"].values()) == len(ids)
        states = [(await store.get(task_id) or {})["state"] for task_id in ids]
        assert {name: states.count(name) for name in ("done", "failed")} == health["totals"]

    run(redis_url, scene)


def test_health_counts_each_task_once(redis_url: str) -> None:
    """What ends while it is asked is in the queue or in the totals, never in both."""

    async def scene(redis: Redis) -> None:
        store = TaskStore(redis)
        number = 200
        for count in range(number):
            await store.submit(str(count))

        async def work() -> None:
            for _ in range(number):
                await store.finish(await taken(store, "worker"), "answer", {})

        looks = 0
        async with asyncio.TaskGroup() as group:
            working = group.create_task(work())
            while not working.done():
                health = await store.read_health()
                assert sum(health["queue"].values()) + health["totals"]["done"] == number
                looks += 1
        assert looks > 10

    run(redis_url, scene)
