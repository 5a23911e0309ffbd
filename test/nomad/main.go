// Command nomad parses a job as `nomad job run` does, with Nomad's own parser, and
// prints it as JSON for Nomad's API, as `nomad job run -output` does. What Nomad would
// not take is an error, with its place.
//
//	nomad <file> [<variable>=<value>]...
//
// It is a module and a program of its own, since the parser compiles with no hcl/v2 but
// one of its own, while package config needs a release: test/deploy/nomad builds it and
// runs it.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/hashicorp/nomad/api"
	"github.com/hashicorp/nomad/jobspec2"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: nomad <file> [<variable>=<value>]...")
		os.Exit(2)
	}
	job, err := parse(os.Args[1], os.Args[2:])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(job)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func parse(path string, vars []string) (*api.Job, error) {
	body, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return jobspec2.ParseWithConfig(&jobspec2.ParseConfig{
		Path: path, Body: body, ArgVars: vars,
		AllowFS: true, // jobs have their configurations in with file()
		Strict:  true, // a variable that the job does not have is an error
	})
}
