package varlink

import (
	"context"
	_ "embed"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// serviceName is the interface that every varlink service has.
const serviceName = "org.varlink.service"

//go:embed org.varlink.service.varlink
var serviceDescription string

var (
	declaredInterface = regexp.MustCompile(`(?m)^interface[ \t]+(\S+)`)
	declaredMethod    = regexp.MustCompile(`(?m)^method[ \t]+(\w+)`)
	declaredFailed    = regexp.MustCompile(`(?m)^error[ \t]+Failed[ \t]*\([ \t]*reason[ \t]*:[ \t]*string[ \t]*\)`)
)

// check holds the description of i against what i serves: callers write
// against the text.
func (i Interface) check() error {
	name := declaredInterface.FindStringSubmatch(i.Description)
	if name == nil || name[1] != i.Name {
		return fmt.Errorf("interface %s is described as %q", i.Name, name)
	}

	var declared []string
	for _, m := range declaredMethod.FindAllStringSubmatch(i.Description, -1) {
		declared = append(declared, m[1])
	}

	slices.Sort(declared)

	if served := slices.Sorted(maps.Keys(i.Methods)); !slices.Equal(declared, served) {
		return fmt.Errorf("interface %s declares the methods %v and serves %v", i.Name, declared, served)
	}

	if !declaredFailed.MatchString(i.Description) {
		return fmt.Errorf("interface %s does not declare error Failed (reason: string)", i.Name)
	}

	return nil
}

// introspection returns the interface that describes s.
func (s *Server) introspection() Interface {
	return Interface{
		Name:        serviceName,
		Description: serviceDescription,
		Methods: map[string]Method{
			"GetInfo":                 {Access: Read, Handle: s.info},
			"GetInterfaceDescription": {Access: Read, Handle: s.interfaceDescription},
		},
	}
}

func (s *Server) info(_ context.Context, call *Call) (any, error) {
	if err := call.Parameters(&struct{}{}); err != nil {
		return nil, err
	}

	return struct {
		Service

		Interfaces []string `json:"interfaces"`
	}{s.service, slices.Sorted(maps.Keys(s.interfaces))}, nil
}

func (s *Server) interfaceDescription(_ context.Context, call *Call) (any, error) {
	var in struct {
		Interface string `json:"interface"`
	}
	if err := call.Parameters(&in); err != nil {
		return nil, err
	}

	i, ok := s.interfaces[in.Interface]
	if !ok {
		return nil, interfaceNotFound(in.Interface)
	}

	return map[string]string{"description": i.Description}, nil
}

// find returns the method with the full name given.
func (s *Server) find(name string) (Interface, Method, error) {
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 {
		return Interface{}, Method{}, interfaceNotFound(name)
	}

	i, ok := s.interfaces[name[:dot]]
	if !ok {
		return Interface{}, Method{}, interfaceNotFound(name[:dot])
	}

	m, ok := i.Methods[name[dot+1:]]
	if !ok {
		return Interface{}, Method{}, NewError(ErrMethodNotFound.Name, map[string]string{"method": name})
	}

	return i, m, nil
}

func interfaceNotFound(name string) *Error {
	return NewError(ErrInterfaceNotFound.Name, map[string]string{"interface": name})
}
