"""TrainingService on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from lethe.v1 import training_pb2 as pb

from gateway.flows.training import DatasetDraft, Training
from gateway.ports.records import Dataset
from gateway.rpc import convert
from gateway.rpc.interceptors import caller


@dataclass(frozen=True, slots=True)
class TrainingService:
    """Training sets on the wire."""

    training: Training

    async def CreateDataset(
        self, request: pb.CreateDatasetRequest, _context: object
    ) -> pb.CreateDatasetResponse:
        """Begin a training set."""
        draft = DatasetDraft(
            request.label, request.max_size, request.request_id, convert.profile_code(request.profile)
        )
        record, receipt = await self.training.create(caller(), draft)
        return pb.CreateDatasetResponse(dataset=_dataset(record), receipt=convert.receipt(receipt))

    async def GetDataset(self, request: pb.GetDatasetRequest, _context: object) -> pb.GetDatasetResponse:
        """Return a training set."""
        shown = await self.training.get(caller(), convert.bare(request.name))
        return pb.GetDatasetResponse(dataset=_dataset(shown.record, shown.removed))

    async def ListDatasets(
        self, request: pb.ListDatasetsRequest, _context: object
    ) -> pb.ListDatasetsResponse:
        """List training sets."""
        page = await self.training.list(caller(), request.page_size, request.page_token)
        return pb.ListDatasetsResponse(
            datasets=[_dataset(record) for record in page.items], next_page_token=page.next_token
        )

    async def DownloadDataset(
        self, request: pb.DownloadDatasetRequest, _context: object
    ) -> AsyncIterator[pb.DownloadDatasetResponse]:
        """Stream a training set."""
        async for chunk in self.training.download(caller(), convert.bare(request.name)):
            yield pb.DownloadDatasetResponse(chunk=chunk)


def _dataset(record: Dataset, removed: tuple[str, ...] = ()) -> pb.Dataset:
    return pb.Dataset(
        name=f"datasets/{record.dataset_id}",
        size=record.size,
        create_time=convert.stamp(record.created_at),
        label=record.label,
        version=record.version,
        state=pb.Dataset.State.Value(f"STATE_{record.state.upper()}"),
        skipped=[
            pb.Dataset.Skipped(reason=reason, subjects=number)
            for reason, number in sorted(record.skipped.items())
        ],
        expire_time=convert.stamp(record.expires_at),
        removed_items=removed,
        profile=convert.profile_value(record.profile),
        refused=[
            pb.Dataset.Refused(detail=detail, pictures=number)
            for detail, number in sorted(record.refused.items())
        ],
    )
