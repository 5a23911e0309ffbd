// Checkhistory checks histories that were kept as files, as test/history writes
// them: what contradicts what, with the events involved, and samples of what is
// linearizable by Porcupine.
//
//	go run ./test/history/cmd/checkhistory [flags] file...
package main

import (
	"compress/gzip"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/logd-io/logd/test/history"
	"github.com/logd-io/logd/test/history/linear"
)

func main() {
	windows := flag.Int("windows", 100, "how many samples Porcupine looks at; 0: none")
	width := flag.Uint64("width", 60, "of how many offsets each is")
	seed := flag.Uint64("seed", 1, "of the samples' places")
	flag.Parse()
	code := 0
	for _, name := range flag.Args() {
		ok, err := check(os.Stdout, name, *windows, *width, *seed)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		}
		if !ok || err != nil {
			code = 1
		}
	}
	if flag.NArg() == 0 {
		flag.Usage()
		code = 2
	}
	os.Exit(code)
}

// check says on w what it finds in a file, and whether that is nothing.
func check(w io.Writer, name string, windows int, width, seed uint64) (ok bool, err error) {
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			return false, err
		}
	}
	h, err := history.Read(r)
	if err != nil {
		return false, err
	}
	report := history.Check(h)
	fmt.Fprintf(w, "%s: ", name)
	if err := report.Print(w); err != nil {
		return false, err
	}
	ok = len(report.Violations) == 0
	if windows == 0 || len(h.Logs) == 0 {
		return ok, nil
	}
	s, err := linear.Sample(h, rand.New(rand.NewPCG(seed, 0)), windows, width, 10*time.Second)
	fmt.Fprintf(w, "Porcupine: %d samples, %d operations, %d given up for time\n", s.Windows, s.Ops, s.Unknown)
	return ok, err
}
