// Package intent remembers which parts of an array may not be what they should
// be: where a member is known to have no valid data (bad blocks), and where
// redundancy may be wrong because writes were in flight (the write-intent
// bitmap).
//
// It is pure and knows no format: what it remembers is put on disk by the
// modules below pkg/metadata, in the order that its methods demand. Nothing in
// it allocates after construction, for all of it is used between a request and
// its answer.
package intent
