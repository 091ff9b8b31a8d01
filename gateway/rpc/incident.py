"""IncidentService on the wire."""

from __future__ import annotations

from dataclasses import dataclass

from lethe.v1 import common_pb2
from lethe.v1 import incident_pb2 as pb

from gateway.flows.incident import IncidentDraft, Incidents, Shown, Telling, Text
from gateway.rpc import convert
from gateway.rpc.interceptors import caller


@dataclass(frozen=True, slots=True)
class IncidentService:
    """The register of breaches on the wire."""

    incidents: Incidents

    async def RecordIncident(
        self, request: pb.RecordIncidentRequest, _context: object
    ) -> pb.RecordIncidentResponse:
        """Enter an incident."""
        told = request.incident
        draft = IncidentDraft(
            kind=told.kind,
            aware_at=convert.instant(told.aware_time),
            data_categories=tuple(sorted(convert.kind_code(kind) for kind in told.data_kinds)),
            residences=tuple(sorted(told.residences)),
            about_subjects=told.about_subjects,
            about_records=told.about_records,
            authority=_telling(told.authority),
            subjects=_telling(told.subjects),
            text=Text(told.nature, told.consequences, told.measures),
            incident_id=convert.bare(told.name),
            request_id=request.request_id,
        )
        shown, receipt = await self.incidents.record(caller(), draft)
        return pb.RecordIncidentResponse(incident=_incident(shown), receipt=convert.receipt(receipt))

    async def ListIncidents(
        self, request: pb.ListIncidentsRequest, _context: object
    ) -> pb.ListIncidentsResponse:
        """List the register."""
        page = await self.incidents.list(caller(), request.page_size, request.page_token)
        return pb.ListIncidentsResponse(
            incidents=[_incident(shown) for shown in page.items], next_page_token=page.next_token
        )


def _telling(message: pb.Telling) -> Telling:
    return Telling(convert.maybe_instant(message, "tell_time"), message.rule)


def _incident(shown: Shown) -> pb.Incident:
    record = shown.record
    return pb.Incident(
        name=f"incidents/{record.incident_id}",
        aware_time=convert.stamp(record.aware_at),
        kind=record.kind,
        data_kinds=[
            common_pb2.DataKind.Value(f"DATA_KIND_{kind.upper()}") for kind in record.data_categories
        ],
        residences=record.residences,
        about_subjects=record.about_subjects,
        about_records=record.about_records,
        nature=shown.text.nature,
        consequences=shown.text.consequences,
        measures=shown.text.measures,
        authority=_told(Telling.of(record.authority)),
        subjects=_told(Telling.of(record.subjects)),
        regimes=record.regimes,
        duties=[_duty(shown, place) for place in range(len(shown.duties))],
        due_time=convert.stamp(record.due_at) if record.due_at else None,
        version=record.version,
        create_time=convert.stamp(record.recorded_at),
        update_time=convert.stamp(record.updated_at),
        retain_until_time=convert.stamp(record.keep_until),
    )


def _told(telling: Telling) -> pb.Telling:
    return pb.Telling(
        tell_time=convert.stamp(telling.told_at) if telling.told_at else None, rule=telling.rule
    )


def _duty(shown: Shown, place: int) -> pb.BreachDuty:
    duty = shown.duties[place]
    return pb.BreachDuty(
        regime=duty.pack,
        tell=duty.tell,
        whom=duty.name,
        due_time=convert.stamp(duty.due_at) if duty.due_at else None,
        due=duty.due.isoformat() if duty.due else "",
        promptly=duty.promptly,
        threshold=duty.threshold,
        unless=duty.unless,
        more_than=duty.more_than or 0,
        citations=duty.citations,
        uncertain=duty.uncertain,
        settled=shown.is_settled(duty),
    )
