"""Whatever backends become after an upload, no picture goes where its person's laws do not let it.

Stories are drawn from a seed: backends move, lose or gain safeguards, begin to keep or to train, vanish and
come back, while people of several countries upload and workers work.  What each backend was sent is held
against a table of places that this file has from the law, not from the packs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.errors import LetheError
from gateway.ports.inference import BackendFacts, Progress, Result, Safeguards
from gateway.ports.records import Job
from tests.fakes.inference import FACTS, FakeInference
from tests.world import APP, PORTRAIT, World, chunks, order

STORIES = int(os.environ.get("LETHE_RESIDENCY_STORIES", "15"))
NAMES = ("one", "two", "three")
REGIONS = ("local", "DE", "FR", "JP", "US", "IN")
PEOPLE = {"ann": "DE", "bob": "US-CA", "cai": "CA-ON", "dee": "CN"}
SAFEGUARDS = (
    Safeguards(),
    Safeguards(mechanism="SCC"),
    Safeguards(dpf_listed=True),
    Safeguards(written_agreement=True),
    Safeguards(comparable_protection_contract=True),
)


def from_the_eu(to: BackendFacts) -> bool:
    """GDPR Art. 44-46: the Union, adequate places (Art. 45), listed recipients there, or standard clauses."""
    return (
        to.region in {"DE", "FR", "JP"}
        or (to.region == "US" and to.safeguards.dpf_listed)
        or to.safeguards.mechanism == "SCC"
    )


def from_california(to: BackendFacts) -> bool:
    """Cal. Civ. Code 1798.100(d): a contract with the service provider, wherever it is."""
    return to.safeguards.written_agreement or to.safeguards.comparable_protection_contract


def from_ontario(to: BackendFacts) -> bool:
    """PIPEDA Sch. 1 cl. 4.1.3: comparable protection by contract."""
    return to.safeguards.written_agreement or to.safeguards.comparable_protection_contract


def from_where_no_pack_reaches(_to: BackendFacts) -> bool:
    """Nobody here consented to a transfer."""
    return False


LAWS: dict[str, Callable[[BackendFacts], bool]] = {
    "ann": from_the_eu,
    "bob": from_california,
    "cai": from_ontario,
    "dee": from_where_no_pack_reaches,
}


class Witness(FakeInference):
    """Notes what held of it at the moment at which it was sent a picture."""

    def __init__(self, facts: BackendFacts) -> None:
        super().__init__(facts)
        self.received: list[tuple[str, BackendFacts]] = []

    def generate(self, job_pseudonym: str, *order: Any, **more: Any) -> AsyncGenerator[Progress | Result]:
        self.received.append((job_pseudonym, self.facts))
        return super().generate(job_pseudonym, *order, **more)


@dataclass
class Story:
    """One world with three backends, and chance."""

    chance: random.Random
    world: World = field(default_factory=World)
    backends: dict[str, Witness] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)

    async def begin(self) -> None:
        self.backends = {name: Witness(replace(FACTS, name=name)) for name in NAMES}
        self.world.outside = replace(self.world.outside, backends=self.backends)
        self.world.flows = self.world.process()
        self.world.flows.backends.known.clear()
        await self.world.publish("generate")
        for person, residence in PEOPLE.items():
            await self.world.know(person, residence)
            await self.world.consent(person)
        for name in NAMES:
            await self.change(name)

    async def change(self, name: str) -> None:
        """Let a backend become another, or vanish; the gateway finds that out when it looks."""
        pick = self.chance.choice
        is_contracted = pick((True, True, False))
        facts = replace(
            FACTS,
            name=name,
            region=pick(REGIONS),
            safeguards=pick(SAFEGUARDS) if is_contracted else Safeguards(),
            is_contracted=is_contracted,
            retention_s=pick((0, 0, 0, 60)),
            output_retention_s=pick((0, 0, 0, 60)),
            trains_on_inputs=pick((False, False, False, True)),
            supports_forget=pick((True, True, False)),
        )
        self.backends[name].facts = facts
        self.world.flows.backends.known[name] = facts
        if pick((False, False, False, True)):
            del self.world.flows.backends.known[name]

    async def upload(self) -> None:
        person = self.chance.choice(list(PEOPLE))
        hint = self.chance.choice(("", f"backends/{self.chance.choice(NAMES)}"))
        try:
            made = await self.world.flows.upload.run(APP, order(person, backend_hint=hint), chunks(PORTRAIT))
        except LetheError as refusal:
            self.refused.add(refusal.code)
        else:
            self.owners[made.job.backend_job] = person

    async def tell(self) -> None:
        await self.begin()
        for _ in range(30):
            step = self.chance.choice(("upload", "upload", "change", "change", "work"))
            if step == "upload":
                await self.upload()
            elif step == "change":
                await self.change(self.chance.choice(NAMES))
            else:
                with contextlib.suppress(LetheError):
                    await self.world.work()
        await self.world.work()


def told(seed: int) -> Story:
    story = Story(random.Random(seed))
    asyncio.run(story.tell())
    return story


def test_no_picture_goes_where_its_persons_laws_do_not_let_it_nor_where_it_would_stay() -> None:
    """GDPR Art. 28(3), 44: checked on the chosen target at dispatch; never a silent fallback."""
    gone: dict[str, int] = dict.fromkeys(PEOPLE, 0)
    refused: set[str] = set()
    ended: set[str] = set()
    for seed in range(STORIES):
        story = told(seed)
        for backend in story.backends.values():
            for pseudonym, facts in backend.received:
                person = story.owners[pseudonym]
                assert facts.region == "local" or LAWS[person](facts), (seed, person, facts)
                assert not facts.trains_on_inputs, seed
                assert facts.retention_s == facts.output_retention_s == 0, seed
                assert facts.supports_forget or facts.is_contracted, seed
                gone[person] += facts.region != "local"
        refused |= story.refused
        ended |= {job.reason for job in story.world.records.all(Job)}
    # The stories tell of both: pictures that went abroad, and those that stayed.
    assert gone["dee"] == 0
    assert all(gone[person] for person in ("ann", "bob", "cai")), gone
    assert {"RESIDENCY_NO_TARGET", "BACKEND_RETENTION_TOO_LONG"} <= refused, refused
    assert {"RESIDENCY_NO_TARGET", "BACKEND_RETENTION_TOO_LONG"} <= ended, ended
