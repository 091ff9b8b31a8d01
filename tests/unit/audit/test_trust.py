from __future__ import annotations

import pytest

from audit.errors import TrustInvalid
from audit.note import Signer
from audit.trust import read_trust
from tests.unit.audit.logs import SIGNER

OTHER = Signer("log.example/other", bytes([7]) * 32)
ONE, TWO = SIGNER.vkey(), OTHER.vkey()
BOTH = (SIGNER.verifier, OTHER.verifier)


@pytest.mark.parametrize(
    "text",
    [
        f"{ONE}\n{TWO}\n",
        f"# published 2026\n\n  {ONE}\t\n#{ONE}\n{TWO}",
        f"{ONE}\r\n{TWO}\r\n",
        f"log {ONE}\nlog {TWO}\nquorum none\n",
        f"# policy\nquorum none\n\tlog\t{ONE} https://log.example/\nlog {TWO}\n",
    ],
)
def test_keys_are_read_from_a_list_and_from_a_policy(text: str) -> None:
    assert read_trust(text) == BOTH


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "trust_empty"),
        ("# nothing\n\n", "trust_empty"),
        ("quorum none\n", "trust_empty"),
        (f"log {ONE}\n", "trust_quorum"),
        (f"log {ONE}\nquorum none\nquorum none\n", "trust_quorum"),
        (f"log {ONE}\nwitness w {TWO}\nquorum w\n", "trust_witnesses"),
        (f"log {ONE}\ngroup g any w\nquorum g\n", "trust_witnesses"),
        (f"log {ONE}\nquorum w\n", "trust_witnesses"),
        (f"log {ONE}\n{TWO}\nquorum none\n", "trust_malformed"),
        (f"log {ONE} url more\nquorum none\n", "trust_malformed"),
        ("log\nquorum none\n", "trust_malformed"),
        (f"{ONE} {TWO}\n", "trust_malformed"),
        (f"{ONE}\n{ONE}\n", "trust_duplicate_key"),
        (f"{ONE}x\n", "trust_key"),
        ("hello\n", "trust_key"),
        (f"{ONE}\u2028{TWO}\n", "trust_key"),
        ("x" * 300_000, "trust_too_large"),
        (
            "\n".join(Signer("log.example/a", bytes([n]) * 32).vkey() for n in range(65)),
            "trust_too_many_keys",
        ),
    ],
)
def test_a_file_from_which_no_trust_can_be_taken_is_refused(text: str, code: str) -> None:
    with pytest.raises(TrustInvalid) as caught:
        read_trust(text)
    assert code == caught.value.code
