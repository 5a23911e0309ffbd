// Package history records what clients of an append-only log sent and were told,
// and finds in O(n) what in it no correct log could have told them.
//
// # Recording
//
// A Recorder's Conn stands before a client's connection, so that what is recorded
// is what the client saw, whatever code drives it. Times are of one monotonic
// clock: an event starts before its request can have been sent, and ends after its
// answer has come. The logs of the nodes, read when everything is over, are added
// at the end. Two sends are the same send only when they share a request id.
//
// # What is checked
//
// Every record in the log is given to the send it came from: an acknowledged one by
// its offset, the rest by their content, in the order they were sent. Then
//
//   - acknowledged: an acknowledged record is in the log at that offset;
//   - once: a send is in the log at most once, and a request id names one offset. A
//     client that repeats itself without an id makes as many sends as it tries, so at
//     least once is up to as many copies as tries, each of them wanted;
//   - same-offset: no offset is acknowledged to two sends;
//   - not-sent: what was refused for certain is not in the log; what nobody knows
//     the outcome of is, or is not;
//   - stranger: nothing is in the log that nobody sent;
//   - real-time: what was acknowledged, or read, before a record was sent stands
//     before that record. With linearizable it is the exact condition for the appends
//     and reads to be linearizable;
//   - linearizable: such a read does not miss what was known to anybody before it began;
//   - producer: the records of a ProduceStream stand in its order, and are a first
//     part of it: when one is not in the log, none after it is;
//   - stream: a ConsumeStream delivers exactly the offsets from the asked one on;
//   - content: a record is the same to every reader, at any time, and in the log;
//   - unseen: what was read once, or said to exist, is in the log;
//   - read-your-writes, monotonic-reads: where the log ends, a session is told nothing
//     that contradicts what it was told before, by whichever proxy;
//   - range: an answer does not contradict its own question;
//   - nodes: the logs of the nodes are equal.
//
// A session is what its clients say it is: clients of a plaintext sidecar that name
// none are one, and one that moves between proxies carries its position along.
//
// # How
//
// Offsets are dense, so an append-only log orders its own appends, and checking is
// linear where it is NP-hard for other objects: everything is put into buckets by
// the length of log it proves, and walked in that order with the latest start so far
// for real time, and the earliest end so far for sessions. Nothing is sorted by time.
// Package linear checks samples with another algorithm that knows none of this.
package history
