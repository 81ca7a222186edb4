package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
	"raid-assembler/pkg/scan"
)

func (p *program) examineVerb() *cobra.Command {
	return &cobra.Command{
		Use:   "examine PATH...",
		Short: "show the RAID metadata on devices or image files",
		Long: `Show what every metadata module finds on devices or image files, and where they
contradict one another. Nothing is changed.

With --json the output is a list with one object for each path: "path",
"problem" (empty, or why it cannot be used), "conflicts" (what contradicts the
superblock), "signatures" (what other programs left: "kind", "offset_bytes",
"detail") and "superblock", which is null or has "format", "array", "device" (UUIDs),
"name", "host", "level", "layout", "chunk_kib", "slots", "component_bytes",
"created", "updated", "events", "number", "role", "roles" (by number),
"data_offset_bytes", "data_size_bytes", "clean", "resync_offset_bytes" and
"recovery_offset_bytes" (null if all is in sync), "bitmap" (null, or "chunk_kib",
"events", "stale"), "ppl" (it has a partial parity log), "bad_blocks" (ranges of
its data, "from_bytes" and "to_bytes"), "write_mostly", "replacement" (it is to
take another's place), "unsupported" and "unreadable" (empty, or why), and "raw":
the fields as they lie on disk, in the words of the format. "others" has further
such superblocks: of other arrays on the device, or what another format says.

Exit status: 0 if each path holds a member; 1 if one does not, or its metadata
cannot be trusted; 4 if one cannot be read.`,
		Args: cobra.MinimumNArgs(1),
		RunE: verb(p.examine),
	}
}

// look is what was found on one device.
type look struct {
	path    string
	source  metadata.Source
	closer  io.Closer
	openErr error
	scan.Result
}

// examineAll looks at each path. What was opened is to be closed by closeAll.
func examineAll(paths []string) []look {
	looks := make([]look, len(paths))

	for i, path := range paths {
		l := look{path: path}

		l.source, l.closer, l.openErr = openSource(path)
		if l.openErr == nil {
			l.Result = scan.Scan(l.source, scan.Formats()...)
		}

		looks[i] = l
	}

	return looks
}

func closeAll(looks []look) {
	for _, l := range looks {
		if l.closer != nil {
			_ = l.closer.Close() // it was only read
		}
	}
}

// problem says why l is not simply a member, or nothing.
func (l look) problem() string {
	switch {
	case l.openErr != nil:
		return l.openErr.Error()
	case l.Err != nil:
		return l.Err.Error()
	case l.Superblock == nil:
		return "no RAID metadata"
	case len(l.Conflicts) > 0:
		return "something else too: " + strings.Join(l.Conflicts, ", ")
	default:
		return ""
	}
}

// code returns the exit code for l alone.
func (l look) code() exitCode {
	switch {
	case l.openErr != nil, l.Err != nil && !errors.Is(l.Err, metadata.ErrCorrupt):
		return exitUnknown
	case l.problem() != "":
		return exitAttention
	default:
		return exitDone
	}
}

func (p *program) examine(_ *cobra.Command, args []string) (exitCode, error) {
	looks := examineAll(args)
	defer closeAll(looks)

	code := exitDone
	reports := make([]examineReport, len(looks))

	for i, l := range looks {
		code = max(code, l.code())
		reports[i] = examineReport{
			Path: l.path, Problem: l.problem(),
			Conflicts: append([]string{}, l.Conflicts...), Signatures: []signatureReport{},
		}

		for _, s := range l.Signatures {
			reports[i].Signatures = append(reports[i].Signatures, signatureReport{s.Kind, s.Offset, s.Detail})
		}

		if l.Superblock != nil {
			reports[i].Superblock = reportOf(l.Superblock)

			for _, other := range slices.Concat(l.Superblock.Others, l.Beside) {
				reports[i].Others = append(reports[i].Others, reportOf(other))
			}
		}
	}

	if p.json {
		return code, printJSON(p.out, reports)
	}

	for _, r := range reports {
		p.printf("%s", r.text())
	}

	return code, nil
}

// examineReport is what examine says of one path.
type examineReport struct {
	Path       string            `json:"path"`
	Problem    string            `json:"problem"`
	Conflicts  []string          `json:"conflicts"`
	Signatures []signatureReport `json:"signatures"`
	Superblock *superblockReport `json:"superblock"`
	// Others are of the further arrays that the device is a member of, and what
	// other formats say that it is.
	Others []*superblockReport `json:"others,omitempty"`
}

type signatureReport struct {
	Kind   string `json:"kind"`
	Offset int64  `json:"offset_bytes"`
	Detail string `json:"detail"`
}

type superblockReport struct {
	Format         string    `json:"format"`
	Array          string    `json:"array"`
	Device         string    `json:"device"`
	Name           string    `json:"name"`
	Host           string    `json:"host"`
	Level          string    `json:"level"`
	Layout         string    `json:"layout"`
	ChunkKiB       int64     `json:"chunk_kib"`
	Slots          int       `json:"slots"`
	ComponentBytes int64     `json:"component_bytes"`
	Created        time.Time `json:"created"`
	Updated        time.Time `json:"updated"`
	Events         uint64    `json:"events"`
	Number         int       `json:"number"`
	Role           string    `json:"role"`
	Roles          []string  `json:"roles"`
	DataOffset     int64     `json:"data_offset_bytes"`
	DataSize       int64     `json:"data_size_bytes"`
	Clean          bool      `json:"clean"`
	ResyncOffset   *int64    `json:"resync_offset_bytes"`
	RecoveryOffset *int64    `json:"recovery_offset_bytes"`
	// What the member keeps beside its data.
	Bitmap      *bitmapReport `json:"bitmap"`
	PPL         bool          `json:"ppl"`
	BadBlocks   []api.Range   `json:"bad_blocks"` // of its data area
	WriteMostly bool          `json:"write_mostly"`
	Replacement bool          `json:"replacement"`
	Unsupported string        `json:"unsupported"`
	Unreadable  string        `json:"unreadable"`
	Raw         any           `json:"raw"`
}

// bitmapReport is what the superblock of a write-intent bitmap says.
type bitmapReport struct {
	ChunkKiB int64  `json:"chunk_kib"`
	Events   uint64 `json:"events"`
	Stale    bool   `json:"stale"`
}

// keeps completes r by what sb says that the member keeps beside its data.
func (r *superblockReport) keeps(sb *metadata.Superblock) {
	r.PPL, r.WriteMostly, r.Replacement = sb.PPL != nil, sb.WriteMostly, sb.Replacement

	if b := sb.Bitmap; b != nil {
		r.Bitmap = &bitmapReport{ChunkKiB: b.Chunk.Bytes() >> 10, Events: b.Events, Stale: b.Stale}
	}

	r.BadBlocks = []api.Range{}
	for _, bad := range sb.BadBlocks {
		r.BadBlocks = append(r.BadBlocks, api.Range{From: bad.From.Bytes(), To: bad.To.Bytes()})
	}
}

func reportOf(sb *metadata.Superblock) *superblockReport {
	r := &superblockReport{
		Format: sb.Format, Array: sb.Array.String(), Device: sb.Device.String(), Name: sb.Name, Host: sb.Host,
		Level: sb.Level.String(), Layout: sb.Layout.Name(sb.Level), ChunkKiB: sb.Chunk.Bytes() >> 10,
		Slots: sb.Disks, ComponentBytes: sb.Size.Bytes(),
		Created: sb.Created, Updated: sb.Updated, Events: sb.Events,
		Number: sb.Number, Role: sb.Role(sb.Number).String(), Roles: []string{},
		DataOffset: sb.DataOffset.Bytes(), DataSize: sb.DataSize.Bytes(),
		Clean: sb.Clean(), ResyncOffset: offsetBytes(sb.ResyncOffset), RecoveryOffset: offsetBytes(sb.RecoveryOffset),
		Unsupported: sb.Unsupported, Unreadable: sb.Unreadable, Raw: sb.Raw,
	}

	r.keeps(sb)

	// The unused numbers at the end say nothing.
	end := len(sb.Roles)
	for end > 0 && sb.Roles[end-1] == raid.RoleSpare && end-1 != sb.Number {
		end--
	}

	for _, role := range sb.Roles[:end] {
		r.Roles = append(r.Roles, role.String())
	}

	return r
}

// offsetBytes returns an offset in bytes, or nil for what stands for
// everything or could not be on any device.
func offsetBytes(s raid.Sectors) *int64 {
	if s >= raid.MaxSectors/raid.SectorSize {
		return nil
	}

	bytes := s.Bytes()

	return &bytes
}

// text draws r for people.
func (r examineReport) text() string {
	var b strings.Builder

	fmt.Fprintf(&b, "%s\n", word(r.Path))

	if r.Problem != "" {
		fmt.Fprintf(&b, "    problem      %s\n", word(r.Problem))
	}

	if r.Superblock != nil {
		r.Superblock.text(&b)
	}

	for _, other := range r.Others {
		other.text(&b)
	}

	for _, s := range r.Signatures {
		fmt.Fprintf(&b, "    also         %s at byte %d", word(s.Kind), s.Offset)

		if s.Detail != "" {
			fmt.Fprintf(&b, ": %s", word(s.Detail))
		}

		fmt.Fprintln(&b)
	}

	return b.String()
}

// dates draws when the metadata was written: not every format tells.
func (r superblockReport) dates(line func(name, format string, args ...any)) {
	if !r.Created.IsZero() {
		line("created", "%s", r.Created.Format(time.RFC3339))
	}

	if !r.Updated.IsZero() {
		line("updated", "%s", r.Updated.Format(time.RFC3339))
	}
}

func (r superblockReport) text(b *strings.Builder) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(b, "    %-12s %s\n", name, word(fmt.Sprintf(format, args...)))
	}

	line("metadata", "%s, %d events", r.Format, r.Events)
	line("array", "%s  %s", r.Name, r.Array)

	if r.Host != "" {
		line("host", "%s", r.Host)
	}

	shape := []string{r.Level}
	if r.Layout != "" {
		shape = append(shape, r.Layout)
	}

	if r.ChunkKiB > 0 {
		shape = append(shape, fmt.Sprintf("%dK chunks", r.ChunkKiB))
	}

	shape = append(shape, count(r.Slots, "slot"))
	if r.ComponentBytes > 0 {
		shape = append(shape, size(r.ComponentBytes)+" of each member")
	}

	line("shape", "%s", strings.Join(shape, ", "))
	line("member", "%s, number %d  %s", r.Role, r.Number, r.Device)
	line("data", "%s at byte %d", size(r.DataSize), r.DataOffset)

	r.dates(line)
	line("state", "%s", r.state())

	if b := r.Bitmap; b != nil {
		stale := ""
		if b.Stale {
			stale = ", stale"
		}

		line("bitmap", "%dK chunks, %d events%s", b.ChunkKiB, b.Events, stale)
	}

	if len(r.BadBlocks) > 0 {
		line("bad blocks", "%s in %s", size(length(r.BadBlocks)), count(len(r.BadBlocks), "place"))
	}

	if notes := r.notes(); notes != "" {
		line("member has", "%s", notes)
	}

	for i, role := range r.Roles {
		// What nobody has says nothing, and some formats have hundreds of numbers.
		if i == r.Number || role != raid.RoleSpare.String() {
			line(fmt.Sprintf("number %d", i), "%s", role)
		}
	}

	if r.Unsupported != "" {
		line("not run", "%s", r.Unsupported)
	}

	if r.Unreadable != "" {
		line("not read", "%s", r.Unreadable)
	}
}

// notes says what else there is to say of the member.
func (r superblockReport) notes() string {
	var notes []string
	if r.PPL {
		notes = append(notes, "partial parity log")
	}

	if r.WriteMostly {
		notes = append(notes, "write-mostly")
	}

	if r.Replacement {
		notes = append(notes, "to replace another in its slot")
	}

	return strings.Join(notes, ", ")
}

func (r superblockReport) state() string {
	state := "clean"

	switch {
	case r.Clean:
	case r.ResyncOffset == nil || *r.ResyncOffset == 0:
		state = "dirty"
	default:
		state = fmt.Sprintf("in sync below %s", size(*r.ResyncOffset))
	}

	if r.RecoveryOffset != nil {
		state += fmt.Sprintf(", this member is recovered below %s", size(*r.RecoveryOffset))
	}

	return state
}
