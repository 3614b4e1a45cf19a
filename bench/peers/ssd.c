// The recurrence of Mamba-2 as a plain C loop, vectorised over the states:
// nanoseconds for each channel, state and token.
// cc -O3 -march=native -ffast-math ssd.c -lm; ./ssd HEADS CHANNELS STATES TOKENS
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"

static int heads, p, n, tokens;
static float *x, *dt, *a, *b, *c, *state, *y;

static void run(void) {
	for (long t = 0; t < tokens; t++)
		for (int h = 0; h < heads; h++) {
			float step = dt[t * heads + h], decay = expf(step * a[h]);
			for (int i = 0; i < p; i++) {
				float *restrict s = state + ((long)h * p + i) * n;
				const float *bt = b + t * n, *ct = c + t * n;
				float u = step * x[(t * heads + h) * p + i], sum = 0;
				for (int j = 0; j < n; j++) {
					s[j] = decay * s[j] + u * bt[j];
					sum += s[j] * ct[j];
				}
				y[(t * heads + h) * p + i] = sum;
			}
		}
}

int main(int argc, char **argv) {
	if (argc != 5)
		return 2;
	heads = atoi(argv[1]), p = atoi(argv[2]), n = atoi(argv[3]), tokens = atoi(argv[4]);
	long wide = (long)tokens * heads * p, shared = (long)tokens * n;
	x = floats(wide), y = floats(wide), b = floats(shared), c = floats(shared);
	dt = floats((long)tokens * heads), a = floats(heads), state = floats((long)heads * p * n);
	memset(state, 0, 4L * heads * p * n);
	fill(x, wide), fill(b, shared), fill(c, shared), fill(dt, (long)tokens * heads), fill(a, heads);
	for (long i = 0; i < (long)tokens * heads; i++)
		dt[i] = 0.01f + 0.1f * fabsf(dt[i]);
	for (int h = 0; h < heads; h++)
		a[h] = -1 - 8 * fabsf(a[h]);
	printf("%.4f\n", mean(run) * 1e9 / ((double)wide * n));
	return 0;
}
