// The best time of a function, in seconds: at least three runs, and two seconds.
#include <stdlib.h>
#include <time.h>

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + 1e-9 * t.tv_nsec;
}

static double best(void (*f)(void)) {
	f(); // warm up
	double least = 1e9, begin = now();
	for (int runs = 0; runs < 3 || now() - begin < 2; runs++) {
		double t0 = now();
		f();
		double t = now() - t0;
		if (t < least)
			least = t;
	}
	return least;
}

static void fill(float *x, long n) {
	for (long i = 0; i < n; i++)
		x[i] = rand() / (float)RAND_MAX - 0.5f;
}
