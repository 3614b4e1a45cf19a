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
