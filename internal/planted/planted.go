// Package planted names bugs that tests switch on in production code, to see
// that some check catches each.
//
// The invariant: the zero value is no bug. A program that ships never sets one,
// and another module cannot name the type.
//
// test/crash plants those of storage. What can be had by a filesystem that
// lies is planted there instead, and costs nothing here.
package planted

// Storage are bugs of pkg/commitlog.
type Storage struct {
	// CutAnyDamage: recovery takes every frame of the last segment that does not
	// verify for a torn tail, and cuts there.
	CutAnyDamage bool
	// SkipDamage: recovery goes on behind a frame that does not verify.
	SkipDamage bool
	// AppendAfterCut: a truncation leaves the bytes it cuts, and what comes next
	// is written over them.
	AppendAfterCut bool
	// UnseededHeaders: the CRC of a frame's header does not depend on the
	// segment, so that it verifies in any other at the same place.
	UnseededHeaders bool
	// CutCommitted: a truncation reaches entries known to be committed.
	CutCommitted bool
	// TrustPayloads: the CRC of a payload is not looked at.
	TrustPayloads bool
	// TrustOffsets: the CRC of a record of the offset index is not looked at.
	TrustOffsets bool
}
