"""Publishes privacy notices and shows them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from audit import canonical
from gateway.caller import Caller
from gateway.errors import MessageInvalid, NoticeUnknown
from gateway.idempotency import Idempotency
from gateway.ledger import Ledger, Receipt
from gateway.paging import Page, page
from gateway.ports.clock import Clock
from gateway.ports.records import Notice, Records, Transaction
from policy.coded import NOTICES


@dataclass(frozen=True, slots=True)
class NoticeDraft:
    """The text of a notice as the controller wrote it, and what it states (GDPR Art. 13)."""

    notice_id: str
    language: str
    title: str
    body: str
    purposes: tuple[str, ...]
    shown: Mapping[str, Any]
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Notices:
    """Versioned notices.  A published version never changes; publishing again makes the next."""

    records: Records
    ledger: Ledger
    idempotency: Idempotency
    clock: Clock
    random: Callable[[int], bytes] = os.urandom

    async def publish(self, caller: Caller, draft: NoticeDraft) -> tuple[Notice, Receipt | None]:
        """Publish the draft as the next version of its notice and language.

        Raises:
            MessageInvalid: It claims to serve as a notice that no pack asks for.
        """
        if not set(draft.shown.get("serves", ())) <= set(NOTICES):
            raise MessageInvalid(
                "no law asks for such a notice", violations=(("notice.serves", "notice.unknown_kind"),)
            )
        said = [draft.notice_id, draft.language, draft.title, draft.body, draft.purposes, dict(draft.shown)]
        content = json.dumps(said, sort_keys=True).encode()
        ticket = await self.idempotency.ticket(caller.tenant, "PublishNotice", draft.request_id, content)

        def commit(tx: Transaction) -> tuple[Notice, Receipt | None]:
            key = {"tenant": caller.tenant, "notice_id": draft.notice_id, "language": draft.language}
            versions = tx.find(Notice, equal=key, order_by=("-version",))
            known = self.idempotency.recall(tx, ticket)
            if known is not None:
                return next(n for n in versions if n.thing_id == known), None
            notice = Notice(
                tenant=caller.tenant,
                notice_id=draft.notice_id,
                version=(versions[0].version if versions else 0) + 1,
                language=draft.language,
                thing_id=self.random(16).hex(),
                title=draft.title,
                body=draft.body,
                sha256=hashlib.sha256(draft.body.encode()).hexdigest(),
                purposes=draft.purposes,
                shown=dict(draft.shown),
                published_at=self.clock.now(),
                is_spread=not versions,
            )
            tx.add(notice)
            self.idempotency.remember(tx, ticket, notice.thing_id)
            purposes = sorted(draft.purposes)
            return notice, self.ledger.record(
                tx,
                caller.tenant,
                "notice.published",
                caller,
                ntc=notice.thing_id,
                pur=purposes,
                dig=content_sha256(notice),
            )

        return await self.records.transact(commit)

    async def get(self, caller: Caller, notice_id: str, version: int = 0, language: str = "") -> Notice:
        """Return a version of a notice, the newest where `version` is 0, in any language where none is named.

        Raises:
            NoticeUnknown: There is none.
        """
        equal: dict[str, Any] = {"tenant": caller.tenant, "notice_id": notice_id}
        equal |= {"version": version} if version else {}
        equal |= {"language": language} if language else {}
        found = await self.records.transact(
            lambda tx: tx.find(Notice, equal=equal, order_by=("-version", "language"), limit=1)
        )
        if not found:
            raise NoticeUnknown
        return found[0]

    async def list(self, caller: Caller, size: int, token: str) -> Page[Notice]:
        """Return a page of all versions of all notices."""
        rows = await self.records.transact(lambda tx: tx.find(Notice, equal={"tenant": caller.tenant}))
        rows.sort(key=_key)
        return page(rows, size, _key, ("notices",), token)


def content_sha256(notice: Notice) -> str:
    """Return the digest of all that a version says, in hex: of its canonical JSON (RFC 8785)."""
    said = {
        "name": f"notices/{notice.notice_id}",
        "version": notice.version,
        "language": notice.language,
        "title": notice.title,
        "text": notice.body,
        "purposes": sorted(notice.purposes),
        **notice.shown,
    }
    return hashlib.sha256(canonical.encode(said)).hexdigest()


def _key(notice: Notice) -> str:
    return f"{notice.notice_id} {notice.version:09d} {notice.language}"
