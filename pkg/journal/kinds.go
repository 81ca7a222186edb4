package journal

import "slices"

// Priority is how much an event matters, in the words of syslog.
type Priority int

// The priorities in use.
const (
	Critical Priority = 2 // data is out of reach: act now
	Error    Priority = 3 // something is out of order: act
	Warning  Priority = 4 // redundancy is less than it was, or may be
	Notice   Priority = 5 // normal, and worth knowing
	Info     Priority = 6
)

// Kind is a kind of event. Each has an entry in systemd/raid-assembler.catalog
// that tells the reader what to do; the two agree, by a test.
type Kind struct {
	Name     string // RAID_EVENT
	ID       string // MESSAGE_ID: 32 hexadecimal digits, for ever the same
	Priority Priority
}

// Kinds returns all kinds, in the order of the table.
func Kinds() []Kind { return slices.Clone(kinds) }

var kinds []Kind

// define puts a kind into the table.
func define(name, id string, priority Priority) Kind {
	k := Kind{Name: name, ID: id, Priority: priority}
	kinds = append(kinds, k)

	return k
}

// The table. New identifiers come from "systemd-id128 new".
var (
	// EngineStarted: the engine serves requests.
	EngineStarted = define("EngineStarted", "37701e0dd1234332a3d70a5785f8d3fc", Info)
	// EngineStopped: the engine has stopped all arrays and ends.
	EngineStopped = define("EngineStopped", "e6de5567f9d64ffdaded4bc642c2fb35", Info)
	// EngineDied: the engine ended without being asked to.
	EngineDied = define("EngineDied", "4c9020d1cc794c7a91476fa2d7ba0970", Critical)
	// EngineAlone: the engine's guardian died, and the engine serves on.
	EngineAlone = define("EngineAlone", "8517aa2da89f4134af001f96257d9f7d", Warning)
	// AssemblerStarted: the assembler listens for devices.
	AssemblerStarted = define("AssemblerStarted", "866b6530a3e948709f9776ff45e6052e", Info)
	// NewDevice: a block device appeared.
	NewDevice = define("NewDevice", "de19c54062874031adc01f60c58a3c92", Info)
	// SuperblockFound: a device carries RAID metadata that was understood.
	SuperblockFound = define("SuperblockFound", "80155c6235714bf5a460f3cf239fc16f", Info)
	// DeviceIgnored: a device carries metadata that is corrupt or not understood, and is left alone.
	DeviceIgnored = define("DeviceIgnored", "3e8d63f261f84632913b6c60561f230c", Notice)
	// DeviceVanished: a block device with metadata went away.
	DeviceVanished = define("DeviceVanished", "6094c6450d8d4b7d969d924e3cba8d82", Warning)
	// ConflictFound: metadata on one device, or on several, contradicts itself.
	ConflictFound = define("ConflictFound", "fe53ec06f98b4db7a3f6f753bdb07ad6", Error)
	// CloneFound: two devices claim to be the same member.
	CloneFound = define("CloneFound", "f8798675885548dc904505495c17f4f9", Error)
	// Decision: the policy decided something, for the reason given.
	Decision = define("Decision", "69f2914691a34977a6e9e415d5addb5d", Info)
	// Waiting: an array lacks members, and is given until its deadline.
	Waiting = define("Waiting", "c0ee93578b52468ea3141f039855a052", Notice)
	// OperatorCommand: somebody asked for a change.
	OperatorCommand = define("OperatorCommand", "35c6d906cf9f453a870c47619b7fef73", Notice)
	// ArrayAssembled: an array runs with all its members.
	ArrayAssembled = define("ArrayAssembled", "f4c0e154521a4c6187f8726662d5e0f6", Notice)
	// ArrayStartedDegraded: an array runs without all its members.
	ArrayStartedDegraded = define("ArrayStartedDegraded", "4a92f29f35a74c4997e7128bf2a55d4f", Warning)
	// ArrayRefused: an array was not started.
	ArrayRefused = define("ArrayRefused", "86b91fabbc7b484fa46eb147a3e31eeb", Error)
	// ArrayStopped: an array was stopped cleanly.
	ArrayStopped = define("ArrayStopped", "a961a86ace7a43f098cc844d1ce5500b", Notice)
	// ArrayBroken: an array lost more members than it survives.
	ArrayBroken = define("ArrayBroken", "9f34d5211aa24adea21ba13c59526536", Critical)
	// MemberFailed: a member was taken out for errors.
	MemberFailed = define("MemberFailed", "9f297cba6b5f47fd93089bb81647372f", Error)
	// MemberSlow: a member is much slower than its peers, and is read only where they do not do.
	MemberSlow = define("MemberSlow", "2d3b81ee521e4792a928aec19c533484", Warning)
	// MemberSteady: a slow member is as fast as its peers again.
	MemberSteady = define("MemberSteady", "61f88391cc904aadafa831063f845c16", Notice)
	// MemberRemoved: a device is no longer a member.
	MemberRemoved = define("MemberRemoved", "e447e0e222af49fab88196d84a32b9ff", Notice)
	// MemberFlaps: a member comes and goes, and is left alone for a while.
	MemberFlaps = define("MemberFlaps", "c34cc3f0338b4cca90dd8df211a8ac4c", Warning)
	// MemberStale: a member missed writes, and is not used.
	MemberStale = define("MemberStale", "f714f6535d254815aa00f0ece06ec209", Warning)
	// SpareAdded: a device became a spare.
	SpareAdded = define("SpareAdded", "96048c73d63c4860a2b17cdf1d6cafa3", Notice)
	// SpareActivated: a spare took a slot.
	SpareActivated = define("SpareActivated", "dee3312b0d964659837e3ca723a53f08", Notice)
	// NoSpareLeft: an array is degraded and no spare fits, or the last one has been put to work.
	NoSpareLeft = define("NoSpareLeft", "083559cc849d4ff194aad020acff013b", Warning)
	// RecoveryStarted: a member is being filled.
	RecoveryStarted = define("RecoveryStarted", "024cfba6a3dc4d2fa195fea2629744c1", Notice)
	// RecoveryProgress: how far a recovery is.
	RecoveryProgress = define("RecoveryProgress", "93e6ccfbedd44685b60a0800c4ceb5b1", Info)
	// RecoveryFinished: a member is in sync again, or the recovery was given up.
	RecoveryFinished = define("RecoveryFinished", "691ee343b0874fec989e283eb1b51a55", Notice)
	// ResyncStarted: redundancy is recomputed after an unclean stop.
	ResyncStarted = define("ResyncStarted", "b68ca1b3caf2415db6ba051787554b3d", Notice)
	// ResyncFinished: redundancy is right again, or the resync was given up.
	ResyncFinished = define("ResyncFinished", "7db425b177e3455f8c02cefb7bb2d779", Notice)
	// CheckStarted: copies and parity are compared.
	CheckStarted = define("CheckStarted", "2cc1318993414e539f312c43ca256010", Info)
	// CheckFinished: they were, or that was ended.
	CheckFinished = define("CheckFinished", "ede1414a66774f609c81f8c153a4f2bb", Notice)
	// MismatchFound: a check found what does not agree.
	MismatchFound = define("MismatchFound", "658bc515adac429193620f3e73565426", Error)
	// RepairStarted: copies and parity are compared, and made to agree.
	RepairStarted = define("RepairStarted", "12455e662ec84606af9831c2b079d628", Notice)
	// RepairFinished: they were, or that was ended.
	RepairFinished = define("RepairFinished", "cf6ee0604f884456961eaaf984bba4f0", Notice)
	// ReplaceStarted: a member is copied to another device.
	ReplaceStarted = define("ReplaceStarted", "8b97b78f88294290a79d1dd4ad0d1461", Notice)
	// ReplaceFinished: that one has its place, or could not be filled.
	ReplaceFinished = define("ReplaceFinished", "0899522e8c1943bc9a46f2e301754229", Notice)
	// MemberReturned: a member is back that missed only what the bitmap tells.
	MemberReturned = define("MemberReturned", "be8b2430eaca4b608c7b46e4fee61539", Notice)
	// BadBlocksFound: sectors of a member hold no valid data.
	BadBlocksFound = define("BadBlocksFound", "c7acf05197874f3d8ae0bf5172aec952", Warning)
	// PartitionsInUse: a partition of a member is used by somebody, and stays visible.
	PartitionsInUse = define("PartitionsInUse", "de4333f3b9ef458da54ceea9ec5c6c05", Warning)
	// WriteRefused: somebody was to open a member for writing, and the guard did not let him.
	WriteRefused = define("WriteRefused", "27f46ef7686f47d0a3d77a33b4f77635", Warning)
	// ConfigLoaded: the configuration was read anew, and holds.
	ConfigLoaded = define("ConfigLoaded", "2ee2f5819da24408a12fe35dd2588f72", Info)
	// ConfigFaulty: something is wrong with the configuration.
	ConfigFaulty = define("ConfigFaulty", "c277b752166a4b56941da24c349f04e7", Error)
	// UeventsLost: the kernel dropped uevents, and all devices are looked at again.
	UeventsLost = define("UeventsLost", "818fdfb6627646edb486562e5cc2232b", Warning)
	// MessagesLost: events were not recorded, because the journal did not take them in time.
	MessagesLost = define("MessagesLost", "41c107acc9034f478889f74b64761e44", Warning)
)
