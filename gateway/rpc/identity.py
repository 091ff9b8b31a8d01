"""From a client certificate to a caller: SPIFFE id or DNS SAN, looked up in the configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gateway.caller import Caller


@dataclass(frozen=True, slots=True)
class Directory:
    """The configured callers by identity."""

    callers: Mapping[str, Caller]

    def find(self, auth: Mapping[str, Iterable[bytes]]) -> Caller | None:
        """Return the caller that the TLS handshake proved, or None if nobody we know.

        `auth` is `ServicerContext.auth_context()`.  A SPIFFE id wins over DNS
        names; a certificate with two known identities is nobody.
        """
        spiffe = [value.decode(errors="replace") for value in auth.get("peer_spiffe_id", ())]
        names = [value.decode(errors="replace") for value in auth.get("x509_subject_alternative_name", ())]
        for candidates in (spiffe, names):
            known = {self.callers[name] for name in candidates if name in self.callers}
            if len(known) == 1:
                return known.pop()
            if known:
                return None
        return None
