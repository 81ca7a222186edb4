package tests

import "testing"

// TestShortWrites has a member that ends in the middle of what is written to it,
// as one that shrank does: the kernel writes the first part and says how much that
// was. What it did not take is nobody's to acknowledge: the member is out, and what
// it holds there does not come back when it is as large as before.
func TestShortWrites(t *testing.T) {
	f := newLayered(t)

	f.MustShell(`dmsetup create proof --table "0 24 zero"
dmsetup suspend proof
dmsetup load proof --table "0 12 zero"
dmsetup resume proof
{ dd if=/dev/zero of=/dev/mapper/proof bs=4k count=1 seek=1 oflag=direct 2>&1 || true; } | grep '^2048 bytes'
dmsetup remove proof`)

	// In the middle of a chunk, and of what is written of the member.
	f.relay("0 6024 linear $d 2048")
	f.each(`dd if=/dev/urandom of=/root/$A.new bs=1M count=4 status=none
dd if=/root/$A.new of=/dev/raid/$A bs=1M seek=2 oflag=direct conv=fsync status=none`)
	f.expect("a member that shrank was written across its end", 1)
	f.relay(plainTable)
	f.each("dd if=/dev/raid/$A bs=1M skip=2 count=4 iflag=direct status=none | cmp - /root/$A.new")
	f.each(`raid-assembler remove $A /dev/mapper/$A.1 >/dev/null
raid-assembler add --force $A /dev/mapper/$A.1 >/dev/null`)
	f.awaitAll("healed", whole)
	f.each(`dd if=/dev/raid/$A bs=1M skip=2 count=4 iflag=direct status=none | cmp - /root/$A.new
raid-assembler check --wait $A >/dev/null 2>&1
exercise fill -model $M /dev/raid/$A`)
	f.engineStops()
	f.mdChecks()
}
