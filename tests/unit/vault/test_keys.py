from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from gateway.vault.box import derive, open_box, seal_box
from gateway.vault.errors import SealBroken
from gateway.vault.keys import (
    Binding,
    KeyCache,
    open_column,
    seal_column,
    unwrap_dek,
    wrap_dek,
    zero,
)

KEY = bytes(range(32))
DEK = bytes(range(32, 64))
BINDING = Binding(tenant="acme", handle="ab" * 32, cls="content", item="cd" * 16, purpose="generate")
OPENERS = [open_column, unwrap_dek]
PAIRS = [(seal_column, open_column), (wrap_dek, unwrap_dek)]
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
bindings = st.builds(Binding, tenant=text, handle=text, cls=text, item=text, purpose=text)


class FrozenClock:
    def __init__(self) -> None:
        self.instant = datetime(2026, 3, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.instant

    def move(self, seconds: float) -> None:
        self.instant += timedelta(seconds=seconds)


@pytest.mark.parametrize(("seal", "open_"), PAIRS)
def test_what_is_sealed_opens(seal, open_):
    assert open_(KEY, seal(KEY, DEK, BINDING), BINDING) == DEK


@pytest.mark.parametrize(("seal", "open_"), PAIRS)
def test_a_bytearray_key_does_as_well(seal, open_):
    assert open_(bytearray(KEY), seal(bytearray(KEY), DEK, BINDING), BINDING) == DEK


@pytest.mark.parametrize(("seal", "open_"), PAIRS)
def test_a_box_opens_for_its_own_use_only(seal, open_):
    for other in OPENERS:
        if other is not open_:
            with pytest.raises(SealBroken):
                other(KEY, seal(KEY, DEK, BINDING), BINDING)


@pytest.mark.parametrize(("seal", "open_"), PAIRS)
@pytest.mark.parametrize("field", ["tenant", "handle", "cls", "item", "purpose"])
def test_a_box_moved_elsewhere_does_not_open(seal, open_, field):
    from dataclasses import replace

    with pytest.raises(SealBroken):
        open_(KEY, seal(KEY, DEK, BINDING), replace(BINDING, **{field: "other"}))


@pytest.mark.parametrize(("seal", "open_"), PAIRS)
def test_another_subjects_key_opens_nothing(seal, open_):
    with pytest.raises(SealBroken):
        open_(os.urandom(32), seal(KEY, DEK, BINDING), BINDING)


@given(st.integers(0, 59), st.integers(1, 255))
def test_any_altered_byte_is_refused(where, flip):
    box = bytearray(wrap_dek(KEY, DEK, BINDING))
    box[where] ^= flip
    with pytest.raises(SealBroken):
        unwrap_dek(KEY, bytes(box), BINDING)


@pytest.mark.parametrize("kept", [0, 1, 12, 27, 28, 59])
def test_a_cut_box_is_refused(kept):
    with pytest.raises(SealBroken):
        unwrap_dek(KEY, wrap_dek(KEY, DEK, BINDING)[:kept], BINDING)


def test_sealing_twice_gives_other_bytes():
    assert seal_column(KEY, b"x", BINDING) != seal_column(KEY, b"x", BINDING)


def test_a_wrapped_dek_has_sixty_bytes():
    assert len(wrap_dek(KEY, DEK, BINDING)) == 60


def test_the_subject_key_itself_encrypts_nothing():
    with pytest.raises(SealBroken):
        open_box(KEY, wrap_dek(KEY, DEK, BINDING), BINDING.aad())


def test_a_column_opens_by_the_reference_page_alone():
    box = seal_column(KEY, b"residence", BINDING)
    kek = HKDF(SHA256(), 32, salt=None, info=b"lethe.dev/column/v1").derive(KEY)
    assert AESGCM(kek).decrypt(box[:12], box[12:], BINDING.aad()) == b"residence"


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_key_of_another_length_is_refused(length):
    with pytest.raises(ValueError, match="32 bytes"):
        wrap_dek(KEY, bytes(length), BINDING)
    with pytest.raises(ValueError, match="32 bytes"):
        seal_column(bytes(length), b"", BINDING)


def test_each_label_gives_another_key():
    keys = {
        derive(KEY, label) for label in (b"lethe.dev/dek/v1", b"lethe.dev/column/v1", b"lethe.dev/audit/v1")
    }
    assert len(keys) == 3


@given(st.binary(max_size=200), bindings)
def test_columns_of_any_content_and_binding_round_trip(plain, binding):
    assert plain == open_column(KEY, seal_column(KEY, plain, binding), binding)


@given(bindings, bindings)
def test_different_bindings_never_give_the_same_associated_data(one, other):
    assert (one == other) == (one.aad() == other.aad())


def test_shifting_text_between_fields_changes_the_associated_data():
    forms = {
        Binding("ab", "c", "d", "e", "f").aad(),
        Binding("a", "bc", "d", "e", "f").aad(),
        Binding("a", "b", "cd", "e", "f").aad(),
        Binding("abc", "", "d", "e", "f").aad(),
    }
    assert len(forms) == 4


def test_the_associated_data_is_that_of_the_reference_page():
    expected = b"\0\0\0\x14lethe.dev/binding/v1\0\0\0\1t\0\0\0\1h\0\0\0\1c\0\0\0\1i\0\0\0\0"
    assert expected == Binding("t", "h", "c", "i", "").aad()


def test_zero_overwrites_in_place():
    secret = bytearray(b"secret")
    alias = memoryview(secret)
    zero(secret)
    assert bytes(6) == bytes(alias)


def cache(capacity: int = 2, ttl_s: float = 60) -> tuple[KeyCache, FrozenClock]:
    clock = FrozenClock()
    return KeyCache(capacity, timedelta(seconds=ttl_s), clock), clock


def test_a_cached_key_is_found_until_its_term():
    held, clock = cache()
    held.put("k", "h", KEY)
    clock.move(59.9)
    assert held.get("k") == KEY
    clock.move(0.1)
    assert held.get("k") is None
    assert len(held) == 0


def test_reading_a_key_does_not_prolong_its_term():
    held, clock = cache()
    held.put("k", "h", KEY)
    for _ in range(3):
        clock.move(25)
        found = held.get("k")
    assert found is None


def test_the_least_recently_used_key_goes_first():
    held, _ = cache(capacity=2)
    held.put("a", "h", KEY)
    held.put("b", "h", KEY)
    held.get("a")
    held.put("c", "h", KEY)
    assert [held.get(k) for k in "abc"] == [KEY, None, KEY]


def test_evicting_a_subject_drops_all_its_keys_and_no_others():
    held, _ = cache(capacity=4)
    for key_id, handle in (("a", "h"), ("b", "h"), ("c", "other")):
        held.put(key_id, handle, KEY)
    held.evict("h")
    assert [held.get(k) for k in "abc"] == [None, None, KEY]


def test_a_key_that_was_being_opened_while_its_subject_was_evicted_does_not_come_back():
    held, clock = cache(capacity=2)
    held.evict("h")
    held.put("k", "h", KEY)
    assert held.get("k") is None
    clock.move(61)
    held.put("k", "h", KEY)
    assert held.get("k") == KEY


def test_a_timer_drops_what_nobody_asks_for_any_more():
    held, clock = cache(capacity=2)
    held.put("k", "h", KEY)
    clock.move(61)
    held.expire()
    assert len(held) == 0


def test_what_leaves_the_cache_is_overwritten():
    held, clock = cache(capacity=1)
    leave = {
        "crowded out": lambda: held.put("other", "x", KEY),
        "expired": lambda: (clock.move(61), held.get("other")),
        "cleared": held.clear,
        "replaced": lambda: held.put("k", "h", DEK),
        "evicted": lambda: held.evict("h"),
    }
    for act in leave.values():
        held.clear()
        held.put("k", "h", KEY)
        secret = held._by_use["k"].secret
        act()
        assert bytes(32) == bytes(secret)


def test_changing_the_callers_bytearray_does_not_change_the_cached_key():
    held, _ = cache()
    secret = bytearray(KEY)
    held.put("k", "h", secret)
    zero(secret)
    assert held.get("k") == KEY


def test_a_key_from_the_future_is_not_used():
    held, clock = cache()
    held.put("k", "h", KEY)
    clock.move(-1)
    assert held.get("k") is None


def test_a_cache_that_could_hold_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        cache(capacity=0)


@given(
    st.lists(
        st.tuples(st.sampled_from("abcde"), st.sampled_from(["put", "get", "evict", "wait"])), max_size=40
    )
)
def test_the_cache_is_bounded_and_never_lies(steps):
    held, clock = cache(capacity=3, ttl_s=10)
    truth: dict[str, bytes] = {}
    for number, (name, act) in enumerate(steps):
        if act == "put":
            truth[name] = number.to_bytes(32, "big")
            held.put(name, name, truth[name])
        elif act == "evict":
            held.evict(name)
            assert held.get(name) is None
        elif act == "wait":
            clock.move(4)
        else:
            assert held.get(name) in {None, truth.get(name)}
        assert len(held) <= 3
        assert set(held._by_age) == set(held._by_use)
        assert all(a <= b for a, b in pairwise(held._by_use[k].since for k in held._by_age))


def test_an_empty_box_is_the_smallest():
    assert len(seal_box(KEY, b"", b"")) == 28
