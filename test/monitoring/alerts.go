package monitoring

import (
	"fmt"
	"strings"
)

const (
	critical = "critical"
	warning  = "warning"
	info     = "info"

	// What one cluster is told from another by. Prometheus leaves out the labels that
	// there are not: namespace is Kubernetes', cluster whatever the scrape says.
	by = "cluster, namespace, job"
	// The Prometheus operator puts the namespace before a job.
	nodes   = `job=~"(.*/)?logd"`
	proxies = `job=~"(.*/)?logproxy"`

	// The error budget: one call in a thousand.
	budget = "0.001"
	// Codes that are not the caller's doing. A stream's end says little: it ends when
	// its client goes, and has an alert of its own.
	ourFault = `code=~"Aborted|DataLoss|DeadlineExceeded|Internal|Unavailable|Unknown",` + unary
	overload = `code="ResourceExhausted",` + unary
	unary    = `method!~".*Stream|Watch"`
)

// failed is the rate of unary calls that failed by no doing of their callers, for each
// of by. more is put into each selector. Proxies and nodes refuse for want of room, which
// is their doing, and a client that is past its own rate, which is not, with one code: the
// second is taken off, and of each proxy no more than there is, as rates are estimates.
func failed(by, more, window string) string {
	if by != "" {
		by += ", "
	}
	return strings.NewReplacer("MORE", more, "WINDOW", window, "EACH", by+"instance", "BY", strings.TrimSuffix(by, ", ")).Replace(
		`(sum by (BY) (rate(logproxy_requests_total{` + ourFault + `MORE}[WINDOW])) or 0 * sum by (BY) (rate(logproxy_requests_total{` + unary + `MORE}[WINDOW])))` +
			` + (sum by (BY) (clamp_min(sum by (EACH) (rate(logproxy_requests_total{` + overload + `MORE}[WINDOW]))` +
			` - (sum by (EACH) (rate(logproxy_requests_past_rate_total{` + unary + `MORE}[WINDOW])) or 0 * sum by (EACH) (rate(logproxy_requests_total{` + overload + `MORE}[WINDOW]))), 0))` +
			` or 0 * sum by (BY) (rate(logproxy_requests_total{` + unary + `MORE}[WINDOW])))`)
}

// Rules are all there are.
func Rules() []Group {
	return []Group{
		{Name: "logd.records", Rules: records()},
		{Name: "logd.alerts", Rules: nodeAlerts()},
		{Name: "logd.shared.alerts", Rules: sharedAlerts()},
		{Name: "logproxy.alerts", Rules: proxyAlerts()},
	}
}

func errorRatio(window string) string { return "job:logproxy_request_errors:ratio_rate" + window }

func records() []Rule {
	all := []Rule{
		{Record: "job:logd_records:rate5m", Expr: `sum by (` + by + `) (rate(logd_replica_batch_records_sum[5m]))`},
		{Record: "instance:logd_sync_seconds:p99_rate5m", Expr: `histogram_quantile(0.99, sum by (` + by + `, instance, le) (rate(logd_commitlog_sync_seconds_bucket[5m])))`},
	}
	for _, w := range []string{"5m", "30m", "1h", "6h"} {
		total := fmt.Sprintf(`sum by (%s) (rate(logproxy_requests_total{%s}[%s]))`, by, unary, w)
		all = append(all, Rule{Record: errorRatio(w), Expr: fmt.Sprintf("(%s) / %s", failed(by, "", w), total)})
	}
	return all
}

func nodeAlerts() []Rule {
	return []Rule{
		alert(critical, "LogdNotScraped", "10m",
			`absent(up{`+nodes+`})`,
			"Prometheus scrapes no logd node.",
			"No target's job is logd: nothing else here can be told."),
		alert(warning, "LogdNodeDown", "2m",
			`up{`+nodes+`} == 0`,
			"The node at {{ $labels.instance }} does not answer.",
			"Its admin port cannot be scraped. While a majority of nodes is up the cluster works; one failure fewer can be borne."),
		alert(critical, "LogdNoLeader", "1m",
			`max by (`+by+`) (logd_replica_leader or 0 * up{`+nodes+`}) == 0`,
			"No node of {{ $labels.job }} leads.",
			"For a minute no node could take a record. Produces are held by proxies and then refused; reads of what is there go on."),
		alert(critical, "LogdTwoLeaders", "1m",
			`sum by (`+by+`) (logd_replica_leader) > 1`,
			"{{ $value }} nodes of {{ $labels.job }} lead.",
			"One cluster cannot have that for a minute: two clusters are scraped as one job, or have been mixed."),
		// A node counts what it sees while it runs, so the one that sees most is asked. A
		// roll moves the lead as often as there are voters, if each new leader is next.
		alert(warning, "LogdLeaderFlaps", "1m",
			`max by (`+by+`) (increase(logd_replica_leader_changes_total[15m])) >= 1 + max by (`+by+`) (max_over_time(logd_replica_voters[15m]))`,
			"{{ $labels.job }} changed its leader {{ printf \"%.0f\" $value }} times in a quarter of an hour.",
			"That is more than a roll of all voters does. Each change holds produces for some heartbeats. A slow disk, a network that drops packets or a machine without time for the process does it."),
		alert(warning, "LogdPeerUnhealthy", "5m",
			`logd_peer_healthy == 0`,
			"Server {{ $labels.peer }} is not healthy.",
			"The leader has not heard of it, or it is too far behind, for five minutes. One failure fewer can be borne."),
		alert(warning, "LogdFollowerLags", "5m",
			`min_over_time(logd_peer_lag_entries[10m]) > 1000`,
			"Server {{ $labels.peer }} stays {{ $value }} entries behind its leader.",
			"For a quarter of an hour it has not caught up. Should another node fail, produces would wait for it."),
		alert(warning, "LogdSyncSlow", "10m",
			`instance:logd_sync_seconds:p99_rate5m > 0.1`,
			"One fdatasync in a hundred takes {{ $value | humanizeDuration }} at {{ $labels.instance }}.",
			"That is a third of the default heartbeat timeout. Every produce waits for it, and leadership is lost when it grows."),
		alert(critical, "LogdDiskLow", "1m",
			`logd_replica_disk_low == 1`,
			"The disk of {{ $labels.instance }} is below its reserve.",
			"When a majority of nodes is, or the leader, records are refused."),
		alert(warning, "LogdDiskLowSoon", "15m",
			`predict_linear(logd_replica_disk_free_bytes[1h], 4 * 3600) < logd_replica_disk_reserve_bytes and logd_replica_disk_low == 0`,
			"The disk of {{ $labels.instance }} will be below its reserve within four hours.",
			"If it goes on as in the last hour, and retention removes nothing before."),
		alert(critical, "LogdDiskRefuses", "1m",
			`increase(logd_replica_disk_refused_total[5m]) > 0`,
			"{{ $labels.instance }} refuses records for want of disk space.",
			"Too many nodes are below their reserve: producers are told no."),
		alert(critical, "LogdDiskFull", "",
			`increase(logd_commitlog_no_space_total[10m]) > 0`,
			"The disk of {{ $labels.instance }} is full.",
			"In spite of the reserve a segment could not be made. The node takes no entries until there is space."),
		alert(warning, "LogdOverloaded", "5m",
			`increase(logd_replica_overloaded_total[5m]) > 0`,
			"{{ $labels.instance }} refuses records: too many bytes are in flight.",
			"More is produced than the nodes can write; proxies try again, and others are told OVERLOADED."),
		alert(warning, "LogdConnectionsRefused", "5m",
			`increase(logd_connections_refused_total{why!="handshake"}[5m]) > 0`,
			"{{ $labels.instance }} closes connections: limit {{ $labels.why }}.",
			"Clients or proxies hold more connections than they may, or somebody opens them and says nothing."),
		alert(critical, "LogdDamageRemains", "15m",
			`logd_commitlog_damaged_entries > 0 or logd_commitlog_damaged_offset_files > 0`,
			"{{ $labels.instance }} has damage that is not repaired.",
			"{{ $value }} entries or files cannot be read for a quarter of an hour. They are not served; a repair needs a majority that is up."),
		alert(warning, "LogdDamageRecurs", "",
			`increase(logd_replica_damages_total[1d]) >= 2`,
			"The disk of {{ $labels.instance }} damages what is on it, again.",
			"Damage was found {{ printf \"%.0f\" $value }} times in a day. It is repaired from the others, but the disk is going."),
		alert(critical, "LogdStateDoubted", "5m",
			`logd_replica_state_doubted == 1`,
			"{{ $labels.instance }} does not know whether its state is right.",
			"It differs from another's, and the voters have not said which is right: all of them have to be up."),
		alert(critical, "LogdDiverged", "",
			`increase(logd_replica_states_compared_total{result="differ"}[1h]) > 0`,
			"Two nodes of {{ $labels.job }} had different states.",
			"Seen at {{ $labels.instance }}. The one that is not the majority's stops. That is a fault of ours, or of a machine's memory or disk."),
		alert(warning, "LogdRetentionPaused", "10m",
			`logd_replica_retention_paused == 1`,
			"Records do not age: the nodes' clocks disagree.",
			"The leader at {{ $labels.instance }} removes nothing by age until they are within a minute, and disks fill."),
		alert(warning, "LogdGossipMembersMissing", "10m",
			`logd_replica_voters > on (`+by+`, instance) logd_gossip_members{role="storage",state="alive"}`,
			"Gossip at {{ $labels.instance }} misses nodes.",
			"Raft has {{ $value }} voters; fewer nodes are alive in gossip. One is down, has another gossip key, or 8401 is blocked."),
		alert(info, "LogdVersionsDiffer", "6h",
			`count by (`+by+`) (count by (`+by+`, version) (logd_build_info)) > 1`,
			"The nodes of {{ $labels.job }} run {{ $value }} versions.",
			"An upgrade has not been finished."),
	}
}

// sharedAlerts are about what both programs have.
func sharedAlerts() []Rule {
	const day = 86400
	end := `logd_tls_not_after_seconds - time() < `
	return []Rule{
		alert(warning, "LogdCertificateEndsSoon", "1h",
			end+fmt.Sprint(14*day),
			"A certificate of {{ $labels.instance }} ends in {{ $value | humanizeDuration }}.",
			"It is the {{ $labels.certificate }} of {{ $labels.setting }}. When it has ended nobody talks to this process."),
		alert(critical, "LogdCertificateEnds", "10m",
			end+fmt.Sprint(2*day),
			"A certificate of {{ $labels.instance }} ends in {{ $value | humanizeDuration }}.",
			"It is the {{ $labels.certificate }} of {{ $labels.setting }}. When it has ended nobody talks to this process."),
		alert(warning, "LogdCertificateReloadFailed", "5m",
			`logd_tls_last_reload_timestamp_seconds{result="failed"} > ignoring (result) logd_tls_last_reload_timestamp_seconds{result="loaded"}`,
			"{{ $labels.instance }} cannot load the files of {{ $labels.setting }}.",
			"The certificates from before are in force. A restart would fail."),
		alert(warning, "LogdReloadFailed", "5m",
			`logd_config_last_reload_successful == 0 or logproxy_config_last_reload_successful == 0`,
			"{{ $labels.instance }} did not take its new configuration.",
			"The one from before is in force. A restart would fail, or change what the reload may not."),
		alert(warning, "LogdAclReloadFailed", "5m",
			`logd_acl_reload_failing == 1`,
			"{{ $labels.instance }} cannot load its acl files.",
			"The rules from before are in force. A restart would fail."),
		alert(warning, "LogdGossipCannotJoin", "15m",
			`increase(logd_gossip_join_failures_total[10m]) > 0`,
			"{{ $labels.instance }} finds nobody to gossip with.",
			"For a quarter of an hour attempts to join have failed: nobody is there, or they have another gossip key or cluster name."),
		alert(warning, "LogdGossipUnhealthy", "5m",
			`min_over_time(logd_gossip_health_score[10m]) > 0 or min_over_time(logproxy_gossip_health_score[10m]) > 0`,
			"{{ $labels.instance }} is slow in gossip.",
			"Its probes go unanswered or its answers are late: the machine is overloaded, or packets are lost."),
		alert(info, "LogdGossipWithoutUDP", "10m",
			`logd_gossip_udp_silent == 1`,
			"{{ $labels.instance }} gets no gossip over UDP.",
			"Members are alive and none of their packets arrive. All goes over TCP, and news takes up to ten seconds."),
		alert(warning, "LogdFilesNearLimit", "10m",
			`process_open_fds{job=~"(.*/)?(logd|logproxy)"} / process_max_fds > 0.9`,
			"{{ $labels.instance }} has {{ $value | humanizePercentage }} of its file descriptors open.",
			"Soon it can take no connection. On a node, it can open no segment."),
	}
}

func proxyAlerts() []Rule {
	perProxy := by + ", instance"
	upstreams := func(metric string) string {
		return strings.NewReplacer("M", metric, "BY", perProxy).Replace(
			`(sum by (BY) (M) or 0 * sum by (BY) (logproxy_build_info)) == 0`)
	}
	burns := func(long, short, factor string) string {
		return fmt.Sprintf("%s > %s * %s and %s > %s * %s", errorRatio(long), factor, budget, errorRatio(short), factor, budget)
	}
	return []Rule{
		alert(warning, "LogproxyDown", "5m",
			`up{`+proxies+`} == 0`,
			"The proxy at {{ $labels.instance }} does not answer.",
			"Its admin port cannot be scraped. The programs beside it can neither write nor read."),
		alert(critical, "LogproxyNotReady", "1m",
			upstreams("logproxy_upstream_healthy"),
			"The proxy at {{ $labels.instance }} has no healthy node.",
			"It can serve nothing. It finds no node, or its certificate is refused by all."),
		alert(critical, "LogproxyNoLeader", "1m",
			upstreams("logproxy_upstream_is_leader"),
			"The proxy at {{ $labels.instance }} knows no leader.",
			"Produces are held, and refused when their time is up. When the cluster has a leader, this proxy cannot reach it."),
		alert(warning, "LogproxyHolds", "10m",
			`increase(logproxy_forward_holds_total[5m]) > 0`,
			"The proxy at {{ $labels.instance }} holds produces again and again.",
			"For ten minutes its append streams have been interrupted. Clients see pauses."),
		alert(critical, "LogproxyProducesFail", "1m",
			`increase(logproxy_forward_hold_expired_total[5m]) + increase(logproxy_forward_hold_refused_total[5m]) > 0`,
			"The proxy at {{ $labels.instance }} tells producers no.",
			"{{ printf \"%.0f\" $value }} times in five minutes a produce was held for too long, or there were too many to be held."),
		alert(warning, "LogproxyCallsRefused", "5m",
			`increase(logproxy_calls_refused_total[5m]) > 0`,
			"The proxy at {{ $labels.instance }} refuses calls: limit {{ $labels.limit }}.",
			"More is asked of it than its limits allow."),
		alert(warning, "LogproxyConnectionsRefused", "5m",
			`increase(logproxy_connections_refused_total[5m]) > 0`,
			"The proxy at {{ $labels.instance }} closes connections: limit {{ $labels.limit }}.",
			"More connections come than its limits allow, or nothing is said on them, or streams are not read."),
		alert(warning, "LogproxyUpstreamUnhealthy", "10m",
			`logproxy_upstream_healthy == 0`,
			"Node {{ $labels.upstream }} gets nothing from the proxy at {{ $labels.instance }}.",
			"It is down, behind, not ready, or requests fail on it."),
		alert(warning, "LogproxyFollowerLags", "5m",
			`min_over_time(logproxy_upstream_lag_records[5m]) > 50000`,
			"Node {{ $labels.upstream }} stays {{ $value }} records behind, says the proxy at {{ $labels.instance }}.",
			"At `consume { max_lag }`, by default twice that, it is not read any more."),
		alert(warning, "LogproxyAlienViews", "",
			`increase(logproxy_alien_views_total[15m]) > 0`,
			"The proxy at {{ $labels.instance }} meets nodes of another cluster.",
			"It follows one cluster uuid and takes nothing from others: after a recovery or a restore it needs a restart."),
		alert(critical, "LogproxyStreamNotContinued", "",
			`increase(logproxy_forward_stream_resume_failed_total[1h]) > 0`,
			"A node did not go on where another had ended, for the proxy at {{ $labels.instance }}.",
			"The streams were ended instead of showing a gap. That is never usual."),
		alert(warning, "LogproxyStreamsFail", "10m",
			`sum by (`+by+`, method, code) (rate(logproxy_requests_total{method=~".*Stream",code=~"DataLoss|Internal|Unavailable|Unknown"}[5m])) > 0`,
			"Streams of {{ $labels.job }} end with {{ $labels.code }}.",
			"For ten minutes {{ $labels.method }} has kept ending by no doing of its clients."),
		alert(critical, "LogproxyErrorsBurnFast", "2m",
			burns("1h", "5m", "14.4"),
			"{{ $value | humanizePercentage }} of the calls through {{ $labels.job }} failed in the last hour.",
			"At this rate a month's budget of one call in a thousand is used up in two days."),
		alert(warning, "LogproxyErrorsBurnSlowly", "15m",
			burns("6h", "30m", "6"),
			"{{ $value | humanizePercentage }} of the calls through {{ $labels.job }} failed in the last six hours.",
			"At this rate a month's budget of one call in a thousand is used up in five days."),
	}
}
