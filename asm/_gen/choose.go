package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// choice is a function that chooses among kernels of one signature by a number made
// of its first arguments, in every tier: the storage type, how many rows.
type choice struct {
	name, doc string
	by        string // the parameters to choose by
	key       string // what is made of them
	params    string // those that are passed on, all with their types
	members   []member
}

// member is one kernel to choose.
type member struct {
	key    string // what the choice's key is, of constants; empty for any other
	kernel string
	except string // a last argument that this kernel does not take
}

// chosen are the kernels that only a choice calls.
var chosen = map[string]bool{}

func newChoice(c choice) choice {
	for _, m := range c.members {
		chosen[m.kernel] = true
	}
	return c
}

// types are those of the parameters.
func (c choice) types() (list []string) {
	for _, p := range strings.Split(c.by+", "+c.params, ", ") {
		list = append(list, p[strings.Index(p, " ")+1:])
	}
	return list
}

func (c choice) args(except string) string {
	var list []string
	for _, p := range strings.Split(c.params, ", ") {
		if name, _, _ := strings.Cut(p, " "); name != except {
			list = append(list, name)
		}
	}
	return strings.Join(list, ", ")
}

// choose writes the choice for a port. all are the kernels of the package.
func (d *declarations) choose(b *bytes.Buffer, c choice, ladder []string, all map[string]*declared) {
	fmt.Fprintf(b, "\n// %s\nfunc %sSIMD(tier isa.Tier, %s, %s) {\n", c.doc, c.name, c.by, c.params)
	d.climb(b, ladder, func(tier string) string {
		var body strings.Builder
		other := fmt.Sprintf("default:\npanic(%s)\n", d.kernel("NoKernels"))
		for _, m := range c.members {
			if f := all[m.kernel]; f != nil && slices.Contains(f.tiers, tier) {
				when := "case " + m.key
				if m.key == "" {
					when, other = "default", ""
				}
				fmt.Fprintf(&body, "%s:\n%s%s(%s)\n", when, m.kernel, tier, c.args(m.except))
			}
		}
		if body.Len() == 0 {
			return ""
		}
		return fmt.Sprintf("switch %s {\n%s%s}\n", c.key, body.String(), other)
	})
	b.WriteString("}\n")
}
