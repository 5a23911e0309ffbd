package benchkit

import "fmt"

// Kind tells what has to hold from what is aimed at next.
type Kind string

// The kinds of goals.
const (
	Goal Kind = "GOAL"
	Next Kind = "NEXT" // to be had one day; nobody is held to it
)

// AtLeast prints the line of a goal that a figure reaches from below:
// "GOAL <name> <figure> <target> ok|MISS".
func (k Kind) AtLeast(name string, figure, target float64, unit string) {
	fmt.Println(k.line(name, figure, ">=", target, unit))
}

// AtMost prints the line of a goal that a figure must not exceed.
func (k Kind) AtMost(name string, figure, target float64, unit string) {
	fmt.Println(k.line(name, figure, "<=", target, unit))
}

func (k Kind) line(name string, figure float64, sign string, target float64, unit string) string {
	verdict := "MISS" // also of a figure that is no number
	if sign == ">=" && figure >= target || sign == "<=" && figure <= target {
		verdict = "ok"
	}
	return fmt.Sprintf("%s %s %.3f%s %s%.2f%s %s", k, name, figure, unit, sign, target, unit, verdict)
}
