package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// roleFlag, as the first argument, makes this program a process of a benchmark.
const roleFlag = "-role"

// process is this program in a role. It is spoken to in lines: it says where it
// listens first, and then answers each line that it is told with one line.
type process struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
	addr  string
	usage time.Duration // when it was asked last
}

// start starts a role and waits until it is ready.
func start(ctx context.Context, role string, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.CommandContext(ctx, self, append([]string{roleFlag, role}, args...)...)}
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	if p.addr, err = p.line(); err != nil {
		return nil, fmt.Errorf("%s is not ready: %w", role, errors.Join(err, p.stop()))
	}
	return p, nil
}

func (p *process) line() (string, error) {
	s, err := p.out.ReadString('\n')
	return strings.TrimSpace(s), err
}

// tell says a line and reads the answer into values.
func (p *process) tell(line string, values ...any) error {
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		return err
	}
	answer, err := p.line()
	if err != nil {
		return err
	}
	if text, ok := strings.CutPrefix(answer, "error "); ok {
		return errors.New(text)
	}
	if _, err := fmt.Sscan(answer, values...); err != nil {
		return fmt.Errorf("%q: %w", answer, err)
	}
	return nil
}

// cpu returns the processor time that the process took since the last call.
func (p *process) cpu() (time.Duration, error) {
	var ns int64
	if err := p.tell("cpu", &ns); err != nil {
		return 0, err
	}
	took := time.Duration(ns) - p.usage
	p.usage = time.Duration(ns)
	return took, nil
}

// stop ends the process and waits for it.
func (p *process) stop() error {
	return errors.Join(p.in.Close(), p.cmd.Wait())
}

// attend is the other side of tell: it says where the role listens, and answers
// lines until there are no more.
func attend(addr string, answer func(line string) (string, error)) error {
	fmt.Println(addr)
	scan := bufio.NewScanner(os.Stdin)
	for scan.Scan() {
		reply, err := answerLine(scan.Text(), answer)
		if err != nil {
			reply = "error " + strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		fmt.Println(reply)
	}
	return scan.Err()
}

func answerLine(line string, answer func(string) (string, error)) (string, error) {
	if line != "cpu" {
		return answer(line)
	}
	used, err := processor()
	return fmt.Sprint(used.Nanoseconds()), err
}

// processor is the processor time that this process has taken.
func processor() (time.Duration, error) {
	var u syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}

// nothing answers no line but the ones that every role knows.
func nothing(line string) (string, error) { return "", fmt.Errorf("unknown: %q", line) }
