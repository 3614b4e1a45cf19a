package attention

import (
	"strings"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// Uses is a set of options of a Call, for operators to say which of them they honour.
type Uses uint32

// The options of a Call beside Dst, Q, K, V, Options and Workers.
const (
	UsesState Uses = 1 << iota // State or States
	UsesTree
	UsesOffsets
	UsesKOffsets
	UsesQueryPos
	UsesKeyPos
	UsesLogWeights
	UsesBias
	UsesMask
	UsesVisible
	UsesExtra
	UsesPartial
	UsesLSE
	UsesMass
	UsesEntropy
	UsesStats
	UsesSelect
	UsesWeights
	UsesRead
)

var useNames = [...]string{"State", "Tree", "Offsets", "KOffsets", "QueryPos", "KeyPos", "LogWeights", "Bias", "Mask", "Visible", "Extra", "Partial", "LSE", "Mass", "Entropy", "Stats", "Select", "Weights", "Read"}

// String returns the names of the options, with commas between them.
func (u Uses) String() string {
	var list []string
	for i, name := range useNames {
		if u>>i&1 == 1 {
			list = append(list, name)
		}
	}
	return strings.Join(list, ", ")
}

// Uses returns the options that are set in the call.
func (c *Call) Uses() (u Uses) {
	for i, set := range [len(useNames)]bool{
		c.State != nil || c.States != nil, c.Tree != nil, c.Offsets != nil, c.KOffsets != nil, c.QueryPos != nil, c.KeyPos != nil,
		mat.Given(c.LogWeights), c.Bias != nil, c.Mask != nil, c.Visible != nil, len(c.Extra) > 0, c.Partial,
		mat.Given(c.LSE), mat.Given(c.Mass), mat.Given(c.Entropy), c.Stats != nil, c.Select != nil, c.Weights != nil, c.Read != nil,
	} {
		if set {
			u |= 1 << i
		}
	}
	return u
}

// Honor returns an error that matches ErrCall, in the name of a package, where the
// call uses an option that is not in can, or Workers is out of range. Operators begin
// with it.
func (c *Call) Honor(pkg string, can Uses) error {
	if more := c.Uses() &^ can; more != 0 {
		return check.Errorf(ErrCall, "%s: the call has %v, which this operator cannot honour", pkg, more)
	}
	return check.Workers(ErrCall, pkg, c.Workers)
}

// One returns an error that matches ErrShape, in the name of a package, unless the
// call's keys and values are one matrix each, which most operators take them as.
func (c *Call) One(pkg string) error {
	if len(c.K) != 1 || len(c.V) != 1 {
		return check.Errorf(ErrShape, "%s: K has %d segments and V %d, want one each", pkg, len(c.K), len(c.V))
	}
	return nil
}
