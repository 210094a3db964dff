"""Triton kernels and their launchers, one file per operator; each is called by the operator of the same name in the
folder above, after its arguments were checked, with float32, bfloat16 or float16 tensors.

They never make the host wait, and what they allocate depends on shapes alone.
"""
