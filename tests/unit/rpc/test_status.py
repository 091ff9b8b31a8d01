"""Refusals leave as one status with a reason, a domain and nothing about anybody."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2

import gateway.flows.erasure
from gateway import errors
from gateway.rpc import status

assert gateway.flows.erasure  # its refusals are subclasses too


def every(kind: type[errors.LetheError] = errors.LetheError) -> Iterator[type[errors.LetheError]]:
    for sub in kind.__subclasses__():
        yield sub
        yield from every(sub)


def info_of(made) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo()
    assert made.details[0].Unpack(info)
    return info


@pytest.mark.parametrize("kind", sorted(set(every()), key=lambda kind: kind.__name__))
def test_every_refusal_has_a_code(kind):
    assert any(base in status.CODES for base in kind.__mro__)


def test_no_two_refusals_share_a_reason():
    own = [kind.reason for kind in every() if "reason" in vars(kind)]
    assert len(own) == len(set(own))
    assert "" not in own


def test_a_refusal_carries_reason_domain_detail_and_metadata():
    made = status.to_status(errors.PayloadTooLarge(limit="5"))
    info = info_of(made)
    assert made.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    assert (info.reason, info.domain, dict(info.metadata)) == (
        "PAYLOAD_TOO_LARGE",
        "lethe.dev",
        {"limit": "5"},
    )
    assert (
        info_of(status.to_status(errors.ImageRejected(detail="truncated"))).metadata["detail"] == "truncated"
    )


def test_a_denial_leaves_under_the_code_of_its_rule():
    denied = errors.PolicyDenied("DENY_NO_CONSENT", pack="gdpr", citations=("GDPR Art. 7",))
    info = info_of(status.to_status(denied))
    assert info.reason == "DENY_NO_CONSENT"
    assert dict(info.metadata) == {"deciding_pack": "gdpr", "citations": "GDPR Art. 7"}


def test_a_broken_rule_names_field_and_rule_but_no_value():
    refusal = errors.MessageInvalid("bad", violations=(("header.subject", "string.pattern"),))
    fault = error_details_pb2.BadRequest()
    assert status.to_status(refusal).details[1].Unpack(fault)
    assert [(v.field, v.description) for v in fault.field_violations] == [
        ("header.subject", "string.pattern")
    ]


def test_what_may_be_tried_again_says_when():
    retry = error_details_pb2.RetryInfo()
    assert status.to_status(errors.StoreUnavailable()).details[-1].Unpack(retry)
    assert retry.retry_delay.seconds == 2


def test_a_fault_that_nobody_foresaw_says_nothing_but_a_trace_id():
    made = status.unexpected("ab" * 16)
    assert made.message == "internal error"
    assert dict(info_of(made).metadata) == {"trace_id": "ab" * 16}
