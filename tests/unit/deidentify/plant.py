"""Pictures with canaries in every hiding place that a container offers.

Everything is built from segments by hand, so that a planted file holds what it
is meant to hold whatever Pillow thinks of it.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib

from PIL import Image

from gateway.admin.planting import plant_metadata

CANARY = b"CANARY"
"""In every planted string; no scrubbed file may contain it."""


def canary(place: str) -> bytes:
    return b"CANARY-" + place.encode()


def picture(mode: str = "RGB", size: tuple[int, int] = (48, 32)) -> Image.Image:
    """Return a picture with structure in every channel."""
    bands = [Image.linear_gradient("L"), Image.radial_gradient("L")]
    bands += [Image.linear_gradient("L").rotate(90), Image.linear_gradient("L").rotate(180)]
    if mode in {"1", "P"}:
        return bands[1].resize(size).convert(mode)
    count = len(Image.new(mode, (1, 1)).getbands())
    return Image.merge(mode, [band.resize(size) for band in bands[:count]])


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def pixels(data: bytes) -> tuple[str, tuple[int, int], bytes, object]:
    """Return all that a decoder makes of the coded pixels."""
    with warnings.catch_warnings():
        # Pillow is not pleased with what is planted.
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(data))
    with image:
        image.load()
        return image.mode, image.size, image.tobytes(), image.info.get("transparency")


# JPEG


def segment(code: int, payload: bytes) -> bytes:
    return bytes([0xFF, code]) + struct.pack(">H", len(payload) + 2) + payload


def jpeg_segments() -> dict[str, bytes]:
    """Return one planted segment for every place in a JPEG."""
    icc = b"ICC_PROFILE\0\x01\x01" + canary("icc").ljust(128, b"\0")
    resource = (
        b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">I", 24) + canary("iptc").ljust(24, b" ")
    )
    return {
        "jfxx": segment(0xE0, b"JFXX\0\x10" + canary("jfxx")),
        "xmp": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>" + canary("xmp") + b"</x:xmpmeta>"),
        "xmp_extended": segment(
            0xE1, b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32 + b"\0" * 8 + canary("ext")
        ),
        "icc": segment(0xE2, icc),
        "mpf": segment(0xE2, b"MPF\0MM\0*\0\0\0\x08" + canary("mpf")),
        "app9": segment(0xE9, canary("app9")),
        "jumbf": segment(0xEB, b"JP\0\x01\0\0\0\x01" + canary("jumbf")),
        "app12": segment(0xEC, b"Ducky" + canary("ducky")),
        "iptc": segment(0xED, resource),
        "app14": segment(0xEE, canary("app14")),
        "app15": segment(0xEF, canary("app15")),
        "comment": segment(0xFE, canary("comment")),
    }


def jpeg(orientation: int = 1, photo: Image.Image | None = None, **options: object) -> bytes:
    """Return a JPEG, of `photo` if given: a canary in every segment, between segments, after the end."""
    clean = encode(photo or picture(str(options.pop("mode", "RGB"))), "JPEG", **options)
    thumbnail = b"\xff\xd8" + jpeg_segments()["comment"] + encode(picture(size=(16, 16)), "JPEG")[2:]
    told = plant_metadata(
        clean,
        gps=(52.5, -13.4),
        serial=canary("serial").decode(),
        thumbnail=thumbnail,
        orientation=orientation,
    )
    head = told.index(segment(0xE1, b"")[:2]) + 2
    end = head + int.from_bytes(told[head : head + 2], "big")
    body = told[:end] + b"".join(jpeg_segments().values()) + told[end:]
    return body + thumbnail + canary("trailer") + video()


def video() -> bytes:
    """Return what a motion photo appends."""
    return b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"\0\0\0\x20mdat" + canary("video").ljust(24, b"\0")


# PNG


def chunk(name: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", zlib.crc32(name + payload))


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def joined(parts: list[tuple[bytes, bytes]]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def tiff(orientation: int = 1) -> bytes:
    """Return a TIFF structure with a canary and an orientation."""
    told = plant_metadata(
        b"\xff\xd8\xff", gps=(1, 2), serial=canary("tiff").decode(), thumbnail=b"", orientation=orientation
    )
    return told[12:-1]


def png_chunks(orientation: int = 1) -> dict[str, bytes]:
    """Return one planted chunk for every place before the pixels of a PNG."""
    return {
        "text": chunk(b"tEXt", b"Author\0" + canary("text"))
        + chunk(b"zTXt", b"Comment\0\0" + zlib.compress(canary("ztxt")))
        + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + canary("itxt")),
        "time": chunk(b"tIME", bytes([7, 230, 1, 2, 3, 4, 5])),
        "phys": chunk(b"pHYs", struct.pack(">IIB", 2835, 2835, 1)),
        "chrm": chunk(b"cHRM", struct.pack(">8I", *range(8))),
        "icc": chunk(b"iCCP", canary("icc") + b"\0\0" + zlib.compress(canary("profile"))),
        "exif": chunk(b"eXIf", tiff(orientation)),
        "jumbf": chunk(b"caBX", canary("jumbf")),
        "other": chunk(b"prVt", canary("private")),
    }


def png(orientation: int = 1, mode: str = "RGB", *, with_profile: bool = True) -> bytes:
    """Return a PNG with a canary in every chunk, in the compressed stream's tail and after the end."""
    planted = png_chunks(orientation)
    if not with_profile:
        del planted["icc"]
    clean = chunks(encode(picture(mode), "PNG"))
    parts = [(name, data + canary("idat") if name == b"IDAT" else data) for name, data in clean]
    whole = joined(parts)
    at = 8 + 25
    return whole[:at] + b"".join(planted.values()) + whole[at:] + b"\0\0" + canary("trailer")


# WebP


def riff_chunk(name: bytes, payload: bytes) -> bytes:
    return name + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) & 1)


def riff(*parts: bytes) -> bytes:
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def extended(flags: int, size: tuple[int, int]) -> bytes:
    sides = b"".join((side - 1).to_bytes(3, "little") for side in size)
    return riff_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + sides)


def webp_parts(data: bytes) -> dict[bytes, bytes]:
    found, at = {}, 12
    while at < len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        found[data[at : at + 4]] = data[at : at + 8 + size + (size & 1)]
        at += 8 + size + (size & 1)
    return found


def webp_chunks(orientation: int = 1) -> dict[str, bytes]:
    return {
        "icc": riff_chunk(b"ICCP", canary("icc")),
        "exif": riff_chunk(b"EXIF", b"Exif\0\0" + tiff(orientation)),
        "xmp": riff_chunk(b"XMP ", canary("xmp")),
        "jumbf": riff_chunk(b"C2PA", canary("jumbf")),
        "other": riff_chunk(b"prvt", canary("private")),
    }


def webp(orientation: int = 1, mode: str = "RGB", *, lossless: bool = False) -> bytes:
    """Return a WebP with a canary in every chunk and after the end."""
    image = picture(mode)
    parts = webp_parts(encode(image, "WEBP", lossless=lossless))
    bitstream = [parts[name] for name in (b"ALPH", b"VP8 ", b"VP8L") if name in parts]
    planted = webp_chunks(orientation)
    flags = 0x2C | (0x10 if mode == "RGBA" else 0)
    body = (extended(flags, image.size), planted.pop("icc"), *bitstream, *planted.values())
    return riff(*body) + canary("trailer")
