"""The door to an inference backend: pluggable GPU servers and our CPU studio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway.ports.marking import Source


@dataclass(frozen=True, slots=True)
class Safeguards:
    """On what a transfer to a backend's country rests, in the words of `policy.facts.Recipient`."""

    mechanism: str = ""
    dpf_listed: bool = False
    written_agreement: bool = False
    comparable_protection_contract: bool = False
    pia_done: bool = False


@dataclass(frozen=True, slots=True)
class Contract:
    """What the operator has in writing of a backend (GDPR Art. 28(3)).

    No styles where the backend itself says which it takes.  Retention, in seconds, counts from the moment
    that our call ended.
    """

    region: str
    operator: str
    input_retention_s: int
    output_retention_s: int
    trains_on_inputs: bool
    template_extracted: bool
    supports_cancel: bool
    supports_forget: bool
    source: Source
    styles: tuple[str, ...]
    takes_prompts: bool
    max_image_bytes: int
    max_pixels: int
    safeguards: Safeguards = Safeguards()


@dataclass(frozen=True, slots=True)
class BackendFacts:
    """What holds of a backend, by its own word and by contract; policy reads it before anything is sent.

    `retention_s` is how long it keeps what it is sent, `output_retention_s` what it made.  Where a size is 0,
    or `operator` empty, nobody said.  `is_contracted` where the operator declared a contract.
    """

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
    operator: str = ""
    output_retention_s: int = 0
    max_image_bytes: int = 0
    max_pixels: int = 0
    safeguards: Safeguards = Safeguards()
    is_contracted: bool = False


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


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the configuration says of a backend whose kind another package brings."""

    name: str
    contract: Contract
    timeout_s: float
    options: Mapping[str, bool | int | float | str]
    files: Mapping[str, Path]


class BackendKind(Protocol):
    """What an entry point of the group `lethe.backends` leads to."""

    def __call__(self, wanted: Wanted) -> Inference:
        """Return the door to one backend; nothing is sent yet.

        Raises:
            ValueError: An option cannot be used; the message names it, and no value.
            OSError: A file cannot be read.
        """
