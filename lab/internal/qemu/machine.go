// Package qemu runs the lab's virtual machine and talks to it: to QEMU over
// QMP, and to the guest over its agent.
//
// There is one machine. Its devices are the same whether it is booted, saved or
// restored, because QEMU restores a state only into the devices it was saved
// from; everything a test adds is hot-plugged afterwards.
package qemu

import (
	"fmt"
	"path/filepath"
	"strconv"
)

// program emulates the guest.
const program = "qemu-system-x86_64"

// File descriptors that QEMU inherits, one socket each.
const (
	fdQMP = 3 + iota
	fdAgent
	fdData
)

// DataPort is where the guest finds the port that carries bulk data.
const DataPort = "/dev/virtio-ports/lab.data"

// consoleLog is the name of the console's log.
const consoleLog = "console.log"

// SCSIBus is where disks are plugged in.
const SCSIBus = "scsi.0"

// Memory is the size of the guest's memory, in MiB.
const Memory = 1024

// Config says what a machine is made of.
type Config struct {
	Dir      string // for the console's log
	Kernel   string
	Initrd   string
	Root     string // qcow2 image of the root disk
	RAM      string // file behind the memory; empty for anonymous memory
	ShareRAM bool   // writes to memory go to RAM
	Incoming bool   // wait for a saved state instead of booting
}

// machineArgs are the arguments that do not depend on a Config. They are part
// of what a saved state depends on.
func machineArgs() []string {
	return []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-S",
		"-machine", "q35,vmport=off,sata=off,smbus=off,i8042=off,memory-backend=ram",
		"-accel", "tcg,thread=multi,tb-size=256",
		"-cpu", "max,-svm", "-smp", "2", "-m", strconv.Itoa(Memory),
		"-device", "virtio-blk-pci,drive=root",
		"-device", "virtio-scsi-pci,id=scsi",
		"-device", "virtio-serial-pci",
		"-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
		"-device", "virtserialport,chardev=data,name=lab.data",
		// A restored guest must not draw the random numbers of its siblings.
		"-device", "vmgenid,guid=auto",
		"-append", "root=/dev/vda rw console=ttyS0 mitigations=off tsc=reliable no_timer_check",
	}
}

// Fingerprint identifies the devices of the machine.
func Fingerprint() string { return fmt.Sprint(machineArgs()) }

func (c Config) args() []string {
	ram := fmt.Sprintf("memory-backend-ram,id=ram,size=%dM", Memory)
	if c.RAM != "" {
		share := "off"
		if c.ShareRAM {
			share = "on"
		}

		ram = fmt.Sprintf("memory-backend-file,id=ram,size=%dM,mem-path=%s,share=%s", Memory, c.RAM, share)
	}

	args := append(machineArgs(),
		"-object", ram,
		"-kernel", c.Kernel, "-initrd", c.Initrd,
		"-drive", "if=none,id=root,format=qcow2,cache=unsafe,discard=unmap,file="+c.Root,
		"-chardev", "file,id=console,append=on,path="+filepath.Join(c.Dir, consoleLog),
		"-serial", "chardev:console",
		"-chardev", fmt.Sprintf("socket,id=qmp,fd=%d", fdQMP), "-mon", "chardev=qmp,mode=control",
		"-chardev", fmt.Sprintf("socket,id=agent,fd=%d", fdAgent),
		"-chardev", fmt.Sprintf("socket,id=data,fd=%d", fdData),
	)
	if c.Incoming {
		args = append(args, "-incoming", "defer")
	}

	return args
}
