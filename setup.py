"""The top-level folders are the sub-packages of `semiseg`: `kernels/` is `semiseg.kernels`, and so on. All that is not
about files stands in pyproject.toml."""

from setuptools import find_packages, setup

ROOMS = ("engine", "kernels", "pipelines", "recipes")

setup(
    packages=[f"semiseg.{room}{tail}" for room in ROOMS for tail in ("", *("." + p for p in find_packages(room)))],
    package_dir={f"semiseg.{room}": room for room in ROOMS},
    package_data={f"semiseg.{room}": ["py.typed"] for room in ROOMS},  # each has one: `semiseg` itself has no files
)
