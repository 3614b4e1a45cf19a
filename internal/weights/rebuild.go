package weights

// maxDims is PyTorch's limit.
const maxDims = 64

// storage is a storage that a pickle refers to: count elements of data/key.
type storage struct {
	kind  Type
	key   string
	count int64
}

// view is a tensor of a pickle: elements of a storage, in units of them.
type view struct {
	storage        *storage
	kind           Type
	offset         int64
	shape, strides tuple // of int64
	negated        bool  // the storage has the other sign, or the conjugate
}

// torchTypes are the names of element types in pickles: of a storage's class, and
// of a dtype, which _rebuild_tensor_v3 has instead.
var torchTypes = map[global]Type{
	"torch.DoubleStorage": "F64", "torch.float64": "F64",
	"torch.FloatStorage": "F32", "torch.float32": "F32",
	"torch.HalfStorage": "F16", "torch.float16": "F16",
	"torch.BFloat16Storage": "BF16", "torch.bfloat16": "BF16",
	"torch.LongStorage": "I64", "torch.int64": "I64",
	"torch.IntStorage": "I32", "torch.int32": "I32",
	"torch.ShortStorage": "I16", "torch.int16": "I16",
	"torch.CharStorage": "I8", "torch.int8": "I8",
	"torch.ByteStorage": "U8", "torch.uint8": "U8",
	"torch.BoolStorage": "BOOL", "torch.bool": "BOOL",
	"torch.float8_e4m3fn": "F8_E4M3", "torch.float8_e5m2": "F8_E5M2",
	"torch.uint16": "U16", "torch.uint32": "U32", "torch.uint64": "U64",
	// Bytes, of which a dtype makes elements.
	"torch.storage.UntypedStorage": untyped, "torch.UntypedStorage": untyped,
}

const untyped Type = "untyped"

// elementType returns the type of a name; one that is not known keeps its name,
// and cannot be read.
func elementType(name global) Type {
	if t, ok := torchTypes[name]; ok {
		return t
	}
	return Type(name)
}

// persistent returns the storage of a persistent id, which is
// ("storage", class, key, device, number of elements).
func (m *machine) persistent(id any) any {
	t, ok := id.(tuple)
	if ok && len(t) == 5 && t[0] == "storage" {
		class, ok := t[1].(global)
		key, ok2 := t[2].(string)
		count, ok3 := t[4].(int64)
		if ok && ok2 && ok3 && count >= 0 {
			return &storage{elementType(class), key, count}
		}
	}
	m.fail("a persistent id that is not of a storage")
	return nil
}

// call returns what a call would make. Nothing is called: tensors, parameters and
// ordered dictionaries are built here, and all else is opaque.
func (m *machine) call(f, args any) any {
	a, ok := args.(tuple)
	if !ok {
		m.fail("a call whose arguments are not a tuple")
		return nil
	}
	name, _ := f.(global)
	if (name == "torch._tensor._rebuild_from_type_v2" || name == "torch._tensor._rebuild_from_type") && len(a) == 4 {
		// A subclass of tensors: its function, class, arguments and attributes.
		inner, ok := a[2].(tuple)
		if f, named := a[0].(global); !ok || !named || f == name {
			return instance(a[1])
		}
		if v, _ := m.rebuild(a[0].(global), inner); v != nil {
			return v
		}
		return instance(a[1])
	}
	if v, known := m.rebuild(name, a); known {
		return v
	}
	return instance(f)
}

// rebuild returns what a function makes of its arguments, if it is known.
func (m *machine) rebuild(name global, a tuple) (v any, known bool) {
	switch name {
	case "collections.OrderedDict":
		if len(a) == 0 {
			return &dict{}, true
		}
	case "torch._utils._rebuild_tensor":
		return m.rebuildTensor(name, a, 4), true
	case "torch._utils._rebuild_tensor_v2":
		return m.rebuildTensor(name, a, 6), true
	case "torch._utils._rebuild_tensor_v3":
		return m.rebuildTensor(name, a, 7), true
	case "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state":
		if len(a) > 0 {
			return a[0], true
		}
	}
	return nil, false
}

// instance returns what stands for an object of a class, or a function's result.
func instance(class any) opaque {
	if name, ok := class.(global); ok {
		return opaque(name)
	}
	return "object"
}

// rebuildTensor returns the tensor of a call with n arguments or more: storage, offset,
// shape, strides, requires_grad, hooks, the dtype where n is 7, and flags.
func (m *machine) rebuildTensor(name global, a tuple, n int) any {
	if len(a) < n {
		m.fail("%s of %d arguments, want %d", name, len(a), n)
		return nil
	}
	s, ok := a[0].(*storage)
	offset, ok2 := a[1].(int64)
	shape, ok3 := integers(a[2])
	strides, ok4 := integers(a[3])
	if !ok || !ok2 || !ok3 || !ok4 || len(shape) != len(strides) {
		m.fail("%s of wrong arguments", name)
		return nil
	}
	if len(shape) > maxDims {
		m.fail("a tensor of %d dimensions, want %d at most", len(shape), maxDims)
		return nil
	}
	v := &view{storage: s, kind: s.kind, offset: offset, shape: shape, strides: strides}
	if n == 7 {
		dtype, ok := a[6].(global)
		if !ok {
			m.fail("%s without a dtype", name)
			return nil
		}
		v.kind = elementType(dtype)
	}
	if len(a) > n && n > 4 {
		if flags, ok := a[n].(*dict); ok {
			v.negated = flags.items["neg"] == true || flags.items["conj"] == true
		}
	}
	return v
}

// integers tells whether v is a tuple of integers. It is not copied: a pickle may
// have many tensors of one shape.
func integers(v any) (tuple, bool) {
	t, ok := v.(tuple)
	for _, x := range t {
		if _, is := x.(int64); !is {
			return nil, false
		}
	}
	return t, ok
}

// numbers returns the elements of a tuple of integers.
func (t tuple) numbers() []int64 {
	list := make([]int64, len(t))
	for i, x := range t {
		list[i] = x.(int64)
	}
	return list
}
