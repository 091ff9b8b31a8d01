"""Which marks a result must carry before anybody gets it, and whether it can."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.errors import MarkingUnavailable, PolicyDenied
from gateway.judge import Judge, Verdict
from gateway.ports.marking import Marked, Marker, MarkingFailed, Source

MISSING = "DENY_AI_MARKING_MISSING"


@dataclass(frozen=True, slots=True)
class Demand:
    """The layers that the packs demand, and those of them that the operator has waived."""

    layers: tuple[str, ...] = ()
    waived: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Marks:
    """Asks the packs for the layers of a mark, puts the one that is ours on, and looks whether it is there.

    `elsewhere` are the layers that the operator says the backends put on; `waived` those
    without which the operator lets results go.  Neither may be the manifest.
    """

    judge: Judge
    marker: Marker | None
    elsewhere: frozenset[str] = frozenset()
    waived: frozenset[str] = frozenset()

    def need(self, verdict: Verdict, *, is_marked: bool | None = None) -> Demand:
        """Return what is demanded of a result, once all of it is there.

        Args:
            verdict: What permits the processing; its facts say who is concerned.
            is_marked: Whether the result carries our manifest; None before there is one.

        Raises:
            PolicyDenied: A pack demands a layer that nobody puts on.

        Rule:
            Reg. (EU) 2024/1689 Art. 50(2).
        """
        asked = self.judge.marks(verdict)
        has_manifest = self.marker is not None if is_marked is None else is_marked
        there = self.elsewhere | self.waived | ({"manifest"} if has_manifest else set())
        for duty in asked:
            if duty.about not in there:
                raise PolicyDenied(MISSING, pack=duty.pack, citations=duty.citations)
        layers = tuple(sorted(duty.about for duty in asked))
        return Demand(layers, tuple(layer for layer in layers if layer in self.waived))

    async def put(self, image: bytes, image_type: str, source: Source) -> Marked | None:
        """Return the picture marked, or None where no signer is configured.

        Raises:
            MarkingUnavailable: The signer fails; an unmarked result is not kept instead.
        """
        if self.marker is None:
            return None
        try:
            return await self.marker.mark(image, image_type, source)
        except MarkingFailed as error:
            raise MarkingUnavailable from error

    async def found(self, image: bytes, image_type: str) -> bool:
        """Return whether the picture carries a mark of ours that is believed today."""
        return self.marker is not None and await self.marker.is_marked(image, image_type)
