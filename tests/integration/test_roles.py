"""Every method of every service for every role, cell by cell; and the page that says so."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.caller import Role
from gateway.client import Client
from gateway.rpc import roles
from tests.gateway import Gateway, make_folder, running
from tests.wire import METHODS, Answer, ask

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "methods.md"
CALLERS = {"S": "app", "P": "officer", "A": "auditor"}

EXPECTED = """
GenerationService/Generate           S - -
GenerationService/CreateJob          S - -
GenerationService/GetJob             S P -
GenerationService/ListJobs           S P -
GenerationService/WatchJob           S P -
GenerationService/CancelJob          S P -
GenerationService/DownloadResult     S - -
GenerationService/DeleteJob          S P -
SubjectService/UpsertSubject         S P -
SubjectService/GetSubject            S P -
SubjectService/ListStoredData        S P -
SubjectService/DeleteObject          S P -
SubjectService/RestrictSubject       S P -
SubjectService/RectifySubject        S P -
NoticeService/PublishNotice          - P -
NoticeService/GetNotice              S P A
NoticeService/ListNotices            S P A
ConsentService/RecordConsent         S P -
ConsentService/WithdrawConsent       S P -
ConsentService/InvalidateConsent     - P -
ConsentService/GetConsent            S P -
ConsentService/ListConsents          S P -
ConsentService/GetReceipt            S P -
ConsentService/CheckConsent          S P -
ConsentService/RecordSignal          S P -
DsrService/CreateDsr                 S P -
DsrService/GetDsr                    S P -
DsrService/ListDsrs                  - P A
DsrService/VerifyIdentity            - P -
DsrService/PreviewDsr                - P -
DsrService/ApproveDsr                - P -
DsrService/RefuseDsr                 - P -
DsrService/ExtendDsr                 - P -
DsrService/PauseDsr                  - P -
DsrService/ResumeDsr                 - P -
DsrService/RecordPropagation         - P -
DsrService/CancelDsr                 S P -
DsrService/DownloadPackage           S P -
DsrService/GetCertificate            S P A
DsrService/GetLetter                 S P -
DsrService/GetFigures                - P A
RetentionService/GetSchedule         S P A
RetentionService/ListDue             - P A
RetentionService/PlaceHold           - P -
RetentionService/ReleaseHold         - P -
RetentionService/ListHolds           - P A
RetentionService/Sweep               - P -
RetentionService/ListDebts           - P A
PolicyService/Decide                 S P A
PolicyService/ComputeClock           S P A
PolicyService/ListPacks              S P A
PolicyService/GetPack                S P A
AuditService/ListEvents              - P A
AuditService/GetCheckpoint           S P A
AuditService/GetInclusionProof       S P A
AuditService/GetConsistencyProof     S P A
AuditService/Export                  - - A
BackendService/ListBackends          S P A
BackendService/GetBackend            S P A
KeyService/GetKeyStatus              - P A
KeyService/RotateKeys                - P -
TenantService/GetTenant              S P A
TenantService/UpdateTenant           - P -
TrainingService/CreateDataset        - P -
TrainingService/GetDataset           - P A
TrainingService/ListDatasets         - P A
TrainingService/DownloadDataset      - P -
AnalyticsService/GetRecord           S P -
IncidentService/RecordIncident       - P -
IncidentService/ListIncidents        - P A
"""

TABLE = {line.split()[0]: line.split()[1:] for line in EXPECTED.strip().splitlines()}
CELLS = [(method, role, role in marks) for method, marks in TABLE.items() for role in CALLERS]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    async with running(make_folder(tmp_path_factory.mktemp("roles") / "dev")) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clients(gateway: Gateway) -> AsyncIterator[dict[str, Client]]:
    opened = {letter: gateway.client(name) for letter, name in CALLERS.items()}
    yield opened
    for client in opened.values():
        await client.channel.close()


async def test_every_method_of_the_wire_is_in_the_table():
    assert set(METHODS) == set(TABLE)


async def test_the_code_lists_no_method_that_the_wire_does_not_have():
    assert set(METHODS) == set(roles.ROLES)


async def test_a_method_that_is_not_listed_is_denied_to_every_role():
    assert not any(roles.permits(role, "GenerationService/Other") for role in Role)


@pytest.mark.parametrize(
    ("method", "role"), [(m, r) for m, r, allowed in CELLS if allowed], ids=lambda value: value
)
async def test_the_role_may_call(clients, method, role):
    assert (await ask(clients[role].channel, method)).reason != "ROLE_REQUIRED"


@pytest.mark.parametrize(
    ("method", "role"), [(m, r) for m, r, allowed in CELLS if not allowed], ids=lambda value: value
)
async def test_the_role_is_denied_and_that_is_in_the_log(gateway, clients, method, role):
    before = len(await gateway.leaves("access.refused"))
    answer = await ask(clients[role].channel, method)
    assert (answer.code, answer.reason) == ("PERMISSION_DENIED", "ROLE_REQUIRED")
    (leaf,) = (await gateway.leaves("access.refused"))[before:]
    assert (leaf["mthd"], leaf["rc"]) == (method, "ROLE_REQUIRED")


async def answers_to_nothing(clients: dict[str, Client]) -> dict[str, Answer]:
    """Return how each method answers an empty message of a role that may call it."""
    found = {}
    for method, marks in TABLE.items():
        role = next(mark for mark in marks if mark != "-")
        found[method] = await ask(clients[role].channel, method)
    return found


async def test_what_is_not_built_says_so_and_is_listed(clients):
    answers = await answers_to_nothing(clients)
    unbuilt = {m for m, answer in answers.items() if answer.reason == "METHOD_NOT_BUILT"}
    assert {answers[method].code for method in unbuilt} <= {"UNIMPLEMENTED"}
    assert {m for m, answer in answers.items() if answer.code == "UNIMPLEMENTED"} == unbuilt
    page = render(unbuilt)
    if os.environ.get("LETHE_WRITE_DOCS"):
        PAGE.write_text(page)
    assert page == PAGE.read_text(), "LETHE_WRITE_DOCS=1 pytest tests/integration/test_roles.py writes it"


def render(unbuilt: set[str]) -> str:
    """Return the reference page: what the code permits and what the server answered."""
    names = {Role.SERVICE: "service", Role.PRIVACY_OFFICER: "privacy officer", Role.AUDITOR: "auditor"}
    rows = [
        f"| `{method}` | {', '.join(name for role, name in names.items() if roles.permits(role, method))} "
        f"| {'**no**' if method in unbuilt else 'yes'} |"
        for method in METHODS
    ]
    return f"""# Methods

Written by `LETHE_WRITE_DOCS=1 pytest tests/integration/test_roles.py`, which also checks it: what may be
called comes from `gateway/rpc/roles.py`, what is built from the answers of a running gateway.

A role that is not named is answered `PERMISSION_DENIED` with the reason `ROLE_REQUIRED`, and an
`access.refused` event is written. A method that is not built answers `UNIMPLEMENTED` with the reason
`METHOD_NOT_BUILT`, whatever it is sent: {len(METHODS) - len(unbuilt)} of {len(METHODS)} methods are built.

Every call but `GenerationService/WatchJob` needs a deadline, else it is answered `DEADLINE_REQUIRED`.
A client that cannot send one (`buf curl` forbids the header `grpc-timeout`) says it in the metadata
`lethe-timeout-ms`, in milliseconds; gRPC's own deadline wins. Calls are taken over TLS 1.3 with a client
certificate only. `grpc.health.v1.Health` and `grpc.reflection.v1alpha.ServerReflection` need no role.

| method | roles | built |
|---|---|---|
{chr(10).join(rows)}
"""
