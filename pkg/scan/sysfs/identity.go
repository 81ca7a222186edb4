package sysfs

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"strings"
)

// A file in sysfs is at most a page long, one of udev's database not much
// longer.
const fileBytesMax = 64 << 10

func readFile(fsys fs.FS, name string) ([]byte, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}

	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}

	b, err := io.ReadAll(io.LimitReader(f, fileBytesMax))

	return b, errors.Join(err, f.Close())
}

// Serial returns the serial number of the device that sysfs calls name, as [Read] finds
// it, or nothing if nobody knows one.
func Serial(t Tree, name string) string {
	if _, whole, _, err := find(t, name); err == nil {
		if text := whole.serial(); text != "" {
			return text
		}
	}

	d, err := Read(t, name)
	if err != nil {
		return ""
	}

	return d.Serial
}

// serial returns the serial number that the whole device has told the kernel: SCSI and
// ATA, NVMe and MMC, virtio, ATA once more.
func (d dir) serial() string {
	page, _ := readFile(d.sys, d.below("device/vpd_pg80").path)
	if text := pageSerial(page); text != "" {
		return text
	}

	return first(d.text("device/serial"), d.text("serial"), wwidSerial(d.wwid()))
}

// wwid is in the device for SCSI and ATA, beside it for NVMe.
func (d dir) wwid() string { return first(d.text("device/wwid"), d.text("wwid")) }

// readIdentity finds out who and where the whole device is. What the kernel
// was told by the device comes first, since it does not depend on the rules of
// a distribution; ID_SERIAL_SHORT of a SCSI disk is a WWN, therefore it comes last.
func (d *Device) readIdentity(whole dir, udev map[string]string) {
	d.Serial = first(whole.serial(), udev["ID_SCSI_SERIAL"], udev["ID_SERIAL_SHORT"])
	d.WWN = first(wwn(whole.wwid()), udev["ID_WWN_WITH_EXTENSION"], udev["ID_WWN"])
	d.Vendor = first(vendor(whole.text("device/vendor")), udev["ID_VENDOR"])
	d.Model = first(whole.text("device/model"), udev["ID_MODEL"])
	d.Location = udev["ID_PATH"]
	d.MultipathMember = udev["DM_MULTIPATH_DEVICE_PATH"] == "1"
}

func first(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}

	return ""
}

// pageSerial returns the serial of SCSI's vital product data page 0x80: four
// bytes of header, of which the last two are the length, and the text.
func pageSerial(page []byte) string {
	const header = 4

	if len(page) < header || page[1] != 0x80 {
		return ""
	}

	text := page[header:]

	return clean(text[:min(len(text), int(binary.BigEndian.Uint16(page[2:])))])
}

// wwidSerial returns the serial that a T10 identifier of an ATA disk ends in,
// after 40 bytes of model.
func wwidSerial(wwid string) string {
	const model = 40

	text, ok := strings.CutPrefix(wwid, "t10.ATA     ")
	if !ok || len(text) <= model {
		return ""
	}

	return strings.TrimSpace(text[model:])
}

// vendor returns the name of a vendor, which the number of a PCI vendor, as
// virtio has it, is not.
func vendor(text string) string {
	if strings.HasPrefix(text, "0x") {
		return ""
	}

	return text
}

// wwn returns the worldwide name that wwid is, in udev's form, or nothing if
// it is of another kind.
func wwn(wwid string) string {
	if digits, ok := strings.CutPrefix(wwid, "naa."); ok {
		return "0x" + digits
	}

	for _, prefix := range []string{"eui.", "uuid.", "nvme."} {
		if strings.HasPrefix(wwid, prefix) {
			return wwid
		}
	}

	return ""
}

// readUdev returns the properties in udev's database of the block device with
// the numbers given, as 8:0. The format is udev's own business, so everything
// that is not understood is left out, and so is the database if there is none.
func readUdev(udev fs.FS, numbers string) map[string]string {
	properties := make(map[string]string)
	if udev == nil {
		return properties
	}

	text, err := readFile(udev, "b"+numbers)
	if err != nil {
		return properties
	}

	for line := range strings.Lines(string(text)) {
		pair, ok := strings.CutPrefix(line, "E:")
		if !ok {
			continue
		}

		if key, value, ok := strings.Cut(pair, "="); ok {
			properties[key] = clean([]byte(value))
		}
	}

	return properties
}

// clean returns text without the blanks and NULs around it, and with ? for
// every byte that is not ASCII or does not print.
func clean(text []byte) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}

		return r
	}, strings.Trim(string(text), " \t\r\n\x00"))
}
