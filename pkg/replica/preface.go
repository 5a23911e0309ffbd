package replica

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// What a dialer sends first on a Raft connection; there is no answer.
//
//	magic 8B | uuid length u8, uuid | from length u8, from | to length u8, to
//
// The acceptor closes the connection unless the uuid is its own cluster's, to is
// exactly its own id, and from belongs to the dialer's certificate.
const prefaceMagic = "logdrft1"

// prefaceTimeout bounds sending or receiving it.
const prefaceTimeout = 5 * time.Second

var errPreface = errors.New("malformed preface")

type preface struct{ cluster, from, to string }

func (p preface) encode() []byte {
	b := []byte(prefaceMagic)
	for _, s := range []string{p.cluster, p.from, p.to} {
		b = append(append(b, byte(len(s))), s...)
	}
	return b
}

// readPreface reads exactly the preface, so that nothing of the first RPC is
// lost.
func readPreface(r io.Reader) (p preface, err error) {
	var magic [len(prefaceMagic)]byte
	if _, err := io.ReadFull(r, magic[:]); err != nil {
		return p, fmt.Errorf("read preface: %w", err)
	}
	if string(magic[:]) != prefaceMagic {
		return p, errPreface
	}
	for _, s := range []*string{&p.cluster, &p.from, &p.to} {
		var n [1]byte
		if _, err := io.ReadFull(r, n[:]); err != nil {
			return p, fmt.Errorf("read preface: %w", err)
		}
		b := make([]byte, n[0])
		if _, err := io.ReadFull(r, b); err != nil {
			return p, fmt.Errorf("read preface: %w", err)
		}
		*s = string(b)
	}
	return p, nil
}

// check says why a connection with that preface, from a node whose certificate
// has that name, is refused by node id of the cluster. Membership is not
// checked: a follower must take a leader that its lagging configuration does
// not name.
func (p preface) check(cluster, id, certName string) error {
	switch {
	case p.cluster != cluster:
		return &ClusterMismatchError{Bound: cluster, Got: p.cluster}
	case p.to != id:
		return fmt.Errorf("connection is for node %q, this is %q", p.to, id)
	case p.from == id:
		return fmt.Errorf("connection claims to come from this node itself, %q", id)
	case checkID(p.from) != nil || NameOf(p.from) != certName:
		return fmt.Errorf("node id %q does not belong to certificate %q", p.from, certName)
	}
	return nil
}

// sendPreface sends p and leaves the connection without a deadline.
func sendPreface(conn net.Conn, p preface) error {
	if err := conn.SetDeadline(time.Now().Add(prefaceTimeout)); err != nil {
		return fmt.Errorf("send preface: %w", err)
	}
	if _, err := conn.Write(p.encode()); err != nil {
		return fmt.Errorf("send preface: %w", err)
	}
	return conn.SetDeadline(time.Time{})
}
