package monitoring

import (
	"encoding/json"
	"fmt"
	"strings"
)

// The parts of Grafana's dashboard model that are used, as of schemaVersion 39
// (Grafana 10.3 and later; newer ones migrate it when they load it).
type (
	// A Dashboard is what Grafana imports.
	Dashboard struct {
		UID           string     `json:"uid"`
		Title         string     `json:"title"`
		Description   string     `json:"description"`
		Tags          []string   `json:"tags"`
		SchemaVersion int        `json:"schemaVersion"`
		Version       int        `json:"version"`
		Editable      bool       `json:"editable"`
		GraphTooltip  int        `json:"graphTooltip"` // 1: one crosshair for all panels
		Refresh       string     `json:"refresh"`
		Time          timeRange  `json:"time"`
		Timezone      string     `json:"timezone"`
		Templating    templating `json:"templating"`
		Annotations   annotation `json:"annotations"`
		Links         []link     `json:"links"`
		Panels        []Panel    `json:"panels"`
	}
	timeRange struct {
		From string `json:"from"`
		To   string `json:"to"`
	}
	templating struct {
		List []variable `json:"list"`
	}
	variable struct {
		Name       string      `json:"name"`
		Label      string      `json:"label"`
		Type       string      `json:"type"`
		Datasource *datasource `json:"datasource,omitempty"`
		Query      any         `json:"query"`
		Definition string      `json:"definition,omitempty"`
		Refresh    int         `json:"refresh"`
		Sort       int         `json:"sort,omitempty"`
		Multi      bool        `json:"multi"`
		IncludeAll bool        `json:"includeAll"`
		AllValue   string      `json:"allValue,omitempty"`
		Current    any         `json:"current"`
	}
	variableQuery struct {
		Query string `json:"query"`
		RefID string `json:"refId"`
	}
	annotation struct {
		List []any `json:"list"`
	}
	link struct {
		Title       string   `json:"title"`
		Type        string   `json:"type"`
		Icon        string   `json:"icon"`
		Tooltip     string   `json:"tooltip"`
		TargetBlank bool     `json:"targetBlank"`
		Tags        []string `json:"tags"`
		AsDropdown  bool     `json:"asDropdown"`
		IncludeVars bool     `json:"includeVars"`
		KeepTime    bool     `json:"keepTime"`
	}
	datasource struct {
		Type string `json:"type"`
		UID  string `json:"uid"`
	}
	// A Panel shows queries, or is a row that heads those below it.
	Panel struct {
		ID          int          `json:"id"`
		Type        string       `json:"type"`
		Title       string       `json:"title"`
		Description string       `json:"description,omitempty"`
		GridPos     gridPos      `json:"gridPos"`
		Collapsed   *bool        `json:"collapsed,omitempty"`
		Datasource  *datasource  `json:"datasource,omitempty"`
		Targets     []Target     `json:"targets,omitempty"`
		FieldConfig *fieldConfig `json:"fieldConfig,omitempty"`
		Options     any          `json:"options,omitempty"`
		Panels      any          `json:"panels,omitempty"` // of a row: none, it is open
	}
	gridPos struct {
		H int `json:"h"`
		W int `json:"w"`
		X int `json:"x"`
		Y int `json:"y"`
	}
	// A Target is one query of a panel.
	Target struct {
		RefID        string     `json:"refId"`
		Datasource   datasource `json:"datasource"`
		Expr         string     `json:"expr"`
		LegendFormat string     `json:"legendFormat"`
		Range        bool       `json:"range"`
		Instant      bool       `json:"instant"`
	}
	fieldConfig struct {
		Defaults  fieldDefaults `json:"defaults"`
		Overrides []any         `json:"overrides"`
	}
	fieldDefaults struct {
		Unit       string      `json:"unit"`
		Min        *int        `json:"min,omitempty"`
		Decimals   *int        `json:"decimals,omitempty"`
		Custom     any         `json:"custom,omitempty"`
		Color      any         `json:"color,omitempty"`
		Thresholds *thresholds `json:"thresholds,omitempty"`
	}
	thresholds struct {
		Mode  string `json:"mode"`
		Steps []step `json:"steps"`
	}
	step struct {
		Color string   `json:"color"`
		Value *float64 `json:"value"` // nil: from below
	}
)

var prometheus = datasource{Type: "prometheus", UID: "${datasource}"}

// JSON is the dashboard's file.
func (d Dashboard) JSON() ([]byte, error) {
	b, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode dashboard %s: %w", d.UID, err)
	}
	return append(b, '\n'), nil
}

// filter stands as @ in the queries below.
const filter = `cluster=~"$cluster",job=~"$job",instance=~"$instance"`

// newDashboard lays rows out. build is the metric that every process of the kind has.
func newDashboard(uid, title, description, build string, rows []row) Dashboard {
	d := Dashboard{
		UID: uid, Title: title, Description: description, Tags: []string{"logd"}, SchemaVersion: 39, Version: 1,
		Editable: true, GraphTooltip: 1, Refresh: "30s", Timezone: "browser",
		Time:        timeRange{From: "now-1h", To: "now"},
		Annotations: annotation{List: []any{}},
		Links:       []link{{Title: "logd", Type: "dashboards", Icon: "external link", Tooltip: "The other dashboard of logd", Tags: []string{"logd"}, AsDropdown: true, IncludeVars: true, KeepTime: true}},
	}
	d.Templating.List = []variable{
		{Name: "datasource", Label: "Data source", Type: "datasource", Query: "prometheus", Refresh: 1, Current: map[string]any{"text": "", "value": ""}},
		values("cluster", "Cluster", "label_values("+build+", cluster)"),
		values("job", "Job", `label_values(`+build+`{cluster=~"$cluster"}, job)`),
		values("instance", "Instance", `label_values(`+build+`{cluster=~"$cluster",job=~"$job"}, instance)`),
	}
	id, y := 0, 0
	place := func(p Panel, x int) {
		id++
		p.ID = id
		p.GridPos.X, p.GridPos.Y = x, y
		d.Panels = append(d.Panels, p)
	}
	for _, r := range rows {
		shut := false
		place(Panel{Type: "row", Title: r.title, GridPos: gridPos{H: 1, W: width}, Collapsed: &shut, Panels: []Panel{}}, 0)
		y++
		x, high := 0, 0
		for _, p := range r.panels {
			if x+p.GridPos.W > width {
				x, y, high = 0, y+high, 0
			}
			place(p, x)
			x, high = x+p.GridPos.W, max(high, p.GridPos.H)
		}
		y += high
	}
	return d
}

// width of a dashboard, in Grafana's columns.
const width = 24

// values is a variable with the values of a label; all is everything, also where
// there is no such label.
func values(name, label, query string) variable {
	return variable{
		Name: name, Label: label, Type: "query", Datasource: &prometheus, Definition: query,
		Query: variableQuery{Query: query, RefID: "values"}, Refresh: 2, Sort: 1, Multi: true, IncludeAll: true, AllValue: ".*",
		Current: map[string]any{"selected": true, "text": []string{"All"}, "value": []string{"$__all"}},
	}
}

type row struct {
	title  string
	panels []Panel
}

// query is a target: an expression, with @ for the filter, and its legend.
type query struct{ expr, legend string }

func targets(queries []query, instant bool) (all []Target) {
	for i, q := range queries {
		all = append(all, Target{
			RefID: string(rune('A' + i)), Datasource: prometheus, Expr: strings.ReplaceAll(q.expr, "@", filter),
			LegendFormat: q.legend, Range: !instant, Instant: instant,
		})
	}
	return all
}

// graph is a time series from zero.
func graph(title, unit, description string, queries ...query) Panel {
	zero := 0
	return Panel{
		Type: "timeseries", Title: title, Description: description, GridPos: gridPos{H: 8, W: 8}, Datasource: &prometheus,
		Targets: targets(queries, false),
		FieldConfig: &fieldConfig{Overrides: []any{}, Defaults: fieldDefaults{
			Unit: unit, Min: &zero,
			Custom: map[string]any{"drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "spanNulls": false},
			Color:  map[string]any{"mode": "palette-classic"},
		}},
		Options: map[string]any{
			"legend":  map[string]any{"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []string{}},
			"tooltip": map[string]any{"mode": "multi", "sort": "desc"},
		},
	}
}

// stat is one figure. colors are a colour, and then in turn from where on and which.
func stat(title, unit, description, expr string, colors ...any) Panel {
	p := Panel{
		Type: "stat", Title: title, Description: description, GridPos: gridPos{H: 4, W: 4}, Datasource: &prometheus,
		Targets: targets([]query{{expr, ""}}, true),
		Options: map[string]any{
			"reduceOptions": map[string]any{"calcs": []string{"lastNotNull"}, "fields": "", "values": false},
			"colorMode":     "value", "graphMode": "none", "justifyMode": "auto", "textMode": "auto", "orientation": "auto",
			"wideLayout": true, "showPercentChange": false, "percentChangeColorMode": "standard",
		},
	}
	t := &thresholds{Mode: "absolute", Steps: []step{{Color: "text"}}}
	if len(colors) > 0 {
		t.Steps[0].Color = colors[0].(string)
		for i := 1; i+1 < len(colors); i += 2 {
			from := float64(colors[i].(int))
			t.Steps = append(t.Steps, step{Color: colors[i+1].(string), Value: &from})
		}
	}
	p.FieldConfig = &fieldConfig{Overrides: []any{}, Defaults: fieldDefaults{Unit: unit, Thresholds: t, Color: map[string]any{"mode": "thresholds"}}}
	return p
}

// names is a stat that shows its legends.
func names(title, description string, queries ...query) Panel {
	p := stat(title, "none", description, "")
	p.GridPos = gridPos{H: 8, W: 8}
	p.Targets = targets(queries, true)
	p.Options.(map[string]any)["textMode"] = "value_and_name"
	return p
}

// quantiles are the median and the 99th percentile of a histogram, by labels.
func quantiles(histogram, matchers, by, legend string) []query {
	if matchers != "" {
		matchers += ","
	}
	if by != "" {
		by += ", "
	}
	var all []query
	for _, q := range []struct{ q, name string }{{"0.5", "p50"}, {"0.99", "p99"}} {
		all = append(all, query{
			fmt.Sprintf(`histogram_quantile(%s, sum by (%sle) (rate(%s_bucket{%s@}[$__rate_interval])))`, q.q, by, histogram, matchers),
			strings.TrimSpace(q.name + " " + legend),
		})
	}
	return all
}

func rateOf(counter, by, legend string) query {
	return query{fmt.Sprintf(`sum by (%s) (rate(%s{@}[$__rate_interval]))`, by, counter), legend}
}
