"""The shape of the code: who may import whom, where the heavy libraries live, and how large things may grow."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from backends.forkserver.client import SINGLE_THREADED

ROOT = Path(__file__).parent.parent
LEAVES = ("config", "cache", "backends")
ROOMS = (*LEAVES, "gateway")

# The files that build: they alone may know the settings and call the constructors of other rooms.
BUILDERS = ("gateway/app.py", "gateway/building/", "gateway/main.py")

# Each library's only homes, and why it must not spread.
HOMES = {
    "httptools": ("gateway/", "backends/http_reply.py"),  # one HTTP server, and one client
    # The connector of the batch queue's client checks the very address that it connects to: it is here to stay.
    "aiohttp": ("gateway/batch/",),
    "boto3": ("gateway/batch/",),  # slow to load: only who reads from S3 does it
    "botocore": ("gateway/batch/",),
    "sqlite3": ("gateway/batch/", "cache/disk/", "cache/trust/"),  # a disk must not make the event loop wait
    "aiohttp.web": (),  # nor is there a second one; aiohttp is a client here
    "onnxruntime": ("backends/worker/", "backends/forkserver/"),  # a session's creation holds the interpreter lock
    "tokenizers": ("backends/worker/", "backends/zoo/"),  # it starts threads, and the parent of forks must not have any
    "onnx": ("backends/zoo/",),  # only needed where models are made, and not installed with the gateway
    "matplotlib": (),  # only scripts draw
    "torch": (),  # only training scripts need it
    "faiss": ("cache/semantic/",),  # the index may be exchanged without another room knowing
    "diskcache": ("cache/disk/",),  # so may the disk's format
    "redis": ("cache/shared/",),  # so may the server that gateways share
    "grpc": ("gateway/surfaces/oip/",),  # one surface speaks it
    "google.protobuf": ("gateway/surfaces/oip/",),
    "jsonschema_rs": ("gateway/caching/wanted.py",),  # schemas of clients are bounded before they are used
    "pydantic": ("config/",),  # other rooms take plain values
    "pydantic_core": ("config/",),
    "ruamel": ("config/", "backends/manifest.py", "backends/zoo/"),  # the operator's file, and a model's own model.yaml
    "prometheus_client": ("gateway/counting/telemetry.py",),  # rooms count in plain numbers, telemetry exposes them
    "pynvml": ("backends/devices/gpus.py",),
    "rich": ("gateway/main.py",),  # the server prints no tables
    "config": ("config/", *BUILDERS),  # leaves take plain values, never Settings
}

# What must not be loaded into the gateway's process, whose event loop serves everybody.
NEVER_IN_THE_GATEWAY = {"onnxruntime", "onnx", "torch", "tokenizers"}

FORBIDDEN_WORDS = {"manager", "helper", "helpers", "util", "utils", "common", "misc"}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
# Files and functions ("path" or "path:function") that may be longer, each with its reason.
LONGER: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Module:
    """A source file: its path from the root, its dotted name and its tree."""

    path: str
    name: str
    tree: ast.Module
    lines: int


@cache
def modules() -> tuple[Module, ...]:
    """Return every module of the four rooms."""
    found = []
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            relative = path.relative_to(ROOT)
            text = path.read_text(encoding="utf-8")
            name = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
            found.append(Module(relative.as_posix(), name, ast.parse(text), len(text.splitlines())))
    return tuple(found)


def imports(module: Module) -> Iterator[tuple[str, int]]:
    """Yield every dotted name that a module imports, wherever it does, with the line.

    `from a import b` gives `a.b`, for b may be a module.
    """
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.path}:{node.lineno}: a relative import hides which room it reaches"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def within(name: str, package: str) -> bool:
    """Tell whether a dotted name is the package, or inside it."""
    return name == package or name.startswith(f"{package}.")


def test_the_leaves_import_nothing_of_ours_from_each_other() -> None:
    """config, cache and backends know neither each other nor the gateway."""
    breaches = [
        f"{module.path}:{line}: imports {name}"
        for module in modules()
        for name, line in imports(module)
        for room, other in [(module.name.split(".")[0], name.split(".")[0])]
        if room in LEAVES and other in ROOMS and other != room
    ]
    assert breaches == []


@pytest.mark.parametrize("library", HOMES)
def test_each_library_stays_in_its_home(library: str) -> None:
    """A library with a home is imported nowhere else."""
    breaches = [
        f"{module.path}:{line}: imports {name}, whose home is {' or '.join(HOMES[library]) or 'nowhere'}"
        for module in modules()
        for name, line in imports(module)
        if within(name, library) and not module.path.startswith(HOMES[library])
    ]
    assert breaches == []


def test_the_server_side_of_aiohttp_is_not_reached_by_attribute() -> None:
    """Nobody writes `aiohttp.web`, nor imports one of its `web_…` modules."""
    breaches = [
        f"{module.path}:{node.lineno}"
        for module in modules()
        for node in ast.walk(module.tree)
        if (isinstance(node, ast.Attribute) and node.attr == "web" and ast.unparse(node.value) == "aiohttp")
        or (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("aiohttp.web"))
    ]
    assert breaches == []


def concrete_classes() -> set[str]:
    """Return the classes of the leaves that hold state: no frozen dataclass, protocol, enum, tuple or exception."""
    values = ("Protocol", "Enum", "Exception", "Error", "NamedTuple", "TypedDict")
    bases: dict[str, list[str]] = {}
    found = set()
    for module in modules():
        if module.name.split(".")[0] not in LEAVES:
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = [ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases]
                decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
                if "value" not in decorators and not any("frozen=True" in decorator for decorator in decorators):
                    found.add(node.name)

    def is_value(name: str) -> bool:
        return name.endswith(values) or any(is_value(base) for base in bases.get(name, ()))

    return {name for name in found if not is_value(name)}


def test_inside_the_gateway_only_the_builders_build() -> None:
    """No other module of the gateway calls the constructor, or a class method, of an object of another room."""
    concrete = concrete_classes()
    assert {"Pool", "SemanticCache", "MemoryStore", "DiskStore", "SingleFlight"} <= concrete
    breaches = [
        f"{module.path}:{node.lineno}: builds with {ast.unparse(node.func)}"
        for module in modules()
        if within(module.name, "gateway") and not module.path.startswith(BUILDERS)
        for borrowed in [{name.split(".")[-1] for name, _ in imports(module) if name.split(".")[0] in LEAVES}]
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and any(part in borrowed & concrete for part in dotted(node.func))
    ]
    assert breaches == []


def dotted(node: ast.expr) -> list[str]:
    """Return the names of `a.b.c` or `a[b].c`; nothing of what is called or computed on the way."""
    if isinstance(node, ast.Attribute):
        return [*dotted(node.value), node.attr]
    if isinstance(node, ast.Subscript):
        return dotted(node.value)
    return [node.id] if isinstance(node, ast.Name) else []


def test_no_module_is_named_like_one_of_the_standard_library() -> None:
    """No file or folder of ours can be taken for a module of Python's, whatever the path of imports is."""
    clashes = [module.path for module in modules() if set(module.name.split(".")[-1:]) & sys.stdlib_module_names]
    assert clashes == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    """Names such as utils or common, which take in anything, are not used."""
    named = {module.path: {word for part in module.name.split(".") for word in part.split("_")} for module in modules()}
    assert {path: words & FORBIDDEN_WORDS for path, words in named.items() if words & FORBIDDEN_WORDS} == {}


def test_every_module_says_what_it_does() -> None:
    """Every module opens with a docstring."""
    assert [module.path for module in modules() if not ast.get_docstring(module.tree)] == []


def test_files_and_functions_stay_small() -> None:
    """No file is longer than 400 lines and no function than 60, save those with a reason; and no reason is stale."""
    sizes = {module.path: module.lines for module in modules() if module.lines > MAX_FILE_LINES}
    for module in modules():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    sizes[f"{module.path}:{node.name}"] = lines
    assert {name: lines for name, lines in sizes.items() if name not in LONGER} == {}
    assert set(LONGER) <= set(sizes)


def python(code: str, cwd: Path) -> str:
    """Run code in a fresh interpreter that sees our packages, in the fork server's environment; return its output."""
    prelude = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    command = [sys.executable, "-P", "-W", "error", "-B", "-c", prelude + code]
    environment = os.environ | SINGLE_THREADED
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


IMPORT_ALL = """
import importlib, os
def open_files():
    files = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
    return {os.readlink(file) for file in files if os.path.exists(file)}
before = open_files()
for name in NAMES:
    importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, f"{name} starts a thread"
    opened = open_files() - before
    assert not opened, f"{name} opens {opened}"
"""


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files and threads are counted in /proc")
def test_importing_does_nothing(tmp_path: Path) -> None:
    """Importing every module starts no thread, opens no file or socket, and writes nothing."""
    names = [module.name for module in modules() if not module.name.endswith("__main__")]
    python(f"NAMES = {names!r}\n{IMPORT_ALL}", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_gateway_process_loads_no_model_runtime(tmp_path: Path) -> None:
    """Importing all that the gateway's process runs loads neither a runtime, nor a trainer, nor a tokenizer."""
    loaded = python("import gateway.app\nprint(*{name.split('.')[0] for name in sys.modules})", tmp_path).split()
    assert NEVER_IN_THE_GATEWAY & set(loaded) == set()
