"""Generates the Python code of the wire into a folder, and the image that `buf` checks.

    python proto/generate.py OUT            the *_pb2* files
    python proto/generate.py --image FILE   a descriptor set with comments, for buf lint and buf breaking

The rules of messages come from `buf/validate/validate.proto`, which the
protovalidate wheel carries as a descriptor; it is rebuilt from there.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2
from grpc_tools import protoc
from protovalidate._gen.buf.validate import validate_pb

ROOT = Path(__file__).resolve().parent
RULES = "buf/validate/validate.proto"


def rules_set(folder: Path) -> Path:
    """Write the rules and what they import as a descriptor set and return its path."""
    files = descriptor_pb2.FileDescriptorSet()
    for name in ("descriptor", "duration", "field_mask", "timestamp"):
        module = __import__(f"google.protobuf.{name}_pb2", fromlist=["DESCRIPTOR"])
        module.DESCRIPTOR.CopyToProto(files.file.add())
    files.file.add().ParseFromString(validate_pb.desc().proto.to_binary())
    path = folder / "rules.binpb"
    path.write_bytes(files.SerializeToString())
    return path


def run(*arguments: str) -> None:
    """Run protoc and stop at its first error."""
    if protoc.main(["protoc", *arguments]):
        raise SystemExit(1)


def main() -> None:
    """Generate what the command line asks for."""
    # protoc looks for its plugins on PATH; ours lie beside this interpreter.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    include = str(Path(protoc.__file__).parent / "_proto")
    with tempfile.TemporaryDirectory() as folder:
        rules = rules_set(Path(folder))
        sources = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("lethe/**/*.proto"))
        base = [f"--proto_path={ROOT}", f"--proto_path={include}", f"--descriptor_set_in={rules}"]
        if sys.argv[1] == "--image":
            run(
                *base,
                "--include_source_info",
                "--include_imports",
                f"--descriptor_set_out={sys.argv[2]}",
                *sources,
            )
            return
        out = sys.argv[1]
        run(*base, f"--python_out={out}", f"--mypy_out=quiet:{out}", RULES)
        run(
            *base,
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--mypy_grpc_out=quiet,only_async:{out}",
            *sources,
        )


if __name__ == "__main__":
    main()
