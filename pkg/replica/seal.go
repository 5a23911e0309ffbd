package replica

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
)

// seal is v as the contents of a small file: a line of JSON, then a line with the
// CRC-32C of that line in hex.
func seal(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(b, "\n%08x\n", crc32.Checksum(b, castagnoli)), nil
}

// unseal reads what seal made, which the file is named for.
func unseal(file string, b []byte, v any) error {
	const tail = len("\n12345678\n")
	if len(b) <= tail || string(b[len(b)-tail:]) != fmt.Sprintf("\n%08x\n", crc32.Checksum(b[:len(b)-tail], castagnoli)) {
		return fmt.Errorf("%s: it does not verify", file)
	}
	if err := json.Unmarshal(b[:len(b)-tail], v); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}
