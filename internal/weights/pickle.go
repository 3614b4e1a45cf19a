package weights

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Bounds on what a pickle may ask for. Those of PyTorch stay far below: a model of
// a thousand tensors takes some 40,000 opcodes, and nesting is that of the data.
const (
	maxOpcodes = 1 << 23
	maxStack   = 1 << 20
	maxMemo    = 1 << 22
	maxMarks   = 1000
	// maxJoined bounds the bytes of all names that are joined of two strings: of a
	// thousand classes, some 50,000.
	maxJoined = 1 << 20
)

// The values of a pickle, beside nil, bool, int64 and string.
type (
	// dict has the items whose keys are strings.
	dict struct{ items map[string]any }
	// tuple is a tuple's elements.
	tuple []any
	// global is a name of a Python module, "torch.FloatStorage". It is a name only:
	// nothing is imported.
	global string
	// opaque stands for anything else, by what it is an instance of. What is put
	// into it is dropped.
	opaque string
)

// machine reads a pickle: the stack machine of Python's pickletools, for the
// opcodes of protocols 2 to 5, with the calls of rebuild.go and no others.
type machine struct {
	text  []byte // what is left of the pickle
	stack []any
	marks []int // lengths of the stack at MARKs
	memo  memo
	// joined is how many bytes of names have been made.
	joined int
	err    error // the first error
}

// memo is what a pickle remembers: most pickles number it one after the other.
type memo struct {
	dense  []any
	sparse map[uint64]any
}

// unpickle returns the object of a pickle.
func unpickle(text []byte) (any, error) {
	m := &machine{text: text}
	for range maxOpcodes {
		at := len(text) - len(m.text)
		op := byte(m.uint(1))
		if op == '.' && m.err == nil { // STOP
			v := m.pop()
			return v, m.err
		}
		if m.err == nil {
			m.step(op)
		}
		if m.err != nil {
			return nil, fmt.Errorf("%w (byte %d of data.pkl)", m.err, at)
		}
	}
	return nil, formatError("a pickle of more than %d opcodes", maxOpcodes)
}

func (m *machine) fail(format string, args ...any) {
	if m.err == nil {
		m.err = formatError(format, args...)
	}
}

func (m *machine) step(op byte) {
	switch op {
	case 0x80: // PROTO
		if v := m.uint(1); v < 2 || v > 5 {
			m.fail("pickle protocol %d, want 2 to 5", v)
		}
	case 0x95: // FRAME
		m.take(8)
	case 'N': // NONE
		m.push(nil)
	case 0x88, 0x89: // NEWTRUE, NEWFALSE
		m.push(op == 0x88)
	case 'K': // BININT1
		m.push(int64(m.uint(1)))
	case 'M': // BININT2
		m.push(int64(m.uint(2)))
	case 'J': // BININT
		m.push(int64(int32(m.uint(4))))
	case 0x8a: // LONG1
		m.long(m.uint(1))
	case 0x8b: // LONG4
		m.long(m.uint(4))
	case 'G': // BINFLOAT
		m.take(8)
		m.push(opaque("float"))
	case 0x8c, 'U': // SHORT_BINUNICODE, SHORT_BINSTRING
		m.push(string(m.take(m.uint(1))))
	case 'X', 'T': // BINUNICODE, BINSTRING
		m.push(string(m.take(m.uint(4))))
	case 0x8d: // BINUNICODE8
		m.push(string(m.take(m.uint(8))))
	case 'C': // SHORT_BINBYTES
		m.bytes(1)
	case 'B': // BINBYTES
		m.bytes(4)
	case 0x8e, 0x96: // BINBYTES8, BYTEARRAY8
		m.bytes(8)
	case '(': // MARK
		if len(m.marks) == maxMarks {
			m.fail("a pickle nested deeper than %d", maxMarks)
			return
		}
		m.marks = append(m.marks, len(m.stack))
	case '0': // POP
		if n := len(m.marks); n > 0 && m.marks[n-1] == len(m.stack) {
			m.marks = m.marks[:n-1]
			return
		}
		m.pop()
	case '1': // POP_MARK
		m.popMark()
	case '2': // DUP
		m.push(m.top())
	case 'q': // BINPUT
		m.put(m.uint(1))
	case 'r': // LONG_BINPUT
		m.put(m.uint(4))
	case 0x94: // MEMOIZE
		m.put(uint64(len(m.memo.dense) + len(m.memo.sparse)))
	case 'h': // BINGET
		m.get(m.uint(1))
	case 'j': // LONG_BINGET
		m.get(m.uint(4))
	default:
		m.build(op)
	}
}

// build does the opcodes of containers and objects.
func (m *machine) build(op byte) {
	switch op {
	case '}': // EMPTY_DICT
		m.push(&dict{})
	case ']': // EMPTY_LIST
		m.push(opaque("list"))
	case 0x8f: // EMPTY_SET
		m.push(opaque("set"))
	case 0x91: // FROZENSET
		m.popMark()
		m.push(opaque("frozenset"))
	case 'a': // APPEND
		m.pop()
		m.open()
	case 'e', 0x90: // APPENDS, ADDITEMS
		m.popMark()
		m.open()
	case 's': // SETITEM
		value, key := m.pop(), m.pop()
		m.open().set(key, value)
	case 'u': // SETITEMS
		items := m.popMark()
		if len(items)%2 != 0 {
			m.fail("a key without a value")
			return
		}
		d := m.open()
		for ; len(items) > 0; items = items[2:] {
			d.set(items[0], items[1])
		}
	case ')': // EMPTY_TUPLE
		m.push(tuple(nil))
	case 0x85, 0x86, 0x87: // TUPLE1, TUPLE2, TUPLE3
		t := make(tuple, op-0x84)
		for i := len(t) - 1; i >= 0; i-- {
			t[i] = m.pop()
		}
		m.push(t)
	case 't': // TUPLE
		m.push(append(tuple(nil), m.popMark()...))
	case 'c': // GLOBAL
		module, name := m.line(), m.line()
		m.push(global(module + "." + name))
	case 0x93: // STACK_GLOBAL
		name, ok := m.pop().(string)
		module, ok2 := m.pop().(string)
		if !ok || !ok2 {
			m.fail("a global whose name is not a string")
			return
		}
		if m.joined += len(module) + len(name); m.joined > maxJoined {
			m.fail("a pickle with more than %d bytes of names", maxJoined)
			return
		}
		m.push(global(module + "." + name))
	case 'R', 0x81: // REDUCE, NEWOBJ
		args, f := m.pop(), m.pop()
		m.push(m.call(f, args))
	case 0x92: // NEWOBJ_EX
		m.pop()
		m.pop()
		m.push(instance(m.pop()))
	case 'b': // BUILD: attributes, which no tensor of a state dict is in
		m.pop()
		m.top()
	case 'Q': // BINPERSID
		m.push(m.persistent(m.pop()))
	default:
		m.fail("pickle opcode %#02x is not one of protocols 2 to 5", op)
	}
}

// take reads n bytes.
func (m *machine) take(n uint64) []byte {
	if n > uint64(len(m.text)) {
		m.fail("the pickle asks for %d bytes where %d are left", n, len(m.text))
		return nil
	}
	b := m.text[:n:n]
	m.text = m.text[n:]
	return b
}

// uint reads an unsigned number of n bytes.
func (m *machine) uint(n uint64) uint64 {
	var b [8]byte
	copy(b[:], m.take(n))
	return binary.LittleEndian.Uint64(b[:])
}

// long reads a signed number of n bytes; one that does not fit an int64 is none
// that counts anything.
func (m *machine) long(n uint64) {
	b := m.take(n)
	if len(b) > 8 {
		m.push(opaque("int"))
		return
	}
	var v int64
	for i, c := range b {
		v |= int64(c) << (8 * i)
	}
	if n := len(b); n > 0 {
		shift := 64 - 8*n
		v = v << shift >> shift
	}
	m.push(v)
}

// bytes passes over a byte string whose length has n bytes.
func (m *machine) bytes(n uint64) {
	m.take(m.uint(n))
	m.push(opaque("bytes"))
}

// line reads up to the end of a line.
func (m *machine) line() string {
	line, rest, ok := bytes.Cut(m.text, []byte("\n"))
	if !ok {
		m.fail("the pickle ends within a name")
	}
	m.text = rest
	return string(line)
}

func (m *machine) push(v any) {
	if len(m.stack) == maxStack {
		m.fail("a pickle that stacks more than %d values", maxStack)
		return
	}
	m.stack = append(m.stack, v)
}

// top returns the uppermost value above the last mark.
func (m *machine) top() any {
	floor := 0
	if n := len(m.marks); n > 0 {
		floor = m.marks[n-1]
	}
	if len(m.stack) <= floor {
		m.fail("a pickle that takes a value where there is none")
		return nil
	}
	return m.stack[len(m.stack)-1]
}

func (m *machine) pop() any {
	v := m.top()
	if m.err == nil {
		m.stack = m.stack[:len(m.stack)-1]
	}
	return v
}

// popMark removes the last mark and what is above it, which stays valid until the
// next push.
func (m *machine) popMark() []any {
	n := len(m.marks)
	if n == 0 {
		m.fail("a pickle without a mark")
		return nil
	}
	at := m.marks[n-1]
	values := m.stack[at:]
	m.marks, m.stack = m.marks[:n-1], m.stack[:at]
	return values
}

// open returns the uppermost value to put items into, nil where they are dropped.
func (m *machine) open() *dict {
	switch v := m.top().(type) {
	case *dict:
		return v
	case opaque:
	default:
		m.fail("items of a %T", v)
	}
	return nil
}

func (d *dict) set(key, value any) {
	name, ok := key.(string)
	if d == nil || !ok {
		return
	}
	if d.items == nil {
		d.items = map[string]any{}
	}
	d.items[name] = value
}

func (m *machine) put(at uint64) {
	v := m.top()
	switch n := uint64(len(m.memo.dense)); {
	case n+uint64(len(m.memo.sparse)) >= maxMemo:
		m.fail("a pickle that remembers more than %d values", maxMemo)
	case at < n:
		m.memo.dense[at] = v
	case at == n:
		m.memo.dense = append(m.memo.dense, v)
	default:
		if m.memo.sparse == nil {
			m.memo.sparse = map[uint64]any{}
		}
		m.memo.sparse[at] = v
	}
}

func (m *machine) get(at uint64) {
	if at < uint64(len(m.memo.dense)) {
		m.push(m.memo.dense[at])
		return
	}
	v, ok := m.memo.sparse[at]
	if !ok {
		m.fail("a pickle that recalls value %d, which it has not remembered", at)
	}
	m.push(v)
}
