package control

import (
	"errors"
	"fmt"

	"github.com/goiscsi/goiscsi/internal/errcode"
)

// NewError returns an Error with the name and text of the code.
func NewError(c errcode.Code, detail string) *Error {
	return &Error{Code: int(c), Name: c.Name(), Message: c.String(), Detail: detail}
}

// Errorf is NewError with a formatted detail.
func Errorf(c errcode.Code, format string, a ...any) *Error {
	return NewError(c, fmt.Sprintf(format, a...))
}

// FromError returns the Error to send for err: the *Error in its tree, or one
// made of its code and text. It returns nil for nil.
func FromError(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return NewError(errcode.Of(err), err.Error())
}
