package benchkit

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

// Record is the value of what a client writes, again and again and never the
// same, of bytes that nothing compresses.
type Record []byte

// NewRecord makes a record of 8 bytes or more; those of other clients differ.
func NewRecord(client, size int) Record {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], uint64(client))
	r := make(Record, size)
	_, _ = rand.NewChaCha8(seed).Read(r) // never fails
	return r
}

// Next turns it into the client's next record.
func (r Record) Next() {
	binary.LittleEndian.PutUint64(r, binary.LittleEndian.Uint64(r)+1)
}

// Sizes are the sizes of records that commands measure with.
var Sizes = []int{100, 1024}

// SizeName is how a size stands in names of goals.
func SizeName(size int) string {
	if size >= 1<<10 {
		return fmt.Sprintf("%dKiB", size>>10)
	}
	return fmt.Sprintf("%dB", size)
}
