package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes, written "64MiB" in a file.
type Size int64

const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30

	// MaxRecordSize is the largest record there can be: 1 MiB less 4 KiB.
	MaxRecordSize = MiB - 4*KiB
)

// sizeUnits in the order they are tried when a size is written.
var sizeUnits = []struct {
	suffix string
	bytes  Size
}{
	{"TiB", 1 << 40}, {"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB},
}

// ParseSize reads "64MiB", "512 KiB", "100B" or a plain number of bytes. Only
// binary units exist here: "MB" is refused rather than guessed at.
func ParseSize(s string) (Size, error) {
	text := strings.TrimSpace(s)
	unit := Size(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(text, u.suffix); ok {
			text, unit = rest, u.bytes
			break
		}
	}
	if unit == 1 {
		text = strings.TrimSuffix(text, "B")
	}
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 63)
	if errors.Is(err, strconv.ErrRange) || err == nil && n > uint64(math.MaxInt64/int64(unit)) {
		return 0, &beyondError{strconv.Quote(s), math.MaxInt64, mostBytes}
	}
	if err != nil {
		return 0, fmt.Errorf("%q is not a size: write a whole number with B, KiB, MiB, GiB or TiB, like \"64MiB\"", s)
	}
	return Size(n) * unit, nil
}

// String writes the size in the largest unit that divides it.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && s%u.bytes == 0 {
			return strconv.FormatInt(int64(s/u.bytes), 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}
