"""GenerationService on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TypeVar

from lethe.v1 import generation_pb2 as pb

from gateway.caller import Caller
from gateway.errors import ImageRejected, InputLost, JobCancelled, MessageInvalid, StateConflict
from gateway.flows.consent import Consents
from gateway.flows.job import Jobs
from gateway.flows.release import Release
from gateway.flows.upload import Accepted, JobOrder, Upload
from gateway.ports.records import Job
from gateway.rpc import convert
from gateway.rpc.interceptors import caller
from gateway.rpc.signals import Context, heed_gpc

Part = TypeVar("Part", pb.GenerateRequest, pb.CreateJobRequest)


@dataclass(frozen=True, slots=True)
class GenerationService:
    """Takes portraits, shows jobs, gives results out."""

    upload: Upload
    jobs: Jobs
    release: Release
    consents: Consents

    async def Generate(
        self, requests: AsyncIterator[pb.GenerateRequest], context: Context
    ) -> AsyncIterator[pb.GenerateResponse]:
        """Run one job from upload to result in one call."""
        # Asked once: whoever closes this generator after a hang-up may do so in another call's context.
        by = caller()
        order = await self._order(requests, context)
        accepted = await self.upload.run(by, order, _chunks(requests), is_attended=True)
        can_return = bool(order.request_id) and not accepted.is_transient
        try:
            async for message in self._attend(by, accepted, can_return=can_return):
                yield message
        finally:
            if accepted.is_transient:
                # Shielded: at a deadline grpc cancels us, and so does our own timer.
                await asyncio.shield(asyncio.ensure_future(self.release.end(by, accepted.job.job_id)))

    async def _attend(
        self, by: Caller, accepted: Accepted, *, can_return: bool
    ) -> AsyncIterator[pb.GenerateResponse]:
        """Yield how the job goes, and its result; stop it if nobody waits for that any more."""
        job_id = accepted.job.job_id
        last = accepted.job
        try:
            async for last in self.jobs.watch(by, job_id):
                yield pb.GenerateResponse(job=convert.job(last))
        finally:
            # The caller is gone or out of time.  One who gave a request_id may come back with it;
            # for another nobody waits any more, nor for one of which nothing is kept.
            if last.state in {"queued", "running"} and not can_return:
                # Shielded: at a deadline grpc cancels us, and so does our own timer.
                await asyncio.shield(asyncio.ensure_future(self.jobs.cancel(by, job_id)))
        if last.state == "succeeded":
            released = await self.release.run(by, job_id, is_attended=True)
            yield pb.GenerateResponse(result=convert.result_header(released.stored))
            async for chunk in released.chunks:
                yield pb.GenerateResponse(chunk=chunk)
        else:
            raise _ended(last)
        yield pb.GenerateResponse(receipt=convert.receipt(accepted.receipt) or pb.GenerateResponse().receipt)

    async def CreateJob(
        self, requests: AsyncIterator[pb.CreateJobRequest], context: Context
    ) -> pb.CreateJobResponse:
        """Upload a portrait and queue a job."""
        order = await self._order(requests, context)
        accepted = await self.upload.run(caller(), order, _chunks(requests))
        return pb.CreateJobResponse(job=convert.job(accepted.job), receipt=convert.receipt(accepted.receipt))

    async def _order(self, requests: AsyncIterator[Part], context: Context) -> JobOrder:
        """Return what the header orders, once the signal beside it is heeded."""
        order = await _header(requests)
        await heed_gpc(self.consents, context, order.subject_id)
        return order

    async def GetJob(self, request: pb.GetJobRequest, _context: object) -> pb.GetJobResponse:
        """Return a job."""
        return pb.GetJobResponse(job=convert.job(await self.jobs.get(caller(), convert.bare(request.name))))

    async def ListJobs(self, request: pb.ListJobsRequest, _context: object) -> pb.ListJobsResponse:
        """List jobs."""
        page = await self.jobs.list(
            caller(), convert.bare(request.subject), request.page_size, request.page_token
        )
        return pb.ListJobsResponse(jobs=[convert.job(j) for j in page.items], next_page_token=page.next_token)

    async def WatchJob(
        self, request: pb.WatchJobRequest, _context: object
    ) -> AsyncIterator[pb.WatchJobResponse]:
        """Stream a job until it has ended."""
        async for job in self.jobs.watch(caller(), convert.bare(request.name)):
            yield pb.WatchJobResponse(job=convert.job(job))

    async def CancelJob(self, request: pb.CancelJobRequest, _context: object) -> pb.CancelJobResponse:
        """Stop a job."""
        job, receipt = await self.jobs.cancel(caller(), convert.bare(request.name))
        return pb.CancelJobResponse(job=convert.job(job), receipt=convert.receipt(receipt))

    async def DownloadResult(
        self, request: pb.DownloadResultRequest, _context: object
    ) -> AsyncIterator[pb.DownloadResultResponse]:
        """Stream a result."""
        released = await self.release.run(caller(), convert.bare(request.name), request.offset)
        yield pb.DownloadResultResponse(result=convert.result_header(released.stored))
        async for chunk in released.chunks:
            yield pb.DownloadResultResponse(chunk=chunk)

    async def DeleteJob(self, request: pb.DeleteJobRequest, _context: object) -> pb.DeleteJobResponse:
        """Destroy a finished job."""
        receipt = await self.jobs.delete(caller(), convert.bare(request.name))
        return pb.DeleteJobResponse(receipt=convert.receipt(receipt))


async def _header(requests: AsyncIterator[Part]) -> JobOrder:
    """Return what the first message asks for.

    Raises:
        MessageInvalid: The stream is empty or does not begin with the header.
    """
    async for first in requests:
        if first.WhichOneof("part") == "header":
            return convert.job_order(first.header)
        break
    raise MessageInvalid("an upload begins with its header", violations=(("header", "header.first"),))


async def _chunks(requests: AsyncIterator[Part]) -> AsyncIterator[bytes]:
    """Yield the chunks that follow the header.

    Raises:
        MessageInvalid: A second header.
    """
    async for message in requests:
        if message.WhichOneof("part") != "chunk":
            raise MessageInvalid("only chunks follow the header", violations=(("header", "header.once"),))
        yield message.chunk


def _ended(job: Job) -> Exception:
    """Return the refusal that a job without a result becomes in `Generate`."""
    if job.state == "cancelled":
        return JobCancelled(detail=job.detail)
    if job.reason == InputLost.reason:
        return InputLost()
    if job.reason == ImageRejected.reason:
        return ImageRejected(detail=job.detail)
    return StateConflict("the job gave no result", detail=job.state, job_reason=job.reason)
