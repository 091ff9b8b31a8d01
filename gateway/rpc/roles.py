"""The table roles x methods.  What is not listed is denied; a test checks it cell by cell."""

from __future__ import annotations

from gateway.caller import Role

_S, _P, _A = Role.SERVICE, Role.PRIVACY_OFFICER, Role.AUDITOR
_ALL = frozenset({_S, _P, _A})

ROLES: dict[str, frozenset[Role]] = {
    "GenerationService/Generate": frozenset({_S}),
    "GenerationService/CreateJob": frozenset({_S}),
    "GenerationService/GetJob": frozenset({_S, _P}),
    "GenerationService/ListJobs": frozenset({_S, _P}),
    "GenerationService/WatchJob": frozenset({_S, _P}),
    "GenerationService/CancelJob": frozenset({_S, _P}),
    "GenerationService/DownloadResult": frozenset({_S}),
    "GenerationService/DeleteJob": frozenset({_S, _P}),
    "SubjectService/UpsertSubject": frozenset({_S, _P}),
    "SubjectService/GetSubject": frozenset({_S, _P}),
    "SubjectService/ListStoredData": frozenset({_S, _P}),
    "SubjectService/DeleteObject": frozenset({_S, _P}),
    "SubjectService/RestrictSubject": frozenset({_S, _P}),
    "SubjectService/RectifySubject": frozenset({_S, _P}),
    "NoticeService/PublishNotice": frozenset({_P}),
    "NoticeService/GetNotice": _ALL,
    "NoticeService/ListNotices": _ALL,
    "ConsentService/RecordConsent": frozenset({_S, _P}),
    "ConsentService/WithdrawConsent": frozenset({_S, _P}),
    "ConsentService/InvalidateConsent": frozenset({_P}),
    "ConsentService/GetConsent": frozenset({_S, _P}),
    "ConsentService/ListConsents": frozenset({_S, _P}),
    "ConsentService/GetReceipt": frozenset({_S, _P}),
    "ConsentService/CheckConsent": frozenset({_S, _P}),
    "ConsentService/RecordSignal": frozenset({_S, _P}),
    "DsrService/CreateDsr": frozenset({_S, _P}),
    "DsrService/GetDsr": frozenset({_S, _P}),
    "DsrService/ListDsrs": frozenset({_P, _A}),
    "DsrService/VerifyIdentity": frozenset({_P}),
    "DsrService/PreviewDsr": frozenset({_P}),
    "DsrService/ApproveDsr": frozenset({_P}),
    "DsrService/RefuseDsr": frozenset({_P}),
    "DsrService/ExtendDsr": frozenset({_P}),
    "DsrService/RecordPropagation": frozenset({_P}),
    "DsrService/CancelDsr": frozenset({_S, _P}),
    "DsrService/DownloadPackage": frozenset({_S, _P}),
    "DsrService/GetCertificate": _ALL,
    "DsrService/GetLetter": frozenset({_S, _P}),
    "DsrService/GetFigures": frozenset({_P, _A}),
    "RetentionService/GetSchedule": _ALL,
    "RetentionService/ListDue": frozenset({_P, _A}),
    "RetentionService/PlaceHold": frozenset({_P}),
    "RetentionService/ReleaseHold": frozenset({_P}),
    "RetentionService/ListHolds": frozenset({_P, _A}),
    "RetentionService/Sweep": frozenset({_P}),
    "RetentionService/ListDebts": frozenset({_P, _A}),
    "PolicyService/Decide": _ALL,
    "PolicyService/ComputeClock": _ALL,
    "PolicyService/ListPacks": _ALL,
    "PolicyService/GetPack": _ALL,
    "AuditService/ListEvents": frozenset({_P, _A}),
    "AuditService/GetCheckpoint": _ALL,
    "AuditService/GetInclusionProof": _ALL,
    "AuditService/GetConsistencyProof": _ALL,
    "AuditService/Export": frozenset({_A}),
    "BackendService/ListBackends": _ALL,
    "BackendService/GetBackend": _ALL,
    "KeyService/GetKeyStatus": frozenset({_P, _A}),
    "KeyService/RotateKeys": frozenset({_P}),
    "TenantService/GetTenant": _ALL,
    "TenantService/UpdateTenant": frozenset({_P}),
    "TrainingService/CreateDataset": frozenset({_P}),
    "TrainingService/GetDataset": frozenset({_P, _A}),
    "TrainingService/ListDatasets": frozenset({_P, _A}),
    "TrainingService/DownloadDataset": frozenset({_P}),
    "AnalyticsService/GetRecord": frozenset({_S, _P}),
    "IncidentService/RecordIncident": frozenset({_P}),
    "IncidentService/ListIncidents": frozenset({_P, _A}),
}


def permits(role: Role, method: str) -> bool:
    """Tell whether a role may call `Service/Method`; an unlisted method is denied to all."""
    return role in ROLES.get(method, frozenset())
