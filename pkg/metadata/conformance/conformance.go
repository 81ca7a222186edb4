// Package conformance holds what every metadata module must do, as tests that
// any [metadata.Format] can be run through, and the golden images that they
// are held to.
//
// It is imported by tests only.
package conformance
