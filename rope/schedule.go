package rope

import "math"

// Policy says how a sequence that grows is rotated by a scheme whose frequencies
// depend on its length: dynamic NTK, dynamic YaRN, LongRoPE. A query and a key
// fit together only if both were rotated with the same frequencies.
type Policy uint8

const (
	// Fixed uses the frequencies of Config.Length from the first token to the last.
	// Set it to the longest the sequence may become. Keys are cached rotated.
	Fixed Policy = iota
	// EachStep uses at each step the frequencies of the length so far, as transformers
	// does for a prompt. Keys are cached as they are before rotation, and all of them
	// are rotated at each step.
	EachStep
	// Rerotate uses the same frequencies as EachStep with keys cached rotated: when
	// they change, the cached keys are to be rotated from the old to the new.
	Rerotate
)

// Schedule chooses the rotation at each step of one growing sequence. It is not
// safe for concurrent use.
type Schedule struct {
	cfg     Config
	policy  Policy
	longest int64
	stages  []int64
	now     *Rotation
}

// NewSchedule returns the schedule of a sequence without tokens, or an error that
// matches ErrConfig.
func NewSchedule(cfg Config, policy Policy) (*Schedule, error) {
	if policy > Rerotate {
		return nil, configErrorf("Policy is %d", policy)
	}
	now, err := New(cfg)
	if err != nil {
		return nil, err
	}
	if cfg.Learned != nil { // whose frequencies have no scheme
		policy = Fixed
	}
	s := &Schedule{cfg: now.Config(), policy: policy, now: now}
	s.stages = s.stagesOf(cfg.Length)
	return s, nil
}

// schemes are those of the axes.
func (s *Schedule) schemes() (list []Scheme) {
	if len(s.cfg.Axes) == 0 {
		return append(list, s.cfg.Scheme)
	}
	for _, a := range s.cfg.Axes {
		if a.Scheme == nil {
			a.Scheme = s.cfg.Scheme
		}
		list = append(list, a.Scheme)
	}
	return list
}

func (s *Schedule) stagesOf(length int64) (stages []int64) {
	for _, scheme := range s.schemes() {
		stages = append(stages, scheme.stage(length))
	}
	return stages
}

// Step returns the rotation of a step after which the sequence has length tokens.
// Under Rerotate, from is the rotation that cached keys were rotated by, if it is
// not the same: before anything else is done they are to be brought over by a Call
// of r with From = from and their positions as both. Otherwise from is nil.
//
// A negative length is ErrCall. Frequencies go by the longest length so far; when the sequence is cut back to
// the model's original length or below, they start again from those of that
// length, as in transformers.
func (s *Schedule) Step(length int64) (r, from *Rotation, err error) {
	if length < 0 {
		return nil, nil, callErrorf("length is %d, want 0 or more", length)
	}
	if s.policy == Fixed {
		return s.now, nil, nil
	}
	original := int64(math.MaxInt64)
	for _, scheme := range s.schemes() {
		original = min(original, scheme.original())
	}
	s.longest = max(s.longest, length)
	if length <= original {
		s.longest = length
	}
	changed := false
	for i, scheme := range s.schemes() {
		changed = changed || scheme.stage(s.longest) != s.stages[i]
	}
	if !changed {
		return s.now, nil, nil
	}
	cfg := s.cfg
	cfg.Length = s.longest
	if r, err = New(cfg); err != nil {
		return nil, nil, err
	}
	if s.policy == Rerotate {
		from = s.now
	}
	s.now, s.stages = r, s.stagesOf(s.longest)
	return r, from, nil
}
