package main

// bug is a planted bug.
type bug struct {
	name, what string
	plant      func(*config)
}

func bugs() []bug { return nil }

func find(name string) (bug, bool) {
	for _, b := range bugs() {
		if b.name == name {
			return b, true
		}
	}
	return bug{}, false
}
