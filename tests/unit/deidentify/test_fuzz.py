from __future__ import annotations

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.deidentify import Limits, Rejected
from gateway.deidentify.orientation import minimal_exif, read_orientation
from gateway.deidentify.verify import verify
from gateway.deidentify.walker import scrub
from tests.sample import examples
from tests.unit.deidentify import plant

LIMITS = Limits(max_bytes=1 << 20, max_pixels=1 << 20)
PLANTED = (
    plant.jpeg(6),
    plant.jpeg(1, progressive=True),
    plant.png(6),
    plant.png(1, mode="P"),
    plant.webp(6, mode="RGBA"),
    plant.webp(3, lossless=True),
)
FUZZ = settings(max_examples=examples(1000), deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Return a planted file with bytes changed, cut out, repeated, or its end cut off."""
    data = bytearray(draw(st.sampled_from(PLANTED)))
    for _ in range(draw(st.integers(1, 6))):
        # Half of the changes hit headers, where the grammar is.
        at = draw(st.integers(0, 200) | st.integers(0, len(data) - 1)) % len(data)
        match draw(st.sampled_from(["set", "set", "set", "cut", "repeat", "insert", "end"])):
            case "set":
                data[at] = draw(
                    st.sampled_from([0, 1, 0x7F, 0x80, 0xD8, 0xD9, 0xDA, 0xFF]) | st.integers(0, 255)
                )
            case "cut":
                del data[at : at + draw(st.integers(1, 40))]
            case "repeat":
                data[at:at] = data[at : at + draw(st.integers(1, 40))]
            case "insert":
                data[at:at] = draw(st.binary(max_size=12))
            case "end" if at > 20:
                del data[at:]
            case _:
                pass
        if not data:
            break
    return bytes(data)


@FUZZ
@given(mutated())
def test_a_mutated_file_is_scrubbed_or_rejected_and_never_leaks(data: bytes) -> None:
    try:
        clean = scrub(data, LIMITS)
    except Rejected:
        return
    # A mutated length can turn metadata into coded pixels; the checker may
    # then pass it, but nobody planted it as metadata any more.
    verify(clean.data)
    if clean.format == "png":
        assert plant.CANARY not in clean.data
    assert scrub(clean.data, LIMITS).data == clean.data


@FUZZ
@given(
    st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x40\0\0\0WEBPVP8X", b""]),
    st.binary(max_size=200),
)
def test_garbage_is_rejected(head: bytes, garbage: bytes) -> None:
    try:
        scrub(head + garbage, LIMITS)
    except Rejected:
        return
    raise AssertionError("garbage passed as a picture")


@FUZZ
@given(st.binary(max_size=100), st.sampled_from([b"", b"II*\0", b"MM\0*", b"Exif\0\0II*\0\x08\0\0\0"]))
@example(b"\xff\xff\xff\xff", b"II*\0")
def test_reading_an_orientation_never_fails(garbage: bytes, head: bytes) -> None:
    assert read_orientation(head + garbage) in {None, *range(1, 9)}


@given(st.integers(1, 8), st.booleans())
def test_an_orientation_is_read_as_it_was_written(orientation: int, has_prefix: bool) -> None:
    exif = minimal_exif(orientation)
    assert orientation == read_orientation((b"Exif\0\0" if has_prefix else b"") + exif)
    assert len(exif) == 26


@given(st.integers(0, 65535).filter(lambda value: not 1 <= value <= 8))
def test_an_orientation_outside_the_standard_is_none(value: int) -> None:
    assert read_orientation(minimal_exif(1)[:18] + value.to_bytes(2, "big") + bytes(6)) is None
