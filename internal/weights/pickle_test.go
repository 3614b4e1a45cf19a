package weights

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

// TestPickle reads every opcode of protocols 2 to 5.
func TestPickle(t *testing.T) {
	items := func(kv ...any) *dict {
		d := &dict{items: map[string]any{}}
		for i := 0; i < len(kv); i += 2 {
			d.items[kv[i].(string)] = kv[i+1]
		}
		return d
	}
	for text, want := range map[string]any{
		"N":                 nil,
		"\x88":              true,
		"\x89":              false,
		"\x80\x02K\xff":     int64(255),
		"\x80\x05M\x01\xff": int64(0xff01),
		"J\xfe\xff\xff\xff": int64(-2),
		"\x8a\x00":          int64(0),
		"\x8a\x01\xff":      int64(-1),
		"\x8a\x02\xff\x00":  int64(255),
		"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80":     int64(-1 << 63),
		"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01": opaque("int"),
		"\x8b\x02\x00\x00\x00\x01\x02":                 int64(513),
		"G\x3f\xf0\x00\x00\x00\x00\x00\x00":            opaque("float"),
		"\x95\x01\x00\x00\x00\x00\x00\x00\x00N":        nil,
		"X\x02\x00\x00\x00ab":                          "ab",
		"\x8c\x02ab":                                   "ab",
		"\x8d\x02\x00\x00\x00\x00\x00\x00\x00ab":       "ab",
		"T\x02\x00\x00\x00ab":                          "ab",
		"U\x02ab":                                      "ab",
		"C\x02ab":                                      opaque("bytes"),
		"B\x02\x00\x00\x00ab":                          opaque("bytes"),
		"\x8e\x02\x00\x00\x00\x00\x00\x00\x00ab":       opaque("bytes"),
		"\x96\x02\x00\x00\x00\x00\x00\x00\x00ab":       opaque("bytes"),
		"K\x01K\x020":                                  int64(1),
		"K\x01(0":                                      int64(1),
		"K\x01(K\x02K\x031":                            int64(1),
		"K\x012\x86":                                   tuple{int64(1), int64(1)},
		"K\x01q\x070h\x07":                             int64(1),
		"K\x01r\x07\x00\x01\x000j\x07\x00\x01\x00":     int64(1),
		"K\x01\x94K\x02\x9400h\x01h\x00\x86":           tuple{int64(2), int64(1)},
		"}":                                            &dict{},
		"}U\x01aK\x01s":                                items("a", int64(1)),
		"}(U\x01aK\x01U\x01bNK\x05NU\x01aK\x02u":       items("a", int64(2), "b", nil),
		"]":                                            opaque("list"),
		"]K\x01a":                                      opaque("list"),
		"](K\x01Ne":                                    opaque("list"),
		"\x8f(K\x01N\x90":                              opaque("set"),
		"(K\x01N\x91":                                  opaque("frozenset"),
		")":                                            tuple(nil),
		"K\x01\x85":                                    tuple{int64(1)},
		"K\x01K\x02\x86":                               tuple{int64(1), int64(2)},
		"K\x01K\x02K\x03\x87":                          tuple{int64(1), int64(2), int64(3)},
		"K\x01(K\x02Nt\x86":                            tuple{int64(1), tuple{int64(2), nil}},
		"cos\nsystem\n":                                global("os.system"),
		"U\x02osU\x06system\x93":                       global("os.system"),
		"cos\nsystem\n(U\x05falsetR":                   opaque("os.system"),
		"cos\nsystem\n(U\x05falsetR)R":                 opaque("object"),
		"chistory\nDeque\n)\x81(K\x01e}b":              opaque("history.Deque"),
		"cmodule\nClass\n)}\x92U\x01aNs":               opaque("module.Class"),
		"ccollections\nOrderedDict\n)RU\x01aNs":        items("a", nil),
		"ccollections\nOrderedDict\n)\x81}U\x01aNsb":   &dict{},
		"ccollections\nOrderedDict\n]\x85R":            opaque("collections.OrderedDict"),
		"(U\x07storagectorch\nHalfStorage\nU\x01kU\x03cpuK\x04tQ":                                                            &storage{"F16", "k", 4},
		"ctorch._utils\n_rebuild_parameter\nN\x88N\x87R":                                                                     nil,
		"ctorch._utils\n_rebuild_parameter_with_state\n(K\x01\x88NNtR":                                                       int64(1),
		"ctorch._utils\n_rebuild_parameter\n)R":                                                                              opaque("torch._utils._rebuild_parameter"),
		"ctorch._utils\n_rebuild_tensor\n((U\x07storagectorch\nLongStorage\nU\x01kNK\x04tQK\x01K\x02\x85K\x01\x85tR":         &view{storage: &storage{"I64", "k", 4}, kind: "I64", offset: 1, shape: tuple{int64(2)}, strides: tuple{int64(1)}},
		"ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nLongStorage\nU\x01kNK\x04tQK\x01K\x02\x85K\x01\x85\x89NtR": &view{storage: &storage{"I64", "k", 4}, kind: "I64", offset: 1, shape: tuple{int64(2)}, strides: tuple{int64(1)}},
		"ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nLongStorage\nU\x01kNK\x04tQK\x01))\x89N}U\x03neg\x88stR":   &view{storage: &storage{"I64", "k", 4}, kind: "I64", offset: 1, negated: true},
		"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_parameter\ncm\nC\nK\x07\x88N\x87}tR":                int64(7),
		"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_qtensor\ncm\nC\n)}tR":                               opaque("m.C"),
		"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._tensor\n_rebuild_from_type_v2\ncm\nC\n)}tR":                         opaque("m.C"),
		"ctorch._utils\n_rebuild_tensor_v3\n((U\x07storagectorch.storage\nUntypedStorage\nU\x01kNK\x04tQK\x01))\x89Nctorch\nuint16\ntR": &view{
			storage: &storage{untyped, "k", 4}, kind: "U16", offset: 1},
	} {
		if got, err := unpickle([]byte(text + ".")); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %#v, error %v, want %#v", text, got, err, want)
		}
		// Whatever is cut off, an error says so.
		for n := range len(text) {
			if _, err := unpickle([]byte(text[:n])); !errors.Is(err, ErrFormat) {
				t.Fatalf("%q cut to %d bytes: error %v", text, n, err)
			}
		}
	}
}

func TestRecursivePickle(t *testing.T) {
	got, err := unpickle([]byte("}q\x00U\x01ah\x00s."))
	if d, ok := got.(*dict); err != nil || !ok || d.items["a"] != d {
		t.Errorf("a dictionary in itself: %T, error %v", got, err)
	}
	if got, err := unpickle([]byte("]q\x00h\x00a.")); err != nil || got != opaque("list") {
		t.Errorf("a list in itself: %v, error %v", got, err)
	}
}

func TestHostilePickle(t *testing.T) {
	for text, want := range map[string]string{
		"":                                       "asks for 1 bytes where 0 are left",
		".":                                      "takes a value where there is none",
		"N":                                      "asks for 1 bytes where 0 are left",
		"\x80\x01N.":                             "pickle protocol 1, want 2 to 5",
		"\x80\x06N.":                             "pickle protocol 6, want 2 to 5",
		"I1\n.":                                  "pickle opcode 0x49 is not one of protocols 2 to 5 (byte 0 of data.pkl)",
		"N\x82\x01.":                             "pickle opcode 0x82 is not one of protocols 2 to 5 (byte 1 of data.pkl)",
		"X\xff\xff\xff\xffab":                    "asks for 4294967295 bytes where 2 are left",
		"\x8d\xff\xff\xff\xff\xff\xff\xff\xffab": "asks for 18446744073709551615 bytes where 2 are left",
		"\x8b\xff\xff\xff\xff.":                  "asks for 4294967295 bytes",
		"\x95\x01.":                              "asks for 8 bytes where 2 are left",
		"h\x00.":                                 "recalls value 0",
		"q\x00.":                                 "takes a value where there is none",
		"t.":                                     "without a mark",
		"1.":                                     "without a mark",
		"K\x01(\x85.":                            "takes a value where there is none",
		"N(.":                                    "takes a value where there is none",
		"}(NNNu.":                                "a key without a value",
		"N(NNu.":                                 "items of a <nil>",
		")Na.":                                   "items of a weights.tuple",
		"cos\nsystem":                            "ends within a name",
		"cos":                                    "ends within a name",
		"NN\x93.":                                "a global whose name is not a string",
		"cos\nsystem\nNR.":                       "a call whose arguments are not a tuple",
		"U\x01aU\xff" + strings.Repeat("b", 255) + "q\x00q\x01" + strings.Repeat("h\x00h\x01\x93", 3000) + ".": "names",
		"NQ.": "a persistent id that is not of a storage",
		"(U\x07storagectorch\nHalfStorage\nU\x01kU\x03cpuJ\xff\xff\xff\xfftQ.": "a persistent id that is not of a storage",
		"((NU\x01kNNNtQ.":                               "a persistent id that is not of a storage",
		"ctorch._utils\n_rebuild_tensor_v2\n)R.":        "torch._utils._rebuild_tensor_v2 of 0 arguments, want 6",
		"ctorch._utils\n_rebuild_tensor_v2\n(NNNNNNtR.": "torch._utils._rebuild_tensor_v2 of wrong arguments",
		"ctorch._utils\n_rebuild_tensor_v3\n((U\x07storagectorch\nHalfStorage\nU\x01kNK\x01tQK\x00))NNNtR.":        "_v3 without a dtype",
		"ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nHalfStorage\nU\x01kNK\x01tQK\x00)K\x01\x85NNtR.": "of wrong arguments",
		"ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nHalfStorage\nU\x01kNK\x01tQK\x00N\x85N\x85NNtR.": "of wrong arguments",
		strings.Repeat("(", maxMarks+1):     "nested deeper than 1000",
		strings.Repeat("N", maxStack+1):     "stacks more than 1048576 values",
		"N" + strings.Repeat("2", maxStack): "stacks more than 1048576 values",
	} {
		if _, err := unpickle([]byte(text)); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.50q: error %v, want %s", text, err, want)
		}
	}
	if testing.Short() {
		t.Skip("bounds of millions of opcodes: left out with -short")
	}
	if _, err := unpickle([]byte(strings.Repeat("N0", maxOpcodes/2+1))); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "opcodes") {
		t.Errorf("error %v", err)
	}
	if _, err := unpickle([]byte("N" + strings.Repeat("\x94", maxMemo+1))); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "remembers") {
		t.Errorf("error %v", err)
	}
}
