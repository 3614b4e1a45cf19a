// FFTW, single precision, one thread: nanoseconds an element of causal
// convolutions with kernels as long as the sequence, their spectra known, one
// channel after the other. cc -O3 -march=native fftconv.c -lfftw3f; ./fftconv CHANNELS TOKENS
#include <fftw3.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"

static long channels, n;
static float *u, *y, *work, *spectra;
static fftwf_complex *freq;
static fftwf_plan forward, inverse;

static void convolve(void) {
	for (long c = 0; c < channels; c++) {
		memcpy(work, u + c * n, 4 * n);
		memset(work + n, 0, 4 * n);
		fftwf_execute(forward);
		float *x = (float *)freq;
		const float *k = spectra + 2 * c * (n + 1);
		for (long i = 0; i <= n; i++) {
			float re = x[2 * i] * k[2 * i] - x[2 * i + 1] * k[2 * i + 1];
			float im = x[2 * i] * k[2 * i + 1] + x[2 * i + 1] * k[2 * i];
			x[2 * i] = re, x[2 * i + 1] = im;
		}
		fftwf_execute(inverse);
		memcpy(y + c * n, work, 4 * n);
	}
}

int main(int argc, char **argv) {
	if (argc != 3)
		return 2;
	channels = atol(argv[1]), n = atol(argv[2]);
	work = fftwf_alloc_real(2 * n + 2), freq = fftwf_alloc_complex(n + 1);
	forward = fftwf_plan_dft_r2c_1d(2 * n, work, freq, FFTW_MEASURE);
	inverse = fftwf_plan_dft_c2r_1d(2 * n, freq, work, FFTW_MEASURE | FFTW_DESTROY_INPUT);
	u = fftwf_alloc_real(channels * n), y = fftwf_alloc_real(channels * n);
	spectra = fftwf_alloc_real(2 * channels * (n + 1));
	fill(u, channels * n), fill(spectra, 2 * channels * (n + 1));
	printf("%.4f\n", mean(convolve) * 1e9 / (channels * n));
	return 0;
}
