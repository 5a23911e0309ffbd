package monitoring_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/test/monitoring"
)

// notShown are metrics that are in no panel, and why nobody would look for them there.
var notShown = map[string]string{
	`grpc_(client|server)_started_total`:                                                           "those that ended are shown, and those that are open",
	`grpc_client_(handling_seconds|msg_received_total|msg_sent_total)`:                             "the nodes' side of the same calls is shown",
	`(logd|logproxy)_config_last_reload_success_timestamp_seconds`:                                 "when it was; whether it failed is shown",
	`logd_(acl|tls)_last_reload_timestamp_seconds`:                                                 "when it was; whether it failed is shown, or an alert",
	`logd_(commitlog_entries_total|replica_(last|state_agreed)_index)`:                             "entries of raft's; records and bytes are shown",
	`logd_raft_((proposals|append_entries)_total|(commit|dispatch|fsm_apply_batch)_entries)`:       "entries of raft's; records and bytes are shown",
	`logd_raft_(append_handle|fsm_apply|fsm_enqueue)_duration_seconds`:                             "parts of a duration that is shown",
	`logd_raft_((became_(leader|follower)_total)|(election|vote_handle)_duration_seconds)`:         "who leads is shown, and who stands for it",
	`logd_raft_(install_handle|install_rpc|checkpoint|fsm_restore)_duration_seconds`:               "seldom; how often is shown",
	`logd_(raft_leader_checks_total|replica_read_index_calls)`:                                     "parts of linearizable reads, whose duration is shown",
	`logd_(replica_(repairs|repaired_entries)|commitlog_scrub_passes)_total`:                       "what was repaired and read is shown",
	`(logd|logproxy)_gossip_(alive_messages_total|tcp_(accepts|connects)_total)`:                   "members and traffic are shown",
	`(logd|logproxy)_gossip_(probe|round|sync)_duration_seconds`:                                   "health and what is late are shown",
	`(logd|logproxy)_serf_((events|queries|joins|leaves|left|updates)_total|.*_message(s|_bytes))`: "members and their changes are shown",
	`logproxy_forward_dropped_records_total`:                                                       "their clients had left",
	`logproxy_route_tables_total`:                                                                  "what a table changes is shown",
}

// A metric that nobody shows is one that nobody sees before it is too late.
func TestEveryMetricIsShown(t *testing.T) {
	shown := map[string]bool{}
	for _, d := range []monitoring.Dashboard{monitoring.Node(), monitoring.Proxy()} {
		for _, p := range d.Panels {
			for _, target := range p.Targets {
				for _, s := range monitoring.Selectors(target.Expr) {
					name := s.Metric
					for _, suffix := range []string{"_bucket", "_sum", "_count"} {
						name = strings.TrimSuffix(name, suffix)
					}
					shown[name] = true
				}
			}
		}
	}
	excused := map[string]int{}
	for name := range metrics(t) {
		if shown[name] {
			continue
		}
		by := 0
		for pattern := range notShown {
			if regexp.MustCompile("^(?:" + pattern + ")$").MatchString(name) {
				excused[pattern]++
				by++
			}
		}
		require.Equal(t, 1, by, "%s is in no panel, or left out for more than one reason", name)
	}
	for pattern := range notShown {
		require.Positive(t, excused[pattern], "%s: all of them are shown", pattern)
	}
}
