"""Makes what Python needs of the `.proto` files: their descriptors, and the types of their messages for mypy.

Run `python scripts/make_messages.py` after a change of a `.proto` file; a test says when that was forgotten.
"""

import base64
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

HOME = Path(__file__).parent.parent / "gateway" / "surfaces" / "oip" / "proto"
FILES = ("health.proto", "inference.proto")
_COLUMNS = 110


def compiled(types: Path) -> bytes:
    """Return the descriptors of all files, and write the types of their messages into a directory."""
    with tempfile.TemporaryDirectory() as scratch:
        found = Path(scratch) / "descriptors"
        subprocess.run(
            [
                sys.executable, "-m", "grpc_tools.protoc", f"-I{HOME}", f"--descriptor_set_out={found}",
                f"--pyi_out={types}", *FILES,
            ],
            check=True,
        )  # fmt: skip
        return found.read_bytes()


def main() -> None:
    """Write the files beside the `.proto` files."""
    lines = textwrap.wrap(base64.b64encode(compiled(HOME)).decode(), _COLUMNS)
    quoted = "\n".join(f'    "{line}"' for line in lines)
    (HOME / "encoded.py").write_text(
        '"""The descriptors of the `.proto` files, as scripts/make_messages.py wrote them. Do not edit."""\n\n'
        f"DESCRIPTORS = (\n{quoted}\n)\n"
    )


if __name__ == "__main__":
    main()
