package replica

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/logd-io/logd/pkg/vfs"
)

const (
	// maxIDLen keeps every id within one sector of the stable store and one tag.
	maxIDLen = 200
	// idHexLen is the length of the suffix made in the data directory.
	idHexLen = 8

	nodeIDFile    = "node-id"
	clusterIDFile = "cluster-id"
)

// LoadNodeID gives the id of the node whose data lives in dir and whose
// certificate has that name. The random part is made once, durably; a wiped
// directory therefore is a new node under the old name.
func LoadNodeID(fsys vfs.FS, dir, name string) (string, error) {
	if name == "" || strings.ContainsAny(name, "/\x00 ") || len(name) > maxIDLen-1-idHexLen {
		return "", &InvalidError{Field: "name", Reason: fmt.Sprintf("%q cannot be part of a node id", name)}
	}
	file := path.Join(dir, nodeIDFile)
	suffix, ok, err := readSmall(fsys, file)
	if err != nil {
		return "", err
	}
	if !ok {
		var b [idHexLen / 2]byte
		if _, err := rand.Read(b[:]); err != nil {
			return "", fmt.Errorf("make node id: %w", err)
		}
		suffix = hex.EncodeToString(b[:])
		if err := fsys.MkdirAll(dir); err != nil {
			return "", fmt.Errorf("create %s: %w", dir, err)
		}
		if err := vfs.WriteFileAtomic(fsys, file, []byte(suffix+"\n")); err != nil {
			return "", fmt.Errorf("write %s: %w", file, err)
		}
	}
	id := name + "." + suffix
	if err := checkID(id); err != nil {
		return "", fmt.Errorf("read %s: %w", file, err)
	}
	return id, nil
}

// NameOf gives the certificate name within a node id, "" if id is none.
func NameOf(id string) string {
	if checkID(id) != nil {
		return ""
	}
	return id[:len(id)-1-idHexLen]
}

func checkID(id string) error {
	i := len(id) - 1 - idHexLen
	if i < 1 || len(id) > maxIDLen || id[i] != '.' {
		return &InvalidError{Field: "id", Reason: fmt.Sprintf("%q is not <name>.<%d hex>", id, idHexLen)}
	}
	for _, c := range []byte(id[i+1:]) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return &InvalidError{Field: "id", Reason: fmt.Sprintf("%q is not <name>.<%d hex>", id, idHexLen)}
		}
	}
	return nil
}

// checkUUID accepts the canonical form only, so that equality of strings is
// equality of clusters.
func checkUUID(u string) error {
	ok := len(u) == 36
	for i := 0; ok && i < len(u); i++ {
		switch i {
		case 8, 13, 18, 23:
			ok = u[i] == '-'
		default:
			ok = u[i] >= '0' && u[i] <= '9' || u[i] >= 'a' && u[i] <= 'f'
		}
	}
	if !ok {
		return &InvalidError{Field: "cluster id", Reason: fmt.Sprintf("%q is not a canonical uuid", u)}
	}
	return nil
}

// readSmall reads a one-line file; ok is false when it certainly does not exist:
// who is told so makes another in its place.
func readSmall(fsys vfs.FS, name string) (line string, ok bool, err error) {
	f, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("open %s: %w", name, err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return "", false, fmt.Errorf("size of %s: %w", name, err)
	}
	if size > 4096 {
		return "", false, fmt.Errorf("read %s: %d bytes is too long", name, size)
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && size > 0 {
		return "", false, fmt.Errorf("read %s: %w", name, err)
	}
	return strings.TrimSpace(string(b)), true, nil
}
