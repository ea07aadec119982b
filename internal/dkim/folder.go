package dkim

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxKeyFile caps a key file in bytes; one of 4096 bits has 3.2 kB.
const maxKeyFile = 64 << 10

const keyExt = ".pem"

// Folder is where keys are kept: DOMAIN/SELECTOR.pem in it.
type Folder string

// Path is the file of a key.
func (f Folder) Path(k Key) string { return filepath.Join(string(f), k.Domain, k.Selector+keyExt) }

// Save writes a new key durably, for the owner only. A file that is there
// already is left as it is, with an error that is fs.ErrExist: the key in it may
// be in use.
func (f Folder) Save(k Key) (err error) {
	text, err := k.marshal()
	if err != nil {
		return err
	}
	path := f.Path(k)
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the folder of the keys of %s: %w", k.Domain, err)
	}
	tmp, err := os.CreateTemp(dir, ".new-*") // 0600
	if err != nil {
		return fmt.Errorf("writing a key of %s: %w", k.Domain, err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // its first name
	_, err = tmp.Write(text)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("writing a key of %s: %w", k.Domain, err)
	}
	// A rename would replace what is there; a link does not.
	if err := os.Link(tmp.Name(), path); err != nil {
		return fmt.Errorf("writing a key of %s: %w", k.Domain, err)
	}
	for _, d := range []string{dir, string(f), filepath.Dir(string(f))} {
		if err := syncFolder(d); err != nil {
			return err
		}
	}
	return nil
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("syncing the folder %s: %w", path, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("syncing the folder %s: %w", path, err)
	}
	return nil
}

// Load reads the key of a domain and selector.
func (f Folder) Load(domain, selector string) (Key, error) {
	k := Key{Domain: domain, Selector: selector, Service: Email}
	if err := k.names(); err != nil {
		return Key{}, err
	}
	path := f.Path(k)
	file, err := os.Open(path)
	if err != nil {
		return Key{}, fmt.Errorf("reading a DKIM key: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return Key{}, fmt.Errorf("reading a DKIM key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return Key{}, fmt.Errorf("%w: %s can be read by others (mode %o); make it 0600", ErrKey, path, info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(file, maxKeyFile))
	if err != nil {
		return Key{}, fmt.Errorf("reading a DKIM key: %w", err)
	}
	if k.signer, err = unmarshal(text); err != nil {
		return Key{}, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// List returns the keys there are, by domain and selector, without reading
// them.
func (f Folder) List() ([]Key, error) {
	files, err := filepath.Glob(filepath.Join(string(f), "*", "*"+keyExt))
	if err != nil {
		return nil, fmt.Errorf("listing the DKIM keys: %w", err)
	}
	keys := make([]Key, 0, len(files))
	for _, file := range files {
		domain := filepath.Base(filepath.Dir(file))
		keys = append(keys, Key{Domain: domain, Selector: strings.TrimSuffix(filepath.Base(file), keyExt)})
	}
	slices.SortFunc(keys, func(a, b Key) int { return strings.Compare(a.Name(), b.Name()) })
	return keys, nil
}

// Exists reports whether an error of [Folder.Save] says that there is such a key.
func Exists(err error) bool { return errors.Is(err, fs.ErrExist) }
