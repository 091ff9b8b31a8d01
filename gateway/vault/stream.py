"""The sealed object: Tink's streaming AEAD, wire format AES256_GCM_HKDF_1MB.

    object    = header || segment 0 || segment 1 || ... || last segment
    header    = 40 (1 byte) || salt (32) || nonce prefix (7)
    object key = HKDF-SHA256(dek, salt, info = associated data), 32 bytes
    segment i = AES-256-GCM(object key, nonce prefix || i (4, big-endian) || is last (1), plaintext i)

Every segment but the last is full; header and segment 0 together, and every
later segment, take 1 MiB.  The associated data enters through the key only.
The number in the nonce catches a moved segment, the last flag a cut or an added one.
Reader and writer hold one segment of plaintext and one of ciphertext, whatever the size.

Rule:
    Tink, Streaming AEAD wire format, AES-GCM-HKDF; docs/reference/sealed-object.md.
    Hoang, Reyhanitabar, Rogaway, Vizar: Online Authenticated-Encryption and its
    Nonce-Reuse Misuse-Resistance (CRYPTO 2015), nOAE2.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.vault.box import KEY_BYTES, TAG_BYTES, need_key
from gateway.vault.errors import SealBroken

__all__ = [
    "HEADER_BYTES",
    "SEGMENT_BYTES",
    "SealBroken",
    "open_",
    "open_stream",
    "seal",
    "seal_stream",
    "sealed_size",
]

SEGMENT_BYTES = 1 << 20
SALT_BYTES = 32
PREFIX_BYTES = 7
HEADER_BYTES = 1 + SALT_BYTES + PREFIX_BYTES

_FIRST_PLAIN = SEGMENT_BYTES - HEADER_BYTES - TAG_BYTES
_PLAIN = SEGMENT_BYTES - TAG_BYTES

Piece: TypeAlias = bytes | bytearray | memoryview


def sealed_size(plain_size: int) -> int:
    """Return the size in bytes of a sealed object that holds `plain_size` bytes."""
    if plain_size < 0:
        raise ValueError("a size is not negative")
    later = max(0, plain_size - _FIRST_PLAIN)
    segments = 1 + -(-later // _PLAIN)
    return HEADER_BYTES + plain_size + segments * TAG_BYTES


def seal(dek: bytes | bytearray, aad: bytes, chunks: Iterable[Piece]) -> Iterator[bytes]:
    """Return the sealed object that holds `chunks`, in pieces of at most 1 MiB.

    Args:
        dek: The object's own key, 32 random bytes.
        aad: What the object is bound to; it is not stored.
        chunks: The plaintext, cut anyhow; empty chunks are fine.

    Raises:
        ValueError: The key is not 32 bytes long.
    """
    need_key(dek)
    return _seal(dek, aad, chunks, os.urandom(SALT_BYTES), os.urandom(PREFIX_BYTES))


def open_(dek: bytes | bytearray, aad: bytes, chunks: Iterable[Piece]) -> Iterator[bytes]:
    """Yield the plaintext of a sealed object, in pieces of at most 1 MiB, none empty.

    A piece is authentic when it is yielded, but only the end of the iterator says
    that nothing is missing: who acts on pieces before the end acts on a prefix.

    Args:
        dek: The object's own key.
        aad: What it was bound to.
        chunks: The sealed object, cut anyhow.

    Raises:
        ValueError: The key is not 32 bytes long.
        SealBroken: Cut, lengthened, reordered or altered bytes, another key or other associated data.
    """
    need_key(dek)
    return _open(dek, aad, chunks)


async def seal_stream(
    dek: bytes | bytearray, aad: bytes, chunks: AsyncIterable[bytes]
) -> AsyncIterator[bytes]:
    """Yield the sealed object that holds `chunks`, which come one after another; see `seal`."""
    need_key(dek)
    salt, prefix = os.urandom(SALT_BYTES), os.urandom(PREFIX_BYTES)
    cipher, head, number = _cipher(dek, aad, salt), bytes([HEADER_BYTES]) + salt + prefix, 0
    async for plain, is_last in _cut(chunks, _FIRST_PLAIN, _PLAIN):
        yield head + cipher.encrypt(_nonce(prefix, number, is_last=is_last), plain, None)
        head, number = b"", number + 1


async def open_stream(
    dek: bytes | bytearray, aad: bytes, chunks: AsyncIterable[bytes]
) -> AsyncIterator[bytes]:
    """Yield the plaintext of a sealed object that comes in `chunks`; see `open_`."""
    need_key(dek)
    cipher, prefix, number = None, b"", 0
    async for segment, is_last in _cut(chunks, SEGMENT_BYTES, SEGMENT_BYTES):
        sealed = segment
        if cipher is None:
            salt, prefix = _read_header(memoryview(segment))
            cipher, sealed = _cipher(dek, aad, salt), segment[HEADER_BYTES:]
        try:
            plain = cipher.decrypt(_nonce(prefix, number, is_last=is_last), sealed, None)
        except InvalidTag as error:
            raise SealBroken("a segment does not open") from error
        number += 1
        if plain:
            yield plain


async def _cut(chunks: AsyncIterable[bytes], first: int, rest: int) -> AsyncIterator[tuple[bytes, bool]]:
    """Yield (segment, is last) as `_segments` does."""
    held, size = bytearray(), first
    async for chunk in chunks:
        held += chunk
        while len(held) > size:
            yield bytes(held[:size]), False
            del held[:size]
            size = rest
    yield bytes(held), True


def _seal(
    dek: bytes | bytearray, aad: bytes, chunks: Iterable[Piece], salt: bytes, prefix: bytes
) -> Iterator[bytes]:
    cipher = _cipher(dek, aad, salt)
    view = memoryview(b"")
    start = HEADER_BYTES
    for number, (plain, is_last) in enumerate(_segments(chunks, _FIRST_PLAIN, _PLAIN)):
        end = start + len(plain) + TAG_BYTES
        if not number:
            # As large as it must be: touching a fresh page costs more than sealing what goes into it.
            view = memoryview(bytearray(end))
            view[:HEADER_BYTES] = bytes([HEADER_BYTES]) + salt + prefix
        cipher.encrypt_into(_nonce(prefix, number, is_last=is_last), plain, None, view[start:end])
        yield bytes(view[:end])
        start = 0


def _open(dek: bytes | bytearray, aad: bytes, chunks: Iterable[Piece]) -> Iterator[bytes]:
    segments = _segments(chunks, SEGMENT_BYTES, SEGMENT_BYTES)
    first, is_last = next(segments)
    salt, prefix = _read_header(first)
    cipher = _cipher(dek, aad, salt)
    # As large as it must be: touching a fresh page costs more than opening what goes into it.
    out = bytearray(len(first) if is_last else _PLAIN)
    try:
        yield from _opened(cipher, _nonce(prefix, 0, is_last=is_last), first[HEADER_BYTES:], out)
        for number, (sealed, last) in enumerate(segments, start=1):
            yield from _opened(cipher, _nonce(prefix, number, is_last=last), sealed, out)
    finally:
        out[:] = bytes(len(out))


def _opened(cipher: AESGCM, nonce: bytes, sealed: memoryview, out: bytearray) -> Iterator[bytes]:
    """Yield the plaintext of one segment, or nothing if it is empty."""
    size = len(sealed) - TAG_BYTES
    if size < 0:
        raise SealBroken("cut inside a segment's tag")
    view = memoryview(out)[:size]
    try:
        cipher.decrypt_into(nonce, sealed, None, view)
    except InvalidTag as error:
        raise SealBroken("a segment does not open") from error
    if size:
        yield bytes(view)


def _read_header(segment: memoryview) -> tuple[bytes, bytes]:
    """Return salt and nonce prefix."""
    if len(segment) < HEADER_BYTES or segment[0] != HEADER_BYTES:
        raise SealBroken("no header")
    return bytes(segment[1 : 1 + SALT_BYTES]), bytes(segment[1 + SALT_BYTES : HEADER_BYTES])


def _cipher(dek: bytes | bytearray, aad: bytes, salt: bytes) -> AESGCM:
    object_key = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=aad).derive(bytes(dek))
    return AESGCM(object_key)


def _nonce(prefix: bytes, number: int, *, is_last: bool) -> bytes:
    # A number beyond 32 bits (4 PiB) raises OverflowError rather than wrapping round.
    return prefix + number.to_bytes(4, "big") + bytes([is_last])


def _segments(chunks: Iterable[Piece], first: int, rest: int) -> Iterator[tuple[memoryview, bool]]:
    """Yield (segment, is last): one of `first` bytes, then of `rest` bytes, the last as long as it is.

    The view is good until the next step.  A full segment is held back until a
    further byte proves that it is not the last; so the last one is never empty
    unless everything is.
    """
    view = memoryview(bytearray())
    filled, size = 0, first
    try:
        for chunk in chunks:
            feed = memoryview(chunk)
            while feed:
                if filled == size:
                    yield view[:filled], False
                    filled, size = 0, rest
                if not filled and len(feed) > size:
                    # A whole segment in one piece, and more behind it: nothing to gather.
                    yield feed[:size], False
                    feed, size = feed[size:], rest
                    continue
                taken = min(size - filled, len(feed))
                if filled + taken > len(view):
                    view = _grown(view, filled, filled + taken, rest)
                view[filled : filled + taken] = feed[:taken]
                filled += taken
                feed = feed[taken:]
        yield view[:filled], True
    finally:
        view[:] = bytes(len(view))


def _grown(view: memoryview, filled: int, needed: int, most: int) -> memoryview:
    """Return a longer buffer that begins with the same bytes, and overwrite the old one."""
    longer = memoryview(bytearray(min(most, max(needed, 4 * len(view)))))
    longer[:filled] = view[:filled]
    view[:] = bytes(len(view))
    return longer
