// How fast one core reads memory that no cache holds, in MB/s: the best of one, four
// and eight streams side by side. cc -O3 -march=native read.c
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

enum { lines = 4 }; // vectors of a stream at a time
static const long bytes = 256L << 20;
static vector *data;
static int streams;
static volatile float sink;

static void read_all(void) {
	long each = bytes / sizeof(vector) / streams;
	vector sum[lines] = {0};
	for (long i = 0; i < each; i += lines)
		for (int s = 0; s < streams; s++)
			for (int j = 0; j < lines; j++)
				sum[j] += data[s * each + i + j];
	vector total = sum[0] + sum[1] + sum[2] + sum[3];
	sink = total[0];
}

int main(void) {
	data = aligned_alloc(4096, bytes);
	fill((float *)data, bytes / 4);
	double best = 0;
	for (streams = 1; streams <= 8; streams *= streams == 1 ? 4 : 2) {
		double rate = bytes / mean(read_all) / 1e6;
		if (rate > best)
			best = rate;
	}
	printf("%.0f\n", best);
	return 0;
}
