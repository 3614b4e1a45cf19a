package weights

import (
	"math"
	"testing"
)

// TestKeys: checks name the key, its value and what it may be.
func TestKeys(t *testing.T) {
	k, err := ReadKeys([]byte(`{"n": 3, "half": 0.5, "wide": 1e39, "none": null, "nan": NaN, "yes": true, "act": "gelu", "list": [], "full": [2],
		"layer": {"order": -2, "zero": 0, "deep": {"x": 1}}}`))
	if err != nil {
		t.Fatal(err)
	}
	for want, err := range map[string]error{
		`layer.order is -2, want a whole number from 0 to 2147483647`:   k.Counts("n", "none", "absent", "layer.none", "n.x", "layer.order"),
		`half is 0.5, want a whole number from 0 to 2147483647`:         k.Counts("half"),
		`act is "gelu", want a whole number from 0 to 2147483647`:       k.Counts("act"),
		`wide is 1e+39, want a number from 0 to 3.4028234663852886e+38`: k.Range(0, math.MaxFloat32, "n", "half", "absent", "wide"),
		`nan is NaN, want a number from 0 to 1`:                         k.Range(0, 1, "layer.zero", "nan"),
		`yes is true, and only false is computed`:                       k.Only("yes", false),
		`layer.zero is 0, and only true is computed`:                    k.Only("layer.zero", true),
		`act is "gelu", and only "silu" or "swish" is computed`:         k.Only("act", "silu", "swish"),
		`full is [2], and only [] is computed`:                          k.Only("full", []any{}),
		`layer.deep is {"x":1}, and only 1 is computed`:                 k.Only("layer.deep", 1.0),
		`full is [2], and only "x" is computed`:                         k.Only("full", "x"),
		`n is 3, and only [] is computed`:                               k.Only("n", []any{}),
	} {
		if err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	for i, err := range []error{k.Only("yes", true), k.Only("layer.zero", false), k.Only("n", 3.0), k.Only("list", []any{}), k.Only("none", 1.0),
		k.Only("layer.deep.x", 1.0), k.Only("layer.order.x", 1.0), k.Only("act", "x", "gelu"), k.Range(-5, 0, "layer.order")} {
		if err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	if k.Given("none") || k.Given("layer.none") || !k.Given("layer.zero") {
		t.Error("Given")
	}
	if _, err := ReadKeys([]byte(`[]`)); err == nil {
		t.Error("a list is no configuration")
	}
}
