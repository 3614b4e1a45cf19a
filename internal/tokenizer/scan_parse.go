package tokenizer

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// newAlternative reads an alternative of a pattern. ok is false for what it does not know,
// which is for a regular expression to do, and for what may match nothing.
func newAlternative(pattern string) (a alternative, ok bool) {
	if pattern == lookahead {
		return alternative{ahead: true}, true
	}
	p := parser{rest: pattern}
	least := 0
	for p.rest != "" {
		it, ok := p.item()
		if !ok {
			return a, false
		}
		a.items, least = append(a.items, it), least+it.least
	}
	return a, least > 0
}

type parser struct{ rest string }

// item reads a set or words, and how often they are.
func (p *parser) item() (it item, ok bool) {
	if words, found := strings.CutPrefix(p.rest, "(?i:"); found {
		list, rest, closed := strings.Cut(words, ")")
		if !closed || strings.ContainsAny(list, `\[](){}.*+?^$`) {
			return it, false
		}
		it.words, p.rest = strings.Split(list, "|"), rest
	} else if it.set, ok = p.set(); !ok {
		return it, false
	}
	if it.least, it.most, ok = p.times(); !ok {
		return it, false
	}
	return it, it.words == nil || it.most == 1
}

// times reads how often something is.
func (p *parser) times() (least, most int, ok bool) {
	least, most = 1, 1
	if p.rest == "" {
		return least, most, true
	}
	switch p.rest[0] {
	case '?':
		least = 0
	case '+':
		most = -1
	case '*':
		least, most = 0, -1
	case '{':
		inner, rest, closed := strings.Cut(p.rest[1:], "}")
		from, to, two := strings.Cut(inner, ",")
		n, err := strconv.Atoi(from)
		if !closed || err != nil || n < 0 || n > 1000 {
			return 0, 0, false
		}
		least, most = n, n
		if two && to == "" {
			most = -1
		} else if two {
			if most, err = strconv.Atoi(to); err != nil || most < n || most > 1000 {
				return 0, 0, false
			}
		}
		p.rest = "}" + rest
	default:
		return least, most, true
	}
	p.rest = p.rest[1:]
	// Lazy and possessive ones are for others.
	return least, most, p.rest == "" || !strings.ContainsRune("?+*{", rune(p.rest[0]))
}

// set reads a class, an escape or a character.
func (p *parser) set() (*set, bool) {
	s := new(set)
	switch c := p.rest[0]; c {
	case '[':
		return p.class()
	case '\\':
		ok := p.escape(s)
		return s.seal(), ok
	case '(', ')', ']', '{', '}', '.', '^', '$', '*', '+', '?', '|':
		return nil, false
	}
	r, size := utf8.DecodeRuneInString(p.rest)
	p.rest, s.chars = p.rest[size:], []rune{r, r}
	return s.seal(), r != utf8.RuneError
}

// class reads a class in brackets, without others in it.
func (p *parser) class() (*set, bool) {
	s := new(set)
	p.rest = p.rest[1:]
	if rest, found := strings.CutPrefix(p.rest, "^"); found {
		s.not, p.rest = true, rest
	}
	for first := true; ; first = false {
		switch {
		case p.rest == "", strings.HasPrefix(p.rest, "["), strings.HasPrefix(p.rest, "&&"), first && p.rest[0] == ']':
			return nil, false
		case p.rest[0] == ']':
			p.rest = p.rest[1:]
			return s.seal(), true
		case p.rest[0] == '\\':
			if !p.escape(s) {
				return nil, false
			}
			if len(p.rest) > 1 && p.rest[0] == '-' && p.rest[1] != ']' {
				return nil, false // a range that begins with an escape
			}
			continue
		}
		r, size := utf8.DecodeRuneInString(p.rest)
		from, to := r, r
		if p.rest = p.rest[size:]; len(p.rest) > 1 && p.rest[0] == '-' && p.rest[1] != ']' {
			if to, size = utf8.DecodeRuneInString(p.rest[1:]); to == '\\' || to == '[' || to < from {
				return nil, false
			}
			p.rest = p.rest[1+size:]
		}
		if r == utf8.RuneError || to == utf8.RuneError {
			return nil, false
		}
		s.chars = append(s.chars, from, to)
	}
}

// escape reads what a backslash begins into a set.
func (p *parser) escape(s *set) bool {
	if len(p.rest) < 2 {
		return false
	}
	c := p.rest[1]
	p.rest = p.rest[2:]
	one := func(r rune) bool { s.chars = append(s.chars, r, r); return true }
	switch c {
	case 'n':
		return one('\n')
	case 'r':
		return one('\r')
	case 't':
		return one('\t')
	case 's':
		s.space = true
		return true
	case 'S':
		s.sets = append(s.sets, &set{space: true, not: true})
		return true
	case 'd':
		s.tables = append(s.tables, unicode.Nd)
		return true
	case 'w':
		s.tables = append(s.tables, unicode.L, unicode.M, unicode.N, unicode.Pc)
		return true
	case 'p', 'P':
		name, rest, closed := strings.Cut(p.rest, "}")
		table := unicode.Categories[strings.TrimPrefix(name, "{")]
		if table == nil {
			table = unicode.Scripts[strings.TrimPrefix(name, "{")]
		}
		if p.rest = rest; !closed || name == "" || name[0] != '{' || table == nil {
			return false
		}
		if c == 'P' {
			s.sets = append(s.sets, &set{tables: []*unicode.RangeTable{table}, not: true})
		} else {
			s.tables = append(s.tables, table)
		}
		return true
	}
	return c < utf8.RuneSelf && !unicode.IsLetter(rune(c)) && !unicode.IsDigit(rune(c)) && one(rune(c))
}
