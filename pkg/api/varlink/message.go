package varlink

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// MessageBytesMax is the length of the longest message that is read or
// written, without its NUL. A peer that sends more is hung up on.
const MessageBytesMax = 1 << 20

// parametersBytesMax leaves room for what stands around the parameters.
const parametersBytesMax = MessageBytesMax - 4096

// ErrTooLong says that a message exceeds [MessageBytesMax].
var ErrTooLong = errors.New("message is too long")

// request is a call as it is sent.
type request struct {
	Method     string          `json:"method"`
	Parameters json.RawMessage `json:"parameters,omitempty"`
	Oneway     bool            `json:"oneway,omitempty"`
	More       bool            `json:"more,omitempty"`
	Upgrade    bool            `json:"upgrade,omitempty"`
}

// reply is an answer as it is sent.
type reply struct {
	Parameters json.RawMessage `json:"parameters,omitempty"`
	Continues  bool            `json:"continues,omitempty"`
	Error      string          `json:"error,omitempty"`
}

// reader takes a stream apart into messages.
type reader struct {
	r *bufio.Reader
}

func newReader(r io.Reader) reader { return reader{bufio.NewReader(r)} }

// next returns the next message without its NUL. Returns io.EOF between
// messages, io.ErrUnexpectedEOF within one, and an error wrapping [ErrTooLong]
// if the limit is passed; no more than that is held in memory.
func (r reader) next() ([]byte, error) {
	var message []byte

	for {
		part, err := r.r.ReadSlice(0)
		message = append(message, part...)

		switch {
		case err == nil && len(message)-1 <= MessageBytesMax:
			return message[:len(message)-1], nil
		case err == nil || len(message) > MessageBytesMax:
			return nil, fmt.Errorf("more than %d bytes: %w", MessageBytesMax, ErrTooLong)
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(message) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

// parseRequest reads a request.
func parseRequest(message []byte) (request, error) {
	var req request
	if err := json.Unmarshal(message, &req); err != nil {
		return request{}, fmt.Errorf("request: %w", err)
	}

	if req.Method == "" {
		return request{}, errors.New("request without a method")
	}

	return req, nil
}

// encode returns the message that carries v. JSON escapes every NUL, so the
// one at the end is the only one.
func encode(v any) ([]byte, error) {
	message, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}

	if len(message) > MessageBytesMax {
		return nil, fmt.Errorf("%d of %d bytes: %w", len(message), MessageBytesMax, ErrTooLong)
	}

	return append(message, 0), nil
}

// encodeParameters returns v as the object that varlink wants.
func encodeParameters(v any) (json.RawMessage, error) {
	if v == nil {
		return json.RawMessage("{}"), nil
	}

	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("parameters: %w", err)
	}

	if text[0] != '{' {
		return nil, fmt.Errorf("parameters of type %T are not an object", v)
	}

	if len(text) > parametersBytesMax {
		return nil, fmt.Errorf("parameters of %d bytes, want at most %d: %w", len(text), parametersBytesMax, ErrTooLong)
	}

	return text, nil
}
