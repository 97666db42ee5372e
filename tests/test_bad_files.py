"""Test that one bad file or entry point stops nothing else, and is named with its fault."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pmi_cl.cli import main
from pmi_cl.errors import UserError
from pmi_cl.registry import extensions as found
from pmi_cl.registry.catalogue import Catalogue
from pmi_cl.registry.entry import Entry
from tests.support.sample_registry import PROMPTS, printed, write_registry

HEAD = "from pmi_cl.models.finetune import Base\n\n\nclass Zz(Base):\n    "
DEEP = 100_000
# Text of models/zz.py -> what is wrong with it.
MODULES = {
    "a number": (HEAD + "NAME = 5", "NAME must be a text in quotes, not 5"),
    "a tuple": (HEAD + "NAME = ('a',)", "NAME must be a text in quotes, not ('a',)"),
    "a path": (HEAD + "NAME = 'a/b'", "NAME 'a/b': use letters, digits"),
    "a surrogate": (HEAD + "NAME = '\\ud800'", "use letters, digits"),
    "dots": (HEAD + "NAME = '..'", "NAME '..': use letters, digits"),
    "own base": ("class Zz(Zz):\n    NAME = 'zz'", "its base class Zz is not defined above"),
    "each other": (
        "class Yy(Zz):\n    pass\n\n\nclass Zz(Yy):\n    NAME = 'zz'",
        "its base class Zz is not defined above",
    ),
    "a deep expression": (
        HEAD + "NAME = " + "-" * DEEP + "1",
        "cannot be read as Python: an expression in it is too long",
    ),
    "a deep literal": (HEAD + "NAME = " + "-" * 900 + "1", "write a literal here"),
    "a deep constant": (
        HEAD + "NAME = 'zz'\n    X = " + "-" * 900 + "1\n    DEFAULTS = 5",
        "DEFAULTS must be {'option'",
    ),
    "a long sum": (
        HEAD + "NAME = " + "+".join("1" * 20_000),
        "cannot be read as Python: an expression in it is too long",
    ),
    "defaults": (
        HEAD + "NAME = 'zz'\n    DEFAULTS = {1: 2}",
        "DEFAULTS must be {'option': value}: its names are texts",
    ),
    "a count": (HEAD + "NAME = 'zz'\n    N_CLASSES = 'x'", "N_CLASSES must be a whole number, not x"),
    "a kind": (HEAD + "NAME = 'zz'\n    BACKBONE_KIND = ()", "BACKBONE_KIND must be a text, not ()"),
}
NO_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "folder": (os.mkdir, "zz.py is a folder"),
    "link": (lambda path: path.symlink_to("nowhere"), "zz.py is a link to nothing"),
    "loop": (lambda path: path.symlink_to("zz.py"), "zz.py"),
    "pipe": (os.mkfifo, "zz.py is no plain file"),
}


def check_only_zz_is_out(catalogue: Catalogue, capsys: pytest.CaptureFixture[str], fault: str) -> None:
    """Assert that the list shows the rest and the fault, and that the others work."""
    listed = printed(["--list"], catalogue, capsys)
    assert "invert_it" in listed and "prompts" in listed and "seq-hundred" in listed
    (name,) = catalogue.broken["model"]
    assert name in listed and fault.split()[0] in listed
    with pytest.raises(UserError) as caught:
        catalogue.find("model", name)
    assert fault in str(caught.value)
    assert main(["--help", *PROMPTS], catalogue) == 0


@pytest.mark.parametrize("kind", MODULES)
def test_a_method_that_cannot_be_read_stops_nothing_else(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue = write_registry(tmp_path)
    text, fault = MODULES[kind]
    (tmp_path / "models/zz.py").write_text(f"{text}\n")
    check_only_zz_is_out(catalogue, capsys, fault)


@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_stops_nothing_else(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalogue = write_registry(tmp_path)
    make, fault = NO_FILES[kind]
    make(tmp_path / "models/zz.py")
    check_only_zz_is_out(catalogue, capsys, fault)


def test_a_chain_of_bases_without_end_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain = "".join(f"class C{number + 1}(C{number}):\n    pass\n\n\n" for number in range(2000))
    catalogue = write_registry(tmp_path)
    (tmp_path / "models/zz.py").write_text(f"class C0:\n    pass\n\n\n{chain}class Zz(C2000):\n    NAME = 'zz'\n")
    check_only_zz_is_out(catalogue, capsys, "cannot be read (RecursionError")


def install(folder: Path, name: str, points: str, **modules: str) -> None:
    """Write an installed package below ``folder``, with its entry points and modules."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of installed packages that Python finds."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    found.extensions.cache_clear()
    return tmp_path / "site"


@pytest.fixture(autouse=True)
def forget_packages() -> object:
    """Let later tests look for packages again."""
    yield
    found.extensions.cache_clear()


GOOD = "class Good:\n    NAME = 'good'\n"
POINTS = {
    "no sign": ("zz\n", "'' is not 'module:attribute'"),
    "junk": ("zz = :::\n", "':::' is not 'module:attribute'"),
    "no attribute": ("zz = good_module\n", "'good_module' is not 'module:attribute'"),
    "blanks": ("zz = a b:c d\n", "'a b:c d' is not 'module:attribute'"),
    "dots": ("zz = ..:Zz\n", "'..:Zz' is not 'module:attribute'"),
    "a surrogate": ("zz = \\ud800:Zz\n", "is not 'module:attribute'"),
}


@pytest.mark.parametrize("kind", POINTS)
def test_an_entry_point_that_cannot_be_read_stops_no_other(kind: str, site: Path, tmp_path: Path) -> None:
    line, fault = POINTS[kind]
    install(site, "bad", f"[other]\nno sign\n[pmi_cl.models]\n{line}good = good_module:Good\n", good_module=GOOD)
    catalogue = Catalogue([write_registry(tmp_path / "own").reader.folders[0]], found.extensions)
    assert {"good", "finetune"} <= {entry.name for entry in catalogue.entries("model")}
    with pytest.raises(UserError, match="the model 'zz' of the package bad cannot be used") as caught:
        catalogue.find("model", "zz")
    assert fault in str(caught.value) and str(caught.value).endswith("mend the package or uninstall it")


def test_a_damaged_list_of_entry_points_is_named_by_its_package(site: Path) -> None:
    install(site, "bad", "zz = a:b\n[pmi_cl.models]\n")
    install(site, "good", "[pmi_cl.models]\ngood = good_module:Good\n", good_module=GOOD)
    damaged, good = found.extensions("model")
    assert (damaged.package, good.package) == ("bad", "good")
    with pytest.raises(UserError, match=r"'entry_points.txt' of the package bad cannot be used .it is damaged"):
        damaged.load()
    assert good.load().NAME == "good"


def test_a_damaged_installation_offers_nothing(site: Path) -> None:
    install(site, "good", "[pmi_cl.models]\ngood = good_module:Good\n", good_module=GOOD)
    install(site, "bad", "")
    (site / "bad-1.0.dist-info/entry_points.txt").write_bytes(b"[pmi_cl.models]\nzz = caf\xe9:x\n")
    assert [each.name for each in found.extensions("model")] == ["good"]


@pytest.mark.parametrize("text", ["raise SystemExit(9)", "import sys; sys.exit()", "raise OSError('no')"])
def test_a_package_that_ends_python_is_refused(text: str, site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"ending_{len(text)}"
    install(site, "bad", f"[pmi_cl.inversion]\nzz = {name}:nope\n", **{name: text})
    assert main(["--model", "pmi_rdfcil", "--dataset", "seq-digits", "--inv_terms", "zz", "--check"]) == 2
    err = capsys.readouterr().err
    assert (
        err.count("\n") == 1 and f"the part of an inversion 'zz' of the package bad cannot be used ({name}:nope" in err
    )


def test_ctrl_c_during_an_import_is_no_fault_of_the_package(site: Path) -> None:
    install(site, "slow", "[pmi_cl.models]\nslow = interrupted:Slow\n", interrupted="raise KeyboardInterrupt")
    (slow,) = found.extensions("model")
    with pytest.raises(KeyboardInterrupt):
        slow.load()


def test_a_file_of_the_checkout_that_ends_python_is_refused(site: Path) -> None:
    install(site, "none", "", ending_of_its_own="raise SystemExit(9)")
    with pytest.raises(UserError, match="it ends Python when it is imported"):
        Entry("model", "x", "ending_of_its_own", "X", "").load()
