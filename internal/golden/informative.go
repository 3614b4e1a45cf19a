package golden

import "strings"

// informative lists the keys of the metadata that tests need not read, with the reason,
// for an operation or, under "", for all; a key that ends with * stands for all that begin
// so. Whatever is not here a test reads, or fails: an option that it passes over would be
// one that it takes for granted.
var informative = map[string]map[string]string{
	"": {
		"op":     "chooses the test",
		"case":   "the file's name",
		"seed":   "of the random numbers, which the tensors hold",
		"source": "where the values come from", "verified": "what else agrees with them", "verification": "the same",
		"layout": "the order of dimensions, in words", "note": "in words", "formula": "in words", "rule": "in words", "rules": "in words",
		"tol": "atol, rtol and mtol in words", "tolerance": "the same",
		"atol": "Compare reads it where there is a number to compare", "rtol": "the same", "mtol": "the same",
		"f32_ref_max_abs_err":       "how far another float32 implementation is off",
		"official_float32_maxdiff*": "how far the official code is off in float32",
	},
	"hyena.striped_modal":       {"step_vs_parallel_maxdiff": "how far the official code is from itself"},
	"attention.cca_prefill":     {"core": "a formula", "visibility": "a formula"},
	"attention.exact":           exactWords,
	"attention.exact_headdims":  exactWords,
	"attention.exact_mask_bias": exactWords,
	"attention.exact_varlen":    exactWords,
	"attention.kv_quant":        exactWords,
	"attention.merge_states":    exactWords,
	"attention.paged_kv":        exactWords,
	"kvcache.infllm":            {"maxc": "blocks on the fast device, which no result depends on"},
	"kvcache.kvpress_scorers":   {"n_kept": "a formula", "H": "query heads, at which these scorers do not look"},
	"kvcache.minference_vslash": {"official_defaults": "in words"},
	"kvcache.protocol_threads":  {"sinks": "none are planted"},
	"kvcache.streamingllm":      {"rope": "in words"},
	"merge.tome_bsm":            {"dtype": "in words; the tensors have types"},
	"rope.flexrope_far":         {"bias": "a formula"},
	"transformer.model":         {"regime": "in words"},

	"ssm.rwkv7_model":              {"names": "in words; the tensors have them"},
	"transformer.qwen3_next_model": {"min_router_margin": "how far the chosen experts are from others"},
}

// exactWords are keys of exact attention's operations.
var exactWords = map[string]string{
	"alignment": "in words, the same for all", "gqa": "in words, the same for all", "masked_rows": "in words, the same for all",
	"cases": "in words: the tensors' names tell the cases",
}

func isInformative(op, key string) bool {
	for _, list := range []map[string]string{informative[""], informative[op]} {
		for known := range list {
			if prefix, ok := strings.CutSuffix(known, "*"); key == known || ok && strings.HasPrefix(key, prefix) {
				return true
			}
		}
	}
	return false
}
