package cli_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// commands are some that answer with what they were given.
func commands() []cli.Command {
	return []cli.Command{
		{
			Name: "echo", Synopsis: "Say it again", Args: "<word>...", Long: "Echo says its words again.",
			Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
				upper := fs.Bool("upper", false, "in capitals")
				format := cli.FormatFlag(fs)
				return func(_ context.Context, args []string) error {
					text := strings.Join(args, " ")
					if *upper {
						text = strings.ToUpper(text)
					}
					_, err := env.Stdout.Write([]byte(string(*format) + ":" + text + "\n"))
					return err
				}
			},
		},
		{Name: "operator raft fail", Synopsis: "Fail", Setup: func(*flag.FlagSet, cli.Env) cli.Action {
			return func(context.Context, []string) error { return errors.New("it broke") }
		}},
		{Name: "operator raft die", Synopsis: "Die", Setup: func(*flag.FlagSet, cli.Env) cli.Action {
			return func(context.Context, []string) error { return &cli.FatalError{Err: errors.New("fatal: fsync failed")} }
		}},
		{Name: "quiet", Synopsis: "Fail having said why", Setup: func(_ *flag.FlagSet, env cli.Env) cli.Action {
			return func(context.Context, []string) error {
				_, _ = env.Stderr.Write([]byte("three problems\n"))
				return cli.ErrReported
			}
		}},
	}
}

func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	env := cli.Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs}
	code = cli.Main(t.Context(), "prog", "1.2.3", commands(), env, args)
	return code, out.String(), errs.String()
}

func TestCommandLine(t *testing.T) {
	tests := map[string]struct {
		args           string
		code           int
		stdout, stderr string // contained
	}{
		"a command":                  {"echo a b", 0, "table:a b\n", ""},
		"single dash":                {"echo -upper a", 0, "table:A\n", ""},
		"double dash":                {"echo --upper --format=json a", 0, "json:A\n", ""},
		"options after arguments":    {"echo a -upper b", 0, "table:A B\n", ""},
		"after a bare double dash":   {"echo a -- -upper", 0, "table:a -upper\n", ""},
		"unknown option":             {"echo -bogus", 2, "", "flag provided but not defined: -bogus"},
		"bad value":                  {"echo -format=xml", 2, "", "table or json"},
		"argument where none goes":   {"quiet x", 2, "", `unexpected argument "x"`},
		"unknown command":            {"ecko a", 2, "", `unknown command "ecko a"`},
		"unknown command of a group": {"operator raft flail", 2, "", `unknown command "operator raft flail"`},
		"a group alone":              {"operator raft", 2, "", "fail"},
		"nothing":                    {"", 2, "", "echo"},
		"option before the command":  {"-upper echo", 2, "", "-upper comes before"},
		"failure":                    {"operator raft fail", 1, "", "prog: it broke\n"},
		"fatal fault":                {"operator raft die", 3, "", "prog: fatal: fsync failed\n"},
		"failure already told":       {"quiet", 1, "", "three problems\n"},
		"help":                       {"-h", 0, "Say it again", ""},
		"help of a command":          {"echo -h", 0, "Usage: prog echo [options] <word>...", ""},
		"help of a nested command":   {"operator raft fail --help", 0, "Usage: prog operator raft fail", ""},
		"help of a group":            {"operator -h", 0, "raft", ""},
		"version":                    {"-version", 0, "prog 1.2.3", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := run(t, strings.Fields(tt.args)...)
			require.Equal(t, tt.code, code, "%s%s", stdout, stderr)
			require.Contains(t, stdout, tt.stdout)
			require.Contains(t, stderr, tt.stderr)
			if tt.stderr == "" {
				require.Empty(t, stderr)
			}
			if tt.code != 0 {
				require.Empty(t, stdout, "what is no result is on standard error")
			}
		})
	}
}

func TestTableCannotBeForged(t *testing.T) {
	rows := cli.NewRows("ID", "ADDRESS", "LEADER")
	rows.Add("n1", "", true)
	rows.Add("n2\nn3\tx", "a:1")
	var out bytes.Buffer
	require.NoError(t, rows.Write(&out))
	require.Equal(t, "ID       ADDRESS  LEADER\nn1       -        true\nn2?n3?x  a:1      -\n", out.String())
}

func TestFacts(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, cli.WriteFacts(&out, "logd agent running!", []cli.Fact{{"Version", "dev"}, {"RPC", "127.0.0.1:8400"}}))
	require.Equal(t, "==> logd agent running!\n    Version: dev\n        RPC: 127.0.0.1:8400\n", out.String())
}

func TestConnectFlags(t *testing.T) {
	parse := func(environ []string, args ...string) *cli.Connect {
		fs := flag.NewFlagSet("x", flag.ContinueOnError)
		c := cli.ConnectFlags(fs, cli.Env{Environ: environ}, cli.Sidecar)
		require.NoError(t, fs.Parse(args))
		return c
	}
	require.Equal(t, "127.0.0.1:8410", parse(nil).Address)
	require.Equal(t, "env:1", parse([]string{"LOGD_ADDR=env:1"}).Address)
	require.Equal(t, "flag:1", parse([]string{"LOGD_ADDR=env:1"}, "-address", "flag:1").Address)

	conf, err := parse(nil).TLS()
	require.NoError(t, err)
	require.Nil(t, conf, "plaintext")

	var usage *cli.UsageError
	_, err = parse(nil, "-cert", "x").Dial()
	require.ErrorAs(t, err, &usage)
	_, err = parse(nil, "-address", "nowhere").Dial()
	require.ErrorAs(t, err, &usage)

	f := tlstest.NewCA(t, "test").Files(t, tlsconf.RoleClient, "me")
	conf, err = parse([]string{"LOGD_CACERT=" + f.CA, "LOGD_CERT=" + f.Cert, "LOGD_KEY=" + f.Key}).TLS()
	require.NoError(t, err)
	require.NotNil(t, conf)

	_, err = parse(nil, "-ca-cert", "/none", "-cert", f.Cert, "-key", f.Key).TLS()
	require.ErrorContains(t, err, "/none")
}

func TestNegativeFlagsAreMistakes(t *testing.T) {
	run := func(args ...string) (code int, said string) {
		var out, errs bytes.Buffer
		cmds := []cli.Command{{Name: "measure", Synopsis: "Measure", Setup: func(fs *flag.FlagSet, _ cli.Env) cli.Action {
			fs.Duration("for", time.Second, "`duration`")
			fs.Float64("rate", 0, "`number`")
			fs.Int("window", 1, "`number`")
			return func(context.Context, []string) error { return nil }
		}}}
		code = cli.Main(t.Context(), "logd", "1", cmds, cli.Env{Stdout: &out, Stderr: &errs}, append([]string{"measure"}, args...))
		return code, errs.String()
	}
	for _, wrong := range [][]string{{"-for", "-1s"}, {"-rate", "-0.5"}, {"-rate", "NaN"}, {"-rate", "Inf"}, {"-window", "-3"}} {
		code, said := run(wrong...)
		require.Equal(t, cli.ExitUsage, code, wrong)
		require.Contains(t, said, "logd: "+wrong[0]+" ")
		require.Contains(t, said, "measure -h shows")
	}
	code, said := run("-for", "0", "-rate", "0", "-window", "0")
	require.Equal(t, cli.ExitOK, code, said)
}

func TestExplainNamesTheAddress(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := lis.Addr().String()
	require.NoError(t, lis.Close())

	fs := flag.NewFlagSet("x", flag.ContinueOnError)
	connect := cli.ConnectFlags(fs, cli.Env{}, address)
	c, err := connect.Dial()
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Offsets(t.Context())
	require.ErrorContains(t, cli.Explain(err), address)
	require.ErrorContains(t, cli.Explain(err), "is it running")
	require.NotContains(t, cli.Explain(errors.Join(nil, fmt.Errorf("asking: %w", err))).Error(), "rpc error")

	// What a server says itself needs no guess about whether it runs.
	said, err := status.New(14, "no leader took it").WithDetails(&errdetails.ErrorInfo{Reason: "NOT_SENT"})
	require.NoError(t, err)
	require.EqualError(t, cli.Explain(fmt.Errorf("asking: %w", said.Err())), "asking: no leader took it")
	plain := errors.New("plain")
	require.Equal(t, plain, cli.Explain(plain))
}

// Certificates that are meant for nodes, in the environment, are the usual reason why a
// sidecar that speaks plaintext hangs up.
func TestExplainKnowsWhoHangsUpOnTLS(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan struct{}) // closed when nobody accepts any more
	go func() {                  // hangs up on everybody; the test waits for it
		defer close(ended)
		for {
			c, err := lis.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 1))
			_ = c.Close()
		}
	}()
	defer func() { <-ended }()
	defer lis.Close()

	f := tlstest.NewCA(t, "example").Files(t, tlsconf.RoleClient, "alice")
	environ := []string{"LOGD_CACERT=" + f.CA, "LOGD_CERT=" + f.Cert, "LOGD_KEY=" + f.Key}
	connect := cli.ConnectFlags(flag.NewFlagSet("x", flag.ContinueOnError), cli.Env{Environ: environ}, lis.Addr().String())
	c, err := connect.Dial()
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Offsets(t.Context())
	require.ErrorContains(t, cli.Explain(err), "a sidecar may speak plaintext")
}

func TestAnAdminServerThatIsNotThere(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, lis.Close())
	a, err := cli.NewAdmin(lis.Addr().String())
	require.NoError(t, err)
	require.ErrorContains(t, a.Ready(t.Context()), "is it running, and is this its -admin address?")
	require.NoError(t, a.WaitEnded(t.Context()))
}

// buffer may be written and read at once.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestProgressOnlyOnATerminal(t *testing.T) {
	var out buffer
	p := cli.ShowProgress(cli.Env{Stderr: &out, Terminal: true}, func() string { return "at 7" })
	require.Eventually(t, func() bool { return strings.Contains(out.String(), "at 7") }, time.Minute, 10*time.Millisecond)
	p.Stop()
	require.True(t, strings.HasSuffix(out.String(), "\r\x1b[K"), "the line is taken away")

	var none buffer
	p = cli.ShowProgress(cli.Env{Stderr: &none}, func() string { return "at 7" })
	p.Stop()
	require.Empty(t, none.String())
}

// process runs until it is told to stop.
type process struct {
	closed   int
	reloaded atomic.Int32
	err      error
}

func (p *process) reload() error {
	p.reloaded.Add(1)
	return errors.New("ports.rpc: a restart is needed")
}

func (p *process) Run(ctx context.Context) error {
	<-ctx.Done()
	return p.err
}

func (p *process) Close() error {
	p.closed++
	return nil
}

func TestServeRunsThenCloses(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs buffer
	p := &process{err: errors.New("disk gone")}
	done := make(chan error, 1) // 1: Serve's result
	go func() {
		done <- cli.Serve(ctx, cli.Env{Stdout: &out, Stderr: &errs}, cli.Service{Title: "prog agent running!", Facts: []cli.Fact{{"Node ID", "n1"}}, Process: p, Reload: p.reload})
	}()
	require.Eventually(t, func() bool { return strings.Contains(out.String(), "Node ID: n1\n") }, time.Minute, 10*time.Millisecond)
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
	require.Eventually(t, func() bool { return strings.Contains(errs.String(), "Nothing was changed: ports.rpc") }, time.Minute, 10*time.Millisecond)
	cancel()
	require.ErrorContains(t, <-done, "disk gone")
	require.Equal(t, 1, p.closed)
	require.Eventually(t, func() bool { return strings.Contains(errs.String(), "Draining") }, time.Minute, 10*time.Millisecond)
}

func TestFirstSignalEndsTheContext(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		ctx, stop := cli.Signals(t.Context())
		require.NoError(t, syscall.Kill(os.Getpid(), sig))
		<-ctx.Done()
		stop()
	}
}
