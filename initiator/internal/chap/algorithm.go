package chap

import (
	"crypto/md5"  //nolint:gosec // RFC 7143 section 12.1.3 requires MD5
	"crypto/sha1" //nolint:gosec // targets of the field know it
	"crypto/sha256"
	"crypto/sha3"
	"hash"
)

// An Algorithm is a hash by its number in CHAP_A.
type Algorithm uint8

// The algorithms registered with IANA for CHAP that this package implements.
const (
	MD5     Algorithm = 5
	SHA1    Algorithm = 6
	SHA256  Algorithm = 7
	SHA3256 Algorithm = 8
)

// newHash returns nil for an algorithm that is not known.
func (a Algorithm) newHash() hash.Hash {
	switch a {
	case MD5:
		return md5.New() //nolint:gosec // see above
	case SHA1:
		return sha1.New() //nolint:gosec // see above
	case SHA256:
		return sha256.New()
	case SHA3256:
		return sha3.New256()
	}
	return nil
}

// Known reports whether this package implements the algorithm.
func (a Algorithm) Known() bool { return a.newHash() != nil }

// Size returns the length of a response in bytes, 0 for an unknown algorithm.
func (a Algorithm) Size() int {
	if h := a.newHash(); h != nil {
		return h.Size()
	}
	return 0
}

// Response computes the response to a challenge: the hash over identifier,
// secret and challenge (RFC 1994 section 4.1). The algorithm must be known.
func Response(a Algorithm, id byte, secret string, challenge []byte) []byte {
	h := a.newHash()
	h.Write([]byte{id})
	h.Write([]byte(secret))
	h.Write(challenge)
	return h.Sum(nil)
}
