package varlink

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Call is one call that a [Handler] serves. It is not safe for concurrent use,
// and over when the handler returns.
type Call struct {
	Method string // with the interface
	Peer   Peer
	More   bool // the caller takes any number of replies

	parameters json.RawMessage
	send       func(reply) error
}

// Parameters decodes the parameters into in, a pointer to a struct. A field
// that cannot be nil must be there: what a method does to all arrays if a name
// is empty, it must not do because the name is missing.
//
// Returns an error that is [ErrInvalidParameter], for the handler to return,
// if a parameter is missing, unknown or of the wrong type.
func (c *Call) Parameters(in any) error {
	text := c.parameters
	if len(text) == 0 {
		text = json.RawMessage("{}")
	}

	var given map[string]json.RawMessage
	if err := json.Unmarshal(text, &given); err != nil {
		return InvalidParameter("parameters")
	}

	for _, name := range required(reflect.TypeOf(in).Elem()) {
		if value := given[name]; len(value) == 0 || string(value) == "null" {
			return InvalidParameter(name)
		}
	}

	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()

	if err := d.Decode(in); err != nil {
		return InvalidParameter(culprit(err))
	}

	return nil
}

// optional are the kinds of fields that say nothing by being nil.
var optional = []reflect.Kind{reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface}

// required returns the names of the fields of the struct t that cannot be nil.
func required(t reflect.Type) []string {
	var names []string

	for _, field := range reflect.VisibleFields(t) {
		name, option, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name != "" && name != "-" && option == "" && !slices.Contains(optional, field.Type.Kind()) {
			names = append(names, name)
		}
	}

	return names
}

// culprit returns the parameter that err is about, as far as it can be told.
func culprit(err error) string {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
		return wrong.Field
	}

	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return strings.Trim(name, `"`)
	}

	return "parameters"
}

// Send sends a reply that is not the last. Returns an error if the caller has
// gone, does not keep up, or has not asked for more than one reply.
func (c *Call) Send(out any) error {
	if !c.More {
		return ErrExpectedMore
	}

	parameters, err := encodeParameters(out)
	if err != nil {
		return fmt.Errorf("varlink: %s: %w", c.Method, err)
	}

	if err := c.send(reply{Parameters: parameters, Continues: true}); err != nil {
		return fmt.Errorf("varlink: %s: %w", c.Method, err)
	}

	return nil
}
