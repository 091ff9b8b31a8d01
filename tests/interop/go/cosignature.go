package main

import (
	"crypto/ed25519"
	"crypto/mldsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

const (
	typeEd25519     = 0x01
	typeCosignature = 0x04
	typeMLDSA44     = 0x06
)

// newVerifier returns the key of a verifier key text; the plain kind is the library's own.
func newVerifier(vkey string) (note.Verifier, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, errors.New("a verifier key is name+id+base64")
	}
	data, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(data) == 0 {
		return nil, errors.New("a verifier key is name+id+base64")
	}
	if data[0] == typeEd25519 {
		return note.NewVerifier(vkey)
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), data...))
	if fmt.Sprintf("%x", sum[:4]) != parts[1] {
		return nil, errors.New("the id is not that of the key")
	}
	key := cosigner{name: parts[0], id: binary.BigEndian.Uint32(sum[:])}
	switch {
	case data[0] == typeCosignature && len(data) == 1+ed25519.PublicKeySize:
		key.holds = ed25519Holds(data[1:])
	case data[0] == typeMLDSA44:
		public, err := mldsa.NewPublicKey(mldsa.MLDSA44(), data[1:])
		if err != nil {
			return nil, err
		}
		key.holds = mldsaHolds(parts[0], public)
	default:
		return nil, fmt.Errorf("no key type %d", data[0])
	}
	return key, nil
}

// cosigner is a key whose signatures carry the time at which they were made.
type cosigner struct {
	name  string
	id    uint32
	holds func(text []byte, at uint64, signature []byte) bool
}

func (key cosigner) Name() string    { return key.name }
func (key cosigner) KeyHash() uint32 { return key.id }

func (key cosigner) Verify(text, signature []byte) bool {
	if len(signature) < 8 {
		return false
	}
	at := binary.BigEndian.Uint64(signature)
	return at < 1<<63 && key.holds(text, at, signature[8:])
}

func ed25519Holds(public ed25519.PublicKey) func([]byte, uint64, []byte) bool {
	return func(text []byte, at uint64, signature []byte) bool {
		message := fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, text)
		return ed25519.Verify(public, message, signature)
	}
}

// mldsaHolds builds what is signed from the fields of the checkpoint, not from its text.
func mldsaHolds(name string, public *mldsa.PublicKey) func([]byte, uint64, []byte) bool {
	return func(text []byte, at uint64, signature []byte) bool {
		found, err := parseHead(string(text))
		if err != nil || len(name) > 255 || len(found.origin) > 255 {
			return false
		}
		message := []byte("subtree/v1\n\x00")
		message = append(append(message, byte(len(name))), name...)
		message = binary.BigEndian.AppendUint64(message, at)
		message = append(append(message, byte(len(found.origin))), found.origin...)
		message = binary.BigEndian.AppendUint64(message, 0)
		message = binary.BigEndian.AppendUint64(message, uint64(found.tree.N))
		message = append(message, found.tree.Hash[:]...)
		return mldsa.Verify(public, message, signature, nil) == nil
	}
}
