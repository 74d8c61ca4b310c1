package chap_test

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/initiator/internal/chap"
	"github.com/goiscsi/goiscsi/pdu"
)

func kvs(pairs ...string) []pdu.KeyValue {
	var out []pdu.KeyValue
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, pdu.KeyValue{Key: pairs[i], Value: pairs[i+1]})
	}
	return out
}

func get(t *testing.T, in []pdu.KeyValue, key string) string {
	t.Helper()
	v, ok := pdu.LookupText(in, key)
	if !ok {
		t.Fatalf("no %s in %v", key, in)
	}
	return v
}

// The values were computed with another implementation (Python's hashlib) over
// 0x27 "secretsecret12" 00 01 … 0f.
func TestResponse(t *testing.T) {
	challenge := make([]byte, 16)
	for i := range challenge {
		challenge[i] = byte(i)
	}
	for _, tc := range responseVectors {
		got := hex.EncodeToString(chap.Response(tc.alg, 0x27, "secretsecret12", challenge))
		if got != tc.want {
			t.Errorf("algorithm %d: response %s, want %s", tc.alg, got, tc.want)
		}
	}
}

var oneWay = chap.Credentials{Name: "user", Secret: "secretsecret12"}

var mutual = chap.Credentials{Name: "user", Secret: "secretsecret12", TargetName: "target", TargetSecret: "othersecret123"}

func TestOneWay(t *testing.T) {
	challenge := []byte("\x00\x01challenge of any length")
	for _, enc := range []struct{ name, value string }{
		{"hex", "0x" + hex.EncodeToString(challenge)},
		{"upper case hex", "0X" + strings.ToUpper(hex.EncodeToString(challenge))},
		{"base64", "0b" + base64.StdEncoding.EncodeToString(challenge)},
		{"upper case base64", "0B" + base64.StdEncoding.EncodeToString(challenge)},
	} {
		for _, alg := range []chap.Algorithm{chap.MD5, chap.SHA1, chap.SHA256, chap.SHA3256} {
			c := chap.New(oneWay, []chap.Algorithm{chap.SHA3256, chap.SHA256, chap.SHA1, chap.MD5}, nil)
			if got := get(t, c.Offer(), chap.KeyAlgorithm); got != "8,7,6,5" {
				t.Fatalf("offer %q", got)
			}
			out, err := c.Next(kvs("CHAP_A", pdu.FormatNumber(uint64(alg)), "CHAP_I", "0xff", "CHAP_C", enc.value))
			if err != nil {
				t.Fatalf("%s, algorithm %d: %v", enc.name, alg, err)
			}
			want := pdu.FormatHex(chap.Response(alg, 0xff, oneWay.Secret, challenge))
			if got := get(t, out, chap.KeyResponse); got != want {
				t.Errorf("%s, algorithm %d: response %s, want %s", enc.name, alg, got, want)
			}
			if got := get(t, out, chap.KeyName); got != "user" {
				t.Errorf("name %q", got)
			}
			if !c.Done() || len(out) != 2 {
				t.Errorf("done %v, keys %v", c.Done(), out)
			}
		}
	}
}

func TestRefusesBadChallenges(t *testing.T) {
	long := "0x" + strings.Repeat("00", 1025)
	for name, in := range map[string][]pdu.KeyValue{
		"algorithm not offered":       kvs("CHAP_A", "6", "CHAP_I", "1", "CHAP_C", "0x01"),
		"algorithm not a number":      kvs("CHAP_A", "MD5", "CHAP_I", "1", "CHAP_C", "0x01"),
		"algorithm a list":            kvs("CHAP_A", "5,6", "CHAP_I", "1", "CHAP_C", "0x01"),
		"algorithm missing":           kvs("CHAP_I", "1", "CHAP_C", "0x01"),
		"identifier above 255":        kvs("CHAP_A", "5", "CHAP_I", "256", "CHAP_C", "0x01"),
		"identifier negative":         kvs("CHAP_A", "5", "CHAP_I", "-1", "CHAP_C", "0x01"),
		"identifier missing":          kvs("CHAP_A", "5", "CHAP_C", "0x01"),
		"challenge missing":           kvs("CHAP_A", "5", "CHAP_I", "1"),
		"challenge empty":             kvs("CHAP_A", "5", "CHAP_I", "1", "CHAP_C", "0x"),
		"challenge too long":          kvs("CHAP_A", "5", "CHAP_I", "1", "CHAP_C", long),
		"challenge not encoded":       kvs("CHAP_A", "5", "CHAP_I", "1", "CHAP_C", "zz"),
		"challenge repeated":          kvs("CHAP_A", "5", "CHAP_I", "1", "CHAP_C", "0x01", "CHAP_C", "0x02"),
		"response instead, reordered": kvs("CHAP_N", "x", "CHAP_R", "0x01"),
		"superfluous key":             kvs("CHAP_A", "5", "CHAP_I", "1", "CHAP_C", "0x01", "CHAP_N", "x"),
		"nothing":                     nil,
	} {
		t.Run(name, func(t *testing.T) {
			c := chap.New(oneWay, []chap.Algorithm{chap.MD5}, nil)
			if _, err := c.Next(in); !errors.Is(err, chap.ErrProtocol) {
				t.Errorf("error %v, want ErrProtocol", err)
			}
			if c.Done() {
				t.Error("done")
			}
		})
	}
}

// challengeMutual takes c to the point where the target must respond and
// returns what it must respond with.
func challengeMutual(t *testing.T, c *chap.Initiator, secret string) string {
	t.Helper()
	out, err := c.Next(kvs("CHAP_A", "5", "CHAP_I", "7", "CHAP_C", "0x0102030405"))
	if err != nil {
		t.Fatal(err)
	}
	id, err := pdu.ParseNumber(get(t, out, chap.KeyIdentifier))
	if err != nil {
		t.Fatal(err)
	}
	if id == 7 {
		t.Error("our identifier is the target's")
	}
	challenge, err := pdu.ParseBinary(get(t, out, chap.KeyChallenge), 1024)
	if err != nil || len(challenge) < 16 {
		t.Fatalf("challenge of %d bytes: %v", len(challenge), err)
	}
	return pdu.FormatHex(chap.Response(chap.MD5, byte(id), secret, challenge))
}

func TestMutual(t *testing.T) {
	c := chap.New(mutual, []chap.Algorithm{chap.MD5}, nil)
	r := challengeMutual(t, c, mutual.TargetSecret)
	if c.Done() {
		t.Fatal("done before the target has proved anything")
	}
	if _, err := c.Next(kvs("CHAP_N", "target", "CHAP_R", r)); err != nil || !c.Done() {
		t.Errorf("error %v, done %v", err, c.Done())
	}
}

func TestMutualRefusesTargets(t *testing.T) {
	for name, answer := range map[string]func(good, bad string) []pdu.KeyValue{
		"wrong secret":    func(_, bad string) []pdu.KeyValue { return kvs("CHAP_N", "target", "CHAP_R", bad) },
		"wrong name":      func(good, _ string) []pdu.KeyValue { return kvs("CHAP_N", "other", "CHAP_R", good) },
		"no answer":       func(_, _ string) []pdu.KeyValue { return nil },
		"no name":         func(good, _ string) []pdu.KeyValue { return kvs("CHAP_R", good) },
		"truncated":       func(good, _ string) []pdu.KeyValue { return kvs("CHAP_N", "target", "CHAP_R", good[:10]) },
		"too long":        func(good, _ string) []pdu.KeyValue { return kvs("CHAP_N", "target", "CHAP_R", good+"00") },
		"not binary":      func(_, _ string) []pdu.KeyValue { return kvs("CHAP_N", "target", "CHAP_R", "xyz") },
		"another attempt": func(_, _ string) []pdu.KeyValue { return kvs("CHAP_A", "5", "CHAP_I", "1", "CHAP_C", "0x01") },
	} {
		t.Run(name, func(t *testing.T) {
			c := chap.New(mutual, []chap.Algorithm{chap.MD5}, nil)
			good := challengeMutual(t, c, mutual.TargetSecret)
			bad := pdu.FormatHex(make([]byte, 16))
			if _, err := c.Next(answer(good, bad)); !errors.Is(err, chap.ErrTarget) {
				t.Errorf("error %v, want ErrTarget", err)
			}
			if c.Done() {
				t.Error("done")
			}
		})
	}
}

// What an authentication that goes on has asked is not forgotten over others, and
// what others asked does not fill the memory.
func TestHistoryKeepsChallengesInUse(t *testing.T) {
	var h chap.History
	ask := func() (*chap.Initiator, []pdu.KeyValue) {
		c := chap.New(mutual, []chap.Algorithm{chap.MD5}, &h)
		out, err := c.Next(kvs("CHAP_A", "5", "CHAP_I", "7", "CHAP_C", "0x0102030405"))
		if err != nil {
			t.Fatal(err)
		}
		return c, out
	}
	reflected := func(out []pdu.KeyValue) bool {
		c := chap.New(mutual, []chap.Algorithm{chap.MD5}, &h)
		defer c.End()
		_, err := c.Next(kvs("CHAP_A", "5", "CHAP_I", "7", "CHAP_C", get(t, out, chap.KeyChallenge)))
		return errors.Is(err, chap.ErrTarget)
	}
	inUse, out := ask()
	ended, old := ask()
	ended.End()
	for range 2000 {
		c, _ := ask()
		c.End()
	}
	if !reflected(out) {
		t.Error("a challenge in use was forgotten")
	}
	if reflected(old) {
		t.Error("2000 challenges later one is still remembered")
	}
	inUse.End()
	if !reflected(out) {
		t.Error("a challenge is forgotten as soon as its authentication ends")
	}
}

func TestRefusesReflectedChallenge(t *testing.T) {
	var h chap.History
	first := chap.New(mutual, []chap.Algorithm{chap.MD5}, &h)
	out, err := first.Next(kvs("CHAP_A", "5", "CHAP_I", "7", "CHAP_C", "0x0102030405"))
	if err != nil {
		t.Fatal(err)
	}
	second := chap.New(mutual, []chap.Algorithm{chap.MD5}, &h)
	_, err = second.Next(kvs("CHAP_A", "5",
		"CHAP_I", get(t, out, chap.KeyIdentifier), "CHAP_C", get(t, out, chap.KeyChallenge)))
	if !errors.Is(err, chap.ErrTarget) {
		t.Errorf("error %v, want ErrTarget", err)
	}
}

func FuzzNext(f *testing.F) {
	f.Add([]byte("CHAP_A=5\x00CHAP_I=1\x00CHAP_C=0x0102\x00"), []byte("CHAP_N=target\x00CHAP_R=0x00\x00"))
	f.Add([]byte("CHAP_A=8\x00CHAP_I=0xFF\x00CHAP_C=0bAAAA\x00"), []byte{})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		a, err := pdu.ParseText(first, pdu.TextLimits{})
		if err != nil {
			return
		}
		b, err := pdu.ParseText(second, pdu.TextLimits{})
		if err != nil {
			return
		}
		var h chap.History
		c := chap.New(mutual, []chap.Algorithm{chap.MD5, chap.SHA3256}, &h)
		if _, err := c.Next(a); err != nil {
			return
		}
		if _, err := c.Next(b); err == nil || c.Done() {
			t.Fatal("a target without the secret got in")
		}
	})
}
