package dna_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"strings"

	"github.com/subquad/subquad/hyena/dna"
)

// checkpoint is a small one of random weights, under published names. A real one
// is in examples/internal/ecoli/model.
const checkpoint = "../../testdata/golden/hyena_model_d32.safetensors"

// An embedding of a sequence: the mean of the model's hidden states.
func ExampleModel_EmbedInto() {
	m, err := dna.Open(checkpoint, dna.Config{})
	if err != nil {
		log.Fatal(err)
	}
	emb := make([]float32, m.Config().Dim)
	if err := m.EmbedInto(context.Background(), emb, "GATTACA"); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d numbers, the first %.2f\n", len(emb), emb[0])
	// Output: 32 numbers, the first 0.16
}

// How likely a variant is, compared with the reference: the difference of their
// log-likelihoods.
func ExampleModel_RunBatch() {
	m, err := dna.Open(checkpoint, dna.Config{})
	if err != nil {
		log.Fatal(err)
	}
	tokenizer := m.Tokenizer(dna.AppendSep)
	var calls []*dna.Call
	for _, sequence := range []string{"ACGTTGCA", "ACGTAGCA"} {
		tokens := tokenizer.Encode(sequence)
		calls = append(calls, &dna.Call{Tokens: tokens, LogLikelihood: make([]float32, len(tokens)-1)})
	}
	if err := m.RunBatch(context.Background(), calls); err != nil {
		log.Fatal(err)
	}
	var sums [2]float64
	for i, c := range calls {
		for _, v := range c.LogLikelihood {
			sums[i] += float64(v)
		}
	}
	fmt.Printf("ln p(variant) - ln p(reference) = %.2f\n", sums[1]-sums[0])
	// Output: ln p(variant) - ln p(reference) = -9.34
}

func ExampleTokenizer() {
	t, err := dna.NewTokenizer(dna.TokenizerConfig{Special: dna.ClsSep})
	if err != nil {
		log.Fatal(err)
	}
	ids := t.Encode("ACGTN")
	fmt.Println(ids, t.Decode(ids))
	// Output: [0 7 8 9 10 11 1] [CLS]ACGTN[SEP]
}

func ExampleReader() {
	file := strings.NewReader(">phage a short one\nACGT\nacgn\n>other\nTTT\n")
	r, err := dna.NewReader(file)
	if err != nil {
		log.Fatal(err)
	}
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		bases, err := io.ReadAll(r)
		if err != nil {
			log.Fatal(err)
		}
		c := r.Composition()
		fmt.Printf("%s (%s): %s, %d in lower case, %d unknown\n", h.Name, h.Description, bases, c.Lower, c.N)
	}
	// Output:
	// phage (a short one): ACGTACGN, 4 in lower case, 1 unknown
	// other (): TTT, 0 in lower case, 0 unknown
}

func ExampleReverseComplement() {
	strand := []byte("GATTACA")
	if err := dna.ReverseComplement(strand, strand); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", strand)
	// Output: TGTAATC
}

// What a first request of a length would wait for is computed before it comes.
func ExampleModel_Prepare() {
	m, err := dna.Open(checkpoint, dna.Config{})
	if err != nil {
		log.Fatal(err)
	}
	before := m.Bytes()
	if err := m.Prepare(context.Background(), 64); err != nil {
		log.Fatal(err)
	}
	fmt.Println("filters and spectra are there:", m.Bytes() > before)
	// Output: filters and spectra are there: true
}

// The other strand of RNA has U where that of DNA has T.
func ExampleReverseComplementRNA() {
	strand := []byte("GAUUACA")
	if err := dna.ReverseComplementRNA(strand, strand); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", strand)
	// Output: UGUAAUC
}

// A sequence from a user is encoded only if it is one.
func ExampleTokenizer_AppendDNA() {
	t, err := dna.NewTokenizer(dna.TokenizerConfig{UpperCase: true, RNA: true})
	if err != nil {
		log.Fatal(err)
	}
	tokens, err := t.AppendDNA(nil, "gauN")
	fmt.Println(tokens, err)
	_, err = t.AppendDNA(nil, "HELLO")
	fmt.Println(err)
	// Output:
	// [9 7 10 11] <nil>
	// dna: the sequence has 'E' at byte 1, which is no nucleotide code
}

// Changes of a sequence, both strands read: below 0 the model finds one unlikely.
func ExampleModel_ScoreVariants() {
	m, err := dna.Open(checkpoint, dna.Config{})
	if err != nil {
		log.Fatal(err)
	}
	genome := dna.Records{"phage": []byte("ACGTACGTTGCA")}
	scores := make([]dna.VariantScore, 2)
	variants := []dna.Variant{{Contig: "phage", Position: 3, Ref: "G", Alt: "T"}, {Contig: "phage", Position: 3, Ref: "G", Alt: "GA"}}
	if err := m.ScoreVariants(context.Background(), scores, genome, variants, dna.VariantConfig{}); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("G>T %.1f, insertion of A %.1f\n", scores[0].Ratio(), scores[1].Ratio())
	// Output: G>T 7.7, insertion of A -17.9
}

// A stretch of a FASTA file, without reading what is before it.
func ExampleNewGenome() {
	const text = ">one\nACGTACGT\nGATTACA\n>two\nTTTT\n"
	g, err := dna.NewGenome(strings.NewReader(text), int64(len(text)), nil, nil)
	if err != nil {
		log.Fatal(err)
	}
	bases := make([]byte, 5)
	if err := g.ReadBases(bases, "one", 6); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s of %v\n", bases, g.Contigs())
	// Output: GTGAT of [{one 15} {two 4}]
}

func ExampleNewVariantReader() {
	r, err := dna.NewVariantReader(strings.NewReader("##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\nchr1\t5\t.\tA\tC,<DEL>\n"))
	if err != nil {
		log.Fatal(err)
	}
	v, err := r.Next()
	if err != nil {
		log.Fatal(err)
	}
	_, err = r.Next()
	fmt.Println(v.Contig, v.Position, v.Ref, v.Alt, r.Skipped(), err == io.EOF)
	// Output: chr1 5 A C 1 true
}

func ExampleNewRegionReader() {
	r, err := dna.NewRegionReader(strings.NewReader("chr1\t10\t20\tpromoter\t0\t-\n"))
	if err != nil {
		log.Fatal(err)
	}
	region, err := r.Next()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(region)
	// Output: {chr1 10 20 promoter true}
}
