package qemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
)

// args are the arguments of a command.
type args = map[string]any

// errGone says that QEMU ended before it answered.
var errGone = errors.New("qemu: gone")

// monitor is a QMP connection.
type monitor struct {
	mu   sync.Mutex // one command at a time
	enc  *json.Encoder
	dec  *json.Decoder
	resp chan response // closed with the connection

	subs sync.Mutex
	next int
	subd map[int]chan string
	gone bool
}

type response struct {
	Return json.RawMessage `json:"return"`
	Event  string          `json:"event"`
	ID     int             `json:"id"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

func newMonitor(conn net.Conn) (*monitor, error) {
	m := &monitor{
		enc:  json.NewEncoder(conn),
		dec:  json.NewDecoder(conn),
		resp: make(chan response, 1),
		subd: make(map[int]chan string),
	}

	var greeting struct {
		QMP json.RawMessage `json:"QMP"`
	}
	if err := m.dec.Decode(&greeting); err != nil {
		return nil, fmt.Errorf("no greeting: %w", err)
	}

	go m.read()

	return m, m.execute("qmp_capabilities", nil, nil)
}

func (m *monitor) read() {
	for {
		var r response
		if err := m.dec.Decode(&r); err != nil {
			break
		}

		if r.Event == "" {
			m.resp <- r

			continue
		}

		m.subs.Lock()
		for _, c := range m.subd {
			select {
			case c <- r.Event:
			default: // a subscriber that does not read loses events, not everyone
			}
		}
		m.subs.Unlock()
	}

	close(m.resp)

	m.subs.Lock()
	defer m.subs.Unlock()

	m.gone = true

	for id, c := range m.subd {
		close(c)
		delete(m.subd, id)
	}
}

func (m *monitor) execute(command string, arguments, result any) error {
	m.mu.Lock()
	defer m.mu.Unlock()

	request := args{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}

	if err := m.enc.Encode(request); err != nil {
		return fmt.Errorf("qemu: %s: %w", command, err)
	}

	r, ok := <-m.resp

	switch {
	case !ok:
		return fmt.Errorf("qemu: %s: %w", command, errGone)
	case r.Error != nil:
		return fmt.Errorf("qemu: %s: %s", command, r.Error.Desc)
	case result == nil:
		return nil
	}

	if err := json.Unmarshal(r.Return, result); err != nil {
		return fmt.Errorf("qemu: %s: answer: %w", command, err)
	}

	return nil
}

func (m *monitor) subscribe() (<-chan string, func()) {
	m.subs.Lock()
	defer m.subs.Unlock()

	c := make(chan string, 256)
	if m.gone {
		close(c)

		return c, func() {}
	}

	id := m.next
	m.next++
	m.subd[id] = c

	return c, func() {
		m.subs.Lock()
		defer m.subs.Unlock()
		delete(m.subd, id)
	}
}
