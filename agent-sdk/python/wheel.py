"""Puts the binary `mayfly` into a wheel of this package, for `uvx mayfly dev`: wheel.py PURE_WHEEL BINARY FOLDER

The wheel is for the platform of the binary: for Linux that of the newest glibc that it needs. An index has it beside the pure one,
which installers take where there is none for the platform.
"""

from __future__ import annotations

import base64
import hashlib
import re
import sys
import sysconfig
import zipfile
from pathlib import Path


def platform_of(binary: bytes) -> str:
    """The platform's tag."""
    name = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    if not name.startswith("linux_"):
        return name
    needed = max((int(found) for found in re.findall(rb"GLIBC_2\.([0-9]+)", binary)), default=17)
    return f"manylinux_2_{needed}_{name.removeprefix('linux_')}"


def build(pure: Path, binary: bytes, folder: Path) -> Path:
    """Writes the wheel, and returns its path."""
    name, version = pure.name.split("-")[:2]
    tag = f"py3-none-{platform_of(binary)}"
    info, script = f"{name}-{version}.dist-info", f"{name}-{version}.data/scripts/mayfly"
    made = folder / f"{name}-{version}-{tag}.whl"
    record = []

    with zipfile.ZipFile(pure) as source, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as wheel:

        def add(path: str, content: bytes, mode: int = 0o644) -> None:
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{path},sha256={digest},{len(content)}")
            entry = zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0))
            entry.external_attr = (0o100000 | mode) << 16
            wheel.writestr(entry, content, zipfile.ZIP_DEFLATED, 1)

        for path in source.namelist():
            content = source.read(path)
            if path == f"{info}/WHEEL":
                content = content.replace(b"py3-none-any", tag.encode()).replace(b"Purelib: true", b"Purelib: false")
            if path != f"{info}/RECORD" and not path.endswith("/"):
                add(path, content)
        add(script, binary, 0o755)
        wheel.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,"]) + "\n")
    return made


if __name__ == "__main__":
    print(build(Path(sys.argv[1]), Path(sys.argv[2]).read_bytes(), Path(sys.argv[3])))
