// The mean time of a function, in seconds, over at least three runs and two
// seconds, as Go's benchmarks measure.
#include <stdlib.h>
#include <time.h>

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + 1e-9 * t.tv_nsec;
}

static double mean(void (*f)(void)) {
	f(); // warm up
	double begin = now();
	int runs = 0;
	while (runs < 3 || now() - begin < 2) {
		f();
		runs++;
	}
	return (now() - begin) / runs;
}

// floats is memory for n of them that begins a cache line.
static float *floats(long n) { return aligned_alloc(64, (4 * n + 63) / 64 * 64); }

static void fill(float *x, long n) {
	for (long i = 0; i < n; i++)
		x[i] = rand() / (float)RAND_MAX - 0.5f;
}
