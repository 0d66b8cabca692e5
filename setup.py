"""Builds ctask._ctask; everything else about the package is in pyproject.toml.

CTASK_WERROR=1    warnings are errors (CI)
CTASK_SANITIZE=1  AddressSanitizer and UndefinedBehaviorSanitizer (tools/sanitize)
"""

import glob
import os

from setuptools import Extension, setup


def flag(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


compile_args = [
    "-std=gnu11",
    "-O3",
    # Calls into the interpreter go straight through the GOT: 1 % fewer instructions.
    "-fno-plt",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
]
link_args: list[str] = []

if flag("CTASK_SANITIZE"):
    sanitize = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"]
    # -UNDEBUG: the assertions are worth most here.  Undefined behaviour traps, and is reported by
    # AddressSanitizer: with a second run-time library neither knows where the report should go.
    compile_args += ["-O1", "-g", "-UNDEBUG", *sanitize, "-fsanitize-undefined-trap-on-error"]
    link_args += sanitize
if flag("CTASK_WERROR"):
    compile_args.append("-Werror")

setup(
    ext_modules=[
        Extension(
            "ctask._ctask",
            sources=["ctask.c"],
            depends=sorted(glob.glob("src/*.[ch]")),
            include_dirs=[".", "src"],
            extra_compile_args=compile_args,
            extra_link_args=link_args,
        )
    ]
)
