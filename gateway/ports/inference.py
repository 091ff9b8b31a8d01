"""The door to an inference backend: pluggable GPU servers and our CPU studio."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from gateway.ports.marking import Source


@dataclass(frozen=True, slots=True)
class BackendFacts:
    """What a backend declares of itself; policy reads it before anything is sent."""

    name: str
    version: str
    device: str
    model_digest: str
    styles: tuple[str, ...]
    region: str
    retention_s: int
    trains_on_inputs: bool
    template_extracted: bool
    supports_cancel: bool
    supports_forget: bool
    source: Source
    takes_prompts: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is: percent 0-100 and the name of the stage (a code)."""

    percent: int
    stage: str


@dataclass(frozen=True, slots=True)
class Result:
    """A finished picture, still to be scrubbed: encoded bytes and what made it."""

    image: bytes
    image_type: str
    backend: str
    device: str
    model_digest: str


class Inference(Protocol):
    """One backend.  It sees a scrubbed image and prompt, a per-backend job pseudonym and a style.

    Where the operator wants it, a pseudonym of the subject, too; else that is empty.

    Raises `BackendUnavailable` when it cannot be reached, `BackendProtocol` when
    it answers outside its contract, `ImageRejected` (`no_face`) when it cannot
    use the picture.  A `generate` that raises leaves nothing to collect; the
    caller may start again under the same pseudonym.
    """

    async def describe(self) -> BackendFacts:
        """Return what the backend declares of itself."""

    def generate(
        self,
        job_pseudonym: str,
        style: str,
        image: bytes,
        image_type: str,
        *,
        prompt: str = "",
        subject_pseudonym: str = "",
    ) -> AsyncGenerator[Progress | Result]:
        """Yield progress, then exactly one `Result`, and end; closing it ends the call."""

    async def cancel(self, job_pseudonym: str) -> None:
        """Stop the job if it runs; unknown jobs are no error."""

    async def forget(self, job_pseudonym: str) -> None:
        """Make the backend drop whatever it keeps for the job; idempotent."""

    async def close(self) -> None:
        """Let the connection go."""
