#!/usr/bin/python3
"""PyTorch, one thread: milliseconds to find, for every even one of N tokens of
width D, the most similar odd one, 512 rows at a time, in the mean; rows have
length 1 beforehand. match.py N D"""
import sys
import time

import torch

torch.set_num_threads(1)
torch.set_grad_enabled(False)
n, d = int(sys.argv[1]), int(sys.argv[2])
x = torch.randn(n, d)
x = x / x.norm(dim=-1, keepdim=True)


def match():
    a, b = x[::2], x[1::2].t().contiguous()
    return [(a[i : i + 512] @ b).max(dim=-1) for i in range(0, a.shape[0], 512)]


match()
runs, begin = 0, time.perf_counter()
while time.perf_counter() - begin < 2:
    match()
    runs += 1
print(f"{(time.perf_counter() - begin) * 1e3 / runs:.2f}")
