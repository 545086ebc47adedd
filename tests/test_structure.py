"""Rules of the code base: direction of imports, size of an import, file names, docstrings."""

import ast
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("sar_mixmae_jax", "tfds_builders", "benchmarks", "configs")

PACKAGE = "sar_mixmae_jax."
MAY_IMPORT = {
    "utils": (),
    "data": ("utils",),
    "evaluation": ("utils",),
    "models": ("utils",),
    "objectives": ("utils", "data.metadata", "models"),
    "tasks": ("utils", "data", "evaluation", "models", "objectives"),
    "training": ("utils", "data", "evaluation", "models", "objectives", "tasks"),
}
"""Sub-packages of `sar_mixmae_jax`, and what each may import besides itself."""
MAY_IMPORT["inference"] = (*MAY_IMPORT["training"], "training")
for name in ("experiments", "torch_interop", "run_report"):
    MAY_IMPORT[name] = (*MAY_IMPORT["inference"], "inference")
MAY_IMPORT["experiments"] = (*MAY_IMPORT["experiments"], "run_report")  # pages of its runs
EVERYTHING = (*MAY_IMPORT, "cli", "main")
BUILDERS = ("utils", "data.metadata", "data.bigearthnet")


def sources(*folders: str) -> list[Path]:
    """Paths of the Python files below folders of the repository."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_of(path: Path) -> str:
    """Dotted name of a file's module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def parse(path: Path) -> ast.Module:
    """Syntax tree of a file."""
    return ast.parse(path.read_text())


@cache
def imports_of(path: Path) -> set[str]:
    """Dotted names of the modules of this project that a file imports, anywhere in it."""
    modules = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                file = ROOT.joinpath(*below.split("."))
                is_module = file.with_suffix(".py").exists() or (file / "__init__.py").exists()
                modules.add(below if is_module else node.module)
    return {name for name in modules if name.split(".")[0] in SOURCES}


def allowed(module: str, imported: str) -> bool:
    """Return whether the layering permits an import."""
    top, target = module.split(".")[0], imported.split(".")[0]
    if top == "benchmarks":
        return True
    if top == "configs":
        return target in ("configs", "sar_mixmae_jax")
    if target in ("configs", "benchmarks"):
        return False
    if top == "tfds_builders":
        permitted = (*BUILDERS, *(("objectives",) if ".inspect" in module else ()))
    elif module == "sar_mixmae_jax":
        permitted = ("inference",)  # when the attribute is asked for
    else:
        own = module.split(".")[1]
        if own in ("cli", "main"):
            return True
        permitted = (own, *MAY_IMPORT[own])
    if target == "tfds_builders":  # `inference` reads scenes as `s1_folder` does
        return top == "tfds_builders" or module.startswith(PACKAGE + "inference")
    if imported == "sar_mixmae_jax":
        return True
    below = imported.removeprefix(PACKAGE)
    return any(below == name or below.startswith(name + ".") for name in permitted)


def test_imports_point_in_one_direction():
    edges = [
        (module_of(path), imported)
        for path in sources(*SOURCES)
        for imported in sorted(imports_of(path))
    ]
    assert len(edges) > 500
    assert [f"{module} imports {name}" for module, name in edges if not allowed(module, name)] == []


def test_there_is_no_circle_of_imports():
    graph = {module_of(path): imports_of(path) for path in sources(*SOURCES)}
    finished: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        if module in path:
            pytest.fail(" -> ".join((*path[path.index(module) :], module)))
        if module in finished:
            return
        for imported in sorted(graph.get(module, ())):
            if imported != module:
                visit(imported, (*path, module))
        finished.add(module)

    for module in graph:
        visit(module, ())


def test_no_import_is_hidden_from_the_interpreter():
    hidden = [module_of(path) for path in sources(*SOURCES) if "TYPE_CHECKING" in path.read_text()]
    assert hidden == []


def output_of(program: str) -> str:
    """Output of a program in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


def loaded_by(module: str) -> set[str]:
    """Names of all modules that are loaded after importing one in a fresh interpreter."""
    return set(output_of(f"import sys, {module}; print(*sys.modules)").split())


def test_pretraining_loads_few_modules_and_neither_scikit_learn_nor_torch():
    loaded = loaded_by("sar_mixmae_jax.training.pretrain")
    own = {name for name in loaded if name.split(".")[0] in SOURCES}
    assert len(own) <= 50, sorted(own)
    assert loaded.isdisjoint({"sklearn", "torch"})
    assert {name for name in own if ".tasks" in name or ".evaluation" in name} == set()


def test_the_package_and_the_builders_load_no_jax():
    """Worker processes of a build import the builders; `import sar_mixmae_jax` is cheap."""
    builders = [module_of(path) for path in sources("tfds_builders") if "inspect" not in path.parts]
    program = (
        "import sys, sar_mixmae_jax; print('numpy' in sys.modules);"
        f"import {', '.join(builders)}; print('jax' in sys.modules)"
    )
    assert output_of(program).split() == ["False", "False"]


def test_files_are_few_and_have_names_of_their_own():
    paths = sources(*SOURCES)
    assert len(paths) <= 273
    # Commands and configuration files are named after what they start.
    named_freely = (ROOT / "configs", ROOT / "sar_mixmae_jax" / "cli")
    names = Counter(path.name for path in paths if path.parent not in named_freely)
    shared = {"__init__.py", "__main__.py"}
    assert [name for name, count in names.items() if count > 1 and name not in shared] == []


@pytest.mark.parametrize("package", [*MAY_IMPORT, "cli"])
def test_packages_describe_themselves(package):
    text = ast.get_docstring(parse(ROOT / PACKAGE[:-1] / package / "__init__.py"))
    assert text is not None
    assert len(text.splitlines()) >= 3, f"{package}/__init__.py: describe content and imports"


def test_readers_of_data_work_without_jax():
    for path in sources("sar_mixmae_jax/utils", "sar_mixmae_jax/data", "sar_mixmae_jax/evaluation"):
        assert not re.search(r"^\s*(import|from) (jax|flax|optax)\b", path.read_text(), re.M), path


def test_packages_name_modules_that_exist():
    shared = {
        path.name
        for root in ("sar_mixmae_jax", "tfds_builders")
        for path in (ROOT / root).iterdir()
    }
    for path in sources("sar_mixmae_jax", "tfds_builders"):
        if path.name != "__init__.py":
            continue
        names = re.findall(r"`([a-z0-9_]+[a-z0-9])`", ast.get_docstring(parse(path)) or "")
        known = {other.stem for other in path.parent.iterdir()} | shared | {"load_encoder"}
        assert [name for name in names if name not in known] == [], path


VERBS = (
    "Add|Answer|Ask|Begin|Bring|Build|Call|Check|Choose|Collect|Compare|Compute|Count|Cut|"
    "Describe|Draw|End|Find|Form|Give|Hold|Join|Keep|Leave|Let|Look|Make|Measure|Note|Open|"
    "Pack|Pick|Predict|Print|Put|Read|Receive|Refuse|Remove|Render|Return|Run|Save|Say|Send|Show|"
    "Sort|Start|Stop|Store|Take|Tell|Train|Turn|Wait|Warn|Write|Yield"
)
CLAUSES = "What|Whether|How|Of|Who|Where|When|Which|So|As|Whatever"
OPENINGS = re.compile(rf"({CLAUSES}|({VERBS})(s|es)|Carries|Copies|Tries|Classifies|Verifies)\b")
"""First words of docstrings that are neither a noun phrase nor an imperative."""


def first_lines(*folders: str) -> list[str]:
    """Return "file:line: first line" of every docstring below folders of the repository."""
    return [
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}: {text.splitlines()[0]}"
        for path in sources(*folders)
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and (text := ast.get_docstring(node))
    ]


def test_docstrings_begin_with_a_noun_or_an_imperative():
    lines = first_lines(*SOURCES, "tests")
    assert [line for line in lines if OPENINGS.match(line.partition(": ")[2])] == []
