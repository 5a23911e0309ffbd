// Package named loads what a configuration names, and tells by its settings what is
// wrong with it: for programs that start, and for those who ask whether they would.
//
// It changes nothing, and serves nothing.
package named

import (
	"errors"
	"fmt"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/pkg/tlsconf"
)

// Holder is who the holder of a certificate has to be. What is empty may be anything.
type Holder struct {
	Role          tlsconf.Role
	Name, Cluster string // as the settings name and cluster say
}

// Certificate loads the files of the block at path.
func Certificate(path string, t config.TLS, want Holder) (*tlsconf.Source, config.Findings) {
	source, err := tlsconf.Load(tlsconf.Files{CA: t.CAFile, Cert: t.CertFile, Key: t.KeyFile})
	if err != nil {
		return nil, blamed(path, t, err)
	}
	var found config.Findings
	add := func(setting, format string, args ...any) {
		found = append(found, config.Finding{Path: setting, Err: fmt.Errorf(format, args...)})
	}
	who := source.Identity()
	if want.Role != "" && who.Role != want.Role {
		add(path+".cert_file", "%s is the certificate of %s, with role %s; role %s is needed here (logd tls cert create -role %s)",
			t.CertFile, who.Name, who.Role, want.Role, want.Role)
	}
	if want.Name != "" && who.Name != want.Name {
		add("name", "%q, but %s is the certificate of %q", want.Name, t.CertFile, who.Name)
	}
	if want.Cluster != "" && who.Cluster != want.Cluster {
		add("cluster", "%q, but %s is a certificate of cluster %q", want.Cluster, t.CertFile, who.Cluster)
	}
	if len(found) > 0 {
		return nil, found
	}
	return source, nil
}

// blamed says which settings an error of tlsconf.Load is about.
func blamed(path string, t config.TLS, err error) (found config.Findings) {
	var one *tlsconf.FileError
	var several tlsconf.FilesError
	switch {
	case errors.As(err, &several):
	case errors.As(err, &one):
		several = tlsconf.FilesError{one}
	default:
		return config.Findings{{Path: path, Err: err}}
	}
	for _, f := range several {
		setting := path
		switch f.Path {
		case t.CertFile:
			setting += ".cert_file"
		case t.KeyFile:
			setting += ".key_file"
		case t.CAFile:
			setting += ".ca_file"
		}
		found = append(found, config.Finding{Path: setting, Err: f})
	}
	return found
}
