#!/usr/bin/python3
"""PyTorch, one thread: nanoseconds an element of softmax or RMSNorm over 4096
rows of 1024, of the best run: the mean depends on what memory the allocator
happened to get. rows.py softmax|rmsnorm"""
import sys
import time

import torch

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
