package recording

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// shortest is how long a serial number has to be to be looked for in other texts than
// those that are serial numbers: a shorter one may be any word.
const shortest = 4

// worldwide is a name that no other disk has, as ports and kernels write them.
var worldwide = regexp.MustCompile(`(?i)\b(0x|naa\.|eui\.|wwn-0x|3)?[0-9a-f]{16}([0-9a-f]{16})?\b`)

// told is what reasons say of a disk that is not here.
var told = regexp.MustCompile(`(?:serial|WWN) ([^,()]+)`)

// Hash returns entries with each serial number, and each name that only one disk has,
// replaced by a hash: the same by the same where the key is. Of a key that nobody
// knows, nobody can try what it was.
func Hash(entries []Entry, key []byte) ([]Entry, error) {
	b, err := json.Marshal(entries)
	if err != nil {
		return nil, fmt.Errorf("recording: %w", err)
	}

	var tree any

	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber() // some are too large to be anything else

	if err := d.Decode(&tree); err != nil {
		return nil, fmt.Errorf("recording: %w", err)
	}

	h := &hasher{key: key, serials: make(map[string]bool)}
	tree = walk("", tree, h.learn)

	h.sorted = slices.SortedFunc(maps.Keys(h.serials), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b))
	})

	if b, err = json.Marshal(walk("", tree, h.replace)); err != nil {
		return nil, fmt.Errorf("recording: %w", err)
	}

	var hashed []Entry

	return hashed, json.Unmarshal(b, &hashed)
}

// hasher replaces what names one disk.
type hasher struct {
	key     []byte
	serials map[string]bool
	sorted  []string // the longest first, for one may be a part of another
}

// walk returns v with each text replaced by f, which is told the name of its field.
func walk(field string, v any, f func(field, text string) string) any {
	switch v := v.(type) {
	case string:
		return f(field, v)
	case []any:
		for i := range v {
			v[i] = walk(field, v[i], f)
		}

		return v
	case map[string]any:
		walked := make(map[string]any, len(v))
		for name, value := range v {
			walked[f("", name)] = walk(name, value, f)
		}

		return walked
	default:
		return v
	}
}

// learn notes the serial numbers that a text is or has.
func (h *hasher) learn(field, text string) string {
	if field == "Serial" && text != "" {
		h.serials[text] = true
	}

	for _, found := range told.FindAllStringSubmatch(text, -1) {
		h.serials[found[1]] = true
	}

	return text
}

func (h *hasher) replace(field, text string) string {
	if field == "Serial" && text != "" {
		return h.hash(text)
	}

	text = told.ReplaceAllStringFunc(text, func(found string) string {
		word, serial, _ := strings.Cut(found, " ")

		return word + " " + h.hash(serial)
	})

	for _, serial := range h.sorted {
		if len(serial) >= shortest {
			text = replaceWord(text, serial, h.hash(serial))
		}
	}

	return worldwide.ReplaceAllStringFunc(text, h.hash)
}

// hash is what stands for a text.
func (h *hasher) hash(text string) string {
	mac := hmac.New(sha256.New, h.key)
	_, _ = mac.Write([]byte(text)) // it never fails

	return "hash-" + hex.EncodeToString(mac.Sum(nil)[:6])
}

// replaceWord replaces old where it is no part of a longer word.
func replaceWord(text, old, replacement string) string {
	var b strings.Builder

	for {
		i := strings.Index(text, old)
		if i < 0 {
			b.WriteString(text)

			return b.String()
		}

		end := i + len(old)
		if i > 0 && inWord(text[i-1]) || end < len(text) && inWord(text[end]) {
			b.WriteString(text[:end])
		} else {
			b.WriteString(text[:i] + replacement)
		}

		text = text[end:]
	}
}

func inWord(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
