package account

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/secure/precis"
)

// The parameters of argon2id with which passwords are hashed from now on, as
// OWASP recommends them: 19 MiB and two passes take about 25 ms.
const (
	hashMemory  = 19 << 10 // KiB
	hashTime    = 2
	hashThreads = 1
	hashLength  = 32
	saltLength  = 16
)

// What a stored hash may ask for at most; more would be somebody's attempt to
// make logins expensive.
const (
	maxHashMemory = 256 << 10 // KiB
	maxHashTime   = 16
	maxHashLength = 64
)

// The length of a password, in characters and in octets (RFC 4616 §2).
const (
	minPassword = 12
	maxPassword = 255
)

// ErrPassword is returned for a password that cannot be used.
var ErrPassword = errors.New("not a usable password")

// errHash says that a stored hash cannot be read.
var errHash = errors.New("the stored password is not an argon2id hash that can be used")

// encoding is that of the PHC string format.
var encoding = base64.RawStdEncoding.Strict()

// prepared is a password in the form in which it is compared (RFC 8265 §4.2).
func prepared(password string) (string, error) {
	p, err := precis.OpaqueString.String(password)
	if err != nil {
		return "", fmt.Errorf("%w: it has characters that passwords cannot have (RFC 8265 §4.2)", ErrPassword)
	}
	return p, nil
}

// hashPassword returns a new hash in the PHC string format.
func hashPassword(password string) (string, error) {
	p, err := prepared(password)
	if err != nil {
		return "", err
	}
	if utf8.RuneCountInString(p) < minPassword || len(p) > maxPassword || len(password) > maxPassword {
		return "", fmt.Errorf("%w: it must have %d characters at least and %d octets at most", ErrPassword, minPassword, maxPassword)
	}
	salt := make([]byte, saltLength)
	if _, err := rand.Read(salt); err != nil {
		return "", fmt.Errorf("making a salt: %w", err)
	}
	return phc{hashMemory, hashTime, hashThreads, salt, nil}.computed(p).String(), nil
}

// phc is a hash with its parameters.
type phc struct {
	memory, time uint32
	threads      uint8
	salt, hash   []byte
}

// computed returns the hash of a password under the same parameters and salt.
func (h phc) computed(password string) phc {
	length := uint32(hashLength)
	if len(h.hash) > 0 {
		length = uint32(len(h.hash))
	}
	h.hash = argon2.IDKey([]byte(password), h.salt, h.time, h.memory, h.threads, length)
	return h
}

// matches computes the hash of a password and compares, in constant time.
func (h phc) matches(password string) bool {
	return subtle.ConstantTimeCompare(h.computed(password).hash, h.hash) == 1
}

func (h phc) String() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.time, h.threads,
		encoding.EncodeToString(h.salt), encoding.EncodeToString(h.hash))
}

// parsePHC reads what [phc.String] writes, and refuses parameters that would
// make a login expensive.
func parsePHC(s string) (phc, error) {
	var h phc
	parts := strings.Split(s, "$")
	const fields = 6 // the first is empty
	if len(parts) != fields || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return h, errHash
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &h.memory, &h.time, &h.threads); err != nil {
		return h, errHash
	}
	var err error
	if h.salt, err = encoding.DecodeString(parts[4]); err != nil {
		return h, errHash
	}
	if h.hash, err = encoding.DecodeString(parts[5]); err != nil {
		return h, errHash
	}
	small := h.memory == 0 || h.time == 0 || h.threads == 0 || len(h.salt) < saltLength/2 || len(h.hash) < hashLength/2
	large := h.memory > maxHashMemory || h.time > maxHashTime || len(h.salt) > maxHashLength || len(h.hash) > maxHashLength
	if small || large || h.String() != s {
		return h, errHash
	}
	return h, nil
}
