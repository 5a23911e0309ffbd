package zk

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Requests and answers are records of ZooKeeper's jute: integers of four or eight
// bytes, big endian; strings, byte strings and lists behind their length in four.
//
//	connect:  len | protocol 4 | last zxid 8 | timeout ms 4 | session 8 | password | read-only 1
//	answer:   len | protocol 4 | timeout ms 4 | session 8 | password | read-only 1
//	request:  len | xid 4 | op 4 | body
//	answer:   len | xid 4 | zxid 8 | error 4 | body
//
// From zookeeper.jute and org.apache.zookeeper.ZooDefs of Apache ZooKeeper 3.8.

// The operations.
const (
	opCreate   = 1
	opDelete   = 2
	opExists   = 3
	opGet      = 4
	opChildren = 8
	opPing     = 11
	opAuth     = 100
	opClose    = -11
)

// What answers no request of a caller's has an xid of its own.
const (
	xidEvent = -1
	xidPing  = -2
	xidAuth  = -4
)

const (
	flagEphemeralSequential = 3

	permRead = 1
	permAll  = 31

	replyHead = 16 // bytes of an answer before its body
)

// The errors a caller acts on.
var (
	ErrNoNode     = errors.New("there is no such znode")
	ErrNodeExists = errors.New("the znode exists")
	ErrTooLarge   = errors.New("the answer is too large")
)

// ServerError is another error of a server.
type ServerError struct{ Code int32 }

func (e *ServerError) Error() string {
	switch e.Code {
	case -102:
		return "not allowed by the znode's ACL (NoAuth)"
	case -112:
		return "the session has expired"
	case -115:
		return "user or password refused (AuthFailed)"
	case -118:
		return "the session has moved"
	}
	return fmt.Sprintf("ZooKeeper's error %d", e.Code)
}

// ofSession tells that no other request of the session would fare better.
func (e *ServerError) ofSession() bool { return e.Code == -112 || e.Code == -115 || e.Code == -118 }

func codeError(code int32) error {
	switch code {
	case 0:
		return nil
	case -101:
		return ErrNoNode
	case -110:
		return ErrNodeExists
	}
	return &ServerError{Code: code}
}

// An encoder appends to a record.
type encoder []byte

func (e *encoder) int32(v int32) { *e = binary.BigEndian.AppendUint32(*e, uint32(v)) }
func (e *encoder) int64(v int64) { *e = binary.BigEndian.AppendUint64(*e, uint64(v)) }
func (e *encoder) string(s string) {
	e.int32(int32(len(s)))
	*e = append(*e, s...)
}

func (e *encoder) bool(b bool) {
	if b {
		*e = append(*e, 1)
	} else {
		*e = append(*e, 0)
	}
}

// acl is who may do what to a znode that is made.
type acl struct {
	perms      int32
	scheme, id string
}

func (e *encoder) acls(list []acl) {
	e.int32(int32(len(list)))
	for _, a := range list {
		e.int32(a.perms)
		e.string(a.scheme)
		e.string(a.id)
	}
}

// A decoder takes a record apart. What does not fit leaves zeros and an error; nothing
// is allocated for a length that the record does not have.
type decoder struct {
	rest []byte
	err  error
}

var errShort = errors.New("an answer is shorter than it says")

func (d *decoder) take(n int) []byte {
	if n < 0 || n > len(d.rest) {
		d.rest, d.err = nil, errShort
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) int32() int32 {
	if b := d.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (d *decoder) int64() int64 {
	if b := d.take(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

// bytes is part of the record. A length of -1 is no bytes.
func (d *decoder) bytes() []byte {
	n := d.int32()
	if n == -1 {
		return nil
	}
	return d.take(int(n))
}

// strings calls f with each string of a list.
func (d *decoder) strings(f func(string)) {
	for n := d.int32(); n > 0 && d.err == nil; n-- {
		if s := d.bytes(); d.err == nil {
			f(string(s))
		}
	}
}
