package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/membership"
	"github.com/logd-io/logd/test/harness"
)

// ringKey is a key as `logd keyring list -format json` shows it.
type ringKey struct {
	ID      string `json:"id"`
	Has     int    `json:"members_with_key"`
	Speaks  int    `json:"members_encrypting"`
	Members int    `json:"members"`
}

// TestGossipKeyRotatesUnderLoad changes the gossip key of a cluster and its proxy
// with the programs, restarts a node and the proxy on the way, and a node at the
// end. Clients notice nothing, and nobody is ever taken for failed who runs.
func TestGossipKeyRotatesUnderLoad(t *testing.T) {
	t.Parallel()
	w := start(t)
	// The proxy that is restarted is another one than the load goes through.
	second, err := w.AddProxy("")
	require.NoError(t, err)
	oldFile, newFile := filepath.Join(t.TempDir(), "old.key"), filepath.Join(t.TempDir(), "new.key")
	inline := regexp.MustCompile(`(?m)^  key        = "(.+)"$`)
	text := fileText(t, second.Config)
	oldText := inline.FindStringSubmatch(text)[1] + "\n"
	keyFile := filepath.Join(t.TempDir(), "gossip.key")
	replaceFile(t, keyFile, oldText)
	replaceFile(t, second.Config, inline.ReplaceAllString(text, fmt.Sprintf("  key_file = %q", keyFile)))
	require.NoError(t, second.Start())
	require.NoError(t, w.ProxyReady(w.ctx, second))
	replaceFile(t, oldFile, oldText)
	newText := membership.GenerateKey() + "\n"
	replaceFile(t, newFile, newText)
	oldID, newID := keyID(t, oldText), keyID(t, newText)

	tr := w.load()
	tr.more(500)
	everybody := func(has, speaks map[string]int, members int) {
		t.Helper()
		w.until("the keyring", func() error {
			for _, k := range w.keyring("list") {
				if k.Members != members || k.Has != has[k.ID] || k.Speaks != speaks[k.ID] {
					return fmt.Errorf("%+v", k)
				}
			}
			return nil
		})
	}
	everybody(map[string]int{oldID: 5}, map[string]int{oldID: 5}, 5)
	restart := func(p *harness.Process) {
		t.Helper()
		require.NoError(t, p.Stop(w.ctx))
		require.NoError(t, p.Start())
		require.NoError(t, w.Ready(w.ctx))
		tr.more(500)
	}

	require.Contains(t, w.keyringRefused("use", newID), "no member has a key")
	w.undisturbed(func() { w.keyring("install", newFile) })
	require.Contains(t, w.keyringRefused("remove", oldID), "5 of 5 members encrypt with key "+oldID)

	// The proxy comes back with the old key alone, and would be cut off.
	restart(second.Process)
	everybody(map[string]int{oldID: 5, newID: 4}, map[string]int{oldID: 5}, 5)
	require.Contains(t, w.keyringRefused("use", newID), "only 4 of 5 members have key "+newID)
	// Told both, it is fine.
	replaceFile(t, keyFile, oldText+newText)
	restart(second.Process)
	restart(w.follower().Process) // it remembers
	everybody(map[string]int{oldID: 5, newID: 5}, map[string]int{oldID: 5}, 5)

	w.undisturbed(func() {
		w.keyring("use", newID)
		tr.more(500)
		everybody(map[string]int{oldID: 5, newID: 5}, map[string]int{newID: 5}, 5)
	})
	restart(w.follower().Process)
	restart(second.Process) // which encrypts with the old key again, and is understood
	everybody(map[string]int{oldID: 5, newID: 5}, map[string]int{oldID: 1, newID: 4}, 5)
	require.Contains(t, w.keyringRefused("remove", oldID), "1 of 5 members encrypt with key "+oldID)
	replaceFile(t, keyFile, newText)
	w.undisturbed(func() {
		w.keyring("use", newID)
		w.keyring("remove", oldFile)
		tr.more(500)
		everybody(map[string]int{newID: 5}, map[string]int{newID: 5}, 5)
	})
	restart(w.follower().Process) // whose configuration has the old key only
	restart(second.Process)
	everybody(map[string]int{newID: 5}, map[string]int{newID: 5}, 5)
	tr.more(500)
	tr.finish()
	for _, p := range w.everybody() {
		require.NotContains(t, fileText(t, p.Log), strings.TrimSpace(newText), "a key in the log")
	}
	t.Logf("%d records, none failed, the slowest took %s", tr.Acked(), tr.LongestWait())
}

// TestGossipIsEncrypted: neither program starts without a gossip key.
func TestGossipIsEncrypted(t *testing.T) {
	w := prepare(t, nil)
	for program, config := range map[string]string{"logd": w.Nodes[0].Config, "logproxy": w.proxy.Config} {
		text := regexp.MustCompile(`(?m)^ *(gossip_key|key) +=.*$`).ReplaceAllString(fileText(t, config), "")
		bare := filepath.Join(t.TempDir(), "bare.hcl")
		replaceFile(t, bare, text)
		out, err := exec.CommandContext(w.ctx, filepath.Join(bin, program), "agent", "-config", bare).CombinedOutput()
		require.Error(t, err)
		require.Contains(t, string(out), "logd keygen", program)
	}
}

func keyID(t *testing.T, text string) string {
	t.Helper()
	key, err := membership.ParseKey(text)
	require.NoError(t, err)
	return membership.KeyID(key)
}

func (w *world) keyringCommand(args []string) *exec.Cmd {
	f := w.Cert("admin")
	args = append(append([]string{"keyring"}, args...), "-address", w.leader().RPC, "-timeout", "60s",
		"-ca-cert", f.CA, "-cert", f.Cert, "-key", f.Key, "-format", "json")
	return exec.CommandContext(w.ctx, filepath.Join(bin, "logd"), args...)
}

// keyring runs logd keyring, which must succeed.
func (w *world) keyring(args ...string) (keys []ringKey) {
	w.t.Helper()
	var out, errs bytes.Buffer
	cmd := w.keyringCommand(args)
	cmd.Stdout, cmd.Stderr = &out, &errs
	require.NoError(w.t, cmd.Run(), "%v: %s", args, errs.String())
	require.NoError(w.t, json.Unmarshal(out.Bytes(), &keys))
	return keys
}

// keyringRefused runs logd keyring, which must fail, and answers what it says.
func (w *world) keyringRefused(args ...string) string {
	w.t.Helper()
	cmd := w.keyringCommand(args)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	err := cmd.Run()
	var exit *exec.ExitError
	require.ErrorAs(w.t, err, &exit)
	require.Equal(w.t, 1, exit.ExitCode())
	return errs.String()
}

// undisturbed requires that nobody takes anybody for failed while f runs.
func (w *world) undisturbed(f func()) {
	w.t.Helper()
	failures := func() (n int) {
		for _, p := range w.everybody() {
			n += strings.Count(fileText(w.t, p.Log), "EventMemberFailed")
		}
		return n
	}
	before := failures()
	f()
	require.Equal(w.t, before, failures())
}
