//go:build system

package deb_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/test/harness"
)

const repo = "../.."

// patience ends what hangs.
const patience = 90 * time.Second

var programs = []string{"logd", "logproxy"}

func needs(t *testing.T, tools ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("it takes root to be in a root of its own")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("there is no %s here", tool)
		}
	}
}

func output(t *testing.T, argv ...string) string {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s\n%s%s", strings.Join(argv, " "), out, stderr.Bytes())
	return string(out)
}

// TestMain has the programs built once, and not for each package.
func TestMain(m *testing.M) {
	if out, err := exec.Command("make", "-s", "-C", repo, "build").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "make build: %v\n%s", err, out)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// packages makes both, of a version, and answers their files by name.
func packages(t *testing.T, version string) map[string][]byte {
	t.Helper()
	output(t, "make", "-s", "-C", repo, "-o", "build", "deb", "DEB_VERSION="+version)
	made := make(map[string][]byte)
	for _, name := range programs {
		found, err := filepath.Glob(filepath.Join(repo, "bin", "deb", name+"_"+version+"_*.deb"))
		require.NoError(t, err)
		require.Len(t, found, 1)
		made[name], err = os.ReadFile(found[0])
		require.NoError(t, err)
	}
	return made
}

// What is in the packages, and that they are the same whenever they are made.
func TestSystemDebContents(t *testing.T) {
	needs(t, "dpkg-deb")
	first := packages(t, "1.2.3")
	for name, content := range packages(t, "1.2.3") {
		require.Equal(t, sha256.Sum256(first[name]), sha256.Sum256(content), "%s is another one", name)
		file := filepath.Join(t.TempDir(), "it.deb")
		require.NoError(t, os.WriteFile(file, content, 0o600))

		var has []string
		for _, line := range strings.Split(strings.TrimSpace(output(t, "dpkg-deb", "--contents", file)), "\n") {
			f := strings.Fields(line)
			if path := strings.TrimPrefix(f[5], "."); f[0][0] != 'd' || f[0] != "drwxr-xr-x" {
				has = append(has, f[0]+" "+f[1]+" "+path)
			}
		}
		require.Equal(t, strings.Split(strings.NewReplacer("NAME", name).Replace(
			`-rw-r--r-- root/root /etc/NAME/NAME.hcl
drwxr-x--- root/root /etc/NAME/tls/
-rwxr-xr-x root/root /usr/bin/NAME
-rw-r--r-- root/root /usr/lib/systemd/system/NAME.service
-rw-r--r-- root/root /usr/share/bash-completion/completions/NAME
-rw-r--r-- root/root /usr/share/doc/NAME/CHANGELOG.md.gz
-rw-r--r-- root/root /usr/share/doc/NAME/README.Debian
-rw-r--r-- root/root /usr/share/doc/NAME/changelog.gz
-rw-r--r-- root/root /usr/share/doc/NAME/copyright
-rw-r--r-- root/root /usr/share/doc/NAME/dependencies.md
-rw-r--r-- root/root /usr/share/man/man8/NAME.8.gz`), "\n"), has)

		for field, want := range map[string]string{"Package": name, "Version": "1.2.3", "Depends": "adduser"} {
			require.Equal(t, want+"\n", output(t, "dpkg-deb", "--field", file, field))
		}
		control := filepath.Join(t.TempDir(), "control")
		output(t, "dpkg-deb", "--control", file, control)
		conffiles, err := os.ReadFile(filepath.Join(control, "conffiles"))
		require.NoError(t, err)
		require.Equal(t, "/etc/"+name+"/"+name+".hcl\n", string(conffiles))
	}
}

// A machine's life with the packages: installed, filled in as README.Debian has it,
// run as their user, upgraded with what was changed kept, removed, purged.
func TestSystemDebLifecycle(t *testing.T) {
	needs(t, "dpkg", "adduser", "systemd-analyze", "unshare", "nsenter")
	r := newRoot(t)
	for _, version := range []string{"1.2.3", "1.2.4"} {
		for name, content := range packages(t, version) {
			r.write("/tmp/"+name+"_"+version+".deb", "0644", bytes.NewReader(content))
		}
	}
	// A service manager that writes down what it is told.
	r.sh("mkdir -p /run/systemd/system && rm -f /usr/bin/systemctl /bin/systemctl")
	r.write("/usr/bin/systemctl", "0755", strings.NewReader("#!/bin/sh\necho \"$*\" >>/tmp/told\n"))
	told := func() string {
		defer r.sh(">/tmp/told")
		return r.sh("cat /tmp/told")
	}

	out := r.run("dpkg", "--install", "logd_1.2.3.deb", "logproxy_1.2.3.deb")
	require.Contains(t, out, "logd: it is not started before it has certificates")
	require.Equal(t, strings.Repeat("--system daemon-reload\n", 2), told(), "nothing is enabled, and nothing started")
	require.Equal(t, `700 logd:logd /var/lib/logd
700 logproxy:logproxy /var/lib/logproxy
750 root:logd /etc/logd/tls
750 root:logproxy /etc/logproxy/tls
644 root:root /etc/logd/logd.hcl
`, r.stat("/var/lib/logd", "/var/lib/logproxy", "/etc/logd/tls", "/etc/logproxy/tls", "/etc/logd/logd.hcl"))
	for _, name := range programs {
		require.Regexp(t, `:/usr/sbin/nologin\n$`, r.run("getent", "passwd", name))
		r.run(name, "validate", "-no-files", "/etc/"+name+"/"+name+".hcl") // as it comes
		unit := "/usr/lib/systemd/system/" + name + ".service"
		require.Empty(t, r.run("systemd-analyze", "verify", "--man=no", unit))
		// A panic ends a Go program with 2, as a wrong command line does.
		require.NotContains(t, r.run("cat", unit), "\nRestartPreventExitStatus")
		// In tenths. Most of what is left is that it is on the network.
		r.run("systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", unit)
		require.Contains(t, r.run("zcat", "/usr/share/man/man8/"+name+".8.gz"), ".SH FILES")
		require.Equal(t, r.run("/usr/bin/"+name, "completion", "bash"), r.run("cat", "/usr/share/bash-completion/completions/"+name))
	}

	// The commands of README.Debian, in order, but for those of an editor.
	r.readme("logd")
	r.sh("cp ca.pem ca-key.pem gossip.key /etc/logproxy")
	r.readme("logproxy")
	require.Equal(t, "--quiet enable --now logd\n--quiet enable --now logproxy\n", strings.ReplaceAll(told(), "enable", "--quiet enable"))
	require.Equal(t, "640 root:logd /etc/logd/tls/node-key.pem\n640 root:logproxy /etc/logproxy/gossip.key\n",
		r.stat("/etc/logd/tls/node-key.pem", "/etc/logproxy/gossip.key"))
	r.agent()

	r.sh("echo 'log_level = \"warn\"' >>/etc/logd/logd.hcl")
	edited := r.sh("cat /etc/logd/logd.hcl")
	out = r.run("dpkg", "--install", "logd_1.2.4.deb", "logproxy_1.2.4.deb")
	require.Contains(t, out, "logd: version 1.2.3 goes on running")
	for _, verb := range []string{"stop", "restart", "disable"} {
		require.NotContains(t, told(), verb, "an upgrade leaves the node running")
	}
	require.Equal(t, edited, r.sh("cat /etc/logd/logd.hcl"))
	require.Equal(t, "1.2.4", r.run("dpkg-query", "--show", "--showformat", "${Version}", "logd"))

	r.run("dpkg", "--remove", "logd", "logproxy")
	require.Contains(t, told(), "--quiet disable --now logd.service\n")
	r.fails("test", "-e", "/usr/bin/logd")
	require.Equal(t, edited, r.sh("cat /etc/logd/logd.hcl"), "removing is not purging")

	// A purge takes what the package brought. Records and keys it did not bring.
	r.sh("touch /var/lib/logproxy/cluster")
	out = r.run("dpkg", "--purge", "logd", "logproxy")
	r.fails("test", "-e", "/var/lib/logproxy")
	require.Contains(t, out, "/var/lib/logd has records in it and stays")
	require.Contains(t, out, "what is left in /etc/logd was not put there by the package")
	r.fails("test", "-e", "/etc/logd/logd.hcl")
	r.run("test", "-d", "/var/lib/logd/data")
	r.run("test", "-e", "/etc/logd/tls/node-key.pem")

	r.sh("rm -rf /var/lib/logd /etc/logd /etc/logproxy")
	r.run("dpkg", "--install", "logd_1.2.4.deb", "logproxy_1.2.4.deb")
	r.run("dpkg", "--purge", "logd", "logproxy")
	for _, path := range []string{"/var/lib/logd", "/var/lib/logproxy", "/etc/logd", "/etc/logproxy", "/usr/share/doc/logd"} {
		r.fails("test", "-e", path)
	}
}

// readme runs the commands that a package's README.Debian shows, with an editor that
// changes nothing; what is waited for is up to who calls it.
func (r *root) readme(name string) {
	r.t.Helper()
	text := r.run("cat", "/usr/share/doc/"+name+"/README.Debian")
	shown, _, ok := strings.Cut(text, "\nAn upgrade ")
	require.True(r.t, ok)
	commands := strings.Join(regexp.MustCompile(`(?m)^    .*$`).FindAllString(shown, -1), "\n")
	require.Contains(r.t, commands, "systemctl enable --now "+name)
	r.sh("editor() { :; }\n" + strings.Replace(commands, "\n    logd wait", "", 1))
}

// agent runs the node that was set up, as its user, until it can serve: alone, since
// there are no others.
func (r *root) agent() {
	r.t.Helper()
	argv := r.command("setpriv", "--reuid=logd", "--regid=logd", "--clear-groups", "env",
		"LOGD_BOOTSTRAP_EXPECT=1", "LOGD_RETRY_JOIN=127.84.1.1:8401", "LOGD_BIND_ADDR=127.84.1.1", "LOGD_PORTS_RPC=0", "LOGD_PORTS_ADMIN=0", "LOGD_DATA_DIR=/var/lib/logd/data",
		"logd", "agent", "-config", "/etc/logd/logd.hcl").Args
	path, err := exec.LookPath(argv[0])
	require.NoError(r.t, err)
	p := &harness.Process{Name: "logd", Path: path, Args: argv[1:], Log: filepath.Join(r.t.TempDir(), "out")}
	require.NoError(r.t, p.Start())
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	err = harness.Until(ctx, func() error {
		m := regexp.MustCompile(`Admin: (\S+)`).FindStringSubmatch(p.Tail(200))
		if m == nil {
			return os.ErrNotExist
		}
		out, err := r.command("logd", "wait", "-timeout", "0", "-admin", m[1]).CombinedOutput()
		_ = out
		return err
	})
	require.NoError(r.t, err, p.Tail(50))
	require.NoError(r.t, p.Stop(ctx))
	require.Equal(r.t, "700 logd:logd /var/lib/logd/data\n", r.stat("/var/lib/logd/data"))
}
