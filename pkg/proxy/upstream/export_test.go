package upstream

// Conns is how many connections n has.
func (n *Node) Conns() int {
	n.conn.mu.Lock()
	defer n.conn.mu.Unlock()
	return max(len(n.conn.lanes), 1)
}

// Fetches is how many FetchStreams of n are open.
func (n *Node) Fetches() (open int) {
	n.conn.mu.Lock()
	defer n.conn.mu.Unlock()
	for _, l := range n.conn.lanes {
		open += l.n
	}
	return open
}
