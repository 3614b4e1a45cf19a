package rope

import "strings"

// hfModel is what the code of a model type has where its config.json says nothing.
type hfModel struct {
	encoding Encoding
	optional bool // rotates only with use_mem_rope
	always   bool // rotates whatever position_embedding_type says

	base     float64 // rope_theta; 0 is 10000
	older    float64 // that of readings before V5, where it is another
	local    float64 // that of sliding layers (localBase) or compressed ones; 0 is 10000
	ratio    bool    // rope_ratio multiplies the base
	fraction float64 // partial_rotary_factor; 0 is 1
	rotary   int     // rotary_dim; 0 is by the fraction
	head     int     // head_dim; 0 is hidden_size / num_attention_heads
	split    bool    // which it is whatever head_dim says
	global   int     // head_dim of layers of full attention, if another
	hidden   int     // hidden_size
	heads    int     // num_attention_heads
	rope     int     // qk_rope_head_dim, of models with latent attention only
	layout   Layout
	reverse  bool // turns the other way
	dealt    bool // sections of M-RoPE are interleaved

	layers   layerRule
	full     pattern // which layers have full attention; nil: all, or the file says
	rest     string  // the type of the others; "" is sliding_attention
	lastFull bool    // the last layer has it in any case
	scaled   bool    // sliding layers are scaled too (localBase)
	prefix   bool    // the first first_k_dense_replace layers rotate in any case (slidingOnly)
	window   bool    // without a sliding_window no layer rotates (slidingOnly)

	params   string // rope parameters
	original int64  // original_max_position_embeddings beside them (Phi-3)
	alpha    bool   // type dynamic with alpha is a fixed base (Hunyuan)
	dynamic  bool   // rotary_scaling_factor is dynamic NTK (Nomic)
}

// wholeHeads are the model types whose code does not look at a partial_rotary_factor where
// nothing is scaled, and rotates whole heads.
var wholeHeads = strings.Fields(`llama mistral ministral ministral3 mixtral qwen2 qwen3 qwen3_moe smollm3 gemma gemma2 gemma3 gemma3_text
	olmo2 olmo3 granite gpt_oss seed_oss exaone4 hunyuan_v1_dense starcoder2 cohere cohere2`)

// findModel looks a model type up; those of the text part of larger models, with _text
// at the end, stand under the name of the whole.
func findModel(name string) (hfModel, bool) {
	for _, key := range []string{name, strings.TrimSuffix(name, "_text"), strings.TrimSuffix(name, "_text_model")} {
		if row, ok := hfModels[key]; ok {
			return row, true
		}
		if key, ok := sameModels[key]; ok {
			return hfModels[key], true
		}
	}
	return hfModel{}, false
}

// hfModels has a row for each model type whose code has something of its own, with the
// values of transformers 5 (configuration_*.py and modeling_*.py), or of the code
// published with the model; older has a base that was another in transformers 4. sameModels
// has the others.
var hfModels = map[string]hfModel{
	"llama":  {hidden: 4096, heads: 32},
	"phi3":   {hidden: 3072, heads: 32, original: 4096},
	"phimoe": {base: 1e6, hidden: 4096, heads: 32},

	// Other bases and widths.
	"apertus":        {base: 12e6, params: `{"rope_type": "llama3", "factor": 8, "original_max_position_embeddings": 8192, "low_freq_factor": 1, "high_freq_factor": 4}`},
	"cwm":            {base: 1e6, head: 128, params: `{"rope_type": "llama3", "factor": 16, "original_max_position_embeddings": 8192, "low_freq_factor": 1, "high_freq_factor": 4}`},
	"csm":            {base: 5e5},
	"dbrx":           {},
	"eurobert":       {always: true},
	"emu3":           {base: 1e6},
	"gemma":          {head: 256},
	"gpt_oss":        {base: 150000, head: 64, params: `{"rope_type": "yarn", "factor": 32, "beta_fast": 32, "beta_slow": 1, "truncate": false, "original_max_position_embeddings": 4096}`},
	"hy_v3":          {base: 11158840, head: 128},
	"hunyuan":        {alpha: true},
	"jetmoe":         {head: 128},
	"ministral3":     {head: 128, base: 1e6, params: `{"rope_type": "yarn", "rope_theta": 1000000, "factor": 16, "original_max_position_embeddings": 16384, "beta_fast": 32, "beta_slow": 1, "mscale_all_dim": 1, "mscale": 1}`},
	"mixtral":        {base: 1e6, hidden: 4096, heads: 32},
	"nanochat":       {reverse: true},
	"nomic_bert":     {always: true, base: 1000, dynamic: true},
	"openelm":        {head: 128},
	"qwen2_vl":       {base: 1e6},
	"qwen3":          {head: 128},
	"qwen3_vl":       {base: 5e5, head: 128, dealt: true},
	"qwen3_omni_moe": {base: 1e6, head: 128, dealt: true},
	"bitnet":         {base: 5e5},

	// Part of a head.
	"bailing_moe_v2": {fraction: 0.5},
	"bamba":          {fraction: 0.5},
	"glm4_moe":       {fraction: 0.5},
	"gpt_neox":       {fraction: 0.25},
	"minimax_m2":     {base: 5e6, head: 128},
	"minimax_m3_vl":  {base: 5e6, head: 128, rotary: 64},
	"nemotron":       {fraction: 0.5},
	"persimmon":      {fraction: 0.5},
	"phi":            {fraction: 0.5},
	"stablelm":       {fraction: 0.25, split: true},

	// Pairs (2i, 2i+1).
	"chatglm":   {layout: Interleaved, fraction: 0.5, head: 128, ratio: true},
	"codegen":   {layout: Interleaved, rotary: 64},
	"cohere":    {layout: Interleaved, base: 5e5, older: 1e4},
	"ernie4_5":  {layout: Interleaved, base: 5e5},
	"glm":       {layout: Interleaved, fraction: 0.5, head: 128},
	"glm4v":     {layout: Interleaved},
	"gptj":      {layout: Interleaved, rotary: 64},
	"helium":    {layout: Interleaved, base: 1e5, head: 128},
	"moonshine": {layout: Interleaved, fraction: 0.9},
	"roformer":  {layout: Interleaved},

	// Latent attention.
	"deepseek_v2":   {layout: Interleaved, rope: 64},
	"mistral4":      {layout: Interleaved, rope: 64, params: `{"rope_type": "yarn", "factor": 128, "original_max_position_embeddings": 8192, "beta_fast": 32, "beta_slow": 1, "mscale_all_dim": 1, "mscale": 1}`},
	"longcat_flash": {layout: Interleaved, rope: 64, base: 1e7},
	"minicpm3":      {rope: 32},
	"kimi_linear":   {layout: Interleaved, rope: 64},

	// Layers that differ.
	"afmoe":              {layers: slidingOnly, full: every(4), head: 128},
	"bailing_moe_linear": {layers: linearRotates, fraction: 0.5},
	"bailing_hybrid":     {layers: linearRotates, layout: Interleaved, rope: 64, fraction: 0.5, head: 128, full: every(8), rest: linearLayer},
	"cohere2_moe":        {layers: slidingOnly, layout: Interleaved, head: 128, full: every(4), window: true, prefix: true},
	"cohere2":            {layers: slidingOnly, layout: Interleaved, full: every(4), window: true},
	"deepseek_v4":        {layers: compressed, layout: Interleaved, head: 512, rotary: 64, local: 160000},
	"exaone4":            {layers: slidingRotates, full: every(4)},
	"gemma2":             {head: 256, full: every(2)},
	"gemma3":             {layers: localBase, base: 1e6, local: 1e4, head: 256, full: every(6)},
	"gemma3n":            {layers: localBase, base: 1e6, local: 1e4, head: 256, full: every(5)},
	"gemma4": {head: 256, global: 512, full: every(6), lastFull: true, params: `{"sliding_attention": {"rope_type": "default", "rope_theta": 10000},
		"full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000}}`},
	"laguna": {head: 128, full: every(1), params: `{"full_attention": {"rope_type": "default", "rope_theta": 500000, "partial_rotary_factor": 0.5},
		"sliding_attention": {"rope_type": "default", "rope_theta": 10000, "partial_rotary_factor": 1}}`},
	"lfm2":   {base: 1e6},
	"llama4": {layers: someRotate, layout: Interleaved, base: 5e5, head: 128},
	"mellum": {head: 128, full: every(1), params: `{"full_attention": {"rope_type": "default", "rope_theta": 500000}, "sliding_attention": {"rope_type": "default", "rope_theta": 10000}}`},
	"zaya": {head: 128, full: every(0), rest: "hybrid", params: `{"hybrid": {"rope_type": "default", "rope_theta": 5000000, "partial_rotary_factor": 0.5},
		"hybrid_sliding": {"rope_type": "default", "rope_theta": 10000, "partial_rotary_factor": 0.5}}`},
	"mimo_v2":         {layers: localBase, base: 5e6, local: 1e4, fraction: 0.334, head: 192, full: firstAndEvery(6)},
	"minimax":         {base: 1e6, rest: linearLayer, full: leading(2)},
	"mllama":          {base: 5e5},
	"modernbert":      {always: true, layers: localBase, base: 160000, local: 1e4, full: leading(3), scaled: true},
	"olmo_hybrid":     {full: every(4), rest: linearLayer},
	"olmo3":           {layers: fullScaled, base: 5e5, older: 1e4, full: every(4)},
	"qwen3_next":      {fraction: 0.25, head: 256, full: every(4), rest: linearLayer, dealt: true},
	"recurrent_gemma": {fraction: 0.5},
	"solar_open":      {base: 1e6, head: 128},
	"smollm3":         {layers: someRotate, base: 2e6},
	"step3p5":         {head: 128},

	// Models that need not rotate, and models that do not.
	"esm":              {encoding: Absolute},
	"granitemoehybrid": {encoding: NoPositions},
	"jais":             {encoding: Absolute},
	"mpt":              {encoding: ALiBi},
	"zamba2":           {optional: true},
	"bloom":            {encoding: ALiBi},
	"bert":             {encoding: Absolute},
	"t5":               {encoding: Relative},
	"mamba":            {encoding: NoPositions},
}

// sameModels are the model types that are read like another one.
var sameModels = func() map[string]string {
	m := map[string]string{}
	for like, names := range map[string]string{
		"llama": `aquila arcee arctic aria audioflamingo3 baichuan bailing_moe blip-2 chameleon deepseek deepseek_vl deepseek_vl_hybrid diffllama doge
			dots1 exaone falcon falcon_h1 flex_olmo glmasr got_ocr2 gpt_neox_japanese granite granite_speech granitemoe
			granitemoeshared hyperclovax idefics2 idefics3 instructblip internlm internlm2 internlm3 internvl internvl_chat jais2 janus
			llava llava_next llava_next_video llava_onevision mimo minicpm ministral mistral mistral3 moshi musicflamingo nemotron-nas
			olmo olmo2 olmoe orion ovis2 pixtral qwen qwen2 qwen2_audio qwen2_moe qwen3_moe RefinedWeb RefinedWebModel smolvlm solar starcoder2
			ultravox video_llava vipllava voxtral xverse yi Yi`,
		"phi":            "phi-msft",
		"phi3":           "phi3_v phi4mm phi4_multimodal",
		"gemma":          "paligemma",
		"gemma2":         "vaultgemma",
		"gemma3":         "shieldgemma2",
		"qwen2_vl":       "qwen2_5_vl qwen2_5_omni qwen2_5_omni_thinker",
		"qwen3":          "seed_oss",
		"qwen3_next":     "qwen3_5 qwen3_5_moe",
		"qwen3_omni_moe": "qwen3_omni_moe_thinker",
		"qwen3_vl":       "qwen3_vl_moe",
		"glm":            "glm4",
		"glm4v":          "glm_ocr",
		"glm4_moe":       "glm4v_moe",
		"deepseek_v2": `deepseek_v3 deepseek_v32 deepseek_vl_v2 deepseek_ocr glm4_moe_lite glm_moe_dsa kimi_k2 kimi_k25 kimi_vl youtu
			youtu_llm`,
		"kimi_linear":   "kimi_k3",
		"longcat_flash": "longcat_flash_ngram",
		"ernie4_5":      "ernie4_5_moe",
		"cohere2":       "aya_vision cohere2_vision",
		"stablelm":      "stablelm_epoch",
		"persimmon":     "fuyu",
		"hunyuan":       "hunyuan_v1_dense hunyuan_v1_moe",
		"mimo_v2":       "mimo_v2_flash",
		"minimax":       "minimax_text_01 minimax_m1",
		"lfm2":          "lfm2_moe lfm2_vl",
		"step3p5":       "step3p7",
		"exaone4":       "exaone_moe exaone4_5",
		"modernbert":    "modernbert-decoder",
		"mamba":         "mamba2 falcon_mamba jamba nemotron_h rwkv xlstm zamba",
		"t5":            "deberta deberta-v2 longt5 mpnet mt5 pop2piano switch_transformers udop umt5 xlnet",
		"bert": `albert align altclip audio-spectrogram-transformer bart beit big_bird bigbird_pegasus biogpt blenderbot blenderbot-small blip
			bridgetower camembert canine clap clip clip_vision_model clipseg convbert ctrl data2vec-text deit dinov2 distilbert electra
			ernie flaubert fnet funnel git gpt2 gpt_bigcode gpt_neo groupvit ibert imagegpt layoutlm layoutlmv3 led longformer luke m2m_100
			marian markuplm mbart megatron-bert mobilebert musicgen mvp nllb-moe openai-gpt opt pegasus plbart prophetnet rembert roberta
			roberta-prelayernorm roc_bert siglip siglip2 speech_to_text splinter squeezebert tapas trocr vilt visual_bert vit vit_mae
			whisper xglm xlm xlm-roberta xlm-roberta-xl xmod yolos yoso`,
	} {
		for _, name := range strings.Fields(names) {
			m[name] = like
		}
	}
	return m
}()
