package dna

import (
	"context"
	"errors"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

// dnaText is random DNA.
func dnaText(seed uint64, n int) string {
	_, records := fastaText(seed, 1<<20, "\n", n)
	return strings.ToUpper(strings.ReplaceAll(strings.ReplaceAll(records["record0"], "N", "A"), "n", "a"))
}

// sumOf is ln P of a text's bases but the first, one strand, by a plain call.
func sumOf(t *testing.T, m *Model, text string) (sum float64) {
	t.Helper()
	ids := m.Tokenizer(NoSpecial).Encode(text)
	ll := make([]float32, len(ids)-1)
	must(t, m.Run(context.Background(), &Call{Tokens: ids, LogLikelihood: ll}))
	for _, v := range ll {
		sum += float64(v)
	}
	return sum
}

func complement(t *testing.T, text string) string {
	t.Helper()
	other := []byte(text)
	must(t, ReverseComplement(other, other))
	return string(other)
}

// TestScoreVariants compares substitutions, insertions and deletions, in the middle and at
// both ends, with windows that are put together by hand.
func TestScoreVariants(t *testing.T) {
	const window = 40
	text := dnaText(5, 200)
	records := Records{"x": []byte(strings.ToLower(text[:100]) + text[100:]), "short": []byte("ACGGACGT")}
	type c struct {
		v        Variant
		from     int // of the window
		sequence string
	}
	one := func(at int, ref, alt string) Variant {
		return Variant{Contig: "x", Position: int64(at + 1), Ref: ref, Alt: alt}
	}
	other := func(b byte) string { return string("ACGT"[(strings.IndexByte("ACGT", b)+1)%4]) }
	list := []c{
		{one(100, text[100:101], other(text[100])), 100 - 19, text},
		{one(100, strings.ToLower(text[100:101]), strings.ToLower(other(text[100]))), 100 - 19, text},
		{one(3, text[3:4], other(text[3])), 0, text},
		{one(199, text[199:200], other(text[199])), 160, text},
		{one(100, text[100:101], text[100:101]+"GATTACA"), 100 - 16, text},
		{one(100, text[100:104], text[100:101]), 100 - 18, text},
		{one(197, text[197:200], text[197:198]), 160, text},
		{one(199, text[199:200], text[199:200]+"GATTACA"), 160, text},
		{one(196, text[196:197], text[196:197]+"GATTACA"), 160, text},
		{Variant{Contig: "short", Position: 2, Ref: "C", Alt: "G"}, 0, "ACGGACGT"},
		{Variant{Contig: "short", Position: 8, Ref: "T", Alt: "TGA"}, 0, "ACGGACGT"},
		{Variant{Contig: "short", Position: 6, Ref: "CGT", Alt: "C"}, 0, "ACGGACGT"},
	}
	isatest.Run(t, func(t *testing.T) {
		m := small.random(1).model(t, small.config())
		for _, strands := range []bool{true, false} {
			var variants []Variant
			for _, c := range list {
				variants = append(variants, c.v)
			}
			scores := make([]VariantScore, len(variants))
			must(t, m.ScoreVariants(context.Background(), scores, records, variants, VariantConfig{Window: window, OneStrand: !strands}))
			for i, c := range list {
				at := int(c.v.Position) - 1
				ref := c.sequence[c.from:]
				alt := c.sequence[c.from:at] + strings.ToUpper(c.v.Alt) + c.sequence[at+len(c.v.Ref):]
				n := min(window, len(ref), len(alt))
				if at-c.from+max(len(c.v.Ref), len(c.v.Alt)) > n { // the end would be cut off
					ref, alt = ref[len(ref)-n:], alt[len(alt)-n:]
				}
				ref, alt = ref[:n], alt[:n]
				want := VariantScore{sumOf(t, m, ref), sumOf(t, m, alt)}
				if strands {
					want.Ref, want.Alt = (want.Ref+sumOf(t, m, complement(t, ref)))/2, (want.Alt+sumOf(t, m, complement(t, alt)))/2
				}
				if math.Abs(scores[i].Ref-want.Ref) > 1e-3 || math.Abs(scores[i].Alt-want.Alt) > 1e-3 {
					t.Errorf("variant %d, both strands %v: %v, want %v", i, strands, scores[i], want)
				}
				if scores[i].Ratio() == 0 {
					t.Errorf("variant %d, both strands %v: as likely as without it, to the bit", i, strands)
				}
			}
			if scores[0] != scores[1] || scores[0].Ratio() != scores[0].Alt-scores[0].Ref {
				t.Errorf("in lower case %v, want %v", scores[1], scores[0])
			}
		}
	})
}

func TestVariantErrors(t *testing.T) {
	m := small.random(1).model(t, small.config())
	records := Records{"x": []byte(dnaText(5, 200))}
	for name, v := range map[string]Variant{
		"the sequence has":                 {Contig: "x", Position: 10, Ref: string(other(records["x"][9])), Alt: "A"},
		"there is no such sequence":        {Contig: "y", Position: 10, Ref: "A", Alt: "C"},
		"the sequence has 200 bases":       {Contig: "x", Position: 201, Ref: "A", Alt: "C"},
		"an allele is empty":               {Contig: "x", Position: 1, Alt: "C"},
		"'<' is no base":                   {Contig: "x", Position: 1, Ref: string(records["x"][:1]), Alt: "<DEL>"},
		"want at most half the window":     {Contig: "x", Position: 1, Ref: string(records["x"][:1]), Alt: strings.Repeat("A", 30)},
		"variant 0, x:0 A>C: the sequence": {Contig: "x", Ref: "A", Alt: "C"},
	} {
		scores := []VariantScore{{1, 2}}
		err := m.ScoreVariants(context.Background(), scores, records, []Variant{v}, VariantConfig{Window: 40})
		if !errors.Is(err, ErrCall) || !strings.Contains(err.Error(), name) || scores[0] != (VariantScore{1, 2}) {
			t.Errorf("error %v, want %s; scores %v", err, name, scores)
		}
	}
}

func other(b byte) byte { return "ACGT"[(strings.IndexByte("ACGT", b)+1)%4] }

// TestUracil: RNA is read as DNA, on both strands.
func TestUracil(t *testing.T) {
	m, ctx := small.random(1).model(t, small.config()), context.Background()
	text := dnaText(8, 90)
	rna := strings.NewReplacer("T", "U", "t", "u").Replace(text)
	records, other := Records{"x": []byte(text)}, Records{"x": []byte(rna)}
	for _, both := range []bool{false, true} {
		want, got := make([]float32, len(text)), make([]float32, len(text))
		must(t, m.LogLikelihood(ctx, want[1:], []byte(text)[1:], ScanConfig{BothStrands: both}))
		must(t, m.LogLikelihood(ctx, got[1:], []byte(rna)[1:], ScanConfig{BothStrands: both}))
		near(t, "likelihoods", got[2:len(got)-1], want[2:len(want)-1], 0)
		a, b := mat.New(1, m.cfg.Dim), mat.New(1, m.cfg.Dim)
		region := []Region{{Contig: "x", From: 3, To: 60, Reverse: true}}
		must(t, m.EmbedRegions(ctx, a, records, region, EmbedConfig{BothStrands: both}))
		must(t, m.EmbedRegions(ctx, b, other, region, EmbedConfig{BothStrands: both}))
		near(t, "a region", b.Data, a.Data, 0)
		at := strings.IndexByte(text, 'A')
		scores := make([]VariantScore, 2)
		cfg := VariantConfig{Window: 40, OneStrand: !both}
		must(t, m.ScoreVariants(ctx, scores[:1], records, []Variant{{Contig: "x", Position: int64(at + 1), Ref: "A", Alt: "T"}}, cfg))
		must(t, m.ScoreVariants(ctx, scores[1:], other, []Variant{{Contig: "x", Position: int64(at + 1), Ref: "A", Alt: "u"}}, cfg))
		if scores[0] != scores[1] {
			t.Errorf("both strands %v: RNA has %v, DNA %v", both, scores[1], scores[0])
		}
		if string(other["x"]) != rna {
			t.Error("the records are changed")
		}
	}
}

// TestScan: what windows say of a base is what a call of the window says.
func TestScan(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		m, ctx := small.random(1).model(t, small.config()), context.Background()
		sequence := []byte(dnaText(6, 150))
		sequence[20], sequence[70] = 'N', sequence[70]+'a'-'A'
		read := func(text []byte, window, overlap int) []float32 {
			want := make([]float32, len(text))
			want[0] = float32(math.NaN())
			for from := 0; from+1 < len(text); from += window - overlap {
				to := min(from+window+1, len(text)) // the last base predicts one more
				ids, ll := m.Tokenizer(NoSpecial).Encode(string(text[from:to])), make([]float32, to-from-1)
				must(t, m.Run(ctx, &Call{Tokens: ids[:len(ids)-1], Targets: ids[1:], LogLikelihood: ll}))
				for j, v := range ll {
					if from == 0 || j >= overlap {
						want[from+1+j] = v
					}
				}
				if to == len(text) {
					break
				}
			}
			for i, c := range text {
				if c == 'N' {
					want[i] = float32(math.NaN())
				}
			}
			return want
		}
		for _, c := range []ScanConfig{{}, {Window: 40}, {Window: 40, Overlap: 15}, {Window: 40, Overlap: 39}, {Window: 40, Overlap: 7, BothStrands: true, SkipLower: true}} {
			got := make([]float32, len(sequence))
			must(t, m.LogLikelihood(ctx, got, sequence, c))
			window := c.Window
			if window == 0 {
				window = small.maxLen
			}
			want := read(sequence, window, c.Overlap)
			if c.BothStrands {
				reverse := read([]byte(complement(t, string(sequence))), window, c.Overlap)
				slices.Reverse(reverse)
				for i := range want {
					want[i] = meanOfKnown(want[i], reverse[i])
				}
			}
			if c.SkipLower {
				want[70] = float32(math.NaN())
			}
			for i, w := range want {
				if !(math.Abs(float64(got[i]-w)) < 1e-4) && (w == w || got[i] == got[i]) {
					t.Fatalf("%+v: base %d has %v, want %v", c, i, got[i], w)
				}
			}
		}
		for _, c := range []ScanConfig{{Window: 1}, {Window: small.maxLen + 1}, {Window: 4, Overlap: 4}, {Overlap: -1}, {Workers: -1}} {
			if err := m.LogLikelihood(ctx, make([]float32, 150), sequence, c); !errors.Is(err, ErrConfig) {
				t.Errorf("%+v: error %v", c, err)
			}
		}
		if err := m.LogLikelihood(ctx, make([]float32, 3), []byte("AC!"), ScanConfig{}); !errors.Is(err, ErrCall) {
			t.Errorf("error %v", err)
		}
	})
}

// TestEmbedRegions: the vectors of regions are the means of hidden states of windows.
func TestEmbedRegions(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		m, ctx := small.random(1).model(t, small.config()), context.Background()
		text := dnaText(7, 120)
		records := Records{"x": []byte(text)}
		states := func(text string, layer int) [][]float32 {
			ids := m.Tokenizer(NoSpecial).Encode(text)
			h := mat.New(len(ids), m.cfg.Dim)
			c := &Call{Tokens: ids}
			if layer < 0 {
				c.Hidden = h
			} else {
				c.Residuals = make([]blas32.General, m.cfg.Layers+1)
				c.Residuals[layer] = h
			}
			must(t, m.Run(ctx, c))
			var rows [][]float32
			for i := range ids {
				rows = append(rows, mat.Row(h, i))
			}
			return rows
		}
		mean := func(rows [][]float32) []float32 {
			out := make([]float32, m.cfg.Dim)
			for _, row := range rows {
				for i, v := range row {
					out[i] += v / float32(len(rows))
				}
			}
			return out
		}
		one := 1
		for i, c := range []struct {
			cfg  EmbedConfig
			r    Region
			want []float32
		}{
			{EmbedConfig{}, Region{Contig: "x", From: 10, To: 50}, mean(states(text[10:50], -1))},
			{EmbedConfig{Layer: &one}, Region{Contig: "x", From: 10, To: 50}, mean(states(text[10:50], 1))},
			{EmbedConfig{Flank: 5}, Region{Contig: "x", From: 2, To: 50}, mean(states(text[0:55], -1)[2:50])},
			{EmbedConfig{}, Region{Contig: "x", From: 10, To: 50, Reverse: true}, mean(states(complement(t, text[10:50]), -1))},
			{EmbedConfig{Window: 30, Overlap: 10}, Region{Contig: "x", From: 10, To: 50}, mean(slices.Concat(states(text[10:40], -1), states(text[30:50], -1)[10:]))},
			{EmbedConfig{Pooling: Last}, Region{Contig: "x", From: 10, To: 50}, states(text[10:50], -1)[39]},
		} {
			got := mat.New(1, m.cfg.Dim)
			must(t, m.EmbedRegions(ctx, got, records, []Region{c.r}, c.cfg))
			near(t, c.r.Contig, got.Data, c.want, 1e-4)
			if t.Failed() {
				t.Fatalf("case %d", i)
			}
		}
		for _, r := range []Region{{Contig: "y", To: 3}, {Contig: "x", From: 3, To: 3}, {Contig: "x", From: 3, To: 121}, {Contig: "x", From: -1, To: 3}} {
			if err := m.EmbedRegions(ctx, mat.New(1, m.cfg.Dim), records, []Region{r}, EmbedConfig{}); !errors.Is(err, ErrCall) {
				t.Errorf("%+v: error %v", r, err)
			}
		}
	})
}

// counting is a context that notes how many goroutines there are when it is asked.
type counting struct {
	context.Context
	mu   sync.Mutex
	most int
}

func (c *counting) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.most = max(c.most, runtime.NumGoroutine())
	return nil
}

// TestWorkersOfBatches: Workers of a configuration counts for windows that run side by side.
func TestWorkersOfBatches(t *testing.T) {
	cfg := small.config()
	cfg.Workers = 8
	m := small.random(1).model(t, cfg)
	text := dnaText(9, 600)
	want := runtime.NumGoroutine()
	ctx := &counting{Context: context.Background()}
	must(t, m.LogLikelihood(ctx, make([]float32, len(text)), []byte(text), ScanConfig{Window: 50, Workers: 1}))
	if ctx.most > want {
		t.Errorf("LogLikelihood with one worker: %d goroutines, want %d", ctx.most, want)
	}
	ctx = &counting{Context: context.Background()}
	var variants []Variant
	for i := range 20 {
		variants = append(variants, Variant{Contig: "x", Position: int64(30*i + 1), Ref: text[30*i:][:1], Alt: string(other(text[30*i]))})
	}
	must(t, m.ScoreVariants(ctx, make([]VariantScore, len(variants)), Records{"x": []byte(text)}, variants, VariantConfig{Window: 50, Workers: 1}))
	if ctx.most > want {
		t.Errorf("ScoreVariants with one worker: %d goroutines, want %d", ctx.most, want)
	}
}

// TestTables reads VCF and BED files, and says what is wrong with others.
func TestTables(t *testing.T) {
	vcf := "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\n1\t5\trs1\tA\tC,<DEL>,GT\t30\tPASS\n\n2\t7\t.\tAC\tA\r\n1\t9\t.\tA\t.\n"
	r, err := NewVariantReader(strings.NewReader(vcf))
	must(t, err)
	var got []Variant
	for {
		v, err := r.Next()
		if err == io.EOF {
			break
		}
		must(t, err)
		got = append(got, v)
	}
	want := []Variant{{"1", 5, "rs1", "A", "C"}, {"1", 5, "rs1", "A", "GT"}, {"2", 7, "", "AC", "A"}}
	if !slices.Equal(got, want) || r.Skipped() != 2 {
		t.Errorf("%v, %d passed over, want %v", got, r.Skipped(), want)
	}
	b, err := NewRegionReader(strings.NewReader("track x\n#c\nbrowser hide all\ntrack\nchr1\t3\t9\ntrack2\t5\t6\nchr2\t0\t4\tname\t0\t-\textra\n"))
	must(t, err)
	first, err := b.Next()
	must(t, err)
	named, err := b.Next()
	must(t, err)
	second, err := b.Next()
	must(t, err)
	if named != (Region{Contig: "track2", From: 5, To: 6}) || first != (Region{Contig: "chr1", From: 3, To: 9}) || second != (Region{"chr2", 0, 4, "name", true}) {
		t.Errorf("%+v, %+v, %+v", first, named, second)
	}
	if _, err := b.Next(); err != io.EOF {
		t.Errorf("error %v", err)
	}
	for text, want := range map[string]string{
		">a\nACGT\n":             "this is a FASTA file",
		"1\tx\t.\tA\tC\n":        `POS is "x"`,
		"#h\n1\t2\t.\tA\n":       "4 columns",
		"#h\n1\t2\t.\t<X>\tA\n":  `REF is "<X>"`,
		"#h\n1\t-3\t.\tA\tA\n":   `POS is "-3"`,
		"@a\nACGT\n+\nIIII\nxx ": "this is a FASTQ file",
	} {
		r, err := NewVariantReader(strings.NewReader(text))
		if err == nil {
			_, err = r.Next()
		}
		if !errors.Is(err, ErrTable) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %s", text, err, want)
		}
	}
	for text, want := range map[string]string{"chr1 3 4\n": "1 columns", "chr1\t9\t3\n": "the base after the last", "chr1\t1\t3\ta\t0\tx\n": "the strand"} {
		r, err := NewRegionReader(strings.NewReader(text))
		must(t, err)
		if _, err := r.Next(); !errors.Is(err, ErrTable) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %s", text, err, want)
		}
	}
}
