"""Nothing that handles pictures opens a connection or asks for a name; `make test-egress` looks on for 90 s.

Some libraries call home late (onnxruntime: within 90 s), so the long run matters.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.egress.watch import strangers, watched
from tests.needs import missing

SECONDS = float(os.environ.get("LETHE_EGRESS_S", "0"))


def test_a_portrait_goes_the_whole_way_and_nobody_is_called(tmp_path: Path) -> None:
    if not any(Path(os.environ.get("LETHE_WEIGHTS_DIR", ".cache/weights")).glob("*.tflite")):
        missing("model weights", "make weights")
    seen = watched(tmp_path, ["tests.egress.pipeline", str(SECONDS)], SECONDS + 120)
    assert seen.code == 0, seen.output
    assert "portraits " in seen.output
    assert (seen.strangers, seen.files) == ((), ())


def test_a_library_left_at_its_default_is_caught(tmp_path: Path) -> None:
    """The test of the test."""
    (tmp_path / "left").mkdir()
    left = watched(tmp_path / "left", ["tests.egress.phone"], 60, PYTHONDONTWRITEBYTECODE="1")
    assert left.code == 0, left.output
    assert left.strangers
    (tmp_path / "off").mkdir()
    off = watched(tmp_path / "off", ["tests.egress.phone", "offline"], 60)
    assert (off.code, off.strangers) == (0, ()), off.output


@pytest.mark.parametrize(
    ("port", "host", "whom"),
    [
        (443, 'sin_addr=inet_addr("192.0.2.7")', "192.0.2.7:443"),
        (53, 'sin_addr=inet_addr("127.0.0.53")', "127.0.0.53:53"),
        (53, 'sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "2001:db8::1", &sin6_addr)', "2001:db8::1:53"),
        (8443, 'sin_addr=inet_addr("127.0.0.1")', ""),
        (8443, 'sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "::ffff:127.0.0.1", &sin6_addr)', ""),
    ],
)
def test_an_address_in_the_notes_is_a_strangers_or_not(port: int, host: str, whom: str) -> None:
    family = "sin6" if "INET6" in host else "sin"
    line = f"7 connect(6, {{sa_family=AF_X, {family}_port=htons({port}), {host}}}, 28) = -1"
    assert strangers(line) == [whom] * bool(whom)
    assert strangers('7 connect(6, {sa_family=AF_UNIX, sun_path="/run/x"}, 110) = 0') == []
