// Package mutate shows that the lab would notice: each check is taken out of the
// enforcement code in turn, and some cell of the attack table must then end
// otherwise. The code is not changed for it: the compiler is given the edited
// files beside the tree (go build -overlay), and `pawl lab` of that build is run.
package mutate

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

const (
	root     = "../../.." // of the module
	exitBad  = 1          // of `pawl lab`: a cell ended otherwise
	patience = 10 * time.Minute
)

//go:embed mutations.yaml
var list []byte

// mutation is one check taken out.
type mutation struct {
	Name  string   `yaml:"name"`
	Rows  []string `yaml:"rows"` // of the attack table, that must notice
	Edits []edit   `yaml:"edits"`
}

type edit struct {
	File   string `yaml:"file"`
	Before string `yaml:"before"`
	After  string `yaml:"after"`
}

func load(t *testing.T) []mutation {
	t.Helper()
	var all []mutation
	if err := yaml.NewDecoder(bytes.NewReader(list), yaml.Strict()).Decode(&all); err != nil {
		t.Fatal(err)
	}
	return all
}

// texts returns the files of a mutation with its edits made.
func (m mutation) texts() (map[string]string, error) {
	texts := make(map[string]string)
	for _, e := range m.Edits {
		text, ok := texts[e.File]
		if !ok {
			b, err := os.ReadFile(filepath.Join(root, e.File))
			if err != nil {
				return nil, err
			}
			text = string(b)
		}
		if n := strings.Count(text, e.Before); n != 1 {
			return nil, fmt.Errorf("%s: %q stands %d times in it, not once", e.File, e.Before, n)
		}
		texts[e.File] = strings.Replace(text, e.Before, e.After, 1)
	}
	return texts, nil
}

// build compiles pawl with a mutation into dir.
func (m mutation) build(ctx context.Context, dir string) (string, error) {
	texts, err := m.texts()
	if err != nil {
		return "", err
	}
	top, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	overlay := struct{ Replace map[string]string }{make(map[string]string)}
	for file, text := range texts {
		edited := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(edited, []byte(text), 0o600); err != nil {
			return "", err
		}
		overlay.Replace[filepath.Join(top, file)] = edited
	}
	b, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	given, binary := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "pawl")
	if err := os.WriteFile(given, b, 0o600); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-overlay", given, "-o", binary, "./cmd/pawl")
	cmd.Dir = top
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return binary, nil
}

// noticed runs the rows and returns the cells that ended otherwise, each in words.
func (m mutation) noticed(ctx context.Context, binary, dir string) ([]string, error) {
	cmd := exec.CommandContext(ctx, binary, "lab", "--json", "--only", strings.Join(m.Rows, ","))
	cmd.Dir = dir
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != exitBad) {
		// The lab itself stumbled, as over mail that never comes to rest.
		return []string{"the lab could not go on: " + strings.TrimSpace(said.String())}, nil
	}
	var report struct {
		Cells []struct {
			Attack, Variant, Column string
			Wrong                   []string
		}
	}
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		return nil, fmt.Errorf("the lab's report: %w", err)
	}
	var cells []string
	for _, c := range report.Cells {
		for _, w := range c.Wrong {
			cells = append(cells, fmt.Sprintf("%s %s %s: %s", c.Attack, c.Variant, c.Column, w))
		}
	}
	return cells, nil
}

// try builds a mutation, runs the rows, and fails if none notices.
func (m mutation) try(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	dir := t.TempDir()
	binary, err := m.build(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	cells, err := m.noticed(ctx, binary, dir)
	switch {
	case err != nil:
		t.Fatal(err)
	case len(cells) == 0:
		t.Errorf("no cell of the rows %v ends otherwise", m.Rows)
	default:
		t.Logf("%d differences, as %s", len(cells), cells[0])
	}
}

// An edit whose text is gone from the code would test nothing.
func TestEveryCheckOfTheListIsInTheCode(t *testing.T) {
	for _, m := range load(t) {
		t.Run(m.Name, func(t *testing.T) {
			if _, err := m.texts(); err != nil {
				t.Error(err)
			}
			if len(m.Rows) == 0 || len(m.Edits) == 0 {
				t.Error("it edits nothing, or nothing is to notice it")
			}
		})
	}
}

// Two of them are tried in each run; the soak tries all.
func TestTheLabNoticesThatACheckIsGone(t *testing.T) {
	tried := 0
	for _, m := range load(t) {
		if m.Name == "a certificate is good for every name" || m.Name == "the cached policy does not outlast DNS" {
			t.Run(m.Name, m.try)
			tried++
		}
	}
	if tried != 2 {
		t.Errorf("%d were tried", tried)
	}
}

func TestSoakTheLabNoticesEachCheckThatIsGone(t *testing.T) {
	if os.Getenv("PAWL_SOAK") == "" {
		t.Skip("PAWL_SOAK is not set")
	}
	for _, m := range load(t) {
		t.Run(m.Name, m.try)
	}
}
