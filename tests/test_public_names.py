"""What users may build on: few names, each documented."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import pongee
import pongee.testing

MODULES = [
    "pongee",
    *(
        module.name
        for module in pkgutil.walk_packages(pongee.__path__, "pongee.")
        if module.name != "pongee.__main__"  # importing it runs it
    ),
]


@pytest.mark.parametrize("package", [pongee, pongee.testing])
def test_public_names_are_sorted_few_and_importable(package: ModuleType) -> None:
    """At most 40 names; each exists, is documented where it can be, and is listed once."""
    names: list[str] = package.__all__

    assert names == sorted(set(names))
    assert len(names) <= 40
    for name in names:
        assert inspect.getdoc(getattr(package, name)), name


def test_version_is_a_version() -> None:
    """Three numbers, which the build reads."""
    assert [part.isdigit() for part in pongee.__version__.split(".")] == [True] * 3


def test_nothing_public_is_left_out_of_the_list() -> None:
    """Whatever `from pongee import X` gives is either listed or a module."""
    loose = {
        name
        for name, value in vars(pongee).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert loose - {"annotations"} == set(pongee.__all__)


@pytest.mark.parametrize("name", MODULES)
def test_module_and_everything_public_in_it_has_a_docstring(name: str) -> None:
    """Classes, functions, methods and properties that are not private say what they do."""
    module = importlib.import_module(name)

    assert (module.__doc__ or "").strip(), name
    assert [where for where, thing in _public(module) if not (thing.__doc__ or "").strip()] == []


@pytest.mark.parametrize("name", [name for name in MODULES if name != "pongee"])
def test_module_lists_its_public_names(name: str) -> None:
    """`__all__` has no repeats, and every name in it exists."""
    module = importlib.import_module(name)
    names = getattr(module, "__all__", [])

    assert len(names) == len(set(names))
    assert [one for one in names if not hasattr(module, one)] == []


def _public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(thing):
            yield name, thing
        elif inspect.isclass(thing):
            yield name, thing
            for part, value in vars(thing).items():
                inner = getattr(value, "__func__", value)
                if not part.startswith("_") and isinstance(inner, FUNCTIONS):
                    yield f"{name}.{part}", inner


FUNCTIONS = (type(_public), property)
