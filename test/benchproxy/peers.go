package main

import (
	"bytes"
	"embed"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"text/template"

	"github.com/logd-io/logd/test/harness"
)

//go:embed nginx.conf haproxy.cfg
var configs embed.FS

// peerHost is where the peers listen, on the network of the cluster.
var peerHost = map[string]int{nginx: 201, haproxy: 202}

// peerConfig is what the configuration of a peer is made from.
type peerConfig struct {
	Dir      string // the peer's own
	Listen   string // host:port of the plaintext listener
	Upstream string // host:port of the node
	Name     string // in the node's certificate
	CA       string
	Cert     string
	Key      string
	Both     string // certificate and key in one file
}

// startPeer starts nginx or haproxy in front of node, in the foreground, with a
// configuration of its own on a loopback address of its own.
func (b *bench) startPeer(w *world, name string, node *harness.Node) (*harness.Process, string, error) {
	addr := net.JoinHostPort(w.Host(peerHost[name]), "8410")
	dir := filepath.Join(w.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, "", err
	}
	files := w.Cert("client")
	conf := peerConfig{
		Dir: dir, Listen: addr, Upstream: node.RPC, Name: node.Name,
		CA: files.CA, Cert: files.Cert, Key: files.Key, Both: filepath.Join(dir, "client-both.pem"),
	}
	cert, err := os.ReadFile(files.Cert)
	if err != nil {
		return nil, "", err
	}
	key, err := os.ReadFile(files.Key)
	if err != nil {
		return nil, "", err
	}
	if err := os.WriteFile(conf.Both, append(cert, key...), 0o600); err != nil {
		return nil, "", err
	}
	p := &harness.Process{Name: name, Path: filepath.Join(b.peers, name), Log: filepath.Join(dir, "log")}
	file := "haproxy.cfg"
	if name == nginx {
		file = "nginx.conf"
		p.Args = []string{"-e", "stderr", "-p", dir, "-c", filepath.Join(dir, file)}
	} else {
		p.Args = []string{"-db", "-f", filepath.Join(dir, file)}
	}
	t, err := template.ParseFS(configs, file)
	if err != nil {
		return nil, "", err
	}
	var text bytes.Buffer
	if err := t.Execute(&text, conf); err != nil {
		return nil, "", err
	}
	if err := os.WriteFile(filepath.Join(dir, file), text.Bytes(), 0o600); err != nil {
		return nil, "", err
	}
	if err := p.Start(); err != nil {
		return nil, "", fmt.Errorf("%w; make bench-proxy gets it", err)
	}
	w.closers = append(w.closers, func() error {
		if !p.Running() {
			return fmt.Errorf("%s has ended by itself; the end of its log:\n%s", name, p.Tail(20))
		}
		return p.Kill()
	})
	return p, addr, nil
}
