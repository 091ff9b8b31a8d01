"""A backend that speaks for itself, held to what the operator has in writing."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from gateway.contract import stricter
from gateway.ports.inference import BackendFacts, Contract, Inference, Progress, Result


@dataclass(frozen=True, slots=True)
class ContractedInference:
    """The same door; an `Inference` whose facts are the stricter of what it says and what is declared."""

    inner: Inference
    contract: Contract

    async def describe(self) -> BackendFacts:
        """Return what holds of the backend.

        Raises:
            BackendProtocol: What it says and what is declared cannot both be true.
        """
        return stricter(await self.inner.describe(), self.contract)

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
        """Yield what the backend answers."""
        return self.inner.generate(
            job_pseudonym, style, image, image_type, prompt=prompt, subject_pseudonym=subject_pseudonym
        )

    async def cancel(self, job_pseudonym: str) -> None:
        """Stop the job if it runs."""
        await self.inner.cancel(job_pseudonym)

    async def forget(self, job_pseudonym: str) -> None:
        """Make the backend drop whatever it keeps for the job."""
        await self.inner.forget(job_pseudonym)

    async def close(self) -> None:
        """Let the connection go."""
        await self.inner.close()
