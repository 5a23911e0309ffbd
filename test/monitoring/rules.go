package monitoring

import (
	"bytes"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// Runbook is the page with a section for each alert.
const Runbook = "docs/ops/monitoring.md"

// runbookURL is where operators read it.
const runbookURL = "https://github.com/logd-io/logd/blob/main/" + Runbook + "#"

// A Group is evaluated in order, at one time.
type Group struct {
	Name  string `yaml:"name"`
	Rules []Rule `yaml:"rules"`
}

// A Rule records a series or raises an alert.
type Rule struct {
	Record      string      `yaml:"record,omitempty"`
	Alert       string      `yaml:"alert,omitempty"`
	Expr        string      `yaml:"expr"`
	For         string      `yaml:"for,omitempty"`
	Labels      Labels      `yaml:"labels,omitempty"`
	Annotations Annotations `yaml:"annotations,omitempty"`
}

// Labels of an alert. critical: clients are told no, or soon will be, or records are
// in danger. warning: somebody has to look today. info: worth knowing.
type Labels struct {
	Severity string `yaml:"severity,omitempty"`
}

// Annotations are what whoever is called reads first.
type Annotations struct {
	Summary     string `yaml:"summary,omitempty"`
	Description string `yaml:"description,omitempty"`
	RunbookURL  string `yaml:"runbook_url,omitempty"`
}

// RulesYAML is the rule file of groups.
func RulesYAML(groups []Group) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("# Made by `go test ./test/monitoring -update`; not to be edited.\n")
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(map[string][]Group{"groups": groups}); err != nil {
		return nil, fmt.Errorf("encode rules: %w", err)
	}
	return b.Bytes(), e.Close()
}

func alert(severity, name, wait, expr, summary, description string) Rule {
	return Rule{
		Alert: name, Expr: expr, For: wait, Labels: Labels{Severity: severity},
		Annotations: Annotations{Summary: summary, Description: description, RunbookURL: runbookURL + Anchor(name)},
	}
}
