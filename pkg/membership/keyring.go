package membership

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"
)

const (
	// maxKeys bounds the ring: what no key opens is tried with all of them.
	maxKeys = 8
	// keyTries is how often members are asked that have not answered.
	keyTries = 3
	// maxKeyringBytes is far more than maxKeys take.
	maxKeyringBytes = 64 << 10
)

// Keyring is what all members together have of the gossip keys.
type Keyring struct {
	Keys     []Key    // sorted by id
	Members  int      // that are alive, this one included
	Answered int      // of them
	Down     []string // ids of storage nodes that have failed, could not be asked and may be back
}

// Key is one gossip key.
type Key struct {
	ID     string
	Has    int // members that understand it
	Speaks int // members that encrypt with it
}

// KeyringError reports a change of the keyring that was refused, or that not
// everybody has made. It never holds a key.
type KeyringError struct{ Reason string }

func (e *KeyringError) Error() string { return "gossip keyring: " + e.Reason }

func keyringErrorf(format string, args ...any) error {
	return &KeyringError{fmt.Sprintf(format, args...)}
}

// KeyID names a key without giving it away: the beginning of its SHA-256.
func KeyID(key []byte) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:6])
}

// openKeyring makes the ring of the keys in the file, which is that of a member
// that was there when they last changed, or else of the configured ones. Nil: no
// encryption.
func openKeyring(cfg Config, logger hclog.Logger) (*memberlist.Keyring, error) {
	if len(cfg.Key) == 0 {
		return nil, nil //nolint:nilnil // there is none
	}
	keys := append([][]byte{cfg.Key}, cfg.OtherKeys...)
	kept, err := readKeyring(cfg.KeyringPath)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		// Serf does not replace it in one step, so a power loss can do this.
		logger.Error("gossip keyring cannot be read; using the configured keys", "file", cfg.KeyringPath, "err", err)
	case len(kept) > 0:
		if !slices.ContainsFunc(kept, func(k []byte) bool { return bytes.Equal(k, cfg.Key) }) {
			logger.Warn("the configured gossip key is not in the keyring, which is used; to use the configured one, stop and remove the file",
				"file", cfg.KeyringPath, "configured", KeyID(cfg.Key), "speaks", KeyID(kept[0]))
		}
		keys = kept
	}
	for _, k := range keys {
		if err := checkKey(k); err != nil {
			return nil, err
		}
	}
	return memberlist.NewKeyring(keys, keys[0])
}

// readKeyring reads a file as Serf writes it: the first key is the primary one.
func readKeyring(path string) ([][]byte, error) {
	if path == "" {
		return nil, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxKeyringBytes {
		return nil, fmt.Errorf("%d bytes are too many", info.Size())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var encoded []string
	if err := json.Unmarshal(text, &encoded); err != nil {
		return nil, errors.New("not a list of keys in JSON") // never quote it
	}
	keys := make([][]byte, len(encoded))
	for i, s := range encoded {
		if keys[i], err = ParseKey(s); err != nil {
			return nil, err
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("holds no key")
	}
	return keys, nil
}

// Keyring asks all members for their keys. It blocks for seconds when one of them
// does not answer.
func (g *Gossip) Keyring() (Keyring, error) {
	done, err := g.beginKeys()
	if err != nil {
		return Keyring{}, err
	}
	defer done()
	ring, _, err := g.listKeys()
	return ring, err
}

// InstallKey gives all members a key that they understand from then on. Repeated,
// it gives it to those that have not got it.
func (g *Gossip) InstallKey(key []byte) (Keyring, error) {
	done, err := g.beginKeys()
	if err != nil {
		return Keyring{}, err
	}
	defer done()
	if err := checkKey(key); err != nil {
		return Keyring{}, keyringErrorf("%v", err)
	}
	ring, byID, err := g.listKeys()
	if err != nil {
		return ring, err
	}
	id := KeyID(key)
	if _, known := byID[id]; !known && len(byID) >= maxKeys {
		return ring, keyringErrorf("there are %d keys already; remove old ones", len(byID))
	}
	g.log.Info("gossip key: install", "key", id)
	if err := g.change("install", key, g.serf.KeyManager().InstallKey); err != nil {
		return ring, err
	}
	return g.after(func(r Keyring) error {
		if k := r.find(id); k.Has < r.Members {
			return keyringErrorf("%d of %d members have key %s; install it again", k.Has, r.Members, id)
		}
		return nil
	})
}

// UseKey has all members encrypt with a key. It is refused unless every member
// that is alive has it, and, without force, when storage nodes are down: they
// could not be understood, nor understand, when they come back.
func (g *Gossip) UseKey(id string, force bool) (Keyring, error) {
	done, err := g.beginKeys()
	if err != nil {
		return Keyring{}, err
	}
	defer done()
	ring, key, err := g.everybody(id, force)
	if err != nil {
		return ring, err
	}
	if k := ring.find(id); k.Has < ring.Members {
		return ring, keyringErrorf("only %d of %d members have key %s, and the others would be cut off; install it first", k.Has, ring.Members, id)
	}
	g.log.Info("gossip key: use", "key", id)
	if err := g.change("use", key, g.serf.KeyManager().UseKey); err != nil {
		return ring, err
	}
	return g.after(func(r Keyring) error {
		if k := r.find(id); k.Speaks < r.Members {
			return keyringErrorf("%d of %d members encrypt with key %s; use it again", k.Speaks, r.Members, id)
		}
		return nil
	})
}

// RemoveKey has all members forget a key. It is refused while any member that is
// alive encrypts with it, and, without force, when storage nodes are down.
func (g *Gossip) RemoveKey(id string, force bool) (Keyring, error) {
	done, err := g.beginKeys()
	if err != nil {
		return Keyring{}, err
	}
	defer done()
	ring, key, err := g.everybody(id, force)
	if err != nil {
		return ring, err
	}
	if k := ring.find(id); k.Speaks > 0 {
		return ring, keyringErrorf("%d of %d members encrypt with key %s; use another first", k.Speaks, ring.Members, id)
	}
	g.log.Info("gossip key: remove", "key", id)
	if err := g.change("remove", key, g.serf.KeyManager().RemoveKey); err != nil {
		return ring, err
	}
	return g.after(func(r Keyring) error {
		if k := r.find(id); k.Has > 0 {
			return keyringErrorf("%d of %d members still have key %s; remove it again", k.Has, r.Members, id)
		}
		return nil
	})
}

func (r Keyring) find(id string) Key {
	for _, k := range r.Keys {
		if k.ID == id {
			return k
		}
	}
	return Key{ID: id}
}

// beginKeys makes this the one change of keys under way. done ends it.
func (g *Gossip) beginKeys() (done func(), err error) {
	if g.ring == nil {
		return nil, keyringErrorf("this cluster's gossip is not encrypted")
	}
	if !g.begin() {
		return nil, ErrClosed
	}
	g.keysMu.Lock()
	return func() { g.keysMu.Unlock(); g.worker.Done() }, nil
}

// everybody is the ring of a cluster in which nobody is missing, and the key.
func (g *Gossip) everybody(id string, force bool) (Keyring, []byte, error) {
	ring, byID, err := g.listKeys()
	if err != nil {
		return ring, nil, err
	}
	switch key, known := byID[id]; {
	case !known:
		return ring, nil, keyringErrorf("no member has a key %q; list shows their ids", id)
	case ring.Answered < ring.Members:
		return ring, nil, keyringErrorf("only %d of %d members have answered", ring.Answered, ring.Members)
	case len(ring.Down) > 0 && !force:
		return ring, nil, keyringErrorf("%v may lack the key and cannot be asked; bring them back, or force it and give them the keys before they start", ring.Down)
	default:
		return ring, key, nil
	}
}

// after asks until ok, a few times: an answer may have been lost.
func (g *Gossip) after(ok func(Keyring) error) (ring Keyring, err error) {
	for range keyTries {
		if ring, _, err = g.listKeys(); err != nil {
			continue
		}
		if err = ok(ring); err == nil {
			return ring, nil
		}
	}
	return ring, err
}

// change has every member make a change. What it comes to is seen afterwards, so
// an answer that is missing is asked for again and then let be; a refusal is not.
func (g *Gossip) change(what string, key []byte, op func(string) (*serf.KeyResponse, error)) error {
	for range keyTries {
		resp, err := op(base64.StdEncoding.EncodeToString(key))
		switch {
		case err == nil:
			return nil
		case resp != nil && resp.NumErr > 0:
			return keyringErrorf("%s: refused by %s", what, refusals(resp))
		}
		g.log.Warn("gossip key: not all members have answered", "change", what, "err", err)
	}
	return nil
}

func refusals(resp *serf.KeyResponse) string {
	var all []string
	for from, why := range resp.Messages {
		all = append(all, from+" ("+why+")")
	}
	slices.Sort(all)
	return fmt.Sprint(all)
}

// listKeys asks for the keys, and again when answers are missing.
func (g *Gossip) listKeys() (Keyring, map[string][]byte, error) {
	var resp *serf.KeyResponse
	for range keyTries {
		next, err := g.serf.KeyManager().ListKeys()
		if resp == nil || next.NumResp >= resp.NumResp {
			resp = next
		}
		if err == nil {
			break
		}
		if next.NumErr > 0 {
			return Keyring{}, nil, keyringErrorf("list: refused by %s", refusals(next))
		}
		if next.NumResp == 0 { // not even our own: no query was made
			return Keyring{}, nil, fmt.Errorf("list gossip keys: %w", err)
		}
	}
	ring := Keyring{Members: resp.NumNodes, Answered: resp.NumResp}
	byID := make(map[string][]byte, len(resp.Keys))
	for encoded, has := range resp.Keys {
		key, err := ParseKey(encoded)
		if err != nil {
			return Keyring{}, nil, err
		}
		id := KeyID(key)
		byID[id] = key
		ring.Keys = append(ring.Keys, Key{ID: id, Has: has, Speaks: resp.PrimaryKeys[encoded]})
	}
	slices.SortFunc(ring.Keys, func(a, b Key) int { return bytes.Compare([]byte(a.ID), []byte(b.ID)) })
	for _, m := range g.serf.Members() {
		if m.Status == serf.StatusFailed && Role(m.Tags[tagRole]) == RoleStorage && !(g.gone != nil && g.gone(m.Name)) {
			ring.Down = append(ring.Down, m.Name)
		}
	}
	slices.Sort(ring.Down)
	return ring, byID, nil
}
