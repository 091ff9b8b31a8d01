"""Global Privacy Control as the edge passes it on: metadata of a call, from the browser's `Sec-GPC`."""

from __future__ import annotations

from typing import Any

import grpc

from gateway.flows.consent import Consents
from gateway.rpc.interceptors import caller

SEC_GPC = "sec-gpc"
STATUS, HONOURED = "lethe-gpc-status", "honored"
"""What the answer's metadata says, for the page to show (11 CCR 7025(c)(6)); spelt as the rule spells it."""

Context = grpc.aio.ServicerContext[Any, Any]


def has_gpc(context: Context) -> bool:
    """Return whether the call carries `Sec-GPC: 1`; any other value is no signal."""
    return any(
        name == SEC_GPC and value in {"1", b"1"} for name, value in context.invocation_metadata() or ()
    )


async def heed_gpc(consents: Consents, context: Context, subject_id: str) -> None:
    """Record the signal of a call for its subject, and say in the answer that it is honoured.

    A call without it says nothing: an earlier signal stands (11 CCR 7025).
    """
    if has_gpc(context):
        await consents.heed_gpc(caller(), subject_id)
        context.set_trailing_metadata(((STATUS, HONOURED),))
