"""Marks as C2PA manifests; needs the extra `c2pa`.

The manifest says how the picture came to be (`digitalSourceType` of IPTC) and that it is not
to be mined or trained on (`cawg.training-mining`).  It holds no ingredient, no thumbnail, no title,
no place and no name but that of this software and of the certificate.

The library can ask for manifests, certificates' states and timestamps over the network; every
one of these is off, and `make test-egress` looks on.
"""

from __future__ import annotations

import asyncio
import io
import json
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from gateway.ports.marking import Marked, MarkingFailed, Source

if TYPE_CHECKING:
    import c2pa

SOFTWARE: Final = "Lethe"
_IPTC: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_SOURCES: Final[dict[Source, str]] = {
    "generated": "trainedAlgorithmicMedia",
    "composite_generated": "compositeWithTrainedAlgorithmicMedia",
    "composite_synthetic": "compositeSynthetic",
    "enhanced": "algorithmicallyEnhanced",
}
_NOT_ALLOWED: Final = {
    f"cawg.{use}": {"use": "notAllowed"}
    for use in ("data_mining", "ai_inference", "ai_generative_training", "ai_training")
}
_USAGES: Final = (
    "1.3.6.1.5.5.7.3.4",  # emailProtection
    "1.3.6.1.5.5.7.3.36",  # documentSigning
    "1.3.6.1.4.1.62558.2.1",  # claimSigning, of C2PA's own trust list
)
"""Extended key usages with which a certificate may sign."""
_OFFLINE: Final = {
    "version": 1,
    "verify": {
        "verify_trust": True,
        "verify_after_sign": False,  # `mark` reads what it wrote itself, and by its own anchors
        "remote_manifest_fetch": False,
        "ocsp_fetch": False,
    },
    "builder": {"thumbnail": {"enabled": False}},
}
_CURVES: Final = {"secp256r1": b"es256", "secp384r1": b"es384"}


class C2paMarker:
    """The `Marker` that signs with one certificate, and believes what leads to given roots."""

    def __init__(self, key: bytes, chain: bytes, anchors: bytes) -> None:
        """Read what it signs with and whom it believes.

        Args:
            key: The signer's private key (PEM): P-256, P-384 or Ed25519.
            chain: Its certificate, then those between it and a root (PEM).
            anchors: The roots that are believed, of certificates past and present (PEM).

        Raises:
            ValueError: One of them cannot be read, or the key is of another kind or another certificate.
        """
        own = x509.load_pem_x509_certificates(chain)[0]
        x509.load_pem_x509_certificates(anchors)
        private = serialization.load_pem_private_key(key, None)
        if _spki(private.public_key()) != _spki(own.public_key()):
            raise ValueError("the key is not that of the certificate")
        self._algorithm = _algorithm(private)
        self._key, self._chain, self._anchors = key, chain, anchors
        self._certificate = own.fingerprint(hashes.SHA256()).hex()

    async def mark(self, image: bytes, image_type: str, source: Source) -> Marked:
        """Return the picture with its manifest; see the port."""
        marked = await asyncio.to_thread(self._sign, image, image_type, source)
        if not await self.is_marked(marked, image_type):
            raise MarkingFailed("the mark is not believed")
        return Marked(marked, self._certificate)

    async def rehearse(self) -> None:
        """Mark a blank picture.

        Raises:
            MarkingFailed: With these certificates nothing can be marked today.
        """
        from PIL import Image

        blank = io.BytesIO()
        Image.new("RGB", (1, 1)).save(blank, "PNG")
        await self.mark(blank.getvalue(), "png", "generated")

    async def is_marked(self, image: bytes, image_type: str) -> bool:
        """Return whether the picture's manifest leads to one of the roots; see the port."""
        return await asyncio.to_thread(self._is_trusted, image, image_type)

    def _sign(self, image: bytes, image_type: str, source: Source) -> bytes:
        import c2pa

        signer = c2pa.C2paSignerInfo(self._algorithm, self._chain, self._key, None)
        out = io.BytesIO()
        try:
            with (
                self._context() as context,
                c2pa.Signer.from_info(signer) as signing,
                c2pa.Builder(_manifest(source), context) as builder,
            ):
                builder.sign(signing, f"image/{image_type}", io.BytesIO(image), out)
        except c2pa.C2paError as error:
            raise MarkingFailed("the picture cannot be signed") from error
        return out.getvalue()

    def _is_trusted(self, image: bytes, image_type: str) -> bool:
        import c2pa

        try:
            with (
                self._context() as context,
                c2pa.Reader(f"image/{image_type}", io.BytesIO(image), context=context) as reader,
            ):
                said: dict[str, Any] = json.loads(reader.json())
        except c2pa.C2paError:
            return False
        # "Valid" is what the library says of a stranger's signature; ours is "Trusted".
        return said.get("validation_state") == "Trusted"

    def _context(self) -> c2pa.Context:
        import c2pa

        trust = {
            "trust_anchors": self._anchors.decode(),
            "trust_config": "\n".join(_USAGES),
        }
        return c2pa.Context.from_dict({**_OFFLINE, "trust": trust})


def _manifest(source: Source) -> dict[str, Any]:
    created = {"action": "c2pa.created", "digitalSourceType": _IPTC + _SOURCES[source]}
    return {
        "claim_version": 2,
        "claim_generator_info": [{"name": SOFTWARE}],
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [created]}},
            {"label": "cawg.training-mining", "data": {"entries": _NOT_ALLOWED}},
        ],
    }


def _algorithm(key: object) -> bytes:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return b"ed25519"
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    raise ValueError("a key of P-256, P-384 or Ed25519 is needed")


def _spki(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded
