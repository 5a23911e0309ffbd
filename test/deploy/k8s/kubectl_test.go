package k8s_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/strvals"
	corev1 "k8s.io/api/core/v1"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/logd-io/logd/test/deploy/program"
)

// kubectl and helm stand in for the tools in the commands of a page: this test's
// own binary, found under their names. They know the few forms that the page has,
// take the same files, and keep in the folder $CLUSTER what a cluster would:
// Secrets as <namespace>/<name>/<key>, and what was applied.

func kubectl(args []string) error {
	cluster := os.Getenv("CLUSTER")
	namespace := "default"
	if len(args) > 1 && args[0] == "-n" {
		namespace, args = args[1], args[2:]
	}
	home := filepath.Join(cluster, namespace)
	if _, err := os.Stat(home); err != nil {
		return fmt.Errorf("namespace %s: %w", namespace, err)
	}
	is := func(words ...string) bool { return len(args) >= len(words) && slices.Equal(args[:len(words)], words) }
	switch {
	case is("create", "namespace") && len(args) == 3:
		return os.Mkdir(filepath.Join(cluster, args[2]), 0o700)
	case is("create", "secret", "generic") && len(args) > 4:
		return createSecret(filepath.Join(home, args[3]), args[4:])
	case is("apply", "-f") && len(args) == 3:
		text, err := os.ReadFile(args[2])
		if err != nil {
			return err
		}
		var n corev1.Namespace
		if err := sigsyaml.UnmarshalStrict(text, &n); err != nil {
			return err
		}
		if n.Kind != "Namespace" {
			return fmt.Errorf("%s: only a Namespace is expected", args[2])
		}
		return os.MkdirAll(filepath.Join(cluster, n.Name), 0o700)
	case is("apply", "-k") && len(args) == 3:
		text, err := kustomize(args[2])
		if err != nil {
			return err
		}
		return applied(cluster, namespace, text)
	case is("rollout", "status") && len(args) == 3, is("rollout", "restart") && len(args) == 3:
		return exists(home, args[2])
	case is("scale") && len(args) == 3 && strings.HasPrefix(args[2], "--replicas="):
		return exists(home, args[1])
	case is("wait", "--for=condition=complete") && len(args) == 3, is("logs") && len(args) == 2:
		return exists(home, args[len(args)-1])
	case is("delete", "pvc") && len(args) == 3:
		claim, ok := strings.CutPrefix(args[2], "data-")
		if !ok {
			return fmt.Errorf("%s is no claim of a node", args[2])
		}
		return exists(home, "statefulset/"+claim[:strings.LastIndex(claim, "-")])
	case is("exec") && len(args) > 3 && args[2] == "--":
		if err := exists(home, setOf(args[1])); err != nil {
			return err
		}
		_, _, err := program.In(os.Getenv("PROGRAMS")).Check(args[3:])
		return err
	case is("port-forward") && len(args) == 3:
		_, port, _ := strings.Cut(args[2], ":")
		text, err := os.ReadFile(filepath.Join(home, ".applied", setOf(args[1])))
		if err != nil {
			return err
		}
		if !regexp.MustCompile(`(?m)^[ -]*(containerPort|port): ` + regexp.QuoteMeta(port) + `$`).Match(text) {
			return fmt.Errorf("%s has no port %s", args[1], port)
		}
		return nil
	}
	return fmt.Errorf("%q is not a form that is known here", args)
}

// setOf is the set that a pod belongs to, called pod/x-0 or x-0; others stand for themselves.
func setOf(pod string) string {
	name, is := strings.CutPrefix(pod, "pod/")
	if !is && strings.Contains(pod, "/") {
		return pod
	}
	return "statefulset/" + name[:max(strings.LastIndex(name, "-"), 0)]
}

// createSecret takes --from-file=[key=]path, once or more.
func createSecret(dir string, flags []string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for _, f := range flags {
		source, ok := strings.CutPrefix(f, "--from-file=")
		if !ok {
			return fmt.Errorf("%s: only --from-file is expected", f)
		}
		key, path, ok := strings.Cut(source, "=")
		if !ok {
			key, path = filepath.Base(source), source
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, key), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// applied notes objects by namespace, kind and name. Secrets that pods mount must
// be there, unless a Certificate makes them.
func applied(cluster, namespace string, text []byte) error {
	var needed, made []string
	for doc := range bytes.SplitSeq(text, []byte("\n---\n")) {
		var o struct {
			Kind     string
			Metadata struct{ Name, Namespace string }
			Spec     struct {
				SecretName string
				Template   corev1.PodTemplateSpec
			}
		}
		if err := sigsyaml.Unmarshal(doc, &o); err != nil {
			return err
		}
		if o.Kind == "" || o.Kind == "Namespace" {
			continue
		}
		if o.Metadata.Namespace == "" {
			o.Metadata.Namespace = namespace
		}
		home := filepath.Join(cluster, o.Metadata.Namespace)
		if o.Kind == "Certificate" {
			made = append(made, filepath.Join(home, o.Spec.SecretName))
		}
		for _, v := range o.Spec.Template.Spec.Volumes {
			if v.Secret != nil {
				needed = append(needed, filepath.Join(home, v.Secret.SecretName))
			}
			if v.Projected != nil {
				for _, s := range v.Projected.Sources {
					needed = append(needed, filepath.Join(home, s.Secret.Name))
				}
			}
		}
		at := filepath.Join(home, ".applied", strings.ToLower(o.Kind))
		if err := os.MkdirAll(at, 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(at, o.Metadata.Name), doc, 0o600); err != nil {
			return err
		}
	}
	for _, secret := range needed {
		if _, err := os.Stat(secret); err != nil && !slices.Contains(made, secret) {
			return fmt.Errorf("a pod would wait: %w", err)
		}
	}
	return nil
}

// exists is an error unless kind/name was applied.
func exists(home, kindAndName string) error {
	_, err := os.Stat(filepath.Join(home, ".applied", kindAndName))
	return err
}

// helmCommand takes: upgrade --install NAME CHART -n NAMESPACE --create-namespace
// with --set and -f.
func helmCommand(args []string) error {
	if len(args) < 4 || args[0] != "upgrade" || args[1] != "--install" {
		return fmt.Errorf("%q is not a form that is known here", args)
	}
	release, chart, namespace := args[2], args[3], "default"
	real, err := filepath.EvalSymlinks(chart)
	if err != nil {
		return err
	}
	if filepath.Base(real) != filepath.Base(chartDir) {
		return fmt.Errorf("%s is not the chart", chart)
	}
	values := map[string]any{}
	create := false
	for args = args[4:]; len(args) > 0; args = args[1:] {
		switch {
		case args[0] == "--create-namespace":
			create = true
		case len(args) > 1 && args[0] == "-n":
			namespace, args = args[1], args[1:]
		case len(args) > 1 && args[0] == "--set":
			if err := strvals.ParseInto(args[1], values); err != nil {
				return err
			}
			args = args[1:]
		case len(args) > 1 && args[0] == "-f":
			more, err := chartutil.ReadValuesFile(args[1])
			if err != nil {
				return err
			}
			values = chartutil.CoalesceTables(values, more)
			args = args[1:]
		default:
			return fmt.Errorf("helm: %s is not known here", args[0])
		}
	}
	home := filepath.Join(os.Getenv("CLUSTER"), namespace)
	if create {
		if err := os.MkdirAll(home, 0o700); err != nil {
			return err
		}
	}
	files, err := template(values, release, namespace)
	if err != nil {
		return err
	}
	var all bytes.Buffer
	for name, text := range files {
		if strings.HasSuffix(name, ".yaml") {
			all.WriteString(text + "\n---\n")
		}
	}
	return errors.Join(applied(os.Getenv("CLUSTER"), namespace, all.Bytes()))
}
