#!/usr/bin/python3
"""PyTorch, one thread: nanoseconds an element of softmax or RMSNorm over 4096
rows of 1024, of the best run. What a run frees, the next one gets again: else now
and then every run pays for new pages, five times the work. rows.py softmax|rmsnorm"""
import ctypes
import sys
import time

import torch

libc = ctypes.CDLL(None)
libc.mallopt(-3, 1 << 25)  # M_MMAP_THRESHOLD
libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD

torch.set_num_threads(1)
torch.set_grad_enabled(False)
x, weight = torch.randn(4096, 1024), torch.randn(1024)


def softmax():
    return torch.softmax(x, -1)


def rmsnorm():
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * weight


run = {"softmax": softmax, "rmsnorm": rmsnorm}[sys.argv[1]]
run()
least, begin = 1e9, time.perf_counter()
while time.perf_counter() - begin < 2:
    t0 = time.perf_counter()
    run()
    least = min(least, time.perf_counter() - t0)
print(f"{least * 1e9 / x.numel():.4f}")
