package account

import (
	"errors"
	"strings"
	"testing"
)

func TestAHashIsOfThePHCFormatAndFitsItsPasswordOnly(t *testing.T) {
	hash, err := hashPassword(secret)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("the hash is %s", hash)
	}
	h, err := parsePHC(hash)
	if err != nil {
		t.Fatal(err)
	}
	if !h.matches(secret) || h.matches(secret+"x") || h.matches("") {
		t.Error("it does not fit its password, or fits another")
	}
	again, err := hashPassword(secret)
	if err != nil || again == hash {
		t.Errorf("two hashes of a password are the same (%v)", err)
	}
}

func TestRFC8265_4_2_PasswordsAreComparedInOneForm(t *testing.T) {
	hash, err := hashPassword("pässwörd mit raum") // composed
	if err != nil {
		t.Fatal(err)
	}
	h, err := parsePHC(hash)
	if err != nil {
		t.Fatal(err)
	}
	p, err := prepared("pa\u0308sswo\u0308rd mit raum") // decomposed, with a no-break space
	if err != nil || !h.matches(p) {
		t.Errorf("the other form does not fit: %v", err)
	}
}

func TestAHashThatIsNoneOrTooExpensiveIsRefused(t *testing.T) {
	hash, err := hashPassword(secret)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"nothing":             "",
		"another algorithm":   strings.Replace(hash, "argon2id", "argon2i", 1),
		"another version":     strings.Replace(hash, "v=19", "v=16", 1),
		"a gigabyte":          strings.Replace(hash, "m=19456", "m=1048576", 1),
		"a million passes":    strings.Replace(hash, "t=2", "t=1000000", 1),
		"no memory":           strings.Replace(hash, "m=19456", "m=0", 1),
		"no threads":          strings.Replace(hash, "p=1", "p=0", 1),
		"more behind it":      hash + "$",
		"more in parameters":  strings.Replace(hash, "p=1", "p=1,x=1", 1),
		"an empty hash":       hash[:strings.LastIndexByte(hash, '$')+1],
		"padded base64":       hash + "=",
		"a line end":          hash + "\n",
		"not enough parts":    "$argon2id$v=19$m=19456,t=2,p=1",
		"in front of it text": "x" + hash,
	} {
		if _, err := parsePHC(bad); !errors.Is(err, errHash) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParsePHC(f *testing.F) {
	f.Add("$argon2id$v=19$m=256,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$c29tZXNhbHRzb21lc2FsdA")
	f.Add("$$$$$")
	f.Fuzz(func(t *testing.T, s string) {
		if h, err := parsePHC(s); err == nil && (h.String() != s || h.memory > maxHashMemory || h.time > maxHashTime) {
			t.Errorf("%q is read as %q", s, h.String())
		}
	})
}
