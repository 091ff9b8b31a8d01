"""Every service of the contract, as descriptors."""

from __future__ import annotations

from google.protobuf.descriptor import ServiceDescriptor
from lethe.v1 import (
    analytics_pb2,
    audit_pb2,
    backend_pb2,
    consent_pb2,
    dsr_pb2,
    generation_pb2,
    incident_pb2,
    key_pb2,
    notice_pb2,
    policy_pb2,
    retention_pb2,
    subject_pb2,
    tenant_pb2,
    training_pb2,
)

_FILES = (
    generation_pb2,
    subject_pb2,
    notice_pb2,
    consent_pb2,
    dsr_pb2,
    retention_pb2,
    policy_pb2,
    audit_pb2,
    backend_pb2,
    key_pb2,
    tenant_pb2,
    training_pb2,
    analytics_pb2,
    incident_pb2,
)

ALL: tuple[ServiceDescriptor, ...] = tuple(
    service for file in _FILES for service in file.DESCRIPTOR.services_by_name.values()
)
