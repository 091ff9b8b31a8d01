"""Every marker puts a mark into a picture, finds it again, and believes no other."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.x509 import ObjectIdentifier
from PIL import Image

from gateway.adapters.marking_c2pa import C2paMarker
from gateway.admin.pki import Authority
from gateway.deidentify.limits import Limits
from gateway.deidentify.walker import scrub
from gateway.ports.marking import Marker, MarkingFailed
from tests.c2pa import manifest, read, state
from tests.fakes.marking import FakeMarker

FORMS = ("jpeg", "png", "webp")
NOW = datetime.now(UTC)


def files(now: datetime = NOW) -> tuple[bytes, bytes, bytes]:
    """Return key, chain and root of a new signer."""
    root = Authority.create("a root", now)
    chain, key = root.issue_signer("a signer", now)
    return key, chain, root.pem()


KEY, CHAIN, ROOT = files()


def picture(form: str) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((64, 48), 80).convert("RGB").save(file, form)
    return file.getvalue()


@pytest.fixture(params=["fake", "c2pa"])
def pair(request: pytest.FixtureRequest) -> tuple[Marker, Marker]:
    """Return a marker and a stranger."""
    if request.param == "fake":
        return FakeMarker(), FakeMarker(b"another")
    return C2paMarker(KEY, CHAIN, ROOT), C2paMarker(*files())


@pytest.mark.parametrize("form", FORMS)
async def test_a_mark_is_found_again_and_changes_no_pixel(pair: tuple[Marker, Marker], form: str) -> None:
    marker, stranger = pair
    plain = picture(form)
    marked = await marker.mark(plain, form, "composite_synthetic")
    assert await marker.is_marked(marked.image, form)
    assert not await marker.is_marked(plain, form)
    assert not await stranger.is_marked(marked.image, form)
    before, after = Image.open(io.BytesIO(plain)), Image.open(io.BytesIO(marked.image))
    assert before.tobytes() == after.tobytes()
    assert len(marked.certificate) == 64


@pytest.mark.parametrize("form", FORMS)
async def test_a_mark_is_broken_by_a_change_to_the_picture(pair: tuple[Marker, Marker], form: str) -> None:
    marker, _ = pair
    marked = (await marker.mark(picture(form), form, "generated")).image
    plain = scrub(marked, Limits()).data
    place = marked.find(plain[-300:-200])  # in the pixels, wherever the manifest lies
    assert place > 0
    changed = bytearray(marked)
    changed[place + 50] ^= 1
    assert not await marker.is_marked(bytes(changed), form)


async def test_what_is_no_picture_is_not_marked(pair: tuple[Marker, Marker]) -> None:
    marker, _ = pair
    with pytest.raises(MarkingFailed):
        await marker.mark(picture("png"), "jpeg", "generated")
    assert not await marker.is_marked(b"", "jpeg")


# --- C2PA alone ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
async def test_who_knows_the_root_trusts_the_mark_and_the_scrubber_drops_it(form: str) -> None:
    plain = picture(form)
    marked = (await C2paMarker(KEY, CHAIN, ROOT).mark(plain, form, "generated")).image
    assert state(marked, ROOT, form) == "Trusted"
    assert state(marked, None, form) == "Valid"
    assert state(marked, files()[2], form) == "Valid"
    cleaned = scrub(marked, Limits())
    assert cleaned.data == scrub(plain, Limits()).data
    assert set(cleaned.dropped) == {"jumbf"}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("generated", "trainedAlgorithmicMedia"),
        ("composite_generated", "compositeWithTrainedAlgorithmicMedia"),
        ("composite_synthetic", "compositeSynthetic"),
        ("enhanced", "algorithmicallyEnhanced"),
    ],
)
async def test_the_manifest_says_how_and_forbids_training_and_nothing_more(source: str, said: str) -> None:
    marked = (await C2paMarker(KEY, CHAIN, ROOT).mark(picture("jpeg"), "jpeg", source)).image
    found = manifest(marked)
    assert found.keys() == {
        "active_manifest",
        "assertions",
        "claim_generator_info",
        "claim_version",
        "instance_id",
        "label",
        "signature_info",
    } - {"active_manifest"}
    actions, training = found["assertions"]
    kind = f"http://cv.iptc.org/newscodes/digitalsourcetype/{said}"
    assert actions["data"]["actions"] == [{"action": "c2pa.created", "digitalSourceType": kind}]
    assert training["label"] == "cawg.training-mining"
    assert {use["use"] for use in training["data"]["entries"].values()} == {"notAllowed"}
    assert len(training["data"]["entries"]) == 4
    assert "ingredients" not in json.dumps(read(marked))
    assert "thumbnail" not in json.dumps(read(marked))


@pytest.mark.parametrize("usage", ["1.3.6.1.5.5.7.3.4", "1.3.6.1.5.5.7.3.36", "1.3.6.1.4.1.62558.2.1"])
async def test_a_certificate_may_be_for_mail_documents_or_claims(usage: str) -> None:
    root = Authority.create("a root", NOW)
    chain, key = root.issue_signer("a signer", NOW, ObjectIdentifier(usage))
    await C2paMarker(key, chain, root.pem()).rehearse()


async def test_a_certificate_for_anything_else_marks_nothing() -> None:
    root = Authority.create("a root", NOW)
    chain, key = root.issue_signer("a signer", NOW, ObjectIdentifier("1.3.6.1.5.5.7.3.1"))
    with pytest.raises(MarkingFailed):
        await C2paMarker(key, chain, root.pem()).rehearse()


async def test_a_certificate_that_is_over_marks_nothing() -> None:
    marker = C2paMarker(*files(NOW - timedelta(days=100)))
    with pytest.raises(MarkingFailed):
        await marker.rehearse()


async def test_a_certificate_of_another_root_marks_nothing() -> None:
    with pytest.raises(MarkingFailed):
        await C2paMarker(KEY, CHAIN, files()[2]).rehearse()


def test_a_key_of_another_certificate_or_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="not that of the certificate"):
        C2paMarker(files()[0], CHAIN, ROOT)
    with pytest.raises(ValueError, match="PEM"):
        C2paMarker(b"", CHAIN, ROOT)
