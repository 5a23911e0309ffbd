package devcluster

import (
	"errors"
	"io/fs"
	"os"
)

// policy is who may do what in a development cluster. The clients of its proxy are
// the proxy, since a plaintext listener cannot tell them apart.
const policy = `# Who may do what: p, <name in the certificate>, *, <action>. Nodes read this file
# again when it changes.
p, client, *, produce
p, client, *, consume

p, admin, *, produce
p, admin, *, consume
p, admin, *, admin

p, proxy1, *, impersonate
p, proxy1, *, produce
p, proxy1, *, consume

p, nodes, *, join
g, node1, nodes
g, node2, nodes
g, node3, nodes
g, node4, nodes
g, node5, nodes
g, node6, nodes
g, node7, nodes
g, node8, nodes
g, node9, nodes
`

// makePolicy writes the policy, unless the file is there and may have been edited.
func makePolicy(file string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(policy)
	return errors.Join(err, f.Close())
}
