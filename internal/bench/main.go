// Command bench measures pawl against yardsticks that it runs itself, in the same
// minute on the same machine: `make bench`, or `make bench BENCH=map`.
//
// Every figure is a line: name, value, unit, ratio, yardstick. The ratio is the
// value's to the yardstick's, by the median of rounds in which both were measured
// one after the other. What is measured, the yardstick and the load are processes
// of their own: this program again, in a role.
//
// A benchmark is a file here with a function of the type of [benchmark].run.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"syscall"
)

// benchmark is one measurement.
type benchmark struct {
	name  string
	about string
	run   func(ctx context.Context, out *report) error
}

func benchmarks() []benchmark {
	return []benchmark{
		{"map", "cached answers of the TLS policy map for Postfix, against a netstring echo server", benchMap},
		{"fill", "an empty cache filling over DNS and HTTPS, against bare GETs", fill},
		{"tlsrpt-socket", "outcomes that Postfix tells at the TLS-RPT socket, and how many are lost", benchDatagrams},
		{"tlsrpt", "the reports of a day with a million outcomes over 50,000 domains", benchReports},
		{"cache", "what a node has in memory, and how soon it answers with a million domains stored", benchCache},
		{"relay", "mail through the relay into a sink, against tuned Postfix", benchRelay},
		{"backlog", "mail for a live destination behind a million messages for dead ones", benchBacklog},
		{"idle", "ten thousand clients that say nothing", benchIdle},
		{"queue", "the queue's list and figures with a million messages in it", benchQueue},
	}
}

// roles are what this program does as a process of a benchmark.
func roles() map[string]func(ctx context.Context, args []string) error {
	return map[string]func(context.Context, []string) error{
		"map-server": mapServer,
		"map-floor":  mapFloor,
		"map-load":   mapLoad,

		"datagram-reader": datagramReader,
		"datagram-floor":  datagramFloor,
		"datagram-sender": datagramSender,
		"tlsrpt-fill":     reportFill,
		"tlsrpt-build":    reportBuild,
		"cache-node":      cacheNode,
		"cache-fill":      cacheFill,

		"relay-world":  relayWorldRole,
		"relay-load":   relayLoad,
		"relay-node":   relayNode,
		"backlog-fill": backlogFill,
		"idle-clients": idleClients,
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 1 && args[0] == roleFlag {
		role, ok := roles()[args[1]]
		if !ok {
			return fmt.Errorf("there is no role %q", args[1])
		}
		return role(ctx, args[2:])
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	pattern := flags.String("run", ".", "run the benchmarks whose names match this `regexp`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	want, err := regexp.Compile(*pattern)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	ran := false
	for _, b := range benchmarks() {
		if !want.MatchString(b.name) {
			continue
		}
		ran = true
		fmt.Fprintf(os.Stderr, "# %s: %s\n", b.name, b.about)
		if err := b.run(ctx, &report{os.Stdout}); err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
	}
	if !ran {
		return fmt.Errorf("no benchmark matches %q", *pattern)
	}
	return nil
}

// report prints figures.
type report struct{ w io.Writer }

// figure prints one. The yardstick is what the ratio is to.
func (r *report) figure(name string, value float64, unit string, ratio float64, yardstick string) {
	_, _ = fmt.Fprintf(r.w, "%-24s %12.2f %-12s %6.3f  %s\n", name, value, unit, ratio, yardstick)
}

// median returns the middle of a list.
func median(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	n := len(list)
	if n == 0 {
		return 0
	}
	return (list[(n-1)/2] + list[n/2]) / 2
}
