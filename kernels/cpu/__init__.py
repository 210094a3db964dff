"""Implementations for the CPU: bounded memory, cache-sized blocks, active rows only. Training on the CPU uses them.

One file per operator; each is called by the operator of the same name in the folder above, after its arguments were
checked, with float32, bfloat16 or float16 tensors. They may read values and take shapes from them.
"""
