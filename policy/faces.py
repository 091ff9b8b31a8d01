"""What is done about the faces in a picture: its purpose says that, and nobody else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from policy.terms import Purpose

NOT_SERVED = "purpose_not_served"
"""Why a pairing is refused: for this purpose no picture is made at all."""
WRONG_PROFILE = "profile_not_for_purpose"
"""Why a pairing is refused: what is asked for does less than the purpose asks for, or takes what it needs."""


@dataclass(frozen=True, slots=True)
class Treatment:
    """What may be done about faces for a purpose, the usual first, and what asks for it."""

    profiles: tuple[str, ...]
    citations: tuple[str, ...]


TREATMENTS: Mapping[Purpose, Treatment] = MappingProxyType(
    {
        # The subject's face is what the picture is for; of whoever else is in it there is no release.
        Purpose.GENERATE: Treatment(("bystanders",), ("GDPR Art. 14", "GDPR Art. 25", "740 ILCS 14/15(b)")),
        # No face is needed to count heads and turns: what tells persons apart goes.
        Purpose.ANALYTICS: Treatment(
            ("landmarks", "redact"),
            ("GDPR Art. 25", "740 ILCS 14/10", "Tex. Bus. & Com. Code 503.001(a)", "16 CFR 312.2"),
        ),
        # What a model has learnt no erasure reaches (law.md 7): so no face is given out to learn.
        Purpose.TRAIN: Treatment(
            ("landmarks", "redact"),
            ("GDPR Art. 25", "740 ILCS 14/10", "Tex. Bus. & Com. Code 503.001(a),(f)", "RCW 19.373.010"),
        ),
    }
)
"""Purpose to what is done about faces.  The house's; stricter than the laws it rests on, which a consent
that names the purpose would satisfy (U-02: whether a portrait is biometric data by itself is open)."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """What is to be done about faces; where `profile` is empty, `reason` says why nothing is permitted."""

    profile: str
    reason: str
    citations: tuple[str, ...]


def pair(purpose: Purpose, wished: str = "") -> Pairing:
    """Return what is done about the faces in a picture that serves `purpose`, `wished` if that may be.

    Rule:
        GDPR Art. 25: data protection by design and by default.
    """
    treatment = TREATMENTS.get(purpose)
    if treatment is None:
        return Pairing("", NOT_SERVED, ())
    if wished and wished not in treatment.profiles:
        return Pairing("", WRONG_PROFILE, treatment.citations)
    return Pairing(wished or treatment.profiles[0], "", treatment.citations)
