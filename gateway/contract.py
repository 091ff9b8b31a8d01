"""What is promised of a backend: how two words of it become one, what it is called in the log, whom it suits.

A promise is data.  What holds is the stricter of what the operator has in writing and of
what the backend says of itself; its digest stands in the leaf of every dispatch.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from typing import Final, get_args

from audit import canonical
from gateway.errors import BackendProtocol, BackendRetentionTooLong
from gateway.ports.inference import BackendFacts, Contract
from gateway.ports.marking import Source

HERE: Final = "local"
"""The region of a backend at the gateway's own site: nothing is transferred."""

_SOURCES: Final = get_args(Source)
"""How a picture comes to be, what asks for the strictest mark first."""
_OF_SOFTWARE: Final = ("name", "version", "device", "model_digest", "is_contracted")
"""What of the facts no promise is: it changes with every release."""


def under_contract(
    contract: Contract, *, name: str, version: str, device: str, model_digest: str
) -> BackendFacts:
    """Return the facts of a backend that says nothing of itself but what it runs."""
    return BackendFacts(
        name=name,
        version=version,
        device=device,
        model_digest=model_digest,
        styles=contract.styles,
        region=contract.region,
        retention_s=contract.input_retention_s,
        output_retention_s=contract.output_retention_s,
        trains_on_inputs=contract.trains_on_inputs,
        template_extracted=contract.template_extracted,
        supports_cancel=contract.supports_cancel,
        supports_forget=contract.supports_forget,
        source=contract.source,
        takes_prompts=contract.takes_prompts,
        operator=contract.operator,
        max_image_bytes=contract.max_image_bytes,
        max_pixels=contract.max_pixels,
        safeguards=contract.safeguards,
        is_contracted=True,
    )


def stricter(said: BackendFacts, contract: Contract) -> BackendFacts:
    """Return what holds of a backend that speaks for itself and has a contract: of each the stricter.

    Raises:
        BackendProtocol: Both cannot be true (detail `contract_region`), or leave nothing to ask for
            (`contract_styles`).
    """
    if said.region not in {contract.region, contract.region.partition("-")[0], HERE}:
        raise BackendProtocol(detail="contract_region")
    styles = tuple(style for style in contract.styles or said.styles if style in said.styles)
    if not styles:
        raise BackendProtocol(detail="contract_styles")
    return replace(
        said,
        region=contract.region,
        styles=styles,
        retention_s=max(said.retention_s, contract.input_retention_s),
        output_retention_s=max(said.output_retention_s, contract.output_retention_s),
        trains_on_inputs=said.trains_on_inputs or contract.trains_on_inputs,
        template_extracted=said.template_extracted or contract.template_extracted,
        supports_cancel=said.supports_cancel and contract.supports_cancel,
        supports_forget=said.supports_forget and contract.supports_forget,
        source=min(said.source, contract.source, key=_SOURCES.index),
        takes_prompts=said.takes_prompts and contract.takes_prompts,
        operator=contract.operator,
        max_image_bytes=_smaller(said.max_image_bytes, contract.max_image_bytes),
        max_pixels=_smaller(said.max_pixels, contract.max_pixels),
        safeguards=contract.safeguards,
        is_contracted=True,
    )


def text(facts: BackendFacts) -> bytes:
    """Return what is promised of a backend, as canonical JSON."""
    promised = {key: value for key, value in asdict(facts).items() if key not in _OF_SOFTWARE}
    return canonical.encode({**promised, "styles": sorted(facts.styles)})


def digest(facts: BackendFacts) -> str:
    """Return under what a promise stands in the log: the SHA-256 of `text`, in hex."""
    return hashlib.sha256(text(facts)).hexdigest()


def refuse_unfit(facts: BackendFacts, max_retention_s: int) -> None:
    """Refuse a backend that would keep or use a portrait beyond the one job.

    One that has no call to forget is fit where the operator has in writing for how long it keeps things.

    Raises:
        BackendRetentionTooLong: It keeps what it is sent, or what it made, for longer than the rules allow,
            cannot be made to forget, or trains on it (detail `trains_on_inputs`, `cannot_forget`).
    """
    if facts.trains_on_inputs:
        raise BackendRetentionTooLong("the backend trains on what it is sent", detail="trains_on_inputs")
    if max(facts.retention_s, facts.output_retention_s) > max_retention_s:
        raise BackendRetentionTooLong
    if not (facts.supports_forget or facts.is_contracted):
        raise BackendRetentionTooLong("the backend cannot be made to forget", detail="cannot_forget")


def _smaller(one: int, other: int) -> int:
    """Return the smaller bound; 0 is none."""
    return min(one or other, other or one)
