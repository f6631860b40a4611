"""Triton kernels, one operator a file; imported when an operator first needs one."""
