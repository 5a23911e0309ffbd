package balance

// Leader is the policy of reading from the leader only: its pickers choose no
// follower, and whoever asked then turns to the leader.
type Leader struct{}

// Name implements Policy.
func (Leader) Name() string { return NameLeader }

// Build implements Policy.
func (Leader) Build([]Candidate) Picker { return nobody{} }

type nobody struct{}

func (nobody) Pick(string, func(string) bool) (int, bool) { return 0, false }
