package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	sockaddr "github.com/hashicorp/go-sockaddr"
)

// GossipKeyLen is the length of a gossip key in bytes.
const GossipKeyLen = 32

// parseGossipKey decodes a key as `logd keygen` prints it.
func parseGossipKey(text string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return nil, errors.New("not base64: make one with `logd keygen`")
	}
	if len(key) != GossipKeyLen {
		return nil, fmt.Errorf("%d bytes, and must be %d: make one with `logd keygen`", len(key), GossipKeyLen)
	}
	return key, nil
}

// gossipKeys are the key in the configuration, or all those in a file.
func gossipKeys(inline, file string) ([][]byte, error) {
	if file == "" {
		key, err := parseGossipKey(inline)
		return [][]byte{key}, err
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("gossip key: %w", err)
	}
	if open := info.Mode().Perm() & 0o027; open != 0 {
		return nil, fmt.Errorf("gossip key: %s has mode %v: nobody but its owner may write it, and only owner and group read it", file, info.Mode().Perm())
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("gossip key: %w", err)
	}
	var keys [][]byte
	for word := range strings.FieldsSeq(string(text)) {
		key, err := parseGossipKey(word)
		if err != nil {
			return nil, fmt.Errorf("gossip key: %s: %w", file, err)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("gossip key: %s: holds none: make one with `logd keygen`", file)
	}
	return keys, nil
}

// advertised is the host to advertise for one that is bound, when none is set.
func advertised(bound, setting string) (string, error) {
	if ip := net.ParseIP(bound); bound != "" && (ip == nil || !ip.IsUnspecified()) {
		return bound, nil
	}
	private, err := sockaddr.GetPrivateIP()
	if err != nil {
		return "", fmt.Errorf("look for an address to advertise: %w", err)
	}
	if private == "" {
		return "", fmt.Errorf("%s: required, since this machine has no private address", setting)
	}
	return private, nil
}

// isLoopback reports a host that only this machine can reach. Of names it
// knows localhost alone; what another resolves to may change.
func isLoopback(host string) bool {
	if ip := net.ParseIP(host); ip != nil {
		return ip.IsLoopback()
	}
	return host == "localhost"
}

// checkHostPort says what is wrong with a host:port; the host may be empty only
// for an address to bind.
func checkHostPort(addr string, bind bool) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%q is not host:port", addr)
	}
	n, err := strconv.Atoi(port)
	switch {
	case err != nil || n < 0 || n > 65535:
		return fmt.Errorf("%q: the port must be 0 to 65535", addr)
	case n == 0 && !bind:
		return fmt.Errorf("%q: port 0 cannot be dialled", addr)
	case !bind && host == "":
		return fmt.Errorf("%q has no host", addr)
	}
	return nil
}
