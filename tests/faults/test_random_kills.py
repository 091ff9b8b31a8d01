"""The gateway is killed with `kill -9` at random moments, again and again, and restarted on what it left.

`test_kill.py` kills at each door, once a story; here nobody chooses where, and one story is
killed many times: in the upload, in the erasure and its re-wrapping, in the sweeper that runs all
the while, and in the search before the certificate; every second story is that of a request
that is no erasure, from its opening over its extension to its answer.

    make test-faults            1,000 kills
    make test-faults N=50       as many as one likes; LETHE_SEED repeats a run's moments
    make test-faults LETHE_PLACE=bucket    on PostgreSQL and S3 instead of SQLite and files
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
import sys
import time
from pathlib import Path

from gateway.adapters.keys_local import LocalKeyring
from gateway.ports.records import Dsr, StoredObject, SubjectKey
from tests.faults.story import (
    PATIENCE_S,
    PLACE,
    SUBJECT,
    House,
    RequestStory,
    Story,
    copied,
    prepared,
    until_dead,
    zygote,
)
from tests.faults.test_kill import check_answered, check_corpse, check_end, check_others
from tests.places import running_parts

KILLS = int(os.environ.get("LETHE_KILLS", "4"))
"""How many kills; a run of all tests has a few."""

SEED = int(os.environ.get("LETHE_SEED", "0")) or secrets.randbits(32)
A_STORY = 8
"""Kills in one story; what is left of it is told to its end."""

REACHES_S = (0.1, 0.5, 2.5)
"""How far off a kill is at most: a whole story takes about the last, what is left of a broken one less."""
A_REQUEST, ITS_REACHES_S = 4, (0.1, 0.5)
"""Likewise in the story of a request, which is sooner over."""


async def test_no_kill_at_a_random_moment_loses_or_leaves_anything(tmp_path: Path) -> None:
    """No live object lost, no erased one readable, no effect without its leaf, no step done twice."""
    chance, begun, kills, stories = random.Random(SEED), time.monotonic(), 0, 0
    with running_parts(PLACE) as parts, zygote() as forks:
        template = await asyncio.to_thread(prepared, tmp_path / "template", forks, parts)
        while kills < KILLS:
            left = await copied(template, tmp_path / f"story-{stories}")
            try:
                story = Story(left) if stories % 2 else RequestStory(left)
                most = min(A_STORY if stories % 2 else A_REQUEST, max(1, KILLS // 2), KILLS - kills)
                kills += await tell_to_the_killed(left, story, chance, most)
            except BaseException:
                _say(f"violated after {kills} kills in {stories} stories, LETHE_SEED={SEED}")
                raise
            stories += 1
            await left.place.remove()
            _say(f"{kills} of {KILLS} kills, {stories} stories, {time.monotonic() - begun:.0f} s")
    _say(f"0 violations: {kills} kills in {stories} stories, LETHE_SEED={SEED}")
    assert kills >= KILLS


async def tell_to_the_killed(left: House, story: Story, chance: random.Random, kills: int) -> int:
    """Tell a story to gateways that are killed, looking at each corpse, then to its end; return the kills."""
    left.place.configure("jobs", attempts=100)  # else the job, and not the gateway, gives up
    reaches, done = ITS_REACHES_S if isinstance(story, RequestStory) else REACHES_S, 0
    while done < kills:
        async with left.open():
            telling = asyncio.create_task(story.tell())
            await asyncio.wait({telling}, timeout=chance.uniform(0, chance.choice(reaches)))
            if telling.done():
                telling.result()
                break
            os.kill(left.pid, signal.SIGKILL)
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            await until_dead(left.pid)
        done += 1
        await check_corpse(left)
        await check_unreadable(left)
        left.age_bytes()
    async with left.open(), asyncio.timeout(PATIENCE_S * 2):
        await story.tell()
        if isinstance(story, RequestStory):
            await check_answered(left)
            return done
        await check_others(left)
        await left.swept()
    await check_end(left, story)
    return done


async def check_unreadable(left: House) -> None:
    """INVARIANT: once the destroying commit is counted, no key and no object of the subject opens again."""
    rows = await left.rows()
    handle = (await LocalKeyring(left.layout.keys).mac("demo", "handle", SUBJECT.encode())).hex()
    if any(dsr.step >= 2 for dsr in rows[Dsr]):
        assert [
            row for kind in (StoredObject, SubjectKey) for row in rows[kind] if row.handle == handle
        ] == []


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
