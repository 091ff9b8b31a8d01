from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from gateway.main import app


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    children = getattr(command, "commands", None)
    if not children:
        yield path, command
        return
    for name, child in children.items():
        yield from commands(child, (*path, name))


ALL = dict(commands(typer.main.get_command(app)))

# The contract's table, as far as it is built.
NAMES = """
init; serve; migrate; generate; backend serve; backend list; backend show
subject upsert; subject show; subject data; subject restrict; subject unrestrict; subject rectify
subject delete-object; subject record; notice publish; notice show; notice list
consent record; consent withdraw; consent show; consent list; consent receipt; consent check; consent signal
consent verify; consent invalidate
job list; job show; job watch; job cancel; job delete; job download
dsr open; dsr list; dsr show; dsr verify; dsr preview; dsr approve; dsr refuse; dsr extend; dsr cancel
dsr package; dsr certificate; audit head; audit list; audit export; audit verify; audit prove
audit fsck; audit witness
certificate show; certificate verify; key init; key status; tenant show; tenant update
dataset create; dataset list; dataset show; dataset download; incident add; incident list
config check; config show
policy decide; policy clock; policy packs; policy check; image clean; image deidentify
"""


def test_every_command_of_the_contract_is_there() -> None:
    expected = {tuple(name.split()) for name in NAMES.replace("\n", ";").split(";") if name.strip()}
    assert set() == expected - set(ALL)


@pytest.mark.parametrize("path", sorted(ALL), ids=" ".join)
def test_every_help_has_an_example_of_its_own_command(path: tuple[str, ...], lethe) -> None:
    result = lethe(*path, "--help")
    assert result.exit_code == 0
    assert f"Example: lethe {' '.join(path)}" in " ".join(result.stdout.split())


@pytest.mark.parametrize("path", sorted(ALL), ids=" ".join)
def test_no_short_help_stops_at_an_abbreviation(path: tuple[str, ...]) -> None:
    """A list of commands takes the first sentence, and `Art.` looks like its end."""
    assert not ALL[path].get_short_help_str(200).endswith((" Art.", " s.", " no."))


@pytest.mark.parametrize("path", sorted(ALL), ids=" ".join)
def test_every_option_and_argument_is_explained(path: tuple[str, ...]) -> None:
    unexplained = [p.name for p in ALL[path].params if not getattr(p, "help", None)]
    assert unexplained == []


@pytest.mark.parametrize("path", sorted(ALL), ids=" ".join)
def test_a_subject_on_argv_always_comes_with_the_file_and_the_assurance(path: tuple[str, ...]) -> None:
    names = {option for p in ALL[path].params for option in p.opts}
    if "--subject" in names:
        assert {"--subject-file", "--opaque"} <= names


@pytest.mark.parametrize("path", [("dsr", "approve"), ("subject", "delete-object"), ("job", "delete")])
def test_what_destroys_rehearses_and_wants_a_reason(path: tuple[str, ...]) -> None:
    params = {option: p for p in ALL[path].params for option in p.opts}
    assert params["--reason"].required
    assert not params["--apply"].default


def test_withdrawing_consent_is_as_easy_as_giving_it() -> None:
    """GDPR Art. 7(3)."""
    names = {option for p in ALL["consent", "withdraw"].params for option in p.opts}
    assert set() == names & {"--apply", "--reason"}


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['lethe', '--help']\n"
        "from gateway.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = ('grpc', 'google.protobuf', 'cryptography', 'pydantic', 'sqlalchemy', 'rich')\n"
        "print([name for name in heavy if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_a_fault_nobody_foresaw_shows_its_kind_and_nothing_else(monkeypatch, capsys) -> None:
    from gateway.admin import app as cli

    def broken() -> None:
        raise RuntimeError("Erika Mustermann")

    monkeypatch.setattr(cli, "app", broken)
    monkeypatch.delenv("LETHE_DEBUG", raising=False)
    with pytest.raises(SystemExit) as ended:
        cli.run_cli()
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert "INTERNAL (RuntimeError)" in error
    assert "Erika" not in error
