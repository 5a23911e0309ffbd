package membership

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
)

// KeyBytes is the length of the keys GenerateKey makes (AES-256).
const KeyBytes = 32

// KeyError reports something that cannot be a gossip key. It never holds the key.
type KeyError struct{ Reason string }

func (e *KeyError) Error() string { return "gossip key: " + e.Reason }

// GenerateKey makes a new gossip key in the form ParseKey reads.
func GenerateKey() string {
	key := make([]byte, KeyBytes)
	_, _ = rand.Read(key) // never fails: the runtime aborts instead
	return base64.StdEncoding.EncodeToString(key)
}

// ParseKey reads a key of 16, 24 or 32 bytes in base64, as in a configuration.
func ParseKey(s string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(s))
	if err != nil {
		return nil, &KeyError{"not base64; make one with keygen"}
	}
	return key, checkKey(key)
}

func checkKey(key []byte) error {
	switch len(key) {
	case 16, 24, 32:
		return nil
	}
	return &KeyError{fmt.Sprintf("%d bytes; 16, 24 or 32 wanted, make one with keygen", len(key))}
}
