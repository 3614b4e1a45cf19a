package golden

// BiasCase is the configuration of a case of rope.bias.
type BiasCase struct {
	C         float64 `json:"c"`
	Threshold float64 `json:"L_threshold"`
	Formula   string  `json:"formula"`
	Source    string  `json:"source"`
}

// FARCase is the configuration of a case of rope.flexrope_far.
type FARCase struct {
	NumFrames      int     `json:"num_frames"`
	TotalFrames    int     `json:"total_frames"`
	Window         int     `json:"short_term_ctx_winsize"`
	ContextFrames  int     `json:"num_context_frames"`
	Channels       int     `json:"channels"`
	Height         int     `json:"height"`
	Width          int     `json:"width"`
	Patch          int     `json:"patch_size"`
	ContextPatch   int     `json:"context_patch_size"`
	TokensPerFrame int     `json:"tokens_per_frame"`
	ContextLen     int     `json:"context_seq_len"`
	Heads          int     `json:"heads"`
	AxesDim        []int   `json:"axes_dim"`
	HeadDim        int     `json:"head_dim"`
	Theta          float64 `json:"theta"`
	Slope          float64 `json:"slope_scale"`
	Scale          string  `json:"scale"`
}

// MambaConfig holds the options of the official modules of Mamba and Mamba-2. Shapes
// are in the weights, and what concerns training or kernels has no meaning here.
type MambaConfig struct {
	DModel         int        `json:"d_model"`
	DState         int        `json:"d_state"`
	DConv          int        `json:"d_conv"`
	ConvInit       any        `json:"conv_init"`
	Expand         float64    `json:"expand"`
	DtRank         any        `json:"dt_rank"`
	DtMin          float64    `json:"dt_min"`
	DtMax          float64    `json:"dt_max"`
	DtInit         any        `json:"dt_init"`
	DtScale        float64    `json:"dt_scale"`
	DtInitFloor    float64    `json:"dt_init_floor"`
	ConvBias       *bool      `json:"conv_bias"`
	Bias           bool       `json:"bias"`
	UseFastPath    *bool      `json:"use_fast_path"`
	UseMemEffPath  *bool      `json:"use_mem_eff_path"`
	LayerIdx       any        `json:"layer_idx"`
	HeadDim        int        `json:"headdim"`
	DSSM           any        `json:"d_ssm"`
	Groups         int        `json:"ngroups"`
	AInitRange     []float64  `json:"A_init_range"`
	DHasHdim       bool       `json:"D_has_hdim"`
	RMSNorm        *bool      `json:"rmsnorm"`
	NormBeforeGate bool       `json:"norm_before_gate"`
	DtLimit        *[]float64 `json:"dt_limit"`
	ChunkSize      int        `json:"chunk_size"`
}
