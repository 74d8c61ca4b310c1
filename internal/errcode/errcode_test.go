package errcode_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/goiscsi/goiscsi/internal/errcode"
)

type coded struct{ c errcode.Code }

func (e coded) Error() string           { return e.c.String() }
func (e coded) ISCSICode() errcode.Code { return e.c }

func TestOf(t *testing.T) {
	for _, tc := range []struct {
		name string
		err  error
		want errcode.Code
	}{
		{"nil is success", nil, errcode.Success},
		{"plain error is unknown", errors.New("x"), errcode.Err},
		{"wrapped code is found", fmt.Errorf("login: %w", coded{errcode.LoginAuthFailed}), errcode.LoginAuthFailed},
		{"joined code is found", errors.Join(errors.New("x"), coded{errcode.Busy}), errcode.Busy},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := errcode.Of(tc.err); got != tc.want {
				t.Errorf("Of(%v) = %d, want %d", tc.err, got, tc.want)
			}
		})
	}
}

func TestEveryCodeHasNameAndText(t *testing.T) {
	for c := errcode.Err; c <= errcode.ReqTimedOut; c++ {
		if c.Name() == "" || c.String() == "" {
			t.Errorf("code %d: name %q, text %q", c, c.Name(), c.String())
		}
	}
	if errcode.Code(99).String() == "" || errcode.Code(-1).Name() == "" {
		t.Error("codes outside the table have no text")
	}
}
