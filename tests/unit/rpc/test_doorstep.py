"""Who is turned away at the door is counted, and a crowd raises the alarm."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from gateway.rpc.doorstep import GRACE_S, Doorstep


class Scene:
    def __init__(self, per_minute: int = 2) -> None:
        self.now = 0.0
        self.alarms: list[str] = []
        self.registry = CollectorRegistry()
        self.door = Doorstep(self.registry, self.alarms.append, per_minute, clock_s=lambda: self.now)

    def refused(self) -> float:
        return self.registry.get_sample_value("lethe_handshakes_without_call_total") or 0.0


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_connection_that_makes_a_call_is_not_counted(scene):
    scene.door.knock()
    scene.door.enter("ipv4:127.0.0.1:1")
    scene.now = GRACE_S + 1
    assert scene.door.count() == 0
    assert scene.refused() == 0


def test_a_handshake_without_a_call_is_counted_after_the_grace(scene):
    scene.door.knock()
    assert scene.door.count() == 0
    scene.now = GRACE_S + 1
    assert scene.door.count() == 1
    assert scene.refused() == 1


def test_many_calls_of_one_connection_answer_for_one_handshake(scene):
    scene.door.knock()
    scene.door.knock()
    for _ in range(5):
        scene.door.enter("ipv4:127.0.0.1:1")
    scene.now = GRACE_S + 1
    assert scene.door.count() == 1


def test_a_crowd_raises_the_alarm_once_a_minute(scene):
    for _ in range(3):
        scene.door.knock()
    scene.now = GRACE_S + 1
    scene.door.count()
    scene.now += 1
    scene.door.count()
    assert scene.alarms == ["handshakes_refused"]
    for _ in range(3):
        scene.door.knock()
    scene.now += 61
    scene.door.count()
    assert scene.alarms == ["handshakes_refused"] * 2


def test_a_few_raise_no_alarm(scene):
    for _ in range(2):
        scene.door.knock()
    scene.now = GRACE_S + 1
    scene.door.count()
    assert scene.alarms == []
