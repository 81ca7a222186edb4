package journal

import (
	"strconv"
	"unicode"
	"unicode/utf8"

	"raid-assembler/pkg/raid"
)

// Event is something that happened, to be found in the journal by any of its
// fields.
type Event struct {
	Kind    Kind
	Array   string     // name
	UUID    string     // of the array
	Member  string     // the device, as /dev/sda
	Serial  string     // of the device
	Slot    *raid.Slot // nil if it is about no slot
	Reason  string     // why, in a sentence
	Message string     // what a reader sees; made of the rest if empty
}

// The limits of the values, in bytes of what is sent. They keep a record
// within recordBytes, so that a queue of them can be made in advance.
const (
	messageBytesMax = 1024
	reasonBytesMax  = 1024
	valueBytesMax   = 128

	recordBytes = 3072
)

// appendRecord appends ev as the journal's native protocol has it: a KEY=VALUE
// a line. PRIORITY and MESSAGE come first, where appendLine finds them.
func appendRecord(dst []byte, identifier string, ev Event) []byte {
	dst = append(dst, "PRIORITY="...)
	dst = strconv.AppendInt(dst, int64(ev.Kind.Priority), 10)
	dst = append(dst, "\nMESSAGE="...)
	dst = appendMessage(dst, ev)
	dst = append(dst, '\n')
	dst = appendField(dst, "MESSAGE_ID", ev.Kind.ID, valueBytesMax)
	dst = appendField(dst, "SYSLOG_IDENTIFIER", identifier, valueBytesMax)
	dst = appendField(dst, "RAID_EVENT", ev.Kind.Name, valueBytesMax)
	dst = appendField(dst, "RAID_ARRAY", ev.Array, valueBytesMax)
	dst = appendField(dst, "RAID_UUID", ev.UUID, valueBytesMax)
	dst = appendField(dst, "RAID_MEMBER", ev.Member, valueBytesMax)
	dst = appendField(dst, "RAID_SERIAL", ev.Serial, valueBytesMax)

	if ev.Slot != nil {
		dst = append(dst, "RAID_SLOT="...)
		dst = strconv.AppendInt(dst, int64(*ev.Slot), 10)
		dst = append(dst, '\n')
	}

	return appendField(dst, "RAID_REASON", ev.Reason, reasonBytesMax)
}

// appendMessage appends the message of ev, or one made of its fields.
func appendMessage(dst []byte, ev Event) []byte {
	if ev.Message != "" {
		return appendEscaped(dst, ev.Message, messageBytesMax)
	}

	dst = append(dst, ev.Kind.Name...)

	for _, part := range [...]struct{ before, value string }{
		{": array ", ev.Array}, {": ", ev.Member}, {": ", ev.Reason},
	} {
		if part.value != "" {
			dst = append(dst, part.before...)
			dst = appendEscaped(dst, part.value, messageBytesMax/4)
		}
	}

	return dst
}

// appendField appends a field, if it has a value.
func appendField(dst []byte, key, value string, limit int) []byte {
	if value == "" {
		return dst
	}

	dst = append(dst, key...)
	dst = append(dst, '=')
	dst = appendEscaped(dst, value, limit)

	return append(dst, '\n')
}

const hexDigits = "0123456789abcdef"

// appendEscaped appends at most limit bytes of s, in which everything that
// does not print is escaped: serials and labels come from disks, and must
// neither forge a field nor steer a terminal. What is cut ends in an ellipsis.
func appendEscaped(dst []byte, s string, limit int) []byte {
	const ellipsis = "…"

	end := len(dst) + limit
	// Where to cut, if need be: the last point that leaves room for the
	// ellipsis.
	cut := len(dst)

	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)

		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(dst, '\\', 'x', hexDigits[s[0]>>4], hexDigits[s[0]&15])
		case unicode.IsPrint(r):
			dst = append(dst, s[:size]...)
		case r < utf8.RuneSelf:
			dst = append(dst, '\\', 'x', hexDigits[r>>4], hexDigits[r&15])
		default:
			dst = append(dst, '\\', 'U')
			for shift := 28; shift >= 0; shift -= 4 {
				dst = append(dst, hexDigits[r>>shift&15])
			}
		}

		if len(dst) > end {
			return append(dst[:cut], ellipsis...)
		}

		if len(dst) <= end-len(ellipsis) {
			cut = len(dst)
		}

		s = s[size:]
	}

	return dst
}
