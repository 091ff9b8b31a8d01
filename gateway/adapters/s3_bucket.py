"""What obstore has no word for: multipart uploads that end conditionally, old versions, Object Lock.

Plain blocking calls through botocore, for `objects_s3` to run in threads; errors of
the store leave as `StoreUnavailable` with a code (docs/reference/object-stores.md).
"""

from __future__ import annotations

import configparser
import contextlib
import functools
import hashlib
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from gateway.errors import StoreUnavailable
from gateway.settings import ConfigInvalid, S3Section, is_private

THREADS = 16
ATTEMPTS = 3
CONNECT_S = 5.0
PAGE = 1000
ROUNDS = 3
"""How often a deletion looks again whether anything is left."""

_CODES = {
    "access_denied": "AccessDenied AllAccessDisabled ExpiredToken InvalidAccessKeyId InvalidToken "
    "SignatureDoesNotMatch 401 403",
    "no_bucket": "NoSuchBucket PermanentRedirect",
    "throttled": "SlowDown ServiceUnavailable Throttling ThrottlingException TooManyRequests 429 503",
    "clock_skew": "RequestTimeTooSkewed",
    "full": "InsufficientStorage QuotaExceeded XMinioStorageFull 507",
    "server_error": "InternalError 500 502 504",
}
_DETAILS = {code: detail for detail, codes in _CODES.items() for code in codes.split()}
_NOT_FIRST = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "NoSuchUpload", "412", "409"})
_NO_LOCK = frozenset({"ObjectLockConfigurationNotFoundError", "NotImplemented", "501"})


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we are to the store."""

    access: str
    secret: str = field(repr=False)
    session: str | None = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> Credentials:
        """Read profile `default` of an AWS shared credentials file.

        Raises:
            ConfigInvalid: It is missing, open to other users, or holds no such profile.
        """
        parser = configparser.RawConfigParser()
        try:
            if not is_private(path):
                raise ConfigInvalid("objects.s3.credentials: the file is open to other users")
            parser.read_string(path.read_text())
            profile = parser["default"]
            return cls(
                profile["aws_access_key_id"],
                profile["aws_secret_access_key"],
                profile.get("aws_session_token"),
            )
        except OSError as error:
            raise ConfigInvalid("objects.s3.credentials cannot be read") from error
        except (configparser.Error, KeyError, UnicodeDecodeError):
            # What it stems from quotes lines of the file.
            raise ConfigInvalid("objects.s3.credentials holds no profile `default` with a key") from None


@dataclass(slots=True)
class Upload:
    """A multipart upload; `upload_id` is empty while there is none to abort."""

    key: str
    upload_id: str = ""
    size: int = 0
    tags: list[str] = field(default_factory=list)
    digest: Any = field(default_factory=hashlib.sha256)


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An upload that neither ended nor was aborted, and when it began (aware)."""

    key: str
    upload_id: str
    began_at: datetime


class Bucket:
    """The calls of S3's API by their names here; each may block as long as the store lets it."""

    def __init__(self, section: S3Section, who: Credentials) -> None:
        """Make the client; nothing is sent yet."""
        self._bucket = section.bucket
        self._prefix = section.prefix
        self._client: Any = _session().create_client(
            "s3",
            region_name=section.region,
            endpoint_url=section.url,
            verify=str(section.ca) if section.ca else True,
            aws_access_key_id=who.access,
            aws_secret_access_key=who.secret,
            aws_session_token=who.session,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path" if section.path_style else "virtual"},
                proxies={},
                connect_timeout=min(CONNECT_S, section.timeout_s),
                read_timeout=section.timeout_s,
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                max_pool_connections=THREADS,
                # Checksums that came later than most stores; TLS guards the way, the seal the bytes.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def close(self) -> None:
        """Let the connections go."""
        self._client.close()

    # --- uploads ---------------------------------------------------------------------------------

    def send(self, upload: Upload, part: io.BytesIO) -> None:
        """Send the next part, at least 5 MiB unless it is the last; the first begins the upload."""
        if not upload.upload_id:
            with store_errors():
                made = self._client.create_multipart_upload(Bucket=self._bucket, Key=upload.key)
            upload.upload_id = made["UploadId"]
        with part.getbuffer() as content:
            upload.digest.update(content)
            upload.size += len(content)
        part.seek(0)
        number = len(upload.tags) + 1
        with store_errors():
            sent = self._client.upload_part(PartNumber=number, Body=part, **self._named(upload))
        upload.tags.append(sent["ETag"])

    def end(self, upload: Upload) -> bool:
        """Make the object of the parts, and return False where the key was taken.

        After a lost reply the upload is gone although it was ours that took the key:
        who gets False looks at what lies there.
        """
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(upload.tags, start=1)]
        with store_errors(), _unless(_NOT_FIRST) as outcome:
            self._client.complete_multipart_upload(
                IfNoneMatch="*", MultipartUpload={"Parts": parts}, **self._named(upload)
            )
            upload.upload_id = ""
            outcome.holds = True
        return outcome.holds

    def abort(self, upload: Upload) -> None:
        """Drop the parts, if there is an upload; what is not there changes nothing."""
        if upload.upload_id:
            with store_errors(), _unless(frozenset({"NoSuchUpload"})):
                self._client.abort_multipart_upload(**self._named(upload))

    def unfinished(self, prefix: str = "") -> list[Unfinished]:
        """Return the uploads under our prefix whose key goes on with `prefix`."""
        return [
            Unfinished(found["Key"], found["UploadId"], found["Initiated"])
            for page in self._pages("list_multipart_uploads", prefix)
            for found in page.get("Uploads", ())
        ]

    def _named(self, upload: Upload) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": upload.key, "UploadId": upload.upload_id}

    # --- versions --------------------------------------------------------------------------------

    def versions(self, prefix: str = "") -> Iterator[list[tuple[str, str]]]:
        """Yield pages of (key, version) of objects, older versions and delete markers under our prefix."""
        for page in self._pages("list_object_versions", prefix):
            found = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
            yield [(one["Key"], one["VersionId"]) for one in found]

    def remove(self, name: str) -> bool:
        """Remove every trace of a key: (1) unfinished uploads, so that none ends later, (2) every version.

        A listing afterwards (3) shows that nothing is left.

        Returns:
            Whether there was anything.

        Raises:
            StoreUnavailable: Likewise where something stays, however often it is removed (`not_removed`).
        """
        key = self._prefix + name
        for found in self.unfinished(name):
            if found.key == key:
                self.abort(Upload(key, found.upload_id))
        for number in range(ROUNDS):
            held = [version for page in self.versions(name) for of, version in page if of == key]
            if not held:
                return number > 0
            for version in held:
                with store_errors():
                    self._client.delete_object(Bucket=self._bucket, Key=key, VersionId=version)
        raise StoreUnavailable("the object store keeps what was removed", detail="not_removed")

    def _pages(self, listing: str, prefix: str) -> Iterator[dict[str, Any]]:
        pages = self._client.get_paginator(listing).paginate(
            Bucket=self._bucket,
            Prefix=self._prefix + prefix,
            PaginationConfig={"PageSize": PAGE},
        )
        with store_errors():
            yield from pages

    # --- what the bucket may not be --------------------------------------------------------------

    def refuse_locks(self) -> None:
        """Refuse a bucket that keeps what is deleted.

        Raises:
            StoreUnavailable: It has a default retention (`retention`), or deletes
                with a second factor only (`mfa_delete`).
        """
        with store_errors():
            versioning = self._client.get_bucket_versioning(Bucket=self._bucket)
        if versioning.get("MFADelete") == "Enabled":
            raise StoreUnavailable("the bucket deletes with a second factor only", detail="mfa_delete")
        with store_errors(), _unless(_NO_LOCK):
            lock = self._client.get_object_lock_configuration(Bucket=self._bucket)
            if "Rule" in lock.get("ObjectLockConfiguration", {}):
                raise StoreUnavailable(
                    "the bucket keeps objects for a term (Object Lock)", detail="retention"
                )

    def ends_conditionally(self, name: str, content: bytes) -> bool:
        """Tell whether an upload over a key that holds `content` already is refused; its content stays."""
        upload = Upload(self._prefix + name)
        try:
            self.send(upload, io.BytesIO(content))
            return not self.end(upload)
        finally:
            self.abort(upload)


@functools.cache
def _session() -> Any:
    """Return what clients are made by; it reads S3's model once.

    Nothing is taken from profiles of the environment or the home directory: neither
    who we are nor where to go.
    """
    nowhere = (None, None, os.devnull, None)
    alone = {"profile": (None,) * 4, "config_file": nowhere, "credentials_file": nowhere}
    return botocore.session.Session(session_vars=alone)


@dataclass(slots=True)
class _Outcome:
    holds: bool = False


@contextlib.contextmanager
def _unless(codes: frozenset[str]) -> Iterator[_Outcome]:
    """Leave the block quietly where the store answers with one of `codes`."""
    outcome = _Outcome()
    try:
        yield outcome
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") not in codes:
            raise


@contextlib.contextmanager
def store_errors() -> Iterator[None]:
    """Turn what botocore raises into `StoreUnavailable`."""
    try:
        yield
    except ClientError as error:
        status = str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
        raise unavailable(error.response.get("Error", {}).get("Code", ""), status) from error
    except BotoCoreError as error:
        raise unavailable("timeout" if "Timeout" in type(error).__name__ else "") from error


def unavailable(*codes: str) -> StoreUnavailable:
    """Return the refusal that tells of the first code that is known, `unreachable` where none was given."""
    known = [_DETAILS[code] for code in codes if code in _DETAILS]
    if "timeout" in codes:
        known.append("timeout")
    fallback = "store_refused" if any(codes) else "unreachable"
    return StoreUnavailable("the object store does not answer", detail=(*known, fallback)[0])


def codes_in(text: str) -> tuple[str, ...]:
    """Return the codes in what obstore says of an answer: the one in its body, and the status."""
    if "kind: Timeout" in text:
        return ("timeout",)
    found = re.search(r"<Code>(\w+)</Code>", text), re.search(r"status code: (\d{3})", text)
    return tuple(match[1] for match in found if match)
