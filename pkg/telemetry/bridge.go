package telemetry

type kind int

const (
	counter      kind = iota
	gauge             // the last value
	milliseconds      // a duration in ms; bridged as a histogram in seconds
	sample            // a size or number; bridged as count and sum
)

// A bridging says what one go-metrics key is called here.
type bridging struct {
	key    string
	kind   kind
	name   string // after the program's prefix
	help   string
	labels []string // of go-metrics; see renamed
}

// renamed are our names for go-metrics' labels.
func renamed(labels []string) []string {
	out := make([]string, len(labels))
	for i, l := range labels {
		if l == "peer_id" {
			l = "peer"
		}
		out[i] = l
	}
	return out
}

// bridge lists what is taken over. The keys are those of raft v1.8.0 (with
// NoLegacyTelemetry), serf v0.11.0 and memberlist v0.7.0.
func bridge() []bridging {
	peer := []string{"peer_id"}
	return []bridging{
		{"raft.state.leader", counter, "raft_became_leader_total", "Times this node became leader.", nil},
		{"raft.state.follower", counter, "raft_became_follower_total", "Times this node became follower.", nil},
		{"raft.state.candidate", counter, "raft_became_candidate_total", "Times this node stood for election.", nil},
		{"raft.transition.heartbeat_timeout", counter, "raft_heartbeat_timeouts_total", "Times no leader was heard of in time.", nil},
		{"raft.transition.leader_lease_timeout", counter, "raft_lease_timeouts_total", "Times a leader lost touch with its majority.", nil},
		{"raft.apply", counter, "raft_proposals_total", "Entries proposed on this node.", nil},
		{"raft.verify_leader", counter, "raft_leader_checks_total", "Times a leader verified that it still leads.", nil},
		{"raft.peers", gauge, "raft_peers", "Servers in the Raft configuration.", nil},
		{"raft.commitTime", milliseconds, "raft_commit_duration_seconds", "From proposing an entry to its commit, on the leader.", nil},
		{"raft.commitNumLogs", gauge, "raft_commit_entries", "Entries in the last group handed to the state machine.", nil},
		{"raft.leader.dispatchLog", milliseconds, "raft_dispatch_duration_seconds", "The leader's own write of entries to disk.", nil},
		{"raft.leader.dispatchNumLogs", gauge, "raft_dispatch_entries", "Entries in the leader's last write.", nil},
		{"raft.leader.lastContact", milliseconds, "raft_follower_contact_age_seconds", "Since the leader heard of its majority, when it checks its lease.", nil},
		{"raft.fsm.apply", milliseconds, "raft_fsm_apply_duration_seconds", "One entry through the state machine.", nil},
		{"raft.fsm.applyBatch", milliseconds, "raft_fsm_apply_batch_duration_seconds", "One group of entries through the state machine.", nil},
		{"raft.fsm.applyBatchNum", sample, "raft_fsm_apply_batch_entries", "Entries in a group for the state machine.", nil},
		{"raft.fsm.enqueue", milliseconds, "raft_fsm_enqueue_duration_seconds", "Waiting for the state machine to take a group.", nil},
		{"raft.fsm.restore", milliseconds, "raft_fsm_restore_duration_seconds", "Restoring the state machine from a checkpoint.", nil},
		{"raft.snapshot.takeSnapshot", milliseconds, "raft_checkpoint_duration_seconds", "Taking a checkpoint.", nil},
		{"raft.candidate.electSelf", milliseconds, "raft_election_duration_seconds", "Asking for votes.", nil},
		{"raft.rpc.appendEntries", milliseconds, "raft_append_handle_duration_seconds", "Handling an AppendEntries.", nil},
		{"raft.rpc.appendEntries.storeLogs", milliseconds, "raft_append_store_duration_seconds", "Writing the entries of an AppendEntries to disk.", nil},
		{"raft.rpc.requestVote", milliseconds, "raft_vote_handle_duration_seconds", "Handling a RequestVote.", nil},
		{"raft.rpc.installSnapshot", milliseconds, "raft_install_handle_duration_seconds", "Handling an InstallSnapshot.", nil},
		{"raft.replication.appendEntries.rpc", milliseconds, "raft_append_rpc_duration_seconds", "An AppendEntries to a peer and its answer.", peer},
		{"raft.replication.appendEntries.logs", counter, "raft_append_entries_total", "Entries sent to a peer.", peer},
		{"raft.replication.heartbeat", milliseconds, "raft_heartbeat_rpc_duration_seconds", "A heartbeat to a peer and its answer.", peer},
		{"raft.replication.installSnapshot", milliseconds, "raft_install_rpc_duration_seconds", "Sending a checkpoint to a peer.", peer},

		{"serf.member.join", counter, "serf_joins_total", "Members seen joining.", nil},
		{"serf.member.leave", counter, "serf_leaves_total", "Members seen leaving.", nil},
		{"serf.member.failed", counter, "serf_failures_total", "Members seen failing.", nil},
		{"serf.member.left", counter, "serf_left_total", "Members seen to have left.", nil},
		{"serf.member.flap", counter, "serf_flaps_total", "Members that came back soon after failing.", nil},
		{"serf.member.update", counter, "serf_updates_total", "Changes of members' tags.", nil},
		{"serf.events", counter, "serf_events_total", "User events.", nil},
		{"serf.queries", counter, "serf_queries_total", "Queries.", nil},
		{"serf.msgs.received", sample, "serf_received_message_bytes", "Sizes of messages received.", nil},
		{"serf.msgs.sent", sample, "serf_sent_message_bytes", "Sizes of messages sent.", nil},
		{"serf.queue.Intent", sample, "serf_intent_queue_messages", "Depth of the queue of intents.", nil},
		{"serf.queue.Event", sample, "serf_event_queue_messages", "Depth of the queue of events.", nil},
		{"serf.queue.Query", sample, "serf_query_queue_messages", "Depth of the queue of queries.", nil},

		{"memberlist.health.score", gauge, "gossip_health_score", "0 is healthy; higher, this member itself is slow.", nil},
		{"memberlist.probeNode", milliseconds, "gossip_probe_duration_seconds", "A probe of a member.", nil},
		{"memberlist.gossip", milliseconds, "gossip_round_duration_seconds", "A round of gossip.", nil},
		{"memberlist.pushPullNode", milliseconds, "gossip_sync_duration_seconds", "A full exchange of state with a member.", nil},
		{"memberlist.msg.alive", counter, "gossip_alive_messages_total", "Messages that a member is alive.", nil},
		{"memberlist.msg.suspect", counter, "gossip_suspect_messages_total", "Messages that a member is suspected.", nil},
		{"memberlist.msg.dead", counter, "gossip_dead_messages_total", "Messages that a member is dead.", nil},
		{"memberlist.degraded.probe", counter, "gossip_degraded_probes_total", "Probes sent while this member itself was slow.", nil},
		{"memberlist.degraded.timeout", counter, "gossip_degraded_timeouts_total", "Suspicions on the word of too few.", nil},
		{"memberlist.tcp.accept", counter, "gossip_tcp_accepts_total", "Connections accepted.", nil},
		{"memberlist.tcp.connect", counter, "gossip_tcp_connects_total", "Connections made.", nil},
		{"memberlist.tcp.sent", counter, "gossip_tcp_sent_bytes_total", "Bytes sent over TCP.", nil},
		{"memberlist.udp.sent", counter, "gossip_udp_sent_bytes_total", "Bytes sent over UDP.", nil},
		{"memberlist.udp.received", counter, "gossip_udp_received_bytes_total", "Bytes received over UDP.", nil},
	}
}
