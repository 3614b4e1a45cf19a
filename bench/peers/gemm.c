// OpenBLAS, one thread: GFLOP/s of a square product. cc -O2 gemm.c -lopenblas; ./gemm 1024
#include <cblas.h>
#include <stdio.h>

#include "clock.h"

extern void openblas_set_num_threads(int);
static int n;
static float *a, *b, *c;

static void multiply(void) {
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, n, n, 1, a, n, b, n, 0, c, n);
}

int main(int argc, char **argv) {
	n = argc > 1 ? atoi(argv[1]) : 1024;
	long size = (long)n * n;
	a = malloc(4 * size), b = malloc(4 * size), c = malloc(4 * size);
	fill(a, size), fill(b, size);
	openblas_set_num_threads(1);
	printf("%.2f\n", 2.0 * n * n * n / mean(multiply) / 1e9);
	return 0;
}
