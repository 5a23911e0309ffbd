package raftstore

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/commitlog"
)

// MaxStateBytes bounds the state in a checkpoint, here and on the wire.
const MaxStateBytes = 4 << 20

// A checkpoint file, little endian:
//
//	magic 8B | flags u32 (1: reset) | configuration bytes u32 | state bytes u32
//	| index u64 | term u64 | next offset u64 | log bytes u64 | configuration index u64
//	| body crc32c u32 | header crc32c u32, of all before it
//	| configuration (as hashicorp/raft encodes it) | state
//
// Its name is `<index, 20 digits>-<term>.ckp`. The checkpoint the log starts at
// is there twice, the second time with the suffix .copy: without it no other
// node could be brought up from this one.
const (
	checkpointMagic  = "logdckp1"
	checkpointHeader = 8 + 3*4 + 5*8 + 2*4
	checkpointSuffix = ".ckp"
	copySuffix       = ".copy"
	flagReset        = 1
)

// checkpoint is a checkpoint's header. It is immutable.
type checkpoint struct {
	index, term uint64
	next        uint64 // offset after the last record it covers
	bytes       uint64 // payload bytes since the beginning of the log
	configIndex uint64
	configLen   uint32
	stateLen    uint32
	bodyCRC     uint32
	reset       bool   // it was installed, and empties a log that starts below it
	name        string // of the file it was read from
}

func (c *checkpoint) id() string { return fmt.Sprintf("%020d-%d", c.index, c.term) }

func (c *checkpoint) start() *commitlog.Start {
	return &commitlog.Start{Index: c.index, Term: c.term, Offset: c.next}
}

func (c *checkpoint) meta(config raft.Configuration) *raft.SnapshotMeta {
	return &raft.SnapshotMeta{
		Version: raft.SnapshotVersionMax, ID: c.id(), Index: c.index, Term: c.term,
		Configuration: config, ConfigurationIndex: c.configIndex, Size: int64(c.stateLen),
	}
}

// encode gives the whole file and fills the lengths and the CRC in.
func (c *checkpoint) encode(config, state []byte) []byte {
	c.configLen, c.stateLen = uint32(len(config)), uint32(len(state))
	body := make([]byte, 0, checkpointHeader+len(config)+len(state))
	b := append(body, checkpointMagic...)
	var flags uint32
	if c.reset {
		flags |= flagReset
	}
	c.bodyCRC = crc32.Update(crc32.Checksum(config, castagnoli), castagnoli, state)
	for _, v := range []uint32{flags, c.configLen, c.stateLen} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	for _, v := range []uint64{c.index, c.term, c.next, c.bytes, c.configIndex} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	b = binary.LittleEndian.AppendUint32(b, c.bodyCRC)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return append(append(b, config...), state...)
}

// decodeHeader reads a checkpoint's header from the beginning of its file.
func decodeHeader(b []byte) (*checkpoint, error) {
	if len(b) < checkpointHeader || string(b[:8]) != checkpointMagic {
		return nil, fmt.Errorf("not a checkpoint")
	}
	b = b[:checkpointHeader]
	if crc32.Checksum(b[:len(b)-4], castagnoli) != binary.LittleEndian.Uint32(b[len(b)-4:]) {
		return nil, fmt.Errorf("header does not verify")
	}
	flags := binary.LittleEndian.Uint32(b[8:])
	if flags&^flagReset != 0 {
		return nil, fmt.Errorf("flags %#x", flags)
	}
	c := &checkpoint{
		reset:       flags&flagReset != 0,
		configLen:   binary.LittleEndian.Uint32(b[12:]),
		stateLen:    binary.LittleEndian.Uint32(b[16:]),
		index:       binary.LittleEndian.Uint64(b[20:]),
		term:        binary.LittleEndian.Uint64(b[28:]),
		next:        binary.LittleEndian.Uint64(b[36:]),
		bytes:       binary.LittleEndian.Uint64(b[44:]),
		configIndex: binary.LittleEndian.Uint64(b[52:]),
		bodyCRC:     binary.LittleEndian.Uint32(b[60:]),
	}
	if c.configLen > MaxStateBytes || c.stateLen > MaxStateBytes || c.index == 0 {
		return nil, fmt.Errorf("header is out of bounds")
	}
	return c, nil
}

// decodeBody splits a whole file into configuration and state.
func (c *checkpoint) decodeBody(file []byte) (config raft.Configuration, state []byte, err error) {
	if len(file) != checkpointHeader+int(c.configLen)+int(c.stateLen) {
		return config, nil, fmt.Errorf("%d bytes", len(file))
	}
	body := file[checkpointHeader:]
	if crc32.Checksum(body, castagnoli) != c.bodyCRC {
		return config, nil, fmt.Errorf("body does not verify")
	}
	config, err = DecodeConfiguration(body[:c.configLen])
	return config, body[c.configLen:], err
}

// DecodeConfiguration is raft.DecodeConfiguration with an error for malformed
// bytes, where that one panics.
func DecodeConfiguration(b []byte) (config raft.Configuration, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("decode configuration: %v", r)
		}
	}()
	return raft.DecodeConfiguration(b), nil
}

// isCheckpoint tells checkpoints and their copies from other files.
func isCheckpoint(name string) bool {
	return strings.HasSuffix(strings.TrimSuffix(name, copySuffix), checkpointSuffix)
}
