package dna

// Vocabulary numbers the tokens.
type Vocabulary uint8

const (
	// Official is the vocabulary of HyenaDNA: [CLS] 0, [SEP] 1, [BOS] 2, [MASK] 3,
	// [PAD] 4, [RESERVED] 5, [UNK] 6, A 7, C 8, G 9, T 10, N 11.
	Official Vocabulary = iota
	// MultiMolecule is the one of checkpoints converted by MultiMolecule: <pad> 0,
	// <cls> 1, <eos> 2, <unk> 3, <mask> 4, <null> 5, A 6, C 7, G 8, T 9, N 10.
	MultiMolecule
)

// vocabulary is what a Vocabulary stands for. The roles are ids.
type vocabulary struct {
	tokens                       []string
	cls, sep, mask, pad, unknown int32
	literals                     []int32 // special tokens that text may name
}

var vocabularies = [...]vocabulary{
	Official: {
		tokens: []string{"[CLS]", "[SEP]", "[BOS]", "[MASK]", "[PAD]", "[RESERVED]", "[UNK]", "A", "C", "G", "T", "N"},
		cls:    0, sep: 1, mask: 3, pad: 4, unknown: 6,
		literals: []int32{0, 1, 2, 3, 4, 6}, // [RESERVED] is in the vocabulary but not special
	},
	MultiMolecule: {
		tokens: []string{"<pad>", "<cls>", "<eos>", "<unk>", "<mask>", "<null>", "A", "C", "G", "T", "N"},
		cls:    1, sep: 2, mask: 4, pad: 0, unknown: 3,
		literals: []int32{0, 1, 2, 3, 4, 5},
	},
}

// Size returns the number of tokens.
func (v Vocabulary) Size() int { return len(vocabularies[v].tokens) }

// Token returns the text of a token, or "" for a number that is none.
func (v Vocabulary) Token(id int32) string {
	if id < 0 || int(id) >= v.Size() {
		return ""
	}
	return vocabularies[v].tokens[id]
}

// Lookup returns the number of a token's text, such as "A" or "[PAD]".
func (v Vocabulary) Lookup(token string) (id int32, ok bool) {
	for i, t := range vocabularies[v].tokens {
		if t == token {
			return int32(i), true
		}
	}
	return 0, false
}

// Pad returns the padding token.
func (v Vocabulary) Pad() int32 { return vocabularies[v].pad }
