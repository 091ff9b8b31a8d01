"""The package that answers a request for access or portability: what is in it, and what becomes of it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import zipfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from PIL import Image

from audit import leaf as leaf_codec
from audit import proof, seal
from audit.note import Verifier
from audit.payloads import parse
from audit.receipt import receipt_id, verify_receipt
from audit.schema import RULE
from gateway.errors import (
    LetheError,
    MessageInvalid,
    NotFound,
    ObjectExpired,
    PayloadTooLarge,
    StateConflict,
    SubjectBlocked,
)
from gateway.flows.dsr import DsrDraft
from gateway.package.gather import GATHERED
from gateway.ports.records import Dsr, Job, StoredObject, SubjectKey
from tests import invariants
from tests.docs import REFERENCE
from tests.fakes.inference import paint
from tests.unit.flows.test_replay import replayed
from tests.unit.flows.test_training import made as training_set
from tests.unit.flows.test_training import ready as training_ready
from tests.unit.package.example import DOCUMENT
from tests.world import APP, OFFICER, ORIGIN, STRANGER, World

RECEIPT = json.loads(Path("tests/vectors/dpv-27560-receipt.schema.json").read_text())
SCRIPT = re.compile(rb"<script|javascript:|https?://", re.IGNORECASE)


@pytest.fixture
async def w() -> World:
    world = World()
    await world.ready("ann", "bob")
    return world


async def asked(w: World, subject: str = "ann", kind: str = "access", regime: str = "") -> Dsr:
    opened = await w.open(subject, kind, regime=regime)
    if regime == "ccpa":
        await w.flows.dsrs.verify(OFFICER, opened.dsr_id, "reauthentication")
    return await w.approve(opened.dsr_id)


async def downloaded(w: World, dsr: Dsr, offset: int = 0) -> bytes:
    handed = await w.flows.packages.hand_out(APP, dsr.dsr_id, offset)
    return b"".join([chunk async for chunk in handed.chunks])


async def made(w: World, subject: str = "ann", kind: str = "access", regime: str = "") -> zipfile.ZipFile:
    dsr = await asked(w, subject, kind, regime)
    await w.flows.packages.make(dsr)
    return zipfile.ZipFile(io.BytesIO(await downloaded(w, dsr)))


def document(package: zipfile.ZipFile) -> dict[str, Any]:
    return json.loads(package.read("data.json"))


def packages(w: World) -> list[StoredObject]:
    return [stored for stored in w.records.all(StoredObject) if stored.kind == "package"]


# --- what is in it ---------------------------------------------------------------------------


async def test_everything_that_is_held_is_in_the_package(w: World) -> None:
    """GDPR Art. 15(1): what ListStoredData shows is what the package says."""
    dsr = await asked(w, regime="pipeda")
    job = await w.portrait("ann")
    await w.flows.consents.signal(APP, "ann", gpc=True, limit_spi=False)
    held = (await w.flows.subjects.stored_data(APP, "ann")).items
    await w.flows.packages.make(dsr)
    package = zipfile.ZipFile(io.BytesIO(await downloaded(w, dsr)))
    said = document(package)
    assert sorted(one["name"] for one in said["held"]) == sorted(one.name for one in held)
    assert {one["kind"] for one in said["held"]} == {
        *("original", "output", "job", "consent", "signal", "profile", "access", "hold", "payload")
    }
    assert said["subject"]["id"] == "ann"
    assert said["jobs"][0]["job"] == f"jobs/{job.job_id}"
    assert said["signals"] == {"gpc": True, "limit_spi": False, "recorded_at": w.clock.now().isoformat()}
    assert [hold["rule"] for hold in said["holds"]] == ["PIPEDA s. 8(8)"]
    assert said["consents"][0]["evidence"] == {"act": "checkbox", "channel": "web"}
    assert json.loads(package.read(said["consents"][0]["file"]))["purpose"] == "generate"
    assert [(who["name"], who["count"]) for who in said["recipients"]] == [("studio", 1)]
    pictures = {one["object"]: package.read(one["file"]) for one in said["images"]}
    # The hold keeps the original, which would be gone with the job's end.
    assert set(pictures) == {f"objects/{job.input_object}", f"objects/{job.result_object}"}
    assert pictures[f"objects/{job.result_object}"] == await w.released(job.job_id)


def test_every_kind_of_record_about_a_person_has_a_place_in_the_package() -> None:
    """A holding that is added without a place in the package fails here."""
    owned = {kind for holding in World().flows.subjects.holdings.each for kind in holding.kinds}
    assert owned == GATHERED.keys()


async def test_a_copy_in_a_training_set_is_told_of_and_not_among_the_pictures() -> None:
    """It is sealed once more under the set's key, and the picture it was made of is in the package."""
    w = await training_ready("ann")
    await training_set(w)
    [copy] = [stored for stored in w.records.all(StoredObject) if stored.purpose == "train"]
    package = await made(w)
    said = document(package)
    assert len(said["datasets"]) == 1
    assert f"objects/{copy.object_id}" in {one["name"] for one in said["held"]}
    assert said["images"]
    assert f"objects/{copy.object_id}" not in {one["object"] for one in said["images"]}
    for one in said["images"]:
        assert Image.open(io.BytesIO(package.read(one["file"]))).size == (one["width"], one["height"])


async def test_nothing_of_anybody_else_is_in_it(w: World) -> None:
    """GDPR Art. 15(4)."""
    other = "somebody-else-entirely"
    await w.ready(other)
    await w.portrait("ann")
    accepted = await w.upload(other, image=paint(b"another face", "studio_grey", b""))
    await w.work()
    theirs = w.job(accepted.job.job_id)
    await asked(w, other)
    package = await made(w)
    everything = b"".join(package.read(name) for name in package.namelist())
    assert await w.released(theirs.job_id) not in [package.read(name) for name in package.namelist()]
    for name in (theirs.job_id, theirs.result_object, other, await w.handle(other), await w.handle("ann")):
        assert name.encode() not in everything


async def test_names_of_files_say_nothing_of_anyone_and_no_page_asks_for_anything(w: World) -> None:
    await w.portrait("ann")
    package = await made(w)
    names = package.namelist()
    assert names[:5] == ["index.html", "index.de.html", "index.fr.html", "index.es.html", "data.json"]
    assert all(
        re.fullmatch(
            r"index(\.[a-z]{2})?\.html|data\.json|images/\d{3}-(original|output)\.(jpg|png|webp)"
            r"|receipts/\d{3}\.json(ld)?|events/\d{9}(\.tlog-proof|-\d\.json)",
            name,
        )
        for name in names
    ), names
    for name in names:
        if name.endswith(".html"):
            assert not SCRIPT.search(package.read(name))


async def test_entries_of_the_log_about_the_person_verify_by_themselves(w: World) -> None:
    await w.portrait("ann")
    await asked(w, "bob")
    await w.log()
    package = await made(w)
    said = document(package)["events"]
    assert {"consent.recorded", "decision.made", "dsr.received"} <= {event["type"] for event in said}
    proved = [event for event in said if event["proof"]]
    assert len(proved) == len(said) - 1  # the request came after the log was published
    verifiers = [Verifier.parse(signer.vkey()) for signer in w.signers[ORIGIN]]
    for event in proved:
        text = package.read(event["proof"]).decode()
        found, _ = proof.verify(text, verifiers, None)
        opened, _ = parse(package.read(event["opening"]).rstrip(b"\n"))
        entry = leaf_codec.decode(found.extra)["seals"][opened.slot]
        seal.check_payload(bytes.fromhex(entry[2]), opened.payload, opened.salt)
        assert (found.index, json.loads(opened.payload)) == (event["index"], event["says"])


@pytest.mark.parametrize("kind", ["access", "portability"])
async def test_each_consent_has_a_signed_receipt_that_verifies_and_withdraws_by_itself(
    w: World, kind: str
) -> None:
    """ISO/IEC TS 27560; GDPR Art. 7(1), 7(3)."""
    await w.log()
    late = await w.consent("ann", "retain_output")  # the log has not published it yet
    package = await made(w, kind=kind)
    consents = {one["consent"]: one for one in document(package)["consents"]}
    assert consents.pop(f"consents/{late.consent_id}")["receipt"] is None
    ((name, consent),) = consents.items()
    data = package.read(consent["receipt"])
    jsonschema.validate(json.loads(data), RECEIPT)
    keys = "".join(f"{signer.vkey()}\n" for signer in w.signers[ORIGIN])
    report = verify_receipt(data, keys)
    assert report.verdict == "valid"
    said = report.content["dpv:hasRecordOfActivity"]
    assert (said["dct:identifier"], said["dpv:hasDataSubject"]["dct:identifier"]) == (name, "subjects/ann")
    assert f'href="{consent["receipt"]}"' in package.read("index.html").decode()
    assert verify_receipt(data.replace(b"subjects/ann", b"subjects/bob"), keys).verdict == "invalid"
    done = await w.flows.consents.withdraw(APP, receipt_id=receipt_id(data).removeprefix("receipts/"))
    assert [f"consents/{one.consent_id}" for one in done.consents] == [name]


async def test_portability_has_only_what_the_person_provided(w: World) -> None:
    """GDPR Art. 20(1): no results, and no picture that somebody else uploaded."""
    await w.portrait("ann")
    upload = await w.upload("ann")
    other = await w.upload("ann")
    row = w.job(other.job.job_id)
    await w.records.transact(lambda tx: tx.put(replace(row, is_uploader=False)))
    package = await made(w, kind="portability")
    said = document(package)
    assert [one["object"] for one in said["images"]] == [f"objects/{upload.job.input_object}"]
    assert not {"held", "events", "recipients", "requests", "holds"} & said.keys()
    assert f"jobs/{other.job.job_id}" not in {job["job"] for job in said["jobs"]}
    assert {name.partition("/")[0] for name in package.namelist()} >= {"index.html", "receipts", "images"}


async def test_a_picture_that_was_refused_is_told_of_and_withheld(w: World) -> None:
    """GDPR Art. 15(4): the rest is handed out."""
    job = await w.portrait("ann")
    dsr = await w.open("ann", "access")
    refuse = w.flows.dsrs.refuse_part
    await refuse(OFFICER, dsr.dsr_id, "GDPR_15_4_OTHERS", [job.result_object])
    assert (await refuse(OFFICER, dsr.dsr_id, "GDPR_15_4_OTHERS", [job.result_object]))[1] is None
    for reason, parts, rule in (
        ("GDPR_17_1_NO_GROUND", [job.result_object], "reason_code.unknown"),
        ("GDPR_15_4_OTHERS", ["0" * 32], "parts.unknown"),
    ):
        with pytest.raises(MessageInvalid) as refusal:
            await refuse(OFFICER, dsr.dsr_id, reason, parts)
        assert refusal.value.violations[0][1] == rule
    w.clock.advance(timedelta(seconds=1))
    await w.approve(dsr.dsr_id)
    w.clock.advance(timedelta(seconds=1))
    await w.carry_out()
    package = zipfile.ZipFile(io.BytesIO(await downloaded(w, dsr)))
    said = document(package)
    name = f"objects/{job.result_object}"
    assert said["withheld"] == [{"object": name, "kind": "output", "reason_code": "GDPR_15_4_OTHERS"}]
    assert name in {one["name"] for one in said["held"]}
    assert name not in {one["object"] for one in said["images"]}
    assert await w.released(job.job_id) not in [package.read(file) for file in package.namelist()]
    assert "GDPR_15_4_OTHERS" in package.read("index.html").decode()
    assert w.dsr(dsr.dsr_id).outcome == "complied_in_part"
    letter = (await w.flows.register.letter(OFFICER, dsr.dsr_id, "", "en")).text
    assert "A part of it we refuse" in letter
    assert "it would harm the rights of other people [GDPR_15_4_OTHERS]" in letter
    assert "complain to" in letter
    (figures,) = await w.flows.register.figures(OFFICER, dsr.received_at, w.clock.now(), "")
    assert (figures.complied, figures.complied_in_part) == (1, 1)
    assert (await replayed(w)).violations == ()


async def test_what_may_not_be_revealed_is_not_told_of(w: World) -> None:
    """PIPEDA s. 9(2.4)."""
    job = await w.portrait("ann")
    dsr = await w.open("ann", "access", regime="pipeda")
    await w.flows.dsrs.refuse_part(OFFICER, dsr.dsr_id, "PIPEDA_9_2_4_GOV_OBJECTION", [job.result_object])
    await w.approve(dsr.dsr_id)
    await w.carry_out()
    package = zipfile.ZipFile(io.BytesIO(await downloaded(w, dsr)))
    said = document(package)
    assert said["withheld"] == []
    assert f"objects/{job.result_object}" not in {
        *(one["name"] for one in said["held"]),
        *(one["object"] for one in said["images"]),
    }
    letter = (await w.flows.register.letter(OFFICER, dsr.dsr_id, "", "en")).text
    assert "refuse" not in letter


@pytest.mark.parametrize(("regime", "cite"), [("ccpa", "Cal. Civ. Code 1798.110"), ("pipeda", "4.9.3")])
async def test_each_law_is_cited_for_what_it_asks(w: World, regime: str, cite: str) -> None:
    package = await made(w, regime=regime)
    assert cite in package.read("index.html").decode()
    assert "GDPR Art. 15(1)(c)" not in package.read("index.html").decode()


async def test_the_page_that_opens_first_is_in_the_language_of_the_notice(w: World) -> None:
    package = await made(w)
    assert '<html lang="en">' in package.read("index.html").decode()
    consents = document(package)["consents"]
    assert consents[0]["notice_language"] == "en"


async def test_recipients_are_named_also_once_their_job_is_gone(w: World) -> None:
    """CJEU C-154/21: the actual recipients."""
    job = await w.portrait("ann")
    await w.flows.generate.settle()
    await w.flows.jobs.delete(APP, job.job_id)
    said = document(await made(w))
    assert said["jobs"] == []
    assert [(who["name"], who["count"]) for who in said["recipients"]] == [("studio", 1)]


@pytest.mark.parametrize("kind", ["access", "portability"])
async def test_the_data_are_as_the_schema_says(w: World, kind: str) -> None:
    schema = json.loads((REFERENCE / "access-package.schema.json").read_bytes())
    opened, _ = await w.flows.dsrs.create(OFFICER, DsrDraft("ann", "access", "pipeda"))
    await w.portrait("ann")
    await w.upload("ann")
    await w.flows.consents.signal(APP, "ann", gpc=True, limit_spi=False)
    await w.log()
    said = document(await made(w, kind=kind))
    jsonschema.validate(said, schema, jsonschema.Draft202012Validator)
    jsonschema.validate({**DOCUMENT, "consents": []}, schema, jsonschema.Draft202012Validator)
    empty = [part for part in schema["then"]["required"] if kind == "access" and not said[part]]
    assert empty == (["datasets"] if kind == "access" else [])
    assert opened.dsr_id in json.dumps(said) or kind == "portability"


# --- how it is made --------------------------------------------------------------------------


async def test_a_request_gets_one_package_however_often_it_is_made(w: World) -> None:
    dsr = await asked(w)
    first = await w.flows.packages.make(dsr)
    assert await w.process().packages.make(dsr) == first
    assert len(w.events("package.made")) == 1
    w.check()


async def test_two_workers_keep_one_package_between_them(w: World) -> None:
    dsr = await asked(w)
    other = w.process()
    ids: list[str] = []

    class Overtaken:
        """The second worker is done while the first one stores."""

        async def seal_stream(self, draft: Any, chunks: Any) -> StoredObject:
            stored = await w.flows.packages.safe.seal_stream(draft, chunks)
            ids.append(await other.packages.make(dsr))
            return stored

        def __getattr__(self, name: str) -> Any:
            return getattr(w.flows.packages.safe, name)

    slow = replace(w.flows.packages, safe=Overtaken())
    assert await slow.make(dsr) == ids[0]
    assert set(w.objects.held) == {ids[0]}
    w.check()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_failure_at_any_call_leaves_nothing_that_the_next_try_does_not_mend(
    w: World, when: Any
) -> None:
    await w.portrait("ann")
    dsr = await asked(w)
    for at in range(40):
        w.trip.lose(at, when)
        with contextlib.suppress(LetheError):
            await w.flows.packages.make(dsr)
        if w.trip.act is not None:
            assert at > 10
            return
        w.trip.at = -1
        again = await w.flows.packages.make(dsr)
        assert [stored.object_id for stored in packages(w)] == [again]
        w.clock.advance(timedelta(minutes=20))
        await w.flows.sweep.run()
        w.check()
        invariants.check_bytes(w.rows, w.objects.held)
        await w.flows.subjects.delete_object(OFFICER, again)
    pytest.fail("there is always another call")


async def test_the_same_input_gives_the_same_bytes(w: World) -> None:
    await w.portrait("ann")
    dsr = await asked(w)
    flow = w.flows.packages

    async def bytes_of() -> bytes:
        from gateway.package.archive import pack

        gathered = await flow.gatherer.gather(dsr, w.clock.now())
        chunks = pack(flow._entries(gathered), w.clock.now(), flow.most_bytes)
        return b"".join([chunk async for chunk in chunks])

    assert await bytes_of() == await bytes_of()


async def test_a_package_beyond_the_limit_is_not_kept(w: World) -> None:
    dsr = await asked(w)
    with pytest.raises(PayloadTooLarge):
        await replace(w.flows.packages, most_bytes=1000).make(dsr)
    assert packages(w) == []
    assert w.objects.held == {}


async def test_only_requests_that_a_package_answers_get_one(w: World) -> None:
    erasure = await w.request("ann")
    with pytest.raises(StateConflict) as refusal:
        await w.flows.packages.make(erasure)
    assert refusal.value.detail == "erasure"
    dsr = await asked(w)
    gone, _ = await w.flows.dsrs.cancel(OFFICER, dsr.dsr_id)
    with pytest.raises(StateConflict) as refusal:
        await w.flows.packages.make(gone)
    assert refusal.value.detail == "cancelled"


# --- how it is given out ---------------------------------------------------------------------


async def test_each_download_is_in_the_log_and_the_log_names_the_bytes(w: World) -> None:
    dsr = await asked(w)
    object_id = await w.flows.packages.make(dsr)
    data = await downloaded(w, dsr)
    assert await downloaded(w, dsr, 1000) == data[1000:]
    assert await downloaded(w, dsr, len(data)) == b""
    (told,) = w.events("package.made")
    assert (told["dig"], told["size"]) == (hashlib.sha256(data).hexdigest(), len(data))
    whole, resumed, _ = w.events("package.released")
    assert (whole["dsr"], whole["obj"], whole["act"]) == (dsr.dsr_id, object_id, "svc:app")
    assert ("from" in whole, resumed["from"]) == (False, 1000)
    assert (await replayed(w)).violations == ()


async def test_a_package_is_given_to_nobody_else_and_not_before_it_is_made(w: World) -> None:
    dsr = await asked(w)
    with pytest.raises(StateConflict):
        await downloaded(w, dsr)
    await w.flows.packages.make(dsr)
    with pytest.raises(NotFound):
        await w.flows.packages.hand_out(STRANGER, dsr.dsr_id)
    with pytest.raises(MessageInvalid):
        await w.flows.packages.hand_out(APP, dsr.dsr_id, 1 << 40)
    assert w.events("package.released") == []


async def test_a_package_goes_at_the_end_of_its_term(w: World) -> None:
    dsr = await asked(w)
    await w.flows.packages.make(dsr)
    (stored,) = packages(w)
    assert stored.expires_at - w.clock.now() == timedelta(days=30)
    w.clock.advance(timedelta(days=30))
    with pytest.raises(ObjectExpired):
        await downloaded(w, dsr)
    await w.flows.sweep.run()
    assert packages(w) == []
    assert stored.object_id not in w.objects.held
    assert (await replayed(w)).violations == ()


async def test_a_package_goes_with_its_subject_though_the_class_dsr_is_kept(w: World) -> None:
    """Its key must go, too: an old backup has the wrapped key of the object, and would open it."""
    dsr = await asked(w)
    await w.flows.packages.make(dsr)
    (stored,) = packages(w)
    handed = await w.flows.packages.hand_out(APP, dsr.dsr_id)
    await w.erase("ann")
    assert w.events("subject.erased")[0]["kept"][-1]["cls"] == "dsr"
    assert stored.key_id not in {key.key_id for key in w.records.all(SubjectKey)}
    assert packages(w) == []
    assert stored.object_id not in w.objects.held
    with pytest.raises(LetheError):
        _ = [chunk async for chunk in handed.chunks]
    with pytest.raises(SubjectBlocked):
        await downloaded(w, dsr)
    w.check()


async def test_an_erasure_that_overtakes_the_making_wins(w: World) -> None:
    dsr = await asked(w)

    class Overtaken:
        async def seal_stream(self, draft: Any, chunks: Any) -> StoredObject:
            stored = await w.flows.packages.safe.seal_stream(draft, chunks)
            await w.erase("ann")
            return stored

        def __getattr__(self, name: str) -> Any:
            return getattr(w.flows.packages.safe, name)

    with pytest.raises(SubjectBlocked):
        await replace(w.flows.packages, safe=Overtaken()).make(dsr)
    assert packages(w) == []
    assert w.objects.held == {}
    w.check()


async def test_a_package_whose_row_is_lost_is_found_by_what_the_log_says(w: World) -> None:
    """The search after an erasure goes by another way than the rows (decision 0025)."""
    dsr = await asked(w)
    object_id = await w.flows.packages.make(dsr)
    row = packages(w)[0]
    await w.records.transact(lambda tx: tx.remove(row))
    erasure = await w.request("ann")
    await w.carry_out()
    assert [told["where"] for told in w.events("erasure.incomplete")] == [["object_store"]]
    w.clock.advance(timedelta(hours=1))
    await w.carry_out()
    assert w.dsr(erasure.dsr_id).state == "fulfilled"
    assert object_id not in w.objects.held
    assert [told["cat"] for told in w.events("object.destroyed")] == ["package"]


# --- holds -----------------------------------------------------------------------------------


async def test_what_an_open_request_asks_for_outlives_its_term(w: World) -> None:
    """PIPEDA s. 8(8)."""
    job = await w.portrait("ann")
    opened, _ = await w.flows.dsrs.create(OFFICER, DsrDraft("ann", "access", "pipeda"))
    (placed,) = w.events("hold.placed")
    assert (placed["dsr"], placed["rule"]) == (opened.dsr_id, "PIPEDA s. 8(8)")
    (output,) = w.records.all(StoredObject)
    w.clock.advance(output.expires_at - w.clock.now() + timedelta(minutes=1))
    await w.flows.sweep.run()
    assert [one.job_id for one in w.records.all(Job)] == [job.job_id]
    assert [one.state for one in w.records.all(StoredObject)] == ["held"]
    erasure = await w.open("ann", "erasure")
    preview = await w.flows.dsrs.preview(OFFICER, erasure.dsr_id)
    assert {kept.cls.value: kept.rule for kept in preview.plan.keep}["content"] == "PIPEDA s. 8(8)"
    assert "hold" in {held.kind for held in preview.held}
    await w.flows.dsrs.cancel(OFFICER, opened.dsr_id)
    await w.flows.sweep.run()
    assert w.records.all(StoredObject) == []
    w.clock.advance(timedelta(days=2))
    await w.flows.sweep.run()
    assert w.records.all(Job) == []
    assert (await replayed(w)).violations == ()


async def test_a_hold_of_a_request_ends_with_its_answer(w: World) -> None:
    await asked(w, regime="pipeda")
    await w.carry_out()
    (placed,), (ended,) = w.events("hold.placed"), w.events("hold.released")
    assert (ended["hld"], ended["why"]) == (placed["hld"], "ended")
    assert (await replayed(w)).violations == ()


def test_what_a_hold_of_a_request_cites_is_a_citation(w: World) -> None:
    cited = [
        "; ".join(pack.cited(right.hold.cite))
        for pack in w.flows.packs.values()
        for right in pack.rules.rights.values()
        if right.hold
    ]
    assert len(cited) == 2
    assert all(map(RULE, cited)), cited


async def test_no_hold_where_the_law_asks_for_none_and_none_ends_by_a_refusal(w: World) -> None:
    await w.flows.dsrs.create(OFFICER, DsrDraft("ann", "access", "gdpr"))
    assert w.events("hold.placed") == []
    opened, _ = await w.flows.dsrs.create(OFFICER, DsrDraft("ann", "access", "pipeda"))
    await w.flows.dsrs.refuse(OFFICER, opened.dsr_id, "PIPEDA_4_9_2_IDENTITY")
    assert w.events("hold.released") == []


async def test_a_ground_that_may_not_be_told_is_in_no_later_package(w: World) -> None:
    """PIPEDA s. 9(2.4)."""
    for ground in ("PIPEDA_9_2_4_GOV_OBJECTION", "PIPEDA_9_3_A_PRIVILEGE"):
        opened = await w.open("ann", "access", regime="pipeda")
        await w.flows.dsrs.refuse(OFFICER, opened.dsr_id, ground)
    package = await made(w)
    assert not any(b"9_2_4" in package.read(name) for name in package.namelist())
    grounds = [request["reason_code"] for request in document(package)["requests"]]
    assert sorted(grounds) == ["", "", "PIPEDA_9_3_A_PRIVILEGE"]


async def test_a_right_that_the_regime_has_not_cannot_be_asked_for(w: World) -> None:
    with pytest.raises(MessageInvalid):
        await w.flows.dsrs.create(OFFICER, DsrDraft("ann", "portability", "pipeda"))
