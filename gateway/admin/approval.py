"""The talk behind `lethe dsr approve`: look, bind the approval to what was seen, and wait."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from gateway.admin.output import Form, document, emit, say
from gateway.admin.progress import progress

if TYPE_CHECKING:
    from lethe.v1 import dsr_pb2 as pb

    from gateway.client import Client

POLL_S = 0.2
STEPS = 5


async def rehearse(client: Client, name: str, etag: str) -> pb.PreviewDsrResponse:
    """Return the preview, having asked whether the approval would be taken."""
    from lethe.v1 import dsr_pb2 as pb

    seen = await client.call(client.dsrs.PreviewDsr, pb.PreviewDsrRequest(name=name))
    request = pb.ApproveDsrRequest(name=name, preview_etag=etag or seen.preview_etag, validate_only=True)
    await client.call(client.dsrs.ApproveDsr, request)
    return seen


async def approve(client: Client, name: str, etag: str, wait_s: float) -> pb.ApproveDsrResponse:
    """Say what will be done, approve exactly that, and wait `wait_s` for it to be done."""
    from lethe.v1 import dsr_pb2 as pb

    seen = await client.call(client.dsrs.PreviewDsr, pb.PreviewDsrRequest(name=name))
    _sum_up(seen)
    request = pb.ApproveDsrRequest(name=name, preview_etag=etag or seen.preview_etag)
    answer = await client.call(client.dsrs.ApproveDsr, request)
    if wait_s:
        answer.dsr.CopyFrom(await _ended(client, answer.dsr, wait_s))
    return answer


def show_preview(seen: pb.PreviewDsrResponse, form: Form) -> None:
    """Print a preview; as a table, what approving would do first, then a line for each thing that is held."""
    tree = document(seen)
    if form is not Form.TABLE:
        emit(tree, form)
        return
    items = tree.pop("items")
    if seen.erased_classes:
        items = [
            {**item, "then": "destroyed" if item["key_class"] in seen.erased_classes else "kept"}
            for item in items
        ]
    emit(tree, form)
    typer.echo()
    columns = ("name", "kind", "purpose", "size_bytes", "expire_time", "key_class", "then")
    emit({"items": items}, form, rows="items", columns=columns if seen.erased_classes else columns[:-1])
    _sum_up(seen)


def _sum_up(seen: pb.PreviewDsrResponse) -> None:
    if seen.erased_classes or not seen.effects:
        doomed = sum(item.key_class in seen.erased_classes for item in seen.items)
        classes = ", ".join(seen.erased_classes) or "no key class"
        say(f"destroys {doomed} things under {classes}, keeps {len(seen.items) - doomed}")
    else:
        say(f"does: {', '.join(seen.effects)}; {len(seen.items)} things are held")
    for kept in seen.kept_classes:
        say(f"keeps {kept.key_class}: {kept.rule}")


async def _ended(client: Client, dsr: pb.Dsr, wait_s: float) -> pb.Dsr:
    """Return the request once it is over, or as it stands after `wait_s` seconds."""
    from lethe.v1 import dsr_pb2 as pb

    over = (pb.Dsr.STATE_FULFILLED, pb.Dsr.STATE_REFUSED, pb.Dsr.STATE_CANCELLED)
    loop = asyncio.get_running_loop()
    until = loop.time() + wait_s
    with progress() as step:
        while dsr.state not in over and loop.time() < until:
            step(f"step {dsr.step} of {STEPS}" if dsr.kind == pb.Dsr.KIND_ERASURE else "under way")
            await asyncio.sleep(POLL_S)
            dsr = (await client.call(client.dsrs.GetDsr, pb.GetDsrRequest(name=dsr.name))).dsr
    return dsr
