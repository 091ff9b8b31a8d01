"""Of two words about a backend the stricter counts; what cannot both be true is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gateway.contract import digest, refuse_unfit, stricter, text, under_contract
from gateway.errors import BackendProtocol, BackendRetentionTooLong
from gateway.ports.inference import Contract, Safeguards
from tests.fakes.inference import FACTS

CONTRACT = Contract(
    region="DE",
    operator="Example Hosting GmbH",
    input_retention_s=0,
    output_retention_s=0,
    trains_on_inputs=False,
    template_extracted=False,
    supports_cancel=True,
    supports_forget=True,
    source="enhanced",
    styles=(),
    takes_prompts=True,
    max_image_bytes=1000,
    max_pixels=500,
)
STRICTEST = {
    "trains_on_inputs": True,
    "template_extracted": True,
    "supports_cancel": False,
    "supports_forget": False,
    "takes_prompts": False,
    "source": "generated",
}


@pytest.mark.parametrize(("name", "value"), STRICTEST.items())
def test_of_a_promise_and_a_word_the_stricter_counts_whichever_it_is(name: str, value: object) -> None:
    lax = {key: not word if isinstance(word, bool) else "enhanced" for key, word in STRICTEST.items()}
    for said, declared in ((value, lax[name]), (lax[name], value)):
        held = stricter(replace(FACTS, **{name: said}), replace(CONTRACT, **{name: declared}))
        assert value == getattr(held, name)


def test_the_longer_term_and_the_smaller_picture_count() -> None:
    said = replace(FACTS, retention_s=5, output_retention_s=1, max_pixels=400)
    held = stricter(said, replace(CONTRACT, input_retention_s=2, output_retention_s=9))
    assert (held.retention_s, held.output_retention_s) == (5, 9)
    assert (held.max_pixels, held.max_image_bytes) == (400, 1000)


@pytest.mark.parametrize(
    ("said", "declared", "is_held"),
    [
        ("local", "DE", True),
        ("DE", "DE", True),
        ("CA", "CA-QC", True),
        ("local", "local", True),
        ("DE", "local", False),
        ("US", "DE", False),
        ("CA-QC", "CA", False),
    ],
)
def test_a_place_may_be_told_more_exactly_and_not_otherwise(said: str, declared: str, is_held: bool) -> None:
    facts, contract = replace(FACTS, region=said), replace(CONTRACT, region=declared)
    if is_held:
        assert declared == stricter(facts, contract).region
        return
    with pytest.raises(BackendProtocol) as fault:
        stricter(facts, contract)
    assert fault.value.detail == "contract_region"


def test_only_styles_that_both_name_are_left_and_one_at_least() -> None:
    facts = replace(FACTS, styles=("oil", "ink"))
    assert stricter(facts, CONTRACT).styles == ("oil", "ink")
    assert stricter(facts, replace(CONTRACT, styles=("ink", "chalk"))).styles == ("ink",)
    with pytest.raises(BackendProtocol) as fault:
        stricter(facts, replace(CONTRACT, styles=("chalk",)))
    assert fault.value.detail == "contract_styles"


def test_a_promise_has_one_digest_and_every_change_of_it_another() -> None:
    facts = under_contract(CONTRACT, name="a", version="1", device="cpu", model_digest="ab" * 32)
    renamed = replace(facts, name="b", version="2", device="gpu", model_digest="cd" * 32)
    assert digest(facts) == digest(renamed)
    changes = {
        "region": "FR",
        "operator": "Another",
        "retention_s": 1,
        "output_retention_s": 1,
        "trains_on_inputs": True,
        "template_extracted": True,
        "supports_cancel": False,
        "supports_forget": False,
        "source": "generated",
        "styles": ("oil",),
        "takes_prompts": False,
        "max_image_bytes": 1,
        "max_pixels": 1,
        "safeguards": Safeguards(mechanism="SCC"),
    }
    digests = {digest(replace(facts, **{name: value})) for name, value in changes.items()}
    assert len({*digests, digest(facts)}) == len(changes) + 1
    assert json.loads(text(facts)).keys() == changes.keys()


def test_who_cannot_forget_is_fit_only_where_a_contract_says_for_how_long_it_keeps() -> None:
    mute = replace(FACTS, supports_forget=False)
    with pytest.raises(BackendRetentionTooLong) as refused:
        refuse_unfit(mute, 0)
    assert refused.value.detail == "cannot_forget"
    refuse_unfit(stricter(mute, CONTRACT), 0)
    for changes in ({"input_retention_s": 1}, {"output_retention_s": 1}, {"trains_on_inputs": True}):
        with pytest.raises(BackendRetentionTooLong):
            refuse_unfit(stricter(mute, replace(CONTRACT, **changes)), 0)
