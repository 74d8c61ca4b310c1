package initiator

import (
	"fmt"
	"slices"

	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/pdu"
)

// A digestError says that the target does not do any of the digests that we
// offered, and what to do about it. Whoever offers CRC32C alone wants no
// connection without, so there is no session then.
type digestError struct {
	key, offered string
	answer       string // "": none
}

// Error implements error.
func (e *digestError) Error() string {
	said := "did not answer, which means None"
	switch {
	case isRefusal(e.answer):
		said = fmt.Sprintf("answered %q, which means None", e.answer)
	case e.answer != "":
		said = fmt.Sprintf("answered %q, which was not offered", e.answer)
	}
	want := DigestNone.String()
	if e.answer == DigestCRC32C.String() {
		want = e.answer
	}
	return fmt.Sprintf("%s: we offered %q, the target %s; offer %q as well, or change what the target allows",
		e.key, e.offered, said, want)
}

// Unwrap returns ErrProtocol where the target broke a rule: RFC 7143 section
// 6.2.1, "None" is only a valid selection if it is explicitly proposed.
func (e *digestError) Unwrap() error {
	if e.answer == "" || isRefusal(e.answer) {
		return nil
	}
	return ErrProtocol
}

// ISCSICode returns the code of a login that will not succeed next time either.
func (e *digestError) ISCSICode() errcode.Code { return errcode.FatalLogin }

// checkDigests returns an error if a digest that was not negotiated had to be:
// what the RFC then has apply, None, was not among our offers.
func (n *negotiation) checkDigests() error {
	for _, d := range []struct {
		key    string
		offers []Digest
	}{{pdu.KeyHeaderDigest, n.own.HeaderDigest}, {pdu.KeyDataDigest, n.own.DataDigest}} {
		if n.answered[d.key] == "" && len(d.offers) > 0 && !slices.Contains(d.offers, DigestNone) {
			return &digestError{d.key, n.offered[d.key], n.refused[d.key]}
		}
	}
	return nil
}
