package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/parser"
)

// maxFileSize caps the configuration file; a real one has a few kilobytes.
const maxFileSize = 1 << 20

// Error is a configuration that cannot be used: which file, which line, what is
// wrong and what is allowed.
type Error struct {
	File    string
	Line    int    // 1-based; 0 where no line can be named
	Text    string // what is wrong and what is allowed
	Excerpt string // the lines around it, with a caret; may be empty
}

func (e *Error) Error() string {
	where := e.File
	if e.Line > 0 {
		where = fmt.Sprintf("%s:%d", e.File, e.Line)
	}
	if e.Excerpt == "" {
		return where + ": " + e.Text
	}
	return where + ": " + e.Text + "\n" + e.Excerpt
}

// Load reads the file over the defaults. Errors are *[Error], or what opening
// the file came to. A relative data folder is taken from the file's folder.
func Load(file string) (Config, error) {
	f, err := os.Open(file)
	if err != nil {
		return Config{}, fmt.Errorf("reading the configuration: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return Config{}, fmt.Errorf("reading the configuration: %w", err)
	}
	if len(text) > maxFileSize {
		return Config{}, &Error{File: file, Text: "the file is larger than 1 MiB; this is not a pawl configuration"}
	}
	c, err := Parse(file, text)
	if err != nil {
		return Config{}, err
	}
	if !filepath.IsAbs(c.Data) {
		c.Data = filepath.Join(filepath.Dir(file), c.Data)
	}
	return c, nil
}

// Parse reads a configuration from text; file is only named in errors.
func Parse(file string, text []byte) (Config, error) {
	c := Default()
	err := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict()).Decode(&c)
	if errors.Is(err, io.EOF) || err == nil && c.Hostname == "" && c.Data == "" {
		c = Default() // an empty file, or one of comments, is all defaults
	} else if err != nil {
		return Config{}, syntaxError(file, err)
	}
	if problems := c.Check(); len(problems) > 0 {
		return Config{}, checkError(file, text, problems[0])
	}
	return c, nil
}

// syntaxError turns the YAML library's error into ours, keeping its caret.
func syntaxError(file string, err error) error {
	var value *valueError
	if errors.As(err, &value) {
		return &Error{File: file, Line: value.line, Text: value.text}
	}
	var located yaml.Error
	if !errors.As(err, &located) {
		return &Error{File: file, Text: err.Error()}
	}
	e := &Error{File: file, Text: located.GetMessage()}
	if tk := located.GetToken(); tk != nil {
		e.Line = tk.Position.Line
		e.Excerpt = excerpt(located)
	}
	var unknown *yaml.UnknownFieldError
	if errors.As(err, &unknown) {
		e.Text += "; `pawl config show` prints every key that there is"
	}
	return e
}

// excerpt is the source around an error, without the message line above it.
func excerpt(located yaml.Error) string {
	out := located.FormatError(false, true)
	if _, source, found := bytes.Cut([]byte(out), []byte("\n")); found {
		return string(bytes.TrimRight(source, "\n"))
	}
	return ""
}

// checkError names the line at which the problem's key stands.
func checkError(file string, text []byte, p Problem) error {
	e := &Error{File: file, Text: p.Key + ": " + p.Text}
	path, err := yaml.PathString("$." + p.Key)
	if err != nil {
		return e
	}
	parsed, err := parser.ParseBytes(text, 0)
	if err != nil {
		return e
	}
	node, err := path.FilterFile(parsed)
	if err != nil || node == nil {
		return e
	}
	e.Line = node.GetToken().Position.Line
	return e
}

// Text is the configuration as a file that [Load] reads back.
func (c Config) Text() ([]byte, error) {
	out, err := yaml.MarshalWithOptions(c, yaml.Indent(2), yaml.UseSingleQuote(false))
	if err != nil {
		return nil, fmt.Errorf("writing the configuration: %w", err)
	}
	return out, nil
}
