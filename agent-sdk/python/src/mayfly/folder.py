"""An identity in a folder, as `mayfly spawn --out DIR` and `mayfly redeem --out DIR` write it."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from .certificates import Credential, from_pem, read_key
from .errors import Unusable

_MOST = 1 << 20
#: How often a reader looks again because the files were switched while it read.
_LOOKS = 16


@dataclass(frozen=True)
class Saved:
    """What the folder held when it was read."""

    credential: Credential
    #: DER roots of the trust domain.
    roots: tuple[bytes, ...]

    @classmethod
    def read(cls, folder: Path) -> Saved:
        """Reads `svid.pem`, `key.pem` and `bundle.pem` of one certificate. Raises `Unusable`, also if others may read the key."""
        if not (folder / "key.pem").exists() and (folder / "svid_key.pem").exists():
            raise Unusable("files", f"`{folder}` belongs to `mayfly run --files`: call mayfly.current() without a folder")
        base = _base(folder)
        for _ in range(_LOOKS):
            try:
                return cls._read(base)
            except Unusable:
                # Whoever renews the folder may have removed these files meanwhile; then those of the next certificate are read.
                if base == (base := _base(folder)):
                    raise
        return cls._read(base)

    @classmethod
    def _read(cls, base: Path) -> Saved:
        key = read_key(_read(base / "key.pem", secret=True), pem=True)
        return cls(Credential.of(from_pem(_read(base / "svid.pem")), key), from_pem(_read(base / "bundle.pem")))


def issuer_of(folder: Path) -> str | None:
    """`host:port` of the issuer as the folder names it; `None` if it does not."""
    try:
        return _read(_base(folder) / "issuer").decode().strip() or None
    except (Unusable, UnicodeDecodeError):
        return None


def _base(folder: Path) -> Path:
    """The folder with the files of the current certificate, to which one link leads."""
    try:
        return folder / os.readlink(folder / "..data")
    except OSError:
        return folder


def _read(path: Path, *, secret: bool = False) -> bytes:
    """Reads a small file; a secret one only if its owner alone may read it."""
    try:
        # O_NONBLOCK: opening a pipe would wait for a writer.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            # Asked of the open file, so that the file that was judged is the file that is read.
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST:
                raise Unusable("not_a_file", f"`{path}` is no file of at most {_MOST} bytes")
            mode = stat.S_IMODE(status.st_mode)
            if secret and mode & 0o077:
                raise Unusable(
                    "too_wide", f"`{path}` has mode {mode:o}, so others may know the private key: run `chmod 600 {path}`"
                )
            return file.read(_MOST)
    except OSError as e:
        raise Unusable("io", f"`{path}`: {e.strerror}") from None
