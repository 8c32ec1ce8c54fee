"""Commands about an owner's key: rotate, revoke, backup, restore, repassphrase."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from birthmark.cli import shared
from birthmark.files import locked

if TYPE_CHECKING:
    from birthmark.keys import OwnerKey


def add_commands(commands: shared.Commands) -> None:
    """Add this module's commands to the parser."""
    added = commands.add(
        "rotate",
        _rotate,
        "Make a key that follows another, and write so into the public key history."
        " Keep the old key: what was marked under it still verifies with it.",
        "birthmark rotate --key owner.key --history keys.json -o owner-2.key",
    )
    added.add_argument("--key", required=True, help="the key in use")
    added.add_argument("--history", required=True, metavar="FILE", help="from keygen --history")
    added.add_argument("-o", "--output", required=True, help="the new key file (same passphrase)")
    shared.add_passphrase(added)

    added = commands.add(
        "revoke",
        _revoke,
        "Declare in the key history that a key is not to be trusted from now on.",
        'birthmark revoke --key owner.key --history keys.json --reason "laptop stolen"',
    )
    added.add_argument("--key", required=True)
    added.add_argument("--history", required=True, metavar="FILE")
    added.add_argument("--reason", required=True)
    shared.add_passphrase(added)

    added = commands.add(
        "backup",
        _backup,
        "Write a key as shares, of which some are needed to restore it and fewer tell nothing.",
        "birthmark backup --key owner.key --shares 5 --needed 3 -o shares/",
    )
    added.add_argument("--key", required=True)
    added.add_argument("--shares", required=True, type=shared.count, metavar="N", help="how many")
    added.add_argument("--needed", required=True, type=shared.count, metavar="K")
    added.add_argument("-o", "--output", required=True, help="a new folder, a file to each share")
    shared.add_passphrase(added)

    added = commands.add(
        "restore",
        _restore,
        "Restore a key from shares, under a new passphrase.",
        "birthmark restore shares/1.txt shares/3.txt shares/4.txt -o owner.key",
    )
    added.add_argument("shares", nargs="+", metavar="SHARE", help="files with a share in each")
    added.add_argument("-o", "--output", required=True, help="the new key file (mode 0600)")
    shared.add_passphrase(added)

    added = commands.add(
        "repassphrase",
        _repassphrase,
        "Write a key to a new file under a new passphrase.",
        "birthmark repassphrase --key owner.key -o owner-new.key",
    )
    added.add_argument("--key", required=True)
    added.add_argument("-o", "--output", required=True)
    shared.add_passphrase(added)
    shared.add_new_passphrase(added)


def _rotate(options: argparse.Namespace) -> int:
    from birthmark.key_history import KeyHistory
    from birthmark.keys import OwnerKey

    shared.new_file(options.output)
    passphrase = shared.passphrase(options)
    old, new = OwnerKey.load(options.key, passphrase), OwnerKey.generate()
    with locked(options.history):
        followed = KeyHistory.load(options.history).followed(old, new)
        new.save(options.output, passphrase)
        followed.save(options.history)
    shared.say(
        options,
        f"{options.output}: public key {new.public_key.hex()}, follows {old.public_key.hex()}",
        output=options.output,
        public_key=new.public_key.hex(),
        follows=old.public_key.hex(),
    )
    return 0


def _revoke(options: argparse.Namespace) -> int:
    from birthmark.key_history import KeyHistory

    key = shared.load_key(options)
    with locked(options.history):
        KeyHistory.load(options.history).revoked(key, options.reason).save(options.history)
    shared.say(
        options,
        f"{options.history}: public key {key.public_key.hex()} is revoked",
        history=options.history,
        revoked=key.public_key.hex(),
    )
    return 0


def _backup(options: argparse.Namespace) -> int:
    from birthmark.files import folder_atomically, write_atomically

    key = shared.load_key(options)
    lines = key.split(options.shares, options.needed)
    with folder_atomically(options.output) as folder:
        folder.chmod(0o700)
        for i, line in enumerate(lines, 1):
            write_atomically(folder / f"{i}.txt", line.encode() + b"\n", mode=0o600)
    shared.say(
        options,
        f"{options.output}: {options.shares} shares, {options.needed} of them restore the key;"
        " keep them in different places",
        output=options.output,
        shares=options.shares,
        needed=options.needed,
    )
    return 0


def _restore(options: argparse.Namespace) -> int:
    from birthmark.errors import InvalidShares
    from birthmark.keys import OwnerKey

    shared.new_file(options.output)
    try:
        lines = [Path(path).read_text("ascii") for path in options.shares]
    except UnicodeDecodeError:
        raise InvalidShares("a file holds something else than a share") from None
    key = OwnerKey.join(lines)
    key.save(options.output, shared.passphrase(options, twice=True))
    _say_key(options, key)
    return 0


def _repassphrase(options: argparse.Namespace) -> int:
    shared.new_file(options.output)
    key = shared.load_key(options)
    key.save(options.output, shared.new_passphrase(options))
    _say_key(options, key)
    return 0


def _say_key(options: argparse.Namespace, key: OwnerKey) -> None:
    public_key = key.public_key.hex()
    shared.say(
        options,
        f"{options.output}: public key {public_key}",
        output=options.output,
        public_key=public_key,
    )
