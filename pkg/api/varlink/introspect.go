package varlink

import (
	"context"
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// serviceName is the interface that every varlink service has.
const serviceName = "org.varlink.service"

//go:embed org.varlink.service.varlink
var serviceDescription string

// failed is the error that every interface has, without spaces.
const failed = "errorFailed(reason:string)"

// check holds the description of i against what i serves: callers write
// against the text.
func (i Interface) check() error {
	if names := declared(i.Description, "interface"); !slices.Equal(names, []string{i.Name}) {
		return fmt.Errorf("interface %s is described as %q", i.Name, names)
	}

	methods := declared(i.Description, "method")
	slices.Sort(methods)

	if served := slices.Sorted(maps.Keys(i.Methods)); !slices.Equal(methods, served) {
		return fmt.Errorf("interface %s declares the methods %v and serves %v", i.Name, methods, served)
	}

	for line := range strings.Lines(i.Description) {
		if strings.HasPrefix(strings.Join(strings.Fields(line), ""), failed) {
			return nil
		}
	}

	return fmt.Errorf("interface %s does not declare error Failed (reason: string)", i.Name)
}

// declared returns what the lines of a description name that begin with a word.
func declared(description, word string) (names []string) {
	for line := range strings.Lines(description) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == word {
			name, _, _ := strings.Cut(fields[1], "(")
			names = append(names, name)
		}
	}

	return names
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
