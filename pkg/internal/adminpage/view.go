package adminpage

// View is what the page shows. The page's template and its script show the same one.
type View struct {
	Program string   `json:"program"`
	Name    string   `json:"name"` // of the process
	At      string   `json:"at"`   // when this was so, for people
	Answers []Answer `json:"answers"`
	Self    Place    `json:"self"`
	Places  []Place  `json:"places"`
	Tables  []Table  `json:"tables"` // the first one is near the top
	Facts   []Fact   `json:"facts"`
}

// Tone says whether something is as it should be. It is never told by colour alone:
// what has a tone says so in words too.
type Tone string

// The tones. The empty one is neither.
const (
	Good Tone = "good"
	Warn Tone = "warn"
	Bad  Tone = "bad"
)

// Answer is one of the few things that a glance should tell.
type Answer struct {
	Question string `json:"question"`
	Text     string `json:"text"`
	Why      string `json:"why"`
	Tone     Tone   `json:"tone"`
}

// Place is a process in the picture of the cluster.
type Place struct {
	Key    string `json:"key"`
	Name   string `json:"name"`
	Role   string `json:"role"`
	State  string `json:"state"`
	Tone   Tone   `json:"tone"`
	Leader bool   `json:"leader"`
}

// Table is a table; its rows may come and go, its columns stay.
type Table struct {
	ID      string   `json:"id"` // in the document
	Caption string   `json:"caption"`
	Note    string   `json:"note"` // what its columns mean, where they do not say so
	Columns []Column `json:"columns"`
	Rows    []Row    `json:"rows"`
	Empty   string   `json:"empty"` // said when there is no row
}

// Column of a Table.
type Column struct {
	Name    string `json:"name"`
	Numeric bool   `json:"numeric"`
}

// Row of a Table. The first cell names it.
type Row struct {
	Key   string `json:"key"`
	Cells []Cell `json:"cells"`
}

// Cell of a Row.
type Cell struct {
	Text string `json:"text"`
	Tone Tone   `json:"tone"`
}

// Fact is a name and its value.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}
