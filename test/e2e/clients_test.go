//go:build system

package e2e_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/harness"
)

// Clients that people have, none of which knows of us, at a proxy in front of three
// nodes. What they wrote is then read with a stub of grpc-go.

// tool runs a program to its end, and answers what it wrote.
func (w *world) tool(name string, args ...string) (stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(w.ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

func (w *world) values() map[uint64]string {
	recs, err := harness.ReadAll(w.ctx, w.naive())
	require.NoError(w.t, err)
	all := make(map[uint64]string, len(recs))
	for _, r := range recs {
		all[r.GetOffset()] = string(r.GetValue())
	}
	return all
}

// descriptors are files and what they import, each after what it imports.
func descriptors(files ...protoreflect.FileDescriptor) *descriptorpb.FileDescriptorSet {
	set, done := new(descriptorpb.FileDescriptorSet), map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if done[f.Path()] {
			return
		}
		done[f.Path()] = true
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(f))
	}
	for _, f := range files {
		add(f)
	}
	return set
}

func TestSystemPythonClient(t *testing.T) {
	const python = "/usr/bin/python3" // Debian's, for which there is a package
	if out, err := exec.Command(python, "-c", "import grpc, google.protobuf").CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: Debian's python3-grpcio and python3-protobuf are not here: %v\n%s", err, out)
	}
	w := start(t)
	b, err := proto.Marshal(descriptors(logv1.File_log_v1_log_proto, healthv1.File_grpc_health_v1_health_proto,
		spb.File_google_rpc_status_proto, errdetails.File_google_rpc_error_details_proto))
	require.NoError(t, err)
	set := filepath.Join(t.TempDir(), "descriptors.pb")
	require.NoError(t, os.WriteFile(set, b, 0o600))
	out, errs, err := w.tool(python, filepath.Join("testdata", "client.py"), w.proxy.Addr, set)
	require.NoError(t, err, "%s\n%s", out, errs)
	var wrote map[string]string
	require.NoError(t, json.Unmarshal([]byte(out), &wrote), out)
	require.Len(t, wrote, 2*302)
	all := w.values()
	require.Len(t, all, len(wrote), "nothing twice, and nothing else")
	for at, value := range wrote {
		offset, err := strconv.ParseUint(at, 10, 64)
		require.NoError(t, err)
		require.Equal(t, value, all[offset])
	}
}

func TestSystemGrpcurl(t *testing.T) {
	grpcurl := clientTool(t, "grpcurl")
	w := start(t)
	ask := func(args ...string) (string, string, error) {
		return w.tool(grpcurl, append([]string{"-plaintext", "-max-time", "60"}, args...)...)
	}
	must := func(args ...string) string {
		t.Helper()
		out, errs, err := ask(args...)
		require.NoError(t, err, "%s\n%s", out, errs)
		return out
	}
	require.Equal(t, "grpc.health.v1.Health\ngrpc.reflection.v1.ServerReflection\ngrpc.reflection.v1alpha.ServerReflection\nlog.v1.Log\n", must(w.proxy.Addr, "list"))
	require.Contains(t, must(w.proxy.Addr, "describe", "log.v1.ProduceRequest"), "log.v1.Record record = 1;")
	require.Contains(t, must(w.proxy.Addr, "grpc.health.v1.Health/Check"), `"SERVING"`)

	value := base64.StdEncoding.EncodeToString([]byte("by hand"))
	for range 2 { // the same request again
		out := must("-H", "logd-request-id: 1", "-d", `{"record":{"value":"`+value+`"}}`, w.proxy.Addr, "log.v1.Log/Produce")
		require.JSONEq(t, `{}`, out, "offset 0, which JSON leaves out")
	}
	var many strings.Builder
	for i := range 20 {
		fmt.Fprintf(&many, `{"record":{"value":%q}}`, base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "stream %d", i)))
	}
	out := must("-d", many.String(), w.proxy.Addr, "log.v1.Log/ProduceStream")
	require.Equal(t, 20, strings.Count(out, `"offset"`), out)
	out = must("-v", "-d", `{"offset":"3"}`, w.proxy.Addr, "log.v1.Log/Consume")
	require.Contains(t, out, base64.StdEncoding.EncodeToString([]byte("stream 2")))
	require.Contains(t, out, "logd-position: ")

	// A tail that its deadline ends, after all there is.
	out, errs, err := w.tool(grpcurl, "-plaintext", "-max-time", "2", "-d", `{"offset":"1"}`, w.proxy.Addr, "log.v1.Log/ConsumeStream")
	require.Error(t, err)
	require.Contains(t, errs, "DeadlineExceeded")
	require.Equal(t, 20, strings.Count(out, `"record"`))

	_, errs, err = ask("-format-error", "-d", `{"offset":"1000"}`, w.proxy.Addr, "log.v1.Log/Consume")
	require.Error(t, err)
	require.Contains(t, errs, "OFFSET_OUT_OF_RANGE")
	require.Contains(t, errs, `"next": "21"`)
	require.Len(t, w.values(), 21)
}

// A generator of load, whose calls must all succeed and be in the log once each,
// also when the leader is killed under it.
func TestSystemGhz(t *testing.T) {
	ghz := clientTool(t, "ghz")
	w := start(t)
	type report struct {
		Count  uint64            `json:"count"`
		Errors map[string]uint64 `json:"errorDistribution"`
		Codes  map[string]uint64 `json:"statusCodeDistribution"`
	}
	load := func(method, data string, calls int, more ...string) (r report) {
		t.Helper()
		out, errs, err := w.tool(ghz, append(append([]string{
			"--insecure", "--call", "log.v1.Log." + method, "-d", data, "-n", fmt.Sprint(calls),
			"-c", "20", "--connections", "4", "--timeout", "60s", "-O", "json",
		}, more...), w.proxy.Addr)...)
		require.NoError(t, err, errs)
		require.NoError(t, json.Unmarshal([]byte(out), &r), out)
		require.Empty(t, r.Errors)
		require.Equal(t, map[string]uint64{"OK": uint64(calls)}, r.Codes)
		return r
	}
	const one = `{"record":{"value":"aGVsbG8="}}`
	load("Produce", one, 1000)
	require.Len(t, w.values(), 1000)
	load("Consume", `{"offset":"{{randomInt 0 1000}}"}`, 1000)
	load("ProduceStream", "["+strings.Repeat(one+",", 9)+one+"]", 100)
	require.Len(t, w.values(), 2000)

	killed := make(chan error, 1)
	leader, before := w.leader(), w.stats(w.leader()).GetVisible()
	go func() {
		killed <- harness.Until(w.ctx, func() error {
			st, err := w.Stats(w.ctx, leader)
			if err != nil {
				return err
			}
			if st.GetVisible() < before+200 {
				return fmt.Errorf("%d records", st.GetVisible())
			}
			return leader.Kill()
		})
	}()
	load("Produce", one, 5000)
	require.NoError(t, <-killed)
	require.False(t, leader.Running())
	require.Len(t, w.values(), 7000)
}
