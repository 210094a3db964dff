"""Triton's interpreter, in which the kernels run on the CPU's tensors: TRITON_INTERPRET=1."""

import dataclasses
import os

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def hurry() -> None:
    """Leave out what takes half of its time: patching `triton.language` anew at each call of a function within a
    kernel, whose module has been patched, and looking for overflow, which such small tensors do not reach."""
    from triton.runtime import interpreter

    patched = set()

    def call(function, *arguments, **options):
        if function.fn.__module__ not in patched:
            interpreter._patch_lang(function.fn)
            patched.add(function.fn.__module__)
        return function.rewrite()(*arguments, **options)

    interpreter.InterpretedFunction.__call__ = call
    builder = interpreter.interpreter_builder
    builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)
