"""A hardware module as the root: how its token is made, and what happens when it is pulled out.

The whole story on a token is told in `test_matrix.py`.
"""

from __future__ import annotations

import pytest

from gateway import compose
from gateway.admin.folder import Layout
from gateway.client import Refused
from gateway.settings import load
from tests.gateway import add_subject, lethe_here, make_folder
from tests.places import on_token
from tests.process import serving
from tests.softhsm import PIN, SoftHsm, make_softhsm


@pytest.fixture
def hsm(tmp_path, monkeypatch) -> SoftHsm:
    return make_softhsm(tmp_path / "hsm", monkeypatch)


@pytest.fixture
def layout(tmp_path, hsm) -> Layout:
    """A development folder without a keyring."""
    made = make_folder(tmp_path / "dev")
    on_token(made, hsm)
    return made


async def test_while_the_token_is_pulled_out_nothing_is_sealed_and_the_pin_is_told_nobody(
    hsm, layout
) -> None:
    await compose.make_keys(load(layout.config))
    async with serving(layout) as process:
        async with process.client("app") as app:
            hsm.take_out()
            with pytest.raises(Refused) as refusal:
                await add_subject(app, "crew-4713")
            assert refusal.value.reason == "KEY_SERVICE_UNAVAILABLE"
            hsm.put_back()
            await add_subject(app, "crew-4713")
        assert await process.drain() == 0
        assert PIN.encode() not in process.said()


def test_a_token_is_made_once_by_the_command(hsm, layout) -> None:
    first, second = (lethe_here("key", "init", "--config", layout.config) for _ in range(2))
    assert (first.exit_code, second.exit_code) == (0, 1)
    assert "KEYS_EXIST" in second.stderr
    hsm.place.pin_file.write_text("wrong-4711")
    refused = lethe_here("key", "init", "--config", layout.config)
    assert refused.exit_code == 1
    assert "KEY_SERVICE_UNAVAILABLE (pin_refused)" in refused.stderr
    assert "4711" not in refused.stderr + refused.stdout


def test_the_configuration_is_checked(hsm, layout) -> None:
    assert lethe_here("config", "check", "--config", layout.config).exit_code == 0
    hsm.place.pin_file.unlink()
    missing = lethe_here("config", "check", "--config", layout.config)
    assert missing.exit_code == 1
    assert "keys.pkcs11.pin_file" in missing.stderr
