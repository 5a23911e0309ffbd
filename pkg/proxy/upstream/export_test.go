package upstream

// Conns is how many connections n has.
func (n *Node) Conns() int {
	n.conn.mu.Lock()
	defer n.conn.mu.Unlock()
	return max(len(n.conn.lanes), 1)
}

// Streams is how many streams to n are open.
func (n *Node) Streams() (open int) {
	n.conn.mu.Lock()
	defer n.conn.mu.Unlock()
	for _, l := range n.conn.lanes {
		open += l.n
	}
	return open
}
