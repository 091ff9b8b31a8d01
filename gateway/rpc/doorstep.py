"""Counts who comes to the door and does not get in.

grpc tells nobody of a handshake that failed: a plaintext client, or a
certificate of a foreign CA.  But it asks for our certificate when a handshake
begins, and a call shows that a connection stands.  So what began and led to no
call within `grace_s` was turned away (or had nothing to say).
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter

GRACE_S = 10.0
MINUTE_S = 60.0
PEERS_KEPT = 10_000
BEGUN_KEPT = 100_000


@dataclass(slots=True)
class Doorstep:
    """Matches handshakes that began with connections that made a call.

    `alarm` is called with `handshakes_refused` at most once a minute, while more
    than `alarm_per_minute` were turned away in the last one.  Addresses are
    compared and forgotten, never logged or counted by.
    """

    registry: CollectorRegistry
    alarm: Callable[[str], None]
    alarm_per_minute: int
    grace_s: float = GRACE_S
    clock_s: Callable[[], float] = time.monotonic
    _begun: deque[float] = field(init=False)
    _turned_away: deque[float] = field(init=False)
    _peers: OrderedDict[str, None] = field(init=False, default_factory=OrderedDict)
    _alarmed_at: float | None = field(init=False, default=None)
    _started: Counter = field(init=False)
    _refused: Counter = field(init=False)

    def __post_init__(self) -> None:
        """Register the metrics."""
        self._begun = deque(maxlen=BEGUN_KEPT)
        self._turned_away = deque(maxlen=BEGUN_KEPT)
        self._started = Counter(
            "lethe_handshakes_begun", "TLS handshakes that began.", registry=self.registry
        )
        self._refused = Counter(
            "lethe_handshakes_without_call",
            "TLS handshakes that led to no call within the grace: refused, or idle.",
            registry=self.registry,
        )

    def knock(self) -> None:
        """Note that a handshake begins; may be called from a thread of grpc's."""
        self._begun.append(self.clock_s())
        self._started.inc()

    def enter(self, peer: str) -> None:
        """Note a call; the first one of a connection answers for one handshake."""
        if peer in self._peers:
            self._peers.move_to_end(peer)
            return
        self._peers[peer] = None
        if len(self._peers) > PEERS_KEPT:
            self._peers.popitem(last=False)
        if self._begun:
            self._begun.popleft()

    def count(self) -> int:
        """Return how many were turned away since the last time; raise the alarm where there are too many."""
        now, turned = self.clock_s(), 0
        while self._begun and now - self._begun[0] > self.grace_s:
            self._turned_away.append(self._begun.popleft())
            self._refused.inc()
            turned += 1
        while self._turned_away and now - self._turned_away[0] > self.grace_s + MINUTE_S:
            self._turned_away.popleft()
        is_silent = self._alarmed_at is None or now - self._alarmed_at >= MINUTE_S
        if len(self._turned_away) > self.alarm_per_minute and is_silent:
            self._alarmed_at = now
            self.alarm("handshakes_refused")
        return turned
