// What one core can do: float32 fused multiply-adds a second, in GFLOP/s, with
// the widest registers that the compiler was told of. cc -O3 -march=native peak.c
#include <stdio.h>

#include "clock.h"

#if defined __AVX512F__
enum { width = 16 };
#elif defined __AVX__
enum { width = 8 };
#else
enum { width = 4 };
#endif
typedef float vector __attribute__((vector_size(4 * width)));

enum { chains = 12, rounds = 10000000 };
static volatile float sink;

static void multiply_add(void) {
	vector a, b;
	for (int i = 0; i < width; i++)
		a[i] = 0.999f, b[i] = 0.001f;
	// All different, so that the compiler cannot compute one for another.
	vector x0 = a, x1 = a * 2, x2 = a * 3, x3 = a * 4, x4 = a * 5, x5 = a * 6;
	vector x6 = a * 7, x7 = a * 8, x8 = a * 9, x9 = a * 10, x10 = a * 11, x11 = a * 12;
	for (long r = 0; r < rounds; r++) {
		x0 = x0 * a + b, x1 = x1 * a + b, x2 = x2 * a + b, x3 = x3 * a + b;
		x4 = x4 * a + b, x5 = x5 * a + b, x6 = x6 * a + b, x7 = x7 * a + b;
		x8 = x8 * a + b, x9 = x9 * a + b, x10 = x10 * a + b, x11 = x11 * a + b;
	}
	vector sum = x0 + x1 + x2 + x3 + x4 + x5 + x6 + x7 + x8 + x9 + x10 + x11;
	sink = sum[0];
}

int main(void) {
	printf("%.2f\n", 2.0 * width * chains * rounds / mean(multiply_add) / 1e9);
	return 0;
}
