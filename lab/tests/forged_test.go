package tests

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"raid-assembler/internal/golden"
)

// forgery is a disk that says what is not so.
type forgery struct {
	name   string
	of     string // the form of the member that it is made of
	change func(image []byte) []byte
}

// form is where a format keeps what all the rest of its metadata is found by.
type form struct {
	at    func(image []byte) []byte // to the end of what is changed
	magic int                       // words of four bytes that say what it is, and stay
	words int                       // up to where they are changed
	sum   int                       // where the checksum is, in bytes
	seal  func(image []byte)        // makes the checksum right
}

// forms are the formats that healthy members have, by how the names of their golden
// sets begin.
var forms = map[string]form{
	"md12":  {func(b []byte) []byte { return b[4096:] }, 1, 64, 216, sealMD1},
	"md090": {superMD0, 1, 48, 152, sealMD0},
	"imsm":  {func(b []byte) []byte { return b[len(b)-2*512:][:512] }, 8, 128, 32, sealIMSM},
	"ddf":   {func(b []byte) []byte { return b[len(b)-512:] }, 1, 64, 4, sealDDF},
}

// folded sums words as md does, but for the checksum.
func folded(words []byte, sum int) uint32 {
	var total uint64

	for i := 0; i+4 <= len(words); i += 4 {
		if i != sum {
			total += uint64(binary.LittleEndian.Uint32(words[i:]))
		}
	}

	return uint32(total) + uint32(total>>32)
}

func superMD0(image []byte) []byte { return image[len(image)&^0xffff-0x10000:] }

func sealMD1(image []byte) {
	super := image[4096:]
	roles := min(int(binary.LittleEndian.Uint32(super[220:])), 384)
	binary.LittleEndian.PutUint32(super[216:], folded(super[:256+2*roles], 216))
}

func sealMD0(image []byte) {
	super := superMD0(image)[:4096]
	binary.LittleEndian.PutUint32(super[152:], folded(super, 152))
}

// sealIMSM makes the sum right of a record whose blocks lie before its first one.
func sealIMSM(image []byte) {
	first := image[len(image)-2*512:][:512]
	length := int(binary.LittleEndian.Uint32(first[36:]))
	rest := image[len(image)-2*512-min((length-1)/512, 100)*512 : len(image)-2*512]
	record := append(bytes.Clone(first), rest...)

	var total uint32

	for i := 0; i < min(length, len(record))&^3; i += 4 {
		if i != 32 {
			total += binary.LittleEndian.Uint32(record[i:])
		}
	}

	binary.LittleEndian.PutUint32(first[32:], total)
}

func sealDDF(image []byte) {
	anchor := image[len(image)-512:]
	copy(anchor[4:8], "\xff\xff\xff\xff")
	binary.BigEndian.PutUint32(anchor[4:], crc32.ChecksumIEEE(anchor))
}

// forge tells of disks that no sane tool wrote: noise and what was cut off; every
// field at its maximum; members that claim another's place, or were further on; names
// that are something to a shell, a path or a terminal. Their checksums are right.
func forge() []forgery {
	all := []forgery{
		{"noise", "md12", func(image []byte) []byte { return noise(len(image)) }},
		{"truncated", "md12", func(image []byte) []byte { return image[:4096+512] }},
		{"torn", "md12", torn},
	}

	for _, name := range []string{"md12", "md090", "imsm", "ddf"} {
		of := forms[name]

		for i := of.magic; i < of.words; i++ {
			all = append(all, forgery{fmt.Sprintf("%s-word-%d", name, i), name, func(image []byte) []byte {
				copy(of.at(image)[4*i:], "\xff\xff\xff\xff")

				if 4*i != of.sum {
					of.seal(image)
				}

				return image
			}})
		}
	}

	return append(append(all, claimants()...), named()...)
}

// claimants are other devices that say they are of the array, in each of its slots
// and beyond, behind and ahead of its members.
func claimants() []forgery {
	var all []forgery

	for _, role := range []uint16{0, 1, 2, 3, 4, 0xfd00, 0xfffd, 0xfffe} {
		for i, ahead := range []uint64{0, 1, 1000, 1 << 63, ^uint64(0)} {
			all = append(all, forgery{fmt.Sprintf("role-%x-ahead-%x", role, ahead), "md12", func(image []byte) []byte {
				super := image[4096:]
				copy(super[168:184], noise(16)) // of which device it is the superblock
				super[168], super[169] = byte(role), byte(i)
				binary.LittleEndian.PutUint32(super[160:], 5)
				binary.LittleEndian.PutUint16(super[256+2*5:], role)
				binary.LittleEndian.PutUint64(super[200:], binary.LittleEndian.Uint64(super[200:])+ahead)
				sealMD1(image)

				return image
			}})
		}
	}

	return all
}

// ugly are names of arrays that must not get anywhere unescaped.
var ugly = []string{
	"", "/", "..", "../../etc/cron.d/x", "a/b", "-rf", ".hidden", "%s%n%x", "$(reboot)", "`reboot`", "a;reboot",
	"a\nb", "\x1b[2J\x1b]0;x\a", "a\x00b", "\xff\xfe\xfd", "\u202eevil", "a b", "'", "\"", "\\", "md0", "\x7f",
	"01234567890123456789012345678901",
}

// named are lone members of arrays of other names.
func named() []forgery {
	var all []forgery

	for i, name := range ugly {
		all = append(all, forgery{fmt.Sprintf("name-%d", i), "md12", func(image []byte) []byte {
			rename(image, name, byte(i))

			return image
		}})
	}

	return all
}

// rename makes a member one of another array, of another name.
func rename(image []byte, name string, array byte) {
	super := image[4096:]
	clear(super[32:64])
	copy(super[32:64], name)
	copy(super[16:32], noise(16))
	super[16] = array
	sealMD1(image)
}

func noise(n int) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)

	for i := range b {
		b[i] = byte(rng.Uint32())
	}

	return b
}

// torn is a superblock of which only the first sector was written: the roles
// are those of something else.
func torn(image []byte) []byte {
	copy(image[4096+256:4096+512], noise(256))

	return image
}

// members extracts the images of sets into directories of their own, and returns
// their paths by form, and what of the first one is not data.
func members(t *testing.T, names map[string]string) (paths map[string][]string, first map[string][]byte) {
	t.Helper()

	paths, first = make(map[string][]string), make(map[string][]byte)

	for of, name := range names {
		set := golden.Sets(t, name)[0]
		dir := filepath.Join(t.TempDir(), set.Name)

		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}

		paths[of] = set.Extract(t, dir)

		for _, path := range paths[of] {
			if of == "imsm" {
				nameDisks(t, path, "imsm.")
			}
		}

		image, err := os.ReadFile(paths[of][0])
		if err != nil {
			t.Fatal(err)
		}

		// What lies at the end is less than that.
		if of == "imsm" || of == "ddf" {
			clear(image[:len(image)-34<<20])
		}

		first[of] = image
	}

	return paths, first
}
