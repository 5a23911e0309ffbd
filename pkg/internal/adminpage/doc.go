// Package adminpage is the page that the admin servers of logd and logproxy show to
// people, and the streams it lives on: what the process is asked for most, who is
// there, what has happened lately, and the end of the log.
//
//	GET /            the page, whole without JavaScript
//	GET /assets/...  its style, script and icon, embedded
//	GET /api/events  server-sent events: the status once a second, and events as they come
//	GET /api/tail    server-sent events: the newest records, where the program offers them
//
// Invariant: it only shows. Nothing it answers changes anything, nothing it holds grows
// with the number of those who look, and whatever comes from a cluster or a record gets
// to a browser as text.
//
// The admin server decides who may look; package adminpage is behind that. What is
// shown is made by the programs, as a View.
package adminpage
