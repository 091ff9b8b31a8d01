"""Rivals that Lethe's own locks do not hold: age (pyrage) and the AWS Encryption SDK.

They live in an environment of their own (`HOW`), whose interpreter runs this file as it is, so it
imports nothing of ours.  For each line of NAME, VERB, SIZE and SECONDS, between tabs, it answers one
line: MB (10^6 bytes) per second of CPU, or `not installed`.
"""

from __future__ import annotations

import base64
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

WHERE = Path(".cache/rivals")
HOW = f"python3 -m venv {WHERE} && {WHERE}/bin/pip install pyrage==1.4.0 aws-encryption-sdk==4.0.7"
"""How their environment is made, with the versions that were compared."""
AGE, AWS = "age (pyrage)", "AWS Encryption SDK"

Work = Callable[[], object]


def age(plain: bytes) -> tuple[Work, Work]:
    """Return what encrypts to one recipient and what decrypts it again."""
    from pyrage import decrypt, encrypt, x25519

    identity = x25519.Identity.generate()
    sealed = encrypt(plain, [identity.to_public()])
    return lambda: encrypt(plain, [identity.to_public()]), lambda: decrypt(sealed, [identity])


def aws(plain: bytes) -> tuple[Work, Work]:
    """Return what encrypts under a raw AES key, unsigned, in frames of 1 MiB, and what decrypts it."""
    import aws_encryption_sdk as sdk
    from aws_encryption_sdk.identifiers import (
        Algorithm,
        CommitmentPolicy,
        EncryptionKeyType,
        WrappingAlgorithm,
    )
    from aws_encryption_sdk.internal.crypto.wrapping_keys import WrappingKey
    from aws_encryption_sdk.key_providers.raw import RawMasterKeyProvider

    class OneKey(RawMasterKeyProvider):
        provider_id = "benchmarks"
        _secret = os.urandom(32)

        def _get_raw_key(self, _key_id: str) -> WrappingKey:
            return WrappingKey(
                wrapping_algorithm=WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING,
                wrapping_key=self._secret,
                wrapping_key_type=EncryptionKeyType.SYMMETRIC,
            )

    client = sdk.EncryptionSDKClient(commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)
    provider = OneKey()
    provider.add_master_key(base64.b64encode(os.urandom(4)).decode())

    def encrypt() -> bytes:
        return client.encrypt(
            source=plain,
            key_provider=provider,
            frame_length=1 << 20,
            algorithm=Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY,
        )[0]

    sealed = encrypt()
    return encrypt, lambda: client.decrypt(source=sealed, key_provider=provider)


RIVALS = {AGE: age, AWS: aws}


def rate(work: Work, size: int, budget_s: float) -> float:
    """Return MB per second of CPU."""
    work()
    done, begun = 0, time.process_time()
    while (spent := time.process_time() - begun) < budget_s or not done:
        work()
        done += 1
    return done * size / spent / 1e6


def main() -> None:
    """Answer lines until there are no more."""
    made: dict[tuple[str, int], tuple[Work, Work]] = {}
    for line in sys.stdin:
        name, verb, size, budget = line.rstrip("\n").split("\t")
        try:
            if (name, int(size)) not in made:
                made = {(name, int(size)): RIVALS[name](os.urandom(int(size)))}
        except ImportError:
            print("not installed", flush=True)
            continue
        print(rate(made[name, int(size)][verb == "open"], int(size), float(budget)), flush=True)


if __name__ == "__main__":
    main()
