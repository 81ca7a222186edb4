// Package varlink speaks the varlink protocol (https://varlink.org) over unix
// sockets: JSON objects, each ended by a NUL. A request names a method and is
// answered by one reply, or, if the caller asks for more, by a stream of them.
//
// It is the mechanism only. The interfaces are described in pkg/api; each
// program serves its own methods. Upgraded connections and passed file
// descriptors are not supported.
package varlink

import (
	"context"
	"encoding/json"
	"fmt"
)

// Service says who serves. It is the answer to GetInfo.
type Service struct {
	Vendor  string `json:"vendor"`
	Product string `json:"product"`
	Version string `json:"version"`
	URL     string `json:"url"`
}

// Interface is a set of methods and their description.
type Interface struct {
	Name string // reverse domain name: io.raidassembler.Engine

	// Description is the text of the interface in varlink's own language. It
	// declares exactly the methods below, and "error Failed (reason: string)",
	// which is what a handler's untyped error becomes.
	Description string

	// Methods are named without the interface.
	Methods map[string]Method
}

// Method is how a method is served.
type Method struct {
	// Access is what the caller must be allowed. The zero value is Change, so
	// that a method is open only if it says so.
	Access Access

	// Handle serves a call; nil answers MethodNotImplemented.
	Handle Handler
}

// Handler serves one call. What it returns is the last reply, or the only one;
// nil stands for no parameters. An error that is, or wraps, an *[Error] is sent
// as it is, any other as the interface's Failed. The context ends when the
// caller hangs up or the server stops.
type Handler func(ctx context.Context, call *Call) (any, error)

// Access is a class of methods.
type Access int

// The classes.
const (
	Change Access = iota // changes something
	Read                 // only tells
)

func (a Access) String() string {
	if a == Read {
		return "read"
	}

	return "change"
}

// Error is an error reply.
type Error struct {
	Name       string          // with the interface: io.raidassembler.Engine.Refused
	Parameters json.RawMessage // an object, or nil
}

// The errors that every service may answer with, for errors.Is.
var (
	ErrInterfaceNotFound    = &Error{Name: serviceName + ".InterfaceNotFound"}
	ErrMethodNotFound       = &Error{Name: serviceName + ".MethodNotFound"}
	ErrMethodNotImplemented = &Error{Name: serviceName + ".MethodNotImplemented"}
	ErrInvalidParameter     = &Error{Name: serviceName + ".InvalidParameter"}
	ErrPermissionDenied     = &Error{Name: serviceName + ".PermissionDenied"}
	ErrExpectedMore         = &Error{Name: serviceName + ".ExpectedMore"}
)

// NewError returns the error reply name with parameters, which must encode to
// a JSON object.
func NewError(name string, parameters any) *Error {
	text, err := json.Marshal(parameters)
	if err != nil {
		panic(fmt.Sprintf("varlink: parameters of %s: %v", name, err))
	}

	return &Error{Name: name, Parameters: text}
}

// InvalidParameter returns the error that names the parameter at fault.
func InvalidParameter(name string) *Error {
	return NewError(ErrInvalidParameter.Name, map[string]string{"parameter": name})
}

// Error returns the name, and what the parameters add to it.
func (e *Error) Error() string {
	if reason := e.Reason(); reason != "" {
		return e.Name + ": " + reason
	}

	if len(e.Parameters) == 0 || string(e.Parameters) == "{}" {
		return e.Name
	}

	return e.Name + ": " + string(e.Parameters)
}

// Reason returns the parameter "reason", or nothing if there is none.
func (e *Error) Reason() string {
	var p reason
	if json.Unmarshal(e.Parameters, &p) != nil {
		return ""
	}

	return p.Reason
}

// Is reports whether target is an error reply of the same name.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)

	return ok && t.Name == e.Name
}

// reason is the parameter of Failed.
type reason struct {
	Reason string `json:"reason"`
}
