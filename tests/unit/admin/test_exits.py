from __future__ import annotations

import pytest

from gateway import errors
from gateway.admin.exits import FAILED, REFUSALS, REFUSED, exit_code


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("DENY_NO_CONSENT", REFUSED),
        ("ROLE_REQUIRED", REFUSED),
        ("SECOND_PERSON_REQUIRED", REFUSED),
        ("SUBJECT_BLOCKED", REFUSED),
        ("HOLD_ACTIVE", REFUSED),
        ("METHOD_NOT_BUILT", FAILED),
        ("NOT_FOUND", FAILED),
        ("UNAVAILABLE", FAILED),
        ("PREVIEW_STALE", FAILED),
    ],
)
def test_a_refusal_by_policy_or_role_is_three_and_the_rest_is_one(reason: str, code: int) -> None:
    assert code == exit_code(reason)


def test_a_job_that_policy_ended_counts_as_refused() -> None:
    assert exit_code("STATE_CONFLICT", {"job_reason": "DENY_CONSENT_WITHDRAWN"}) == REFUSED
    assert exit_code("STATE_CONFLICT", {"job_reason": "BACKEND_PROTOCOL"}) == FAILED


def test_the_table_names_reasons_of_the_contract_only() -> None:
    future = {"ATTESTATION_REQUIRED", "SECOND_FACTOR_REQUIRED"}
    known = {kind.reason for kind in errors.LetheError.__subclasses__()}
    assert set() == REFUSALS - known - future
