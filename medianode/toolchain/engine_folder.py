"""The folder of an engine: its binary, the schemas of its channel, and the licences of its sources.

The schemas are those of the package that the binary was made from: the numbers in them differ between versions.
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from medianode.engines.mediasoup.version import VERSION
from medianode.toolchain.errors import EngineUnavailable
from medianode.toolchain.started_engine import StartedEngine

BINARY = "mediasoup-worker"
SCHEMAS = "fbs"
PATCHES = "PATCHES"
"""Lists the patches of a binary that Plenary has built. A prebuilt one has no such file."""
SCHEMAS_SHA256 = "d915b62023a63a2096e9f5b04884aec892dee681bb7f6edea950110384dc6f28"
"""Digest of the schemas of `VERSION`, as `schemas_digest` makes it."""
# Files of mediasoup's npm package → their names in the engine's folder.
_LICENCES = {
    "LICENSE": "LICENSE",
    "worker/deps/libwebrtc/LICENSE": "LICENSE.libwebrtc",
    "worker/deps/libwebrtc/PATENTS": "PATENTS.libwebrtc",
    "worker/src/RTC/SCTP/LICENSE": "LICENSE.sctp",
    "worker/src/Utils/README_BASE64_UTILS": "LICENSE.base64",
}


def assemble(package: Path, binary: Path, folder: Path, *, patches: Sequence[str] = ()) -> Path:
    """Makes the folder of an engine from mediasoup's npm package and a binary made of it; returns the binary in it.

    `patches` are the labels of those that the binary has. Everybody may read the folder. Raises `EngineUnavailable`
    if the package has not the files that belong there.
    """
    (folder / SCHEMAS).mkdir(parents=True)
    try:
        for file, name in _LICENCES.items():
            shutil.copyfile(package / file, folder / name)
        for schema in sorted((package / "worker" / "fbs").glob("*.fbs")):
            shutil.copyfile(schema, folder / SCHEMAS / schema.name)
        shutil.copyfile(binary, folder / BINARY)
        if patches:
            (folder / PATCHES).write_text("".join(f"{label}\n" for label in patches))
    except OSError as error:
        raise EngineUnavailable(f"mediasoup's package is not as expected: {error}") from error
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() or path.name == BINARY else 0o644)
    return folder / BINARY


def patches_of(binary: Path) -> list[str]:
    """Returns the labels of the patches that this engine was built with: none if Plenary has not built it."""
    with suppress(FileNotFoundError):
        return (binary.parent / PATCHES).read_text().splitlines()
    return []


def schema_folder(binary: Path) -> Path:
    """Returns the folder with the schemas of an engine, beside the binary or where npm's package has it.

    Raises `EngineUnavailable` if there is none.
    """
    for place in (binary, binary.resolve()):
        beside, of_npm = place.parent / SCHEMAS, place.parent.parent.parent / SCHEMAS
        for folder in (beside, of_npm):
            if (folder / "message.fbs").is_file():
                return folder
    raise EngineUnavailable(
        f"the schemas of {binary} are missing: put the files worker/fbs/*.fbs of npm's package mediasoup@{VERSION} "
        f"into {binary.parent / SCHEMAS}"
    )


def schemas_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for schema in sorted(folder.glob("*.fbs")):
        digest.update(schema.name.encode() + b"\0" + hashlib.sha256(schema.read_bytes()).digest())
    return digest.hexdigest()


def check_engine(binary: Path) -> None:
    """Starts the engine for a moment. Raises `EngineUnavailable` if it is not of `VERSION` or does not start here.

    The binary does not know its version. Therefore its schemas must be those of the version, and its first message
    must be what they describe.
    """
    if not os.access(binary, os.X_OK) or not binary.is_file():
        raise EngineUnavailable(f"{binary} is not an executable file")
    schemas = schema_folder(binary)
    if schemas_digest(schemas) != SCHEMAS_SHA256:
        raise EngineUnavailable(f"the schemas in {schemas} are not those of mediasoup {VERSION}")
    with StartedEngine(binary, schemas):
        pass
