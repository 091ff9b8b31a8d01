"""AnalyticsService on the wire."""

from __future__ import annotations

from dataclasses import dataclass

from lethe.v1 import analytics_pb2 as pb
from lethe.v1 import common_pb2

from gateway.flows.analytics import Analytics
from gateway.rpc import convert
from gateway.rpc.interceptors import caller


@dataclass(frozen=True, slots=True)
class AnalyticsService:
    """Abstract records on the wire."""

    analytics: Analytics

    async def GetRecord(self, request: pb.GetRecordRequest, _context: object) -> pb.GetRecordResponse:
        """Return the record of a picture."""
        made = await self.analytics.record(caller(), convert.bare(request.object))
        record = made.record
        return pb.GetRecordResponse(
            face_count=record.faces,
            yaw_bin=record.yaw,
            pitch_bin=record.pitch,
            roll_bin=record.roll,
            place_bin=record.place,
            size_bin=record.size,
            is_smiling=record.is_smiling,
            is_mouth_open=record.is_mouth_open,
            are_eyes_closed=record.are_eyes_closed,
            profile=common_pb2.FACE_PROFILE_LANDMARKS,
            similarity_thousandths=made.similarity,
            make_time=convert.stamp(made.made_at),
            receipt=convert.receipt(made.receipt),
        )
