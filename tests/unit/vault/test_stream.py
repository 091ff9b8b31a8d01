from __future__ import annotations

import hashlib
import io
import itertools
import os
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tink import proto_keyset_format, secret_key_access, streaming_aead

from gateway.vault import stream
from gateway.vault.keys import Binding
from gateway.vault.stream import (
    HEADER_BYTES,
    SEGMENT_BYTES,
    SealBroken,
    open_,
    open_stream,
    seal,
    seal_stream,
    sealed_size,
)

TAG = 16
FIRST = SEGMENT_BYTES - HEADER_BYTES - TAG
REST = SEGMENT_BYTES - TAG
SIZES = [
    0,
    1,
    100,
    FIRST - 1,
    FIRST,
    FIRST + 1,
    SEGMENT_BYTES,
    FIRST + REST - 1,
    FIRST + REST,
    FIRST + REST + 1,
    3 * SEGMENT_BYTES + 7,
]
DEK = bytes(range(32))
AAD = Binding("acme", "ab" * 32, "content", "cd" * 16, "generate").aad()
DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "sealed-object.md"


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    """The Python block of the reference page, run."""
    block = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert block is not None
    names: dict[str, Any] = {}
    exec(block.group(1), names)  # noqa: S102 - the page's own recipe is what is tested
    return names


def plain_of(size: int) -> bytes:
    return hashlib.shake_128(b"plain").digest(size)


def sealed_of(plain: bytes) -> bytes:
    return b"".join(seal(DEK, AAD, [plain]))


def opened(sealed: bytes, dek: bytes = DEK, aad: bytes = AAD) -> bytes:
    return b"".join(open_(dek, aad, [sealed]))


def tink_seal(recipe: dict[str, Any], plain: bytes) -> bytes:
    streaming_aead.register()
    handle = proto_keyset_format.parse(recipe["keyset"](DEK), secret_key_access.TOKEN)
    kept = Kept()
    with handle.primitive(streaming_aead.StreamingAead).new_encrypting_stream(kept, AAD) as out:
        out.write(plain)
    return kept.content


class Kept(io.BytesIO):
    """Keeps its bytes when it is closed."""

    content = b""

    def close(self) -> None:
        self.content = self.getvalue()
        super().close()


@pytest.mark.parametrize("size", SIZES)
def test_tink_opens_what_we_seal_by_the_recipe_of_the_reference_page(size, recipe):
    plain = plain_of(size)
    aad = recipe["associated_data"]("acme", "ab" * 32, "content", "cd" * 16, "generate")
    assert plain == recipe["open_object"](DEK, aad, sealed_of(plain))


@pytest.mark.parametrize("size", SIZES)
def test_we_open_what_tink_seals(size, recipe):
    plain = plain_of(size)
    sealed = tink_seal(recipe, plain)
    assert plain == opened(sealed)
    assert len(sealed) == sealed_size(size)


def test_tink_refuses_our_object_under_other_associated_data(recipe):
    from tink import TinkError

    with pytest.raises(TinkError):
        recipe["open_object"](DEK, AAD + b"x", sealed_of(b"portrait"))


def test_the_keyset_of_the_reference_page_is_its_constant_and_the_key(recipe):
    constant = re.search(r"`([0-9a-f]{24})`", DOCUMENT.read_text())
    assert constant is not None
    assert bytes.fromhex(constant.group(1)) + DEK in recipe["keyset"](DEK)


@pytest.mark.parametrize("size", SIZES)
def test_the_sealed_size_is_known_beforehand(size):
    assert sealed_size(size) == len(sealed_of(plain_of(size)))


def test_a_negative_size_is_refused():
    with pytest.raises(ValueError, match="negative"):
        sealed_size(-1)


def test_the_format_does_not_drift():
    """The digest was taken once from an object that Tink 1.16.1 opens."""
    sealed = b"".join(stream._seal(DEK, AAD, [plain_of(FIRST + 5)], bytes(32), bytes(7)))
    assert hashlib.sha256(sealed).hexdigest() == VECTOR


def test_the_vector_is_one_that_tink_opens(recipe):
    sealed = b"".join(stream._seal(DEK, AAD, [plain_of(FIRST + 5)], bytes(32), bytes(7)))
    assert plain_of(FIRST + 5) == recipe["open_object"](DEK, AAD, sealed)


VECTOR = "77e4882c4e0e04a9b341525487ddc12a4afc3922911953a66ca75e13d28809c7"


def cut(data: bytes, cuts: list[int]) -> Iterator[memoryview]:
    edges = [0, *sorted(c % (len(data) + 1) for c in cuts), len(data)]
    view = memoryview(data)
    return (view[a:b] for a, b in itertools.pairwise(edges))


@given(size=st.sampled_from(SIZES), cuts=st.lists(st.integers(0, 4 * SEGMENT_BYTES), max_size=12))
def test_how_the_plaintext_is_cut_changes_nothing(size, cuts):
    plain = plain_of(size)
    whole = b"".join(stream._seal(DEK, AAD, [plain], bytes(32), bytes(7)))
    assert whole == b"".join(stream._seal(DEK, AAD, cut(plain, cuts), bytes(32), bytes(7)))


@given(size=st.sampled_from(SIZES), cuts=st.lists(st.integers(0, 4 * SEGMENT_BYTES), max_size=12))
def test_how_the_sealed_object_is_cut_changes_nothing(size, cuts):
    plain = plain_of(size)
    sealed = b"".join(stream._seal(DEK, AAD, [plain], bytes(32), bytes(7)))
    assert plain == b"".join(open_(DEK, AAD, cut(sealed, cuts)))


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_single_bytes_and_empty_chunks_are_fine(plain, cuts):
    chunks = [b"", *cut(plain, cuts), b""]
    assert plain == b"".join(open_(DEK, AAD, (bytes([byte]) for byte in b"".join(seal(DEK, AAD, chunks)))))


def test_no_piece_is_larger_than_a_segment():
    plain = plain_of(3 * SEGMENT_BYTES + 7)
    sealed = list(seal(DEK, AAD, [plain]))
    assert max(map(len, sealed)) == SEGMENT_BYTES
    assert max(map(len, open_(DEK, AAD, [b"".join(sealed)]))) <= SEGMENT_BYTES


def test_sealing_and_opening_hold_no_more_than_a_few_segments():
    import tracemalloc

    megabyte = plain_of(SEGMENT_BYTES)
    tracemalloc.start()
    try:
        size = sum(map(len, open_(DEK, AAD, seal(DEK, AAD, (megabyte for _ in range(40))))))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == 40 * SEGMENT_BYTES
    assert peak < 9 * SEGMENT_BYTES


def test_a_segment_leaves_as_soon_as_the_next_one_begins():
    def feed() -> Iterator[bytes]:
        yield plain_of(FIRST + 1)
        raise AssertionError("asked for more than it needed")

    assert len(next(seal(DEK, AAD, feed()))) == SEGMENT_BYTES


def test_two_seals_of_the_same_bytes_share_nothing():
    one, two = sealed_of(plain_of(64)), sealed_of(plain_of(64))
    assert one[1:33] != two[1:33]
    assert one[33:40] != two[33:40]
    assert one[40:] != two[40:]


@given(st.integers(0, 2 * SEGMENT_BYTES + 200))
def test_a_truncated_object_is_refused(kept):
    sealed = fixed()
    with pytest.raises(SealBroken):
        opened(sealed[: min(kept, len(sealed) - 1)])


@pytest.mark.parametrize("kept", [0, 1, 39, 40, 55, SEGMENT_BYTES, 2 * SEGMENT_BYTES])
def test_an_object_cut_at_a_boundary_is_refused(kept):
    with pytest.raises(SealBroken):
        opened(fixed()[:kept])


@given(st.binary(min_size=1, max_size=40))
def test_trailing_bytes_are_refused(tail):
    with pytest.raises(SealBroken):
        opened(fixed() + tail)


def test_a_second_object_behind_the_first_is_refused():
    with pytest.raises(SealBroken):
        opened(fixed() + fixed())


def test_swapped_segments_are_refused():
    sealed = b"".join(stream._seal(DEK, AAD, [plain_of(FIRST + 2 * REST + 9)], bytes(32), bytes(7)))
    one, two, three, end = (sealed[i * SEGMENT_BYTES : (i + 1) * SEGMENT_BYTES] for i in range(4))
    assert opened(one + two + three + end)
    for order in (
        [one, three, two, end],
        [one, two, end],
        [one, two, two, three, end],
        [two, one, three, end],
    ):
        with pytest.raises(SealBroken):
            opened(b"".join(order))


def test_a_last_segment_in_the_middle_is_refused():
    ends = b"".join(stream._seal(DEK, AAD, [plain_of(FIRST)], bytes(32), bytes(7)))
    goes_on = b"".join(stream._seal(DEK, AAD, [plain_of(FIRST + 5)], bytes(32), bytes(7)))
    with pytest.raises(SealBroken):
        opened(ends + goes_on[SEGMENT_BYTES:])


@given(st.integers(0, sealed_size(300) - 1), st.integers(1, 255))
def test_any_altered_byte_is_refused(where, flip):
    sealed = bytearray(sealed_of(plain_of(300)))
    sealed[where] ^= flip
    with pytest.raises(SealBroken):
        opened(bytes(sealed))


@pytest.mark.parametrize("where", [SEGMENT_BYTES - 1, SEGMENT_BYTES, 2 * SEGMENT_BYTES + 3])
def test_an_altered_byte_in_a_later_segment_is_refused_after_authentic_pieces_only(where):
    sealed = bytearray(fixed())
    sealed[where] ^= 1
    pieces = []
    with pytest.raises(SealBroken):
        pieces.extend(open_(DEK, AAD, [bytes(sealed)]))
    assert plain_of(PLAIN).startswith(b"".join(pieces))


def test_other_associated_data_is_refused():
    for aad in (b"", AAD[:-1], AAD + b"\0"):
        with pytest.raises(SealBroken):
            opened(sealed_of(b"portrait"), aad=aad)


def test_another_key_is_refused():
    with pytest.raises(SealBroken):
        opened(sealed_of(b"portrait"), dek=os.urandom(32))


@given(st.binary(max_size=200))
def test_garbage_is_refused(garbage):
    with pytest.raises(SealBroken):
        opened(garbage)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_key_of_another_length_is_refused_before_anything_is_read(length):
    with pytest.raises(ValueError, match="32 bytes"):
        seal(bytes(length), AAD, [])
    with pytest.raises(ValueError, match="32 bytes"):
        open_(bytes(length), AAD, [])


def test_a_source_that_fails_passes_its_error_through():
    def feed() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        list(seal(DEK, AAD, feed()))


PLAIN = FIRST + REST + 100
_FIXED: list[bytes] = []


def fixed() -> bytes:
    """One object of three segments, sealed once."""
    if not _FIXED:
        _FIXED.append(b"".join(stream._seal(DEK, AAD, [plain_of(PLAIN)], bytes(32), bytes(7))))
    return _FIXED[0]


# --- what comes and goes one piece after another ---------------------------------------------


async def arriving(data: bytes, cut: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), cut):
        yield data[start : start + cut]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("cut", [65_537, 3 * SEGMENT_BYTES])
async def test_a_stream_is_sealed_and_opened_as_a_whole_is(size: int, cut: int) -> None:
    plain = plain_of(size)
    pieces = [piece async for piece in seal_stream(DEK, AAD, arriving(plain, cut))]
    assert max(map(len, pieces)) <= SEGMENT_BYTES
    assert len(b"".join(pieces)) == sealed_size(size)
    assert opened(b"".join(pieces)) == plain
    back = [piece async for piece in open_stream(DEK, AAD, arriving(sealed_of(plain), cut))]
    assert b"".join(back) == plain


@pytest.mark.parametrize("cut_off", [1, TAG, SEGMENT_BYTES, 2 * SEGMENT_BYTES + 7])
async def test_a_stream_that_is_cut_short_does_not_end_well(cut_off: int) -> None:
    sealed = sealed_of(plain_of(2 * SEGMENT_BYTES + 9))
    with pytest.raises(SealBroken):
        _ = [piece async for piece in open_stream(DEK, AAD, arriving(sealed[:-cut_off], 65_537))]


@pytest.mark.parametrize("sealed", [b"", b"(", bytes(HEADER_BYTES), b"(" + bytes(HEADER_BYTES + TAG)])
async def test_a_stream_that_is_no_sealed_object_is_refused(sealed: bytes) -> None:
    with pytest.raises(SealBroken):
        _ = [piece async for piece in open_stream(DEK, AAD, arriving(sealed, 7))]
