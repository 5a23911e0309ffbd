package harness

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ErrNoZooKeeper is that there is no ZooKeeper, or no Java, on this machine.
var ErrNoZooKeeper = errors.New("no ZooKeeper here: Debian has it in libzookeeper-java, with default-jre-headless")

// zooTick is ZooKeeper's unit of time, in milliseconds: sessions live from two to twenty
// of them.
const zooTick = 200

// ZooKeeper is one server of its own.
type ZooKeeper struct {
	*Process
	Addr string // host:port for clients
	TLS  string // host:port for those with TLS; empty without PEM
}

// ZooKeeperOptions says where a server is.
type ZooKeeperOptions struct {
	Dir, Host string
	// PEM is a file with a key and its certificate, CA whom it believes. Without them there
	// is no TLS.
	PEM, CA string
}

// NewZooKeeper makes the configuration of a server, without starting it. The jars are
// looked for in LOGD_TEST_ZOOKEEPER or where Debian has them.
func NewZooKeeper(opt ZooKeeperOptions) (*ZooKeeper, error) {
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, ErrNoZooKeeper
	}
	jars := os.Getenv("LOGD_TEST_ZOOKEEPER")
	if jars == "" {
		jars = "/usr/share/java"
	}
	var path []string
	for _, pattern := range []string{
		"zookeeper.jar", "zookeeper-jute.jar", "slf4j-api.jar", "slf4j-simple.jar", "netty-*.jar",
		"metrics-core.jar", "snappy-java.jar", "commons-cli.jar", "commons-io.jar", "jackson-core.jar",
	} {
		found, err := filepath.Glob(filepath.Join(jars, pattern))
		if err != nil {
			return nil, err
		}
		if len(found) == 0 && strings.HasPrefix(pattern, "zookeeper") {
			return nil, ErrNoZooKeeper
		}
		path = append(path, found...)
	}
	z := &ZooKeeper{Addr: net.JoinHostPort(opt.Host, "2181")}
	text := fmt.Sprintf("tickTime=%d\ndataDir=%s\nclientPortAddress=%s\nclientPort=2181\nadmin.enableServer=false\n",
		zooTick, filepath.Join(opt.Dir, "zookeeper"), opt.Host)
	args := []string{"-Xmx96m", "-cp", strings.Join(path, ":")}
	if opt.PEM != "" {
		z.TLS = net.JoinHostPort(opt.Host, "2281")
		text += fmt.Sprintf("secureClientPortAddress=%s\nsecureClientPort=2281\n", opt.Host)
		args = append(args,
			"-Dzookeeper.serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",
			"-Dzookeeper.ssl.keyStore.location="+opt.PEM, "-Dzookeeper.ssl.keyStore.type=PEM",
			"-Dzookeeper.ssl.trustStore.location="+opt.CA, "-Dzookeeper.ssl.trustStore.type=PEM",
			"-Dzookeeper.ssl.clientAuth=need")
	}
	conf := filepath.Join(opt.Dir, "zoo.cfg")
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	z.Process = &Process{
		Name: "zookeeper", Path: java, Log: filepath.Join(opt.Dir, "log", "zookeeper.log"),
		Args: append(args, "org.apache.zookeeper.server.ZooKeeperServerMain", conf),
	}
	return z, nil
}
