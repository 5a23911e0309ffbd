package monitoring

import (
	"regexp"
	"strings"
)

// A Selector is a metric in an expression, with what it is matched by.
type Selector struct {
	Metric   string
	Matchers string // with braces; empty when there are none
}

func (s Selector) String() string { return s.Metric + s.Matchers }

var (
	// selector finds metrics by how ours, and those of Go programs, begin.
	selector = regexp.MustCompile(`\b((?:logd|logproxy|grpc_server|grpc_client|go|process)_\w+|(?:job|instance):[\w:]+|up\b)(\{[^}]*\})?`)
	matcher  = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)\s*"[^"]*"`)
	grouping = regexp.MustCompile(`\b(?:by|without|on|ignoring|group_right|group_left)\s*\(([^)]*)\)`)
	duration = regexp.MustCompile(`\[[^\]]*\]`)
	word     = regexp.MustCompile(`[A-Za-z_:][\w:]*`)
)

// Selectors are the metrics of an expression, in order, each once.
func Selectors(expr string) (all []Selector) {
	seen := map[Selector]bool{}
	for _, m := range selector.FindAllStringSubmatch(expr, -1) {
		s := Selector{m[1], m[2]}
		if !seen[s] {
			seen[s] = true
			all = append(all, s)
		}
	}
	return all
}

// Labels are those that a selector matches.
func (s Selector) Labels() (all []string) {
	for _, m := range matcher.FindAllStringSubmatch(s.Matchers, -1) {
		all = append(all, m[1])
	}
	return all
}

// Groupings are the labels by which an expression aggregates or joins.
func Groupings(expr string) (all []string) {
	for _, m := range grouping.FindAllStringSubmatch(expr, -1) {
		for l := range strings.SplitSeq(m[1], ",") {
			if l = strings.TrimSpace(l); l != "" {
				all = append(all, l)
			}
		}
	}
	return all
}

// Words are what is left of an expression without its metrics and labels: functions
// and operators.
func Words(expr string) []string {
	for _, r := range []*regexp.Regexp{selector, duration, grouping} {
		expr = r.ReplaceAllString(expr, " ")
	}
	return word.FindAllString(expr, -1)
}

// Anchor is where a page's heading is found, by GitHub's rules for plain ones.
func Anchor(heading string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(heading) {
		switch {
		case r == ' ' || r == '-':
			b.WriteByte('-')
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_':
			b.WriteRune(r)
		}
	}
	return b.String()
}
