package initiator_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/initiator"
)

func TestSecretIsNeverShown(t *testing.T) {
	const plain = "verysecret12345"
	secret := initiator.Secret(plain)
	cfg := initiator.Config{CHAP: initiator.CHAP{Username: "u", Password: secret, PasswordIn: secret}}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		fmt.Fprintf(&out, verb+"\n", secret)
		fmt.Fprintf(&out, verb+"\n", cfg.CHAP)
		fmt.Fprintf(&out, verb+"\n", &cfg.CHAP)
	}
	out.WriteString(fmt.Sprint(secret, cfg))
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", secret, "chap", cfg.CHAP)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", secret, "chap", cfg.CHAP)
	out.Write(log.Bytes())
	j, err := json.Marshal(cfg.CHAP)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(j)
	for _, leak := range []string{plain, fmt.Sprintf("%x", plain), fmt.Sprintf("%X", plain)} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("%q is in the output", leak)
		}
	}
	if secret.Reveal() != plain {
		t.Error("Reveal does not reveal")
	}
}
