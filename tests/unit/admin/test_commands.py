"""The commands against a scripted gateway: what they ask, print, write, and end with."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path

import grpc
import pytest
import yaml
from lethe.v1 import (
    audit_pb2,
    backend_pb2,
    common_pb2,
    consent_pb2,
    dsr_pb2,
    generation_pb2,
    key_pb2,
    notice_pb2,
    retention_pb2,
    subject_pb2,
)

from gateway.client import client as client_module
from tests.unit.admin.scripted import Refusal

ID = "0123456789abcdef0123456789abcdef"
ETAG = "f" * 32
SUBJECT = ("--subject", "u-1", "--opaque")
Dsr, Job = dsr_pb2.Dsr, generation_pb2.Job


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refusal", "code", "line"),
    [
        (
            Refusal(grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED", "not yours"),
            3,
            "ROLE_REQUIRED: not yours",
        ),
        (Refusal(grpc.StatusCode.FAILED_PRECONDITION, "DENY_NO_CONSENT"), 3, "DENY_NO_CONSENT: no"),
        (Refusal(grpc.StatusCode.UNIMPLEMENTED, "METHOD_NOT_BUILT"), 1, "METHOD_NOT_BUILT: no"),
        (
            Refusal(grpc.StatusCode.FAILED_PRECONDITION, "STATE_CONFLICT", metadata={"detail": "refused"}),
            1,
            "STATE_CONFLICT (refused): no",
        ),
        (Refusal(grpc.StatusCode.NOT_FOUND, "NOT_FOUND", "a\x1b[2Jb"), 1, "NOT_FOUND: a\\x1b[2Jb"),
    ],
)
def test_a_refusal_ends_with_its_code_and_its_reason_on_stderr(
    gateway, lethe, as_app, refusal, code, line
) -> None:
    gateway.script["ConsentService/GetConsent"] = refusal
    result = lethe("consent", "show", ID, *as_app, "-o", "json")
    assert (code, "", f"error: {line}\n") == (result.exit_code, result.stdout, result.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        ("consent", "receipt", ID, "--out", "receipt.json"),
        ("dsr", "verify", ID, "--method", "account_login"),
        ("dsr", "extend", ID, "--reason", "complexity"),
    ],
)
def test_what_is_not_built_is_passed_on(gateway, lethe, as_officer, tmp_path, monkeypatch, arguments) -> None:
    monkeypatch.chdir(tmp_path)
    result = lethe(*arguments, *as_officer)
    assert result.exit_code == 1
    assert "error: METHOD_NOT_BUILT" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_gateway_that_does_not_answer_ends_with_one(lethe, layout, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(client_module, "FIRST_PAUSE_S", 0.0)
    profile = layout.root / "clients" / "nowhere.yaml"
    tree = yaml.safe_load(layout.profile("app").read_text()) | {"address": "127.0.0.1:1"}
    profile.write_text(yaml.safe_dump(tree))
    result = lethe("tenant", "show", "--as", profile)
    assert result.exit_code == 1
    assert "error: UNAVAILABLE" in result.stderr


# --- idempotence ------------------------------------------------------------------------------


def test_a_repeated_call_carries_the_same_request_id(gateway, lethe, as_app, monkeypatch) -> None:
    monkeypatch.setattr(client_module, "FIRST_PAUSE_S", 0.0)
    answers = [
        Refusal(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE"),
        subject_pb2.UpsertSubjectResponse(subject=subject_pb2.Subject(name="subjects/u-1")),
    ]
    gateway.script["SubjectService/UpsertSubject"] = lambda _request: answers.pop(0)
    result = lethe(
        "subject", "upsert", "--file", "-", *as_app, stdin="subject: u-1\nresidence: NO\nage_band: adult"
    )
    assert result.exit_code == 0
    first, second = (request for _path, request in gateway.calls)
    assert first == second
    assert len(first.request_id) == 36
    assert (
        first.subject.name,
        first.subject.residence,
        first.subject.age_band,
    ) == ("subjects/u-1", "NO", subject_pb2.AGE_BAND_ADULT)


# --- subjects, notices, consents --------------------------------------------------------------


@pytest.mark.parametrize(("verb", "restricted"), [("restrict", True), ("unrestrict", False)])
def test_restricting_and_lifting_it_are_two_verbs(gateway, lethe, as_officer, verb, restricted) -> None:
    path = "SubjectService/RestrictSubject"
    gateway.script[path] = subject_pb2.RestrictSubjectResponse()
    assert lethe("subject", verb, *SUBJECT, *as_officer).exit_code == 0
    assert restricted == gateway.asked(path).restricted


def test_deleting_an_object_is_rehearsed_without_a_call(gateway, lethe, as_officer) -> None:
    path = "SubjectService/DeleteObject"
    gateway.script[path] = subject_pb2.DeleteObjectResponse()
    command = ("subject", "delete-object", ID, "--reason", "wrong_picture", *as_officer, "-o", "json")
    result = lethe(*command)
    assert result.exit_code == 0
    assert {"rehearsal": True, "name": f"objects/{ID}", "reason": "wrong_picture"} == json.loads(
        result.stdout
    )
    assert gateway.calls == []
    assert lethe(*command, "--apply").exit_code == 0
    assert f"objects/{ID}" == gateway.asked(path).name


def test_a_notice_is_published_from_a_file(gateway, lethe, as_officer) -> None:
    path = "NoticeService/PublishNotice"
    gateway.script[path] = notice_pb2.PublishNoticeResponse()
    text = "name: studio\nlanguage: en\ntitle: T\ntext: |\n  One.\n  Two.\npurposes: [generate, train]\n"
    assert lethe("notice", "publish", "--file", "-", *as_officer, stdin=text).exit_code == 0
    notice = gateway.asked(path).notice
    assert (notice.name, notice.text) == ("notices/studio", "One.\nTwo.\n")
    assert list(notice.purposes) == [common_pb2.PURPOSE_GENERATE, common_pb2.PURPOSE_TRAIN]


def test_a_consent_is_recorded_as_it_was_given(gateway, lethe, as_app) -> None:
    path = "ConsentService/RecordConsent"
    gateway.script[path] = consent_pb2.RecordConsentResponse()
    result = lethe(
        *("consent", "record", "--purpose", "generate", "--form", "explicit", "--notice", "notices/studio"),
        *(
            "--notice-version",
            "2",
            "--notice-language",
            "en",
            "--separate",
            "--act",
            "checkbox",
            "--by",
            "guardian",
        ),
        *("--given-at", "2026-03-01T09:30:00+01:00", *SUBJECT, *as_app),
    )
    assert result.exit_code == 0
    consent = gateway.asked(path).consent
    assert consent.separate
    assert not consent.highlighted
    assert (consent.subject, consent.by, consent.notice_version) == ("subjects/u-1", "guardian", 2)
    assert (consent.form, consent.act) == (consent.FORM_EXPLICIT, consent.ACT_CHECKBOX)
    assert consent.give_time.ToJsonString() == "2026-03-01T08:30:00Z"
    assert not consent.HasField("expire_time")


def test_consent_is_withdrawn_by_name_or_by_subject_and_purpose(gateway, lethe, as_app) -> None:
    path = "ConsentService/WithdrawConsent"
    gateway.script[path] = consent_pb2.WithdrawConsentResponse()
    assert lethe("consent", "withdraw", ID, *as_app).exit_code == 0
    assert lethe("consent", "withdraw", "--purpose", "train", *SUBJECT, *as_app).exit_code == 0
    by_name, by_subject = (request for _path, request in gateway.calls)
    assert f"consents/{ID}" == by_name.name
    assert (
        by_subject.subject_purpose.subject,
        by_subject.subject_purpose.purpose,
    ) == ("subjects/u-1", common_pb2.PURPOSE_TRAIN)
    assert lethe("consent", "withdraw", *as_app).exit_code == 2
    assert lethe("consent", "withdraw", ID, "--purpose", "train", *as_app).exit_code == 2
    assert lethe("consent", "withdraw", ID, *SUBJECT, *as_app).exit_code == 2
    assert lethe("consent", "withdraw", ID, "--subject", "erika", *as_app).exit_code == 2


def test_a_denial_is_printed_and_ends_with_three(gateway, lethe, as_app) -> None:
    decision = consent_pb2.Decision(reason_code="DENY_NO_CONSENT", deciding_pack="gdpr")
    gateway.script["ConsentService/CheckConsent"] = consent_pb2.CheckConsentResponse(decision=decision)
    result = lethe("consent", "check", "--purpose", "train", *SUBJECT, *as_app, "-o", "json")
    assert result.exit_code == 3
    assert False is json.loads(result.stdout)["decision"]["allowed"]
    assert "error: DENY_NO_CONSENT" in result.stderr


# --- data-subject requests --------------------------------------------------------------------


@pytest.fixture
def erasure(gateway):
    """A request that two polls later is fulfilled."""
    states = [Dsr.STATE_RUNNING, Dsr.STATE_RUNNING, Dsr.STATE_FULFILLED]

    def approve(request: dsr_pb2.ApproveDsrRequest) -> dsr_pb2.ApproveDsrResponse:
        return dsr_pb2.ApproveDsrResponse(dsr=Dsr(name=request.name, state=Dsr.STATE_APPROVED))

    def get(request: dsr_pb2.GetDsrRequest) -> dsr_pb2.GetDsrResponse:
        state = states.pop(0) if states else Dsr.STATE_FULFILLED
        certificate = f"certificates/{ID}" if state == Dsr.STATE_FULFILLED else ""
        return dsr_pb2.GetDsrResponse(dsr=Dsr(name=request.name, state=state, certificate=certificate))

    gateway.script |= {
        "DsrService/PreviewDsr": dsr_pb2.PreviewDsrResponse(
            erased_classes=["content"],
            kept_classes=[common_pb2.KeptClass(key_class="evidence", rule="GDPR Art. 17(3)(e)")],
            items=[subject_pb2.StoredData(name=f"objects/{ID}")],
            preview_etag=ETAG,
        ),
        "DsrService/ApproveDsr": approve,
        "DsrService/GetDsr": get,
    }
    return gateway


APPROVE = ("dsr", "approve", ID, "--reason", "subject_asked", "-o", "json")


def test_an_approval_is_rehearsed_unless_applied(erasure, lethe, as_officer) -> None:
    result = lethe(*APPROVE, *as_officer)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["preview_etag"] == ETAG
    assert "rehearsal" in result.stderr
    asked = erasure.asked("DsrService/ApproveDsr")
    assert (asked.validate_only, asked.preview_etag) == (True, ETAG)


def test_a_preview_is_a_line_for_each_thing_and_says_what_becomes_of_it(erasure, lethe, as_officer) -> None:
    kept = subject_pb2.StoredData(name=f"consents/{ID}", kind="consent", key_class="evidence")
    doomed = subject_pb2.StoredData(name=f"objects/{ID}", kind="output", key_class="content", size_bytes=7)
    seen = erasure.script["DsrService/PreviewDsr"]
    del seen.items[:]
    seen.items.extend([doomed, kept])
    result = lethe("dsr", "preview", ID, *as_officer)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["preview_etag", ETAG] in lines
    assert [f"objects/{ID}", "output", "7", "content", "destroyed"] in lines
    assert [f"consents/{ID}", "consent", "0", "evidence", "kept"] in lines
    assert "destroys 1 things under content, keeps 1" in result.stderr


def test_a_rehearsal_tells_what_would_be_refused(erasure, lethe, as_officer) -> None:
    erasure.script["DsrService/ApproveDsr"] = Refusal(
        grpc.StatusCode.PERMISSION_DENIED, "SECOND_PERSON_REQUIRED"
    )
    assert lethe(*APPROVE, *as_officer).exit_code == 3


def test_an_approval_is_bound_to_the_preview_it_has_shown(erasure, lethe, as_officer) -> None:
    result = lethe(*APPROVE, "--apply", *as_officer)
    assert result.exit_code == 0
    asked = erasure.asked("DsrService/ApproveDsr")
    assert (asked.validate_only, asked.preview_etag) == (False, ETAG)
    assert "keeps evidence: GDPR Art. 17(3)(e)" in result.stderr


def test_a_stale_approval_shows_what_came_and_what_went(erasure, lethe, as_officer) -> None:
    erasure.script["DsrService/ApproveDsr"] = Refusal(
        grpc.StatusCode.FAILED_PRECONDITION,
        "PREVIEW_STALE",
        metadata={"detail": "changed", "added": "objects/1", "gone": "objects/2", "other": "objects/3"},
    )
    result = lethe(*APPROVE, "--apply", *as_officer)
    assert result.exit_code == 1
    assert "added: objects/1\ngone: objects/2\nerror: PREVIEW_STALE" in result.stderr
    assert "objects/3" not in result.stderr


def test_an_approval_that_destroys_nothing_says_what_it_does(erasure, lethe, as_officer) -> None:
    erasure.script["DsrService/PreviewDsr"] = dsr_pb2.PreviewDsrResponse(
        effects=["make_package"], preview_etag=ETAG
    )
    assert "does: make_package" in lethe(*APPROVE, "--apply", *as_officer).stderr


def test_a_request_is_opened_with_what_its_kind_needs(gateway, lethe, as_officer, tmp_path) -> None:
    gateway.script["DsrService/CreateDsr"] = dsr_pb2.CreateDsrResponse()
    right = tmp_path / "right.yaml"
    right.write_text("residence: FR\nbirth_year: 1980\n")
    subject = ("--subject", "u1", "--opaque", *as_officer)
    lethe("dsr", "open", "--kind", "correction", "--correction", str(right), *subject)
    asked = gateway.asked("DsrService/CreateDsr")
    assert (asked.correction.name, asked.correction.residence) == ("subjects/u1", "FR")
    gateway.calls.clear()
    lethe("dsr", "open", "--kind", "withdrawal", "--purpose", "train", "--mandate", "guardian", *subject)
    asked = gateway.asked("DsrService/CreateDsr")
    assert (list(asked.purposes), asked.by_agent, asked.mandate) == (
        [common_pb2.PURPOSE_TRAIN],
        True,
        "guardian",
    )


def test_the_due_list_the_figures_and_a_letter_are_asked_for(gateway, lethe, as_officer, tmp_path) -> None:
    gateway.script |= {
        "DsrService/ListDsrs": dsr_pb2.ListDsrsResponse(dsrs=[Dsr(name="dsrs/1", due_date="2026-12-23")]),
        "DsrService/GetFigures": dsr_pb2.GetFiguresResponse(
            figures=[dsr_pb2.GetFiguresResponse.Figures(kind=Dsr.KIND_ACCESS, received=3, median_days=2.5)]
        ),
        "DsrService/GetLetter": dsr_pb2.GetLetterResponse(subject="About", text="Dear all"),
        "DsrService/VerifyIdentity": dsr_pb2.VerifyIdentityResponse(),
    }
    assert "2026-12-23" in lethe("dsr", "list", "--due", "--before", "2026-12-31", *as_officer).stdout
    asked = gateway.asked("DsrService/ListDsrs")
    assert (asked.due_only, asked.due_before) == (True, "2026-12-31")
    assert "2.5" in lethe("dsr", "figures", "--since", "2026-01-01T00:00:00Z", *as_officer).stdout
    out = tmp_path / "letter.txt"
    lethe("dsr", "letter", ID, "--kind", "refusal", "--language", "de", "--out", str(out), *as_officer)
    assert gateway.asked("DsrService/GetLetter").kind == dsr_pb2.GetLetterRequest.KIND_REFUSAL
    assert out.read_text() == "About\n\nDear all"
    lethe("dsr", "verify", ID, "--method", "account_session", "--failed", *as_officer)
    assert gateway.asked("DsrService/VerifyIdentity").not_shown


def test_an_approval_may_be_bound_to_an_earlier_preview(erasure, lethe, as_officer) -> None:
    lethe(*APPROVE, "--apply", "--etag", "e" * 32, *as_officer)
    assert erasure.asked("DsrService/ApproveDsr").preview_etag == "e" * 32


def test_waiting_ends_when_it_is_carried_out(erasure, lethe, as_officer, monkeypatch) -> None:
    monkeypatch.setattr("gateway.admin.approval.POLL_S", 0.0)
    result = lethe(*APPROVE, "--apply", "--wait", *as_officer)
    assert result.exit_code == 0
    dsr = json.loads(result.stdout)["dsr"]
    assert ("STATE_FULFILLED", f"certificates/{ID}") == (dsr["state"], dsr["certificate"])


def test_what_is_not_carried_out_in_time_is_partly_done(erasure, lethe, as_officer) -> None:
    result = lethe(*APPROVE, "--apply", "--wait", "--timeout", "0.0001", *as_officer)
    assert result.exit_code == 5
    assert "error: NOT_FULFILLED" in result.stderr
    assert "dsr" in json.loads(result.stdout)


def test_a_destroying_command_without_a_reason_is_a_usage_error(erasure, lethe, as_officer) -> None:
    assert lethe("dsr", "approve", ID, "--apply", *as_officer).exit_code == 2
    assert lethe("dsr", "approve", ID, "--apply", "--reason", "Erika asked", *as_officer).exit_code == 2
    assert erasure.calls == []


def test_a_refusal_sends_its_ground(gateway, lethe, as_officer) -> None:
    gateway.script["DsrService/RefuseDsr"] = dsr_pb2.RefuseDsrResponse()
    assert lethe("dsr", "refuse", ID, "--reason", "manifestly-unfounded", *as_officer).exit_code == 0
    assert gateway.asked("DsrService/RefuseDsr").reason_code == "MANIFESTLY_UNFOUNDED"


def test_requests_are_opened_and_listed(gateway, lethe, as_officer) -> None:
    gateway.script["DsrService/CreateDsr"] = dsr_pb2.CreateDsrResponse()
    gateway.script["DsrService/ListDsrs"] = dsr_pb2.ListDsrsResponse()
    assert lethe("dsr", "open", "--kind", "erasure", "--regime", "gdpr", *SUBJECT, *as_officer).exit_code == 0
    opened = gateway.asked("DsrService/CreateDsr")
    assert (opened.kind, opened.regime, opened.HasField("receive_time")) == (Dsr.KIND_ERASURE, "gdpr", False)
    assert opened.request_id
    assert lethe("dsr", "list", "--state", "received", *as_officer).exit_code == 0
    assert gateway.asked("DsrService/ListDsrs").state == Dsr.STATE_RECEIVED


def test_a_certificate_comes_with_its_opening(erasure, lethe, as_officer, tmp_path: Path) -> None:
    erasure.script["DsrService/GetDsr"] = dsr_pb2.GetDsrResponse(dsr=Dsr(certificate=f"certificates/{ID}"))
    erasure.script["DsrService/GetCertificate"] = dsr_pb2.GetCertificateResponse(
        tlog_proof="proof", opening=b"{}"
    )
    out = tmp_path / "erasure.tlog-proof"
    command = ("dsr", "certificate", f"dsrs/{ID}", "--out", out, *as_officer)
    assert lethe(*command).exit_code == 0
    assert f"certificates/{ID}" == erasure.asked("DsrService/GetCertificate").name
    assert (out.read_text(), (tmp_path / "erasure.opening.json").read_text()) == ("proof", "{}")
    again = lethe(*command)
    assert again.exit_code == 2
    assert "error: FILE_EXISTS" in again.stderr


def test_an_unfinished_erasure_has_no_certificate(erasure, lethe, as_officer, tmp_path: Path) -> None:
    assert lethe("dsr", "certificate", f"dsrs/{ID}", "--out", tmp_path / "c", *as_officer).exit_code == 1
    assert list(tmp_path.iterdir()) == []


# --- pictures ---------------------------------------------------------------------------------


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    (tmp_path / "erika-mustermann.jpg").write_bytes(b"\xff\xd8" + bytes(300_000))
    return tmp_path / "erika-mustermann.jpg"


def answers(*more: object) -> list[object]:
    part = generation_pb2.GenerateResponse
    result = generation_pb2.ResultHeader(object=f"objects/{ID}", image_type="image/jpeg", size_bytes=6)
    return [
        part(job=Job(state=Job.STATE_RUNNING, percent=40)),
        part(result=result),
        part(chunk=b"abc"),
        *more,
    ]


LAST = (
    generation_pb2.GenerateResponse(chunk=b"def"),
    generation_pb2.GenerateResponse(receipt=common_pb2.AuditReceipt()),
)


@pytest.fixture
def generate(gateway, lethe, as_app, photo: Path, tmp_path: Path):
    def run(answer: object, *more: str):
        gateway.script["GenerationService/Generate"] = answer
        options = ("--notice", "studio", "--style", "studio_grey", *SUBJECT, *as_app, "-o", "json")
        return lethe("generate", photo, "--out", tmp_path / "out.jpg", *options, *more)

    return run


def test_a_picture_is_made(gateway, generate, tmp_path: Path) -> None:
    result = generate(answers(*LAST))
    assert result.exit_code == 0
    assert (tmp_path / "out.jpg").read_bytes() == b"abcdef"
    assert stat.S_IMODE((tmp_path / "out.jpg").stat().st_mode) == 0o600
    assert {"job", "result", "receipt"} == set(json.loads(result.stdout))
    assert result.stderr == ""
    header, *chunks = gateway.asked("GenerationService/Generate")
    assert sum(len(chunk.chunk) for chunk in chunks) == 300_002
    assert (
        header.header.subject,
        header.header.notice,
        header.header.parameters.style,
    ) == ("subjects/u-1", "notices/studio", "studio_grey")
    assert b"mustermann" not in header.SerializeToString()


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ([Refusal(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")], 1),
        (
            [
                Refusal(
                    grpc.StatusCode.FAILED_PRECONDITION, "STATE_CONFLICT", metadata={"job_reason": "DENY_X"}
                )
            ],
            3,
        ),
        ([], 1),
    ],
)
def test_a_failure_leaves_nothing_and_is_not_repeated(gateway, generate, photo, tmp_path, more, code) -> None:
    assert code == generate(answers(*more)).exit_code
    assert [photo] == list(tmp_path.iterdir())
    assert len(gateway.calls) == 1


def test_a_call_that_was_not_taken_is_repeated(gateway, generate, monkeypatch) -> None:
    monkeypatch.setattr(client_module, "FIRST_PAUSE_S", 0.0)
    turns = [[Refusal(grpc.StatusCode.UNAVAILABLE, "BACKEND_UNAVAILABLE")], answers(*LAST)]
    assert generate(lambda _request: turns.pop(0)).exit_code == 0
    first, second = (request for _path, request in gateway.calls)
    assert first[0].header.request_id == second[0].header.request_id


def test_a_file_is_not_overwritten_unless_told(gateway, generate, tmp_path: Path) -> None:
    (tmp_path / "out.jpg").write_text("mine")
    assert generate(answers(*LAST)).exit_code == 2
    assert gateway.calls == []
    assert (tmp_path / "out.jpg").read_text() == "mine"
    assert generate(answers(*LAST), "--force").exit_code == 0
    assert (tmp_path / "out.jpg").read_bytes() == b"abcdef"


def test_a_job_is_followed_to_its_end(gateway, lethe, as_app) -> None:
    path = "GenerationService/WatchJob"
    states = (Job.STATE_QUEUED, Job.STATE_RUNNING, Job.STATE_SUCCEEDED)
    gateway.script[path] = [generation_pb2.WatchJobResponse(job=Job(state=state)) for state in states]
    result = lethe("job", "watch", ID, *as_app, "-o", "json")
    assert (result.exit_code, json.loads(result.stdout)["state"]) == (0, "STATE_SUCCEEDED")
    failure = Job.Failure(reason="DENY_CONSENT_WITHDRAWN")
    failed = Job(state=Job.STATE_FAILED, failure=failure)
    gateway.script[path] = [generation_pb2.WatchJobResponse(job=failed)]
    result = lethe("job", "watch", ID, *as_app)
    assert result.exit_code == 3
    assert "error: DENY_CONSENT_WITHDRAWN" in result.stderr


def test_deleting_a_job_is_rehearsed_by_showing_it(gateway, lethe, as_app) -> None:
    gateway.script["GenerationService/GetJob"] = generation_pb2.GetJobResponse(job=Job(name=f"jobs/{ID}"))
    gateway.script["GenerationService/DeleteJob"] = generation_pb2.DeleteJobResponse()
    command = ("job", "delete", ID, "--reason", "customer_asked", *as_app)
    assert lethe(*command).exit_code == 0
    assert [path for path, _request in gateway.calls] == ["GenerationService/GetJob"]
    assert lethe(*command, "--apply").exit_code == 0
    assert f"jobs/{ID}" == gateway.asked("GenerationService/DeleteJob").name


def test_a_result_is_downloaded(gateway, lethe, as_app, tmp_path: Path) -> None:
    part = generation_pb2.DownloadResultResponse
    gateway.script["GenerationService/DownloadResult"] = [
        part(result=generation_pb2.ResultHeader(size_bytes=3)),
        part(chunk=b"abc"),
    ]
    assert lethe("job", "download", ID, "--out", tmp_path / "p.jpg", *as_app).exit_code == 0
    assert (tmp_path / "p.jpg").read_bytes() == b"abc"


def test_a_package_that_breaks_off_is_resumed_and_checked(gateway, lethe, as_app, tmp_path: Path) -> None:
    part, header = dsr_pb2.DownloadPackageResponse, dsr_pb2.PackageHeader

    def stream(request: dsr_pb2.DownloadPackageRequest) -> list[object]:
        announced = part(package=header(size_bytes=6, sha256=hashlib.sha256(b"abcdef").hexdigest()))
        broken = Refusal(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        rest = [part(chunk=b"def")] if request.offset else [part(chunk=b"abc"), broken]
        return [announced, *rest]

    gateway.script["DsrService/DownloadPackage"] = stream
    out = tmp_path / "package.zip"
    assert lethe("dsr", "package", ID, "--out", out, *as_app).exit_code == 0
    assert out.read_bytes() == b"abcdef"
    assert [request.offset for _, request in gateway.calls] == [0, 3]


@pytest.mark.parametrize("chunk", [b"abc", b"abcdeg"])
def test_a_package_that_is_not_what_was_announced_is_not_kept(
    gateway, lethe, as_app, tmp_path: Path, chunk: bytes
) -> None:
    part, digest = dsr_pb2.DownloadPackageResponse, hashlib.sha256(b"abcdef").hexdigest()
    announced = part(package=dsr_pb2.PackageHeader(size_bytes=6, sha256=digest))
    gateway.script["DsrService/DownloadPackage"] = [announced, part(chunk=chunk)]
    result = lethe("dsr", "package", ID, "--out", tmp_path / "package.zip", *as_app)
    assert (result.exit_code, "PACKAGE_DIFFERS" in result.stderr) == (4, True)
    assert list(tmp_path.iterdir()) == []


# --- retention --------------------------------------------------------------------------------


def test_a_sweep_rehearses_unless_it_is_applied_and_carries_its_reason(gateway, lethe, as_officer) -> None:
    path = "RetentionService/Sweep"
    gateway.script[path] = retention_pb2.SweepResponse(due_objects=3, held_objects=1, debts=2)
    result = lethe("retention", "sweep", "--reason", "complaint", *as_officer, "-o", "json")
    assert json.loads(result.stdout) == {"due_objects": 3, "held_objects": 1, "debts": 2}
    assert "rehearsal" in result.stderr
    assert (gateway.asked(path).validate_only, gateway.asked(path).reason_code) == (True, "COMPLAINT")
    gateway.calls.clear()
    result = lethe("retention", "sweep", "--reason", "complaint", "--apply", *as_officer)
    assert (result.exit_code, gateway.asked(path).validate_only) == (0, False)
    assert lethe("retention", "sweep", "--apply", *as_officer).exit_code == 2
    assert lethe("retention", "sweep", "--reason", "Ms Example asked", *as_officer).exit_code == 2


def test_debts_are_listed_and_those_set_aside_have_no_next_time(gateway, lethe, as_officer) -> None:
    owed = retention_pb2.Debt(
        kind=retention_pb2.Debt.KIND_OBJECT, item=ID, tries=12, reason="STORE_UNAVAILABLE"
    )
    gateway.script["RetentionService/ListDebts"] = retention_pb2.ListDebtsResponse(debts=[owed])
    result = lethe("retention", "debts", *as_officer)
    assert ID in result.stdout
    assert "STORE_UNAVAILABLE" in result.stdout


@pytest.mark.parametrize(
    ("command", "method"),
    [
        (("hold", "release", ID), "RetentionService/ReleaseHold"),
        (("key", "rotate"), "KeyService/RotateKeys"),
    ],
)
def test_reasons_that_are_stored_go_over_the_wire(gateway, lethe, as_officer, command, method) -> None:
    answers = {
        "RetentionService/ReleaseHold": retention_pb2.ReleaseHoldResponse(),
        "KeyService/RotateKeys": key_pb2.RotateKeysResponse(),
    }
    gateway.script[method] = answers[method]
    assert lethe(*command, "--reason", "case-closed", "--apply", *as_officer).exit_code == 0
    assert gateway.asked(method).reason_code == "CASE_CLOSED"


# --- lists and the log ------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "shown", "is_told"), [("7", 7, False), ("5", 5, True), ("100", 7, False)])
def test_a_list_is_read_page_after_page(
    gateway, lethe, as_officer, monkeypatch, limit, shown, is_told
) -> None:
    monkeypatch.setattr("gateway.admin.session.PAGE", 3)

    def page(request: audit_pb2.ListEventsRequest) -> audit_pb2.ListEventsResponse:
        start = int(request.page_token or 0)
        end = min(start + request.page_size, 7)
        events = [audit_pb2.Event(index=index) for index in range(start, end)]
        return audit_pb2.ListEventsResponse(events=events, next_page_token=str(end) if end < 7 else "")

    gateway.script["AuditService/ListEvents"] = page
    result = lethe("audit", "list", "--limit", limit, *as_officer, "-o", "json")
    assert shown == len(json.loads(result.stdout)["events"])
    assert is_told == ("there are more" in result.stderr)


def test_the_keys_of_the_log_are_a_trust_file(gateway, lethe, as_officer) -> None:
    answer = audit_pb2.GetCheckpointResponse(checkpoint="o\n1\nx\n\n— o y\n", vkeys=["a+1+x", "b+2+y"])
    gateway.script["AuditService/GetCheckpoint"] = answer
    assert lethe("audit", "head", "--keys", *as_officer).stdout == "a+1+x\nb+2+y\n"
    assert answer.checkpoint == lethe("audit", "head", *as_officer).stdout


def test_a_proof_is_written_to_a_file(gateway, lethe, as_officer, tmp_path: Path) -> None:
    path = "AuditService/GetInclusionProof"
    gateway.script[path] = audit_pb2.GetInclusionProofResponse(tlog_proof="proof")
    assert lethe("audit", "prove", "--index", "0", "--out", tmp_path / "p", *as_officer).exit_code == 0
    assert gateway.asked(path).WhichOneof("which") == "index"
    assert (tmp_path / "p").read_text() == "proof"
    assert lethe("audit", "prove", *as_officer).exit_code == 2


def test_backends_are_listed(gateway, lethe, as_officer) -> None:
    backend = backend_pb2.Backend(name="backends/studio", reachable=True, styles=["studio_grey", "outdoor"])
    gateway.script["BackendService/ListBackends"] = backend_pb2.ListBackendsResponse(backends=[backend])
    result = lethe("backend", "list", *as_officer)
    assert "backends/studio" in result.stdout
    assert "studio_grey, outdoor" in result.stdout
