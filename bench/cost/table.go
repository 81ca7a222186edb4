package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
)

// result is a line of the machine: what requests cost one of the two.
type result struct {
	Array    string  `json:"array"`
	Workload string  `json:"workload"`
	By       string  `json:"by"`
	Cost     float64 `json:"cost"`
	Bytes    int     `json:"bytes"`
	Members  struct {
		Reads        float64 `json:"reads"`
		Writes       float64 `json:"writes"`
		BytesRead    float64 `json:"bytes_read"`
		BytesWritten float64 `json:"bytes_written"`
	} `json:"members"`
	Switches  float64 `json:"switches"`
	Preempted float64 `json:"preempted"`
	Faults    float64 `json:"faults"`
	Error     string  `json:"error"`
}

// io is what members did, in short.
func (r result) io() string {
	return fmt.Sprintf("%.2f + %.2f", r.Members.Reads, r.Members.Writes)
}

// bytes is what members moved for each byte of the request.
func (r result) bytes() string {
	return fmt.Sprintf("%.2f + %.2f", r.Members.BytesRead/float64(r.Bytes), r.Members.BytesWritten/float64(r.Bytes))
}

// print puts what md and the engine did side by side, as a table of Markdown.
func print(out io.Writer, results []result) error {
	w := tabwriter.NewWriter(out, 0, 8, 1, ' ', 0)

	fmt.Fprintln(w, "| array\t| request\t| md\t| engine\t| ratio\t| member I/Os of md\t| of engine"+
		"\t| bytes of md\t| of engine\t| switches\t| faults\t|")
	fmt.Fprintln(w, "|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|")

	md := map[[2]string]result{}

	var errs []error

	for _, r := range results {
		key := [2]string{r.Array, r.Workload}

		switch {
		case r.Error != "":
			errs = append(errs, fmt.Errorf("%s: %s", r.Array, r.Error))
		case r.By == "md":
			md[key] = r
		default:
			m := md[key]
			fmt.Fprintf(w, "| %s\t| %s\t| %.1f k\t| %.1f k\t| %.2f\t| %s\t| %s\t| %s\t| %s\t| %.3f + %.3f\t| %.4f\t|\n",
				r.Array, r.Workload, m.Cost/1e3, r.Cost/1e3, r.Cost/m.Cost,
				m.io(), r.io(), m.bytes(), r.bytes(), r.Switches, r.Preempted, r.Faults)
		}
	}

	return errors.Join(w.Flush(), errors.Join(errs...))
}
