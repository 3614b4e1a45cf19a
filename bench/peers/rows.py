#!/usr/bin/python3
"""PyTorch, one thread: nanoseconds an element of softmax or RMSNorm over 4096
rows of 1024. rows.py softmax|rmsnorm"""
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
runs, begin = 0, time.perf_counter()
while time.perf_counter() - begin < 2:
    run()
    runs += 1
print(f"{(time.perf_counter() - begin) / runs * 1e9 / x.numel():.4f}")
