package membership

// QueriesOnTheirWay is how many of Serf's queries this member still passes on.
func (g *Gossip) QueriesOnTheirWay() string { return g.serf.Stats()["query_queue"] }
