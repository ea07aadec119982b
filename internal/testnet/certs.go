package testnet

import (
	"crypto/tls"
	"sync"
	"time"
)

// certs keeps what was issued, so that a handshake costs no signature of a CA.
type certs struct {
	mu     sync.Mutex
	issued map[string]tls.Certificate
}

// get returns the certificate kept under id. Where renew is set, one that has
// passed two thirds of its life, or is not yet valid, is issued anew.
func (c *certs) get(id string, now time.Time, renew bool, issue func() (tls.Certificate, error)) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if have, ok := c.issued[id]; ok {
		fresh := now.Before(have.Leaf.NotAfter.Add(-leafFor/3)) && !now.Before(have.Leaf.NotBefore)
		if fresh || !renew {
			return &have, nil
		}
	}
	made, err := issue()
	if err != nil {
		return nil, err
	}
	if c.issued == nil {
		c.issued = make(map[string]tls.Certificate)
	}
	c.issued[id] = made
	return &made, nil
}

// Flaw is what is wrong with a certificate.
type Flaw string

// The flaws. All but SelfSigned, Untrusted and Misissued are of certificates
// that the true CA issued.
const (
	NoFlaw      Flaw = ""
	SelfSigned  Flaw = "self-signed"
	Expired     Flaw = "expired"
	NotYetValid Flaw = "not yet valid"
	WrongName   Flaw = "wrong name"
	CNOnly      Flaw = "name in CN only"
	Untrusted   Flaw = "false CA"     // issued by [Net.FalseCA]
	Misissued   Flaw = "mis-issued"   // issued by [Net.RogueCA], which is trusted
	Incomplete  Flaw = "incomplete"   // the intermediate is not sent
	SNIDefault  Flaw = "no SNI match" // for another of the host's names
)

const wrongName = "other.test" // what a certificate with a wrong name is for

// flawed issues a certificate for a name with a flaw.
func (n *Net) flawed(name string, f Flaw, o CertOptions) (tls.Certificate, error) {
	ca, now := n.CA, n.Clock.Now()
	o.Names = []string{name}
	switch f {
	case SelfSigned:
		o.SelfSigned = true
	case Expired:
		o.NotBefore, o.NotAfter = now.Add(-leafFor), now.Add(-24*time.Hour)
	case NotYetValid:
		o.NotBefore, o.NotAfter = now.Add(leafFor), now.Add(2*leafFor)
	case WrongName:
		o.Names = []string{wrongName}
	case SNIDefault:
		o.Names = []string{"default." + wrongName}
	case CNOnly:
		o.Names, o.CommonName = nil, name
	case Untrusted:
		ca = n.FalseCA
	case Misissued:
		ca = n.RogueCA
	case Incomplete:
		o.NoIntermediate = true
	case NoFlaw:
	}
	return ca.Issue(o)
}
