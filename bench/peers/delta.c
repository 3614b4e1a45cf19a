// The gated delta rule as a plain C loop, token by token, a state's rows those of value
// channels, so that all loops go along keys: nanoseconds for each token and head.
// cc -O3 -march=native -ffast-math delta.c -lm; ./delta HEADS CHANNELS TOKENS
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"

static int heads, d, tokens;
static float *q, *k, *v, *g, *beta, *state, *y;

// unit divides a head by its length.
static void unit(float *restrict to, const float *restrict x) {
	float sum = 1e-6f;
	for (int i = 0; i < d; i++)
		sum += x[i] * x[i];
	float by = 1 / sqrtf(sum);
	for (int i = 0; i < d; i++)
		to[i] = by * x[i];
}

static void run(void) {
	float key[1024], query[1024], scale = 1 / sqrtf(d);
	for (long h = 0; h < heads; h++)
		for (long t = 0; t < tokens; t++) {
			long at = (t * heads + h) * d;
			float decay = expf(g[t * heads + h]), b = beta[t * heads + h];
			unit(key, k + at), unit(query, q + at);
			for (long j = 0; j < d; j++) {
				float *restrict s = state + (h * d + j) * d, read = 0, out = 0;
				for (int i = 0; i < d; i++)
					read += s[i] * key[i];
				float u = b * (v[at + j] - decay * read);
				for (int i = 0; i < d; i++) {
					s[i] = decay * s[i] + u * key[i];
					out += s[i] * query[i];
				}
				y[at + j] = scale * out;
			}
		}
}

int main(int argc, char **argv) {
	if (argc != 4)
		return 2;
	heads = atoi(argv[1]), d = atoi(argv[2]), tokens = atoi(argv[3]);
	if (heads < 1 || d < 1 || d > 1024 || tokens < 1)
		return 2;
	long wide = (long)tokens * heads * d, gates = (long)tokens * heads, all = (long)heads * d * d;
	q = floats(wide), k = floats(wide), v = floats(wide), y = floats(wide), g = floats(gates), beta = floats(gates), state = floats(all);
	fill(q, wide), fill(k, wide), fill(v, wide), fill(g, gates), fill(beta, gates);
	memset(state, 0, 4 * all);
	for (long i = 0; i < gates; i++)
		g[i] = -fabsf(g[i]), beta[i] = fabsf(beta[i]);
	printf("%g\n", mean(run) * 1e9 / tokens / heads);
	return 0;
}
