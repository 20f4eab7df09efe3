"""Package metadata; every value comes from `settings.ini`, which nbdev reads too."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_namespace_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]
names = [key.removesuffix("_requirements") for key in cfg if key.endswith("_requirements")]
extras = {name: cfg[f"{name}_requirements"].split() for name in names}
everything = [text for name in names if name != "gemma" for text in extras[name]]
extras["dev"] = everything  # but the second model, which has terms of use of its own

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    url=cfg["git_url"],
    license="Apache-2.0",
    keywords=cfg["keywords"],
    packages=find_namespace_packages(include=["calib_nb*"]),
    package_data={"calib_nb": ["data/*"]},
    python_requires=">=3.11,<3.14",
    install_requires=cfg["requirements"].split(),
    extras_require=extras,
    entry_points={"nbdev": ["calib_nb=calib_nb._modidx:d"], "console_scripts": cfg["console_scripts"].split()},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    zip_safe=False,
)
