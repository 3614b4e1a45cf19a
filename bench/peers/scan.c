// The selective scan of Mamba-1 as a plain C loop: nanoseconds for each channel,
// state and token, softplus included.
// cc -O3 -march=native scan.c -lm, with -ffast-math for vectors over the states; ./scan CHANNELS STATES TOKENS
#include <math.h>
#include <stdio.h>

#include "clock.h"

static int d, n, tokens;
static float *x, *dt, *a, *b, *c, *h, *y;

static void scan(void) {
	for (int i = 0; i < d * n; i++)
		h[i] = 0;
	for (int t = 0; t < tokens; t++)
		for (int i = 0; i < d; i++) {
			float step = logf(1 + expf(dt[t * d + i])), u = step * x[t * d + i], sum = 0;
			float *restrict s = h + i * n;
			const float *at = a + i * n, *bt = b + t * n, *ct = c + t * n;
			for (int j = 0; j < n; j++) {
				float v = expf(step * at[j]) * s[j] + u * bt[j];
				sum += v * ct[j];
				s[j] = v;
			}
			y[t * d + i] = sum;
		}
}

int main(int argc, char **argv) {
	if (argc != 4)
		return 2;
	d = atoi(argv[1]), n = atoi(argv[2]), tokens = atoi(argv[3]);
	long rows = (long)tokens * d;
	x = floats(rows), dt = floats(rows), y = floats(rows);
	a = floats((long)d * n), h = floats((long)d * n), b = floats((long)tokens * n), c = floats((long)tokens * n);
	fill(x, rows), fill(dt, rows), fill(b, (long)tokens * n), fill(c, (long)tokens * n), fill(a, (long)d * n);
	for (long i = 0; i < (long)d * n; i++)
		a[i] = -0.1f - 4 * fabsf(a[i]);
	printf("%.4f\n", mean(scan) * 1e9 / ((double)rows * n));
	return 0;
}
