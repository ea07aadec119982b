package db_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/pawl-mail/pawl/internal/db"
)

// ordered is how many writes the child does that writes in order.
const ordered = 6

// writesInOrder says of each write, once it has returned, how it ended.
func writesInOrder(dir string) error {
	d, err := db.Open(context.Background(), db.Options{DataDir: dir})
	if err != nil {
		return err
	}
	for i := range ordered {
		err := d.Write(context.Background(), insert(fmt.Sprint(i), strings.Repeat("x", 10<<10)))
		if _, err := fmt.Printf("%d %s\n", i, outcome(err)); err != nil {
			return err
		}
	}
	return d.Close()
}

// writesOnCall writes each line of its standard input as a key and says how that
// ended.
func writesOnCall(dir string) error {
	d, err := db.Open(context.Background(), db.Options{DataDir: dir})
	if err != nil {
		return err
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		err := d.Write(context.Background(), insert(lines.Text(), strings.Repeat("x", 10<<10)))
		if _, err := fmt.Println(outcome(err)); err != nil {
			return err
		}
	}
	return d.Close()
}

// outcome is a word for each error that a test looks for.
func outcome(err error) string {
	switch {
	case err == nil:
		return "acknowledged"
	case errors.Is(err, db.ErrUnknownOutcome) && errors.Is(err, db.ErrIO):
		return "unknown"
	case errors.Is(err, db.ErrIO):
		return "io"
	case errors.Is(err, db.ErrFull):
		return "full"
	}
	return err.Error()
}

// writesForEver names each row on standard output once it is acknowledged.
func writesForEver(dir string) error {
	d, err := db.Open(context.Background(), db.Options{DataDir: dir})
	if err != nil {
		return err
	}
	const goroutines = 20
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for {
				id := db.NewID()
				if d.Write(context.Background(), insert(id, strings.Repeat("x", 10<<10))) != nil {
					return
				}
				if _, err := os.Stdout.WriteString(id + "\n"); err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return d.Close()
}

// writePanics panics in the same transaction that holds another's work.
func writePanics(dir string) error {
	d, err := db.Open(context.Background(), db.Options{DataDir: dir})
	if err != nil {
		return err
	}
	goOn := make(chan struct{})
	d.WriteSoon(context.Background(), func(ctx context.Context, tx db.Tx) error {
		<-goOn
		return insert("with it", "")(ctx, tx)
	}, func(err error) { fmt.Println("acknowledged", err) })
	d.WriteSoon(context.Background(), func(context.Context, db.Tx) error { panic("a bug") }, nil)
	close(goOn)
	return d.Write(context.Background(), insert("after it", ""))
}
