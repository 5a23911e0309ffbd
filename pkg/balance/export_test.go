package balance

// NewLeastRequestBy is NewLeastRequest with a chance that a test repeats.
func NewLeastRequestBy(random func() uint64) *LeastRequest { return &LeastRequest{random: random} }
