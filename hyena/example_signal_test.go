package hyena_test

import (
	"context"
	"fmt"
	"log"
	"math"

	"github.com/subquad/subquad/hyena"
)

// An echo of a click, through blocks of 16 samples: it comes 16 samples late.
func ExamplePartition() {
	kernel := sequence(make([]float32, 41)...)
	kernel.Data[0], kernel.Data[40] = 1, 0.5
	p, err := hyena.NewPartition(hyena.PartitionConfig{Kernel: kernel, Block: 16})
	if err != nil {
		log.Fatal(err)
	}
	st, err := p.NewState()
	if err != nil {
		log.Fatal(err)
	}
	for from := 0; from < 64; from += 16 { // what a sound card asks for
		x := sequence(make([]float32, 16)...)
		if from == 0 {
			x.Data[3] = 8
		}
		if err := p.Step(x, x, st); err != nil {
			log.Fatal(err)
		}
		for i, v := range x.Data {
			if math.Abs(float64(v)) > 1e-3 {
				fmt.Printf("%.2f at sample %d\n", v, from+i)
			}
		}
	}
	// Output:
	// 8.00 at sample 19
	// 4.00 at sample 59
}

// A filter of 200 taps that is two decays comes back as two modes.
func ExampleDistill() {
	kernel := sequence(make([]float32, 200)...)
	for t := range kernel.Data {
		kernel.Data[t] = float32(math.Pow(0.9, float64(t)) + 0.5*math.Pow(0.5, float64(t)))
	}
	d, err := hyena.Distill(context.Background(), kernel, hyena.DistillConfig{Order: 2})
	if err != nil {
		log.Fatal(err)
	}
	for n := range d.Modes.Modes() {
		pole, residue := d.Modes.Mode(0, n)
		fmt.Printf("%.2f * %.2f^t\n", real(residue), real(pole))
	}
	fmt.Println("error below 1e-5:", d.Errors[0].Relative < 1e-5)
	// Output:
	// 1.00 * 0.90^t
	// 0.50 * 0.50^t
	// error below 1e-5: true
}

// The mean of two samples, for every second one.
func ExampleDecimate() {
	d, err := hyena.NewDecimate(hyena.DecimateConfig{Kernel: sequence(0.5, 0.5), Factor: 2})
	if err != nil {
		log.Fatal(err)
	}
	x := sequence(2, 4, 6, 8, 10)
	y := sequence(make([]float32, d.Outputs(0, x.Rows))...)
	if err := d.Forward(y, x); err != nil {
		log.Fatal(err)
	}
	fmt.Println(y.Data)
	// Output: [1 5 9]
}
