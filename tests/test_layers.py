"""The order of the layers and the rules that a reader relies on, held against every file of vistok."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vistok"

# Each imports from its own line and those above, never from below. Those of one line may use each other,
# but no two need each other; quantizers and networks never do.
LAYERS = [
    {
        "configuration",
        "files",
        "image_decoding",
        "memory",
        "messages",
        "pretrained",
        "recipes",
    },  # recipes/ is data
    {"quantizers", "networks"},
    {"modeling"},
    {"image_processing", "visualization", "conversion", "model_card", "foreign_folders"},
    {"data"},
    {"evaluation", "extraction"},
    {"training"},
    {"demo"},
    {"cli"},
    {"__main__"},
]
LEVEL = {unit: level for level, units in enumerate(LAYERS) for unit in units}
PUBLIC = set().union(*LAYERS[:4])  # what `import vistok` may load: nothing of training, evaluation or data

NOT_LOADED = [
    "datasets", "gradio", "torchmetrics", "torchvision", "matplotlib", "skimage", "vistok.training",
    "vistok.demo",
]  # fmt: skip

FORBIDDEN_CALLS = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "dill.load", "dill.loads", "marshal.load",
    "marshal.loads", "torch.jit.load", "torch.export.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load",
    "eval", "exec",
}  # fmt: skip
FORBIDDEN_KEYWORDS = {"weights_only": False, "allow_pickle": True, "trust_remote_code": True}
EXITS = {"exit", "quit", "sys.exit", "os._exit"}

CONTRACT_FILES = {"base", "search"}  # in quantizers/: what they define is for everybody
SHARED_WORDS = {"ema", "continuous"}  # methods whose word has another meaning too: an EMA of weights


def files(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def unit_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> Iterator[tuple[str, int]]:
    """Absolute dotted names of all that a file imports, in functions too: `from a import b` gives `a.b`."""
    package = list(path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join(above + ([node.module] if node.module else []))
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)


def is_unit(name: str) -> bool:
    return name in LEVEL or (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()


def imported_units(path: Path) -> Iterator[tuple[str, int]]:
    for module, line in imported_modules(path):
        parts = module.split(".")
        if parts[0] == "vistok" and parts[1:] != ["__version__"]:
            yield (parts[1] if len(parts) > 1 and is_unit(parts[1]) else "__init__"), line


def layer_violations(path: Path) -> list[str]:
    unit = unit_of(path)
    found = []
    for other, line in imported_units(path):
        if unit == "__init__":
            wrong = other not in PUBLIC
        elif other == "__init__":  # the public names stand on top of everything
            wrong = True
        else:
            wrong = LEVEL[other] > LEVEL[unit] or {unit, other} == {"quantizers", "networks"}
        if wrong:
            found.append(f"{name_of(path)}:{line}: {unit} imports {other}")
    return found


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def call_violations(path: Path) -> list[str]:
    in_cli = path.is_relative_to(PACKAGE) and unit_of(path) in {"cli", "__main__"}
    in_conversion = path.is_relative_to(PACKAGE) and unit_of(path) == "conversion"
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        wrong = []
        if isinstance(node, ast.Assert):
            wrong.append("assert")
        elif isinstance(node, ast.ImportFrom):
            wrong += [name for a in node.names if (name := f"{node.module}.{a.name}") in FORBIDDEN_CALLS]
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            keywords = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
            wrong += [f"{k}={v}" for k, v in FORBIDDEN_KEYWORDS.items() if k in keywords and keywords[k] is v]
            if name in FORBIDDEN_CALLS:
                wrong.append(name)
            if name == "torch.load" and not (in_conversion and keywords.get("weights_only") is True):
                wrong.append("torch.load outside conversion/, or without weights_only=True")
            if not in_cli and (name == "print" or name in EXITS):
                wrong.append(name)
        found += [f"{name_of(path)}:{node.lineno}: {what}" for what in wrong]
    return found


def words(text: str) -> set[str]:
    """The lower-case words of an identifier: `FSQConfig` and `fsq_config` both give fsq and config."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", text)}


def named(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every identifier of the code and every string that could be one; prose and docstrings are no names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg, node.value.lineno
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from ((name, node.lineno) for a in node.names for name in (a.name, a.asname) if name)
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.fullmatch(r"[\w.-]+", node.value)
        ):
            yield node.value, node.lineno


def bound(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that the code gives to something: another library may call its own things as it likes."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr, node.lineno
        elif isinstance(node, ast.alias):
            yield node.asname or "", node.lineno


def method_names() -> tuple[set[str], set[str]]:
    """The words that mean one quantizer, and the names of all its classes, read off quantizers/."""
    methods, classes = set(), set()
    for path in files(PACKAGE / "quantizers"):
        defined = {n.name for n in ast.parse(path.read_text()).body if isinstance(n, ast.ClassDef)}
        if path.stem not in CONTRACT_FILES:
            classes |= {name for name in defined if not name.startswith("_")}
        if any(name.endswith("Config") for name in defined):
            methods.add(path.stem)
    return methods - SHARED_WORDS, classes


def quantizer_violations(path: Path) -> list[str]:
    methods, classes = method_names()
    recipes = {recipe.stem for recipe in (PACKAGE / "recipes").glob("*.yaml")}
    return [
        f"{name_of(path)}:{line}: {name}"
        for name, line in named(ast.parse(path.read_text()))
        if name not in recipes | {"VQModelHF"} and (name in classes or words(name) & methods)
    ]


def codes_violations(path: Path) -> list[str]:
    names = bound(ast.parse(path.read_text()))
    return [f"{name_of(path)}:{line}: {name}" for name, line in names if "codes" in words(name)]


def test_each_part_of_the_package_has_its_layer():
    units = {unit_of(path) for path in files(PACKAGE)} - {"__init__"}
    assert units <= LEVEL.keys(), "say in LAYERS, and in CONTRIBUTING.md, where the new part stands"


def test_imports_go_one_way_down():
    assert [line for path in files(PACKAGE) for line in layer_violations(path)] == []


def test_no_two_parts_need_each_other():
    uses = {(unit_of(path), other) for path in files(PACKAGE) for other, _ in imported_units(path)}
    assert {(a, b) for a, b in uses if a != b and (b, a) in uses} == set()


def test_the_library_imports_neither_scripts_nor_spaces_nor_tests():
    roots = {module.split(".")[0] for path in files(PACKAGE) for module, _ in imported_modules(path)}
    assert roots & {"scripts", "spaces", "tests"} == set()


def test_torchvision_is_never_imported():
    everywhere = files(PACKAGE, ROOT / "scripts", ROOT / "spaces", ROOT / "tests")
    found = [
        name_of(p) for p in everywhere for m, _ in imported_modules(p) if m.split(".")[0] == "torchvision"
    ]
    assert found == []


def test_only_quantizers_name_a_quantizer():
    may = {"quantizers", "conversion", "__init__"}  # a published checkpoint is of one method
    elsewhere = [path for path in files(PACKAGE) if unit_of(path) not in may] + files(ROOT / "spaces")
    assert [line for path in elsewhere for line in quantizer_violations(path)] == []


def test_codes_is_not_a_name():
    own = files(PACKAGE, ROOT / "scripts", ROOT / "spaces")
    assert [line for path in own for line in codes_violations(path)] == [], "say tokens or quantized"


def test_nothing_unsafe_is_called_and_the_library_neither_asserts_nor_prints_nor_exits():
    assert [line for path in files(PACKAGE) for line in call_violations(path)] == []


def test_import_vistok_loads_nothing_that_it_does_not_need():
    code = f"import sys, vistok; print([m for m in {NOT_LOADED!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.fixture
def fake_package(tmp_path, monkeypatch):
    """A vistok with one quantizer, to which a test adds a file that breaks a rule."""
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path / "vistok")

    def write(name: str, text: str) -> Path:
        path = tmp_path / "vistok" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    write("quantizers/fsq.py", "class FSQ: pass\nclass FSQConfig: pass\n")
    write("quantizers/ema.py", "class EMAVQ: pass\nclass EMAVQConfig: pass\n")
    write("recipes/fsq_tiny.yaml", "")
    return write


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("modeling.py", "from .training import loop"),
        ("modeling.py", "def f():\n    from vistok.training.loop import train"),
        ("modeling.py", "import vistok.cli"),
        ("modeling.py", "from vistok import FSQConfig"),
        ("quantizers/fsq.py", "from ..networks import base"),
        ("networks/vit.py", "from .. import quantizers"),
        ("__init__.py", "from .training import loop"),
    ],
)
def test_a_wrong_import_is_seen(fake_package, name, text):
    assert len(layer_violations(fake_package(name, text))) == 1


@pytest.mark.parametrize(
    "text", ["from . import __version__", "from .quantizers.base import Quantizer", "import torch"]
)
def test_a_right_import_is_left_alone(fake_package, text):
    assert layer_violations(fake_package("modeling.py", text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "torch.load(path)", "torch.load(path, weights_only=True)", "torch.jit.load(path)",
        "pickle.load(file)",
        "from pickle import loads", "numpy.load(path, allow_pickle=True)", "yaml.load(text)", "eval('1')",
        "AutoModel.from_pretrained(name, trust_remote_code=True)", "assert x", "print(x)",
        "sys.exit(1)", "exit()",
    ],
)  # fmt: skip
def test_a_wrong_call_is_seen(fake_package, text):
    assert len(call_violations(fake_package("modeling.py", text))) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("conversion/maskgit.py", "torch.load(path, weights_only=True)"),
        ("cli.py", "print(x)"),
        ("modeling.py", '"""A docstring.\n\n>>> print(1)\n"""\nmodel.eval()\nyaml.safe_load(text)'),
    ],
)
def test_a_right_call_is_left_alone(fake_package, name, text):
    assert call_violations(fake_package(name, text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "x = FSQConfig()",
        "if model_type == 'vistok_fsq': pass",
        "fsq_levels = 3",
        "config.fsq",
        "from q import EMAVQ",
    ],
)
def test_a_named_quantizer_is_seen(fake_package, text):
    assert len(quantizer_violations(fake_package("modeling.py", text))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "class VQModelHF: pass",
        "recipe = 'fsq_tiny'",
        "ema = 0.9",
        '"""As >>> FSQConfig() does."""',
        "VQGANConfig",
    ],
)
def test_other_names_are_left_alone(fake_package, text):
    assert quantizer_violations(fake_package("modeling.py", text)) == []


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("def f(codes): pass", 1),
        ("image_codes = 1", 1),
        ("self.num_codes = 1", 1),
        ("def codes_of(x): pass", 1),
        ("peer.indices_to_codes(tokens)", 0),
        ("import encodings.codecs as decodes", 0),
    ],
)
def test_codes_as_a_name_is_seen(fake_package, text, seen):
    assert len(codes_violations(fake_package("modeling.py", text))) == seen
